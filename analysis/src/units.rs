//! Numbers as people read them.

/// A size, in decimal units.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        _ if bytes < 1e3 => format!("{bytes:.0} B"),
        _ if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        _ if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

/// A time, to a tenth; in at most eight columns below a thousand seconds.
#[must_use]
pub fn duration(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        _ if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_unit_of_their_size() {
        assert_eq!(
            [0, 999, 1_234, 5_600_000, 7_890_000_000].map(bytes),
            ["0 B", "999 B", "1.2 kB", "5.6 MB", "7.9 GB"]
        );
        assert_eq!(
            [0, 800, 24_000, 8_192_000, 3_600_000_000_000].map(duration),
            ["0.0 µs", "0.8 µs", "24.0 µs", "8.2 ms", "3600.00 s"]
        );
    }
}
