//! When windows end: at multiples of their length by the clock on the wall, so that the windows of all hosts are of the same times.

use std::time::Duration;

/// A first window shorter than this part of the usual is not worth its looks: it ends with the next.
const SHORTEST: f64 = 0.2;

/// When the window that begins now ends, nanoseconds since the Unix epoch.
#[must_use]
pub fn end_of_window(now_unix_ns: u64, length: Duration) -> u64 {
    let length_ns = (length.as_nanos() as u64).max(1);
    let next = (now_unix_ns / length_ns + 1) * length_ns;
    let is_short = ((next - now_unix_ns) as f64) < SHORTEST * length_ns as f64;
    if is_short { next + length_ns } else { next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_at_multiples_and_are_not_too_short() {
        let end = |now_s: f64| end_of_window((now_s * 1e9) as u64, Duration::from_secs(10)) as f64 / 1e9;
        assert_eq!(end(100.0), 110.0);
        assert_eq!(end(103.0), 110.0);
        assert_eq!(end(109.0), 120.0);
        // A little early, or a little late.
        assert_eq!(end(109.999), 120.0);
        assert_eq!(end(110.001), 120.0);
    }
}
