//! How much one agent may send: what it says takes time to uncompress, check and store, which all agents share.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that a batch takes at least: each is a transaction, however small.
const LEAST_BYTES: u64 = 64 << 10;

/// A stream's allowance: so much in a second, and as much as it did not use for some seconds.
#[derive(Debug)]
pub(super) struct Allowance {
    bytes_per_s: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(bytes_per_s: u64, saved_s: u32, now: Instant) -> Self {
        let most = bytes_per_s as f64 * f64::from(saved_s);
        Self { bytes_per_s: bytes_per_s as f64, most, left: most, at: now }
    }

    /// Takes what a window of so many bytes takes. Returns how long to wait before it is taken in.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * self.bytes_per_s).min(self.most) - bytes.max(LEAST_BYTES) as f64;
        self.at = now;
        Duration::from_secs_f64((-self.left).max(0.0) / self.bytes_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_more_waits_and_who_was_quiet_may_send_more_for_a_while() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(1 << 20, 4, begin);
        let at = |ms| begin + Duration::from_millis(ms);
        // What was saved.
        for _ in 0..4 {
            assert_eq!(allowance.take(1 << 20, at(0)), Duration::ZERO);
        }
        assert_eq!(allowance.take(1 << 20, at(0)), Duration::from_secs(1));
        // It waited, and goes on at the rate.
        assert_eq!(allowance.take(1 << 20, at(1000)), Duration::from_secs(1));
        assert_eq!(allowance.take(0, at(2000)), Duration::from_micros(62_500));
        // No more is saved than that.
        assert_eq!(allowance.take(4 << 20, at(3_600_000)), Duration::ZERO);
        assert!(allowance.take(1 << 20, at(3_600_000)) > Duration::ZERO);
    }
}
