//! Signals as people read them: their values, and which of them tell something.

use super::{Kind, Level, Signal, Thresholds, Unit};

/// Signals that show how much each resource does where all is well.
const ALWAYS_SHOWN: &[&str] = &[
    "cpu.utilization",
    "cpu.runnable_per_cpu",
    "memory.utilization",
    "block.utilization",
    "fs.utilization",
    "net.utilization",
    "net.received_bytes",
    "net.sent_bytes",
    "tcp.retransmit_share",
];

/// Longest instance that is shown whole.
const INSTANCE_WIDTH: usize = 24;

/// The end of a long name, which tells more than its beginning.
#[must_use]
pub fn shortened(instance: &str) -> String {
    let length = instance.chars().count();
    if length <= INSTANCE_WIDTH {
        return instance.to_owned();
    }
    let end: String = instance.chars().skip(length - INSTANCE_WIDTH + 1).collect();
    format!("…{end}")
}

impl Signal {
    /// Whether it has a level, shows how much its resource does, or something went wrong. Others are of resources that idle.
    #[must_use]
    pub fn tells_something(&self) -> bool {
        let is_busy =
            ALWAYS_SHOWN.contains(&self.name.as_str()) && (self.instance.is_empty() || self.value > 0.0);
        let has_failed = self.kind == Kind::Errors && self.value > 0.0;
        self.level > Level::None || is_busy || has_failed
    }
}

impl Level {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Thresholds {
    /// `warning 75, critical 90`, `critical above 0`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Self { warning, critical } = self;
        if *warning > f64::MIN_POSITIVE {
            return format!("warning {warning}, critical {critical}");
        }
        let level = if *critical <= f64::MIN_POSITIVE { Level::Critical } else { Level::Warning };
        format!("{} above 0", level.name())
    }
}

impl Unit {
    /// Its symbol.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Number => "1",
            Self::PerSecond => "/s",
            Self::BytesPerSecond => "B/s",
            Self::Milliseconds => "ms",
        }
    }

    /// A value in at most nine characters: `12.3 %`, `4.56 MB/s`.
    #[must_use]
    pub fn quantity(self, value: f64) -> String {
        let scaled = |steps: &[(&str, f64)]| {
            let (prefix, size) =
                steps.iter().rev().find(|(_, size)| value.abs() >= *size).unwrap_or(&steps[0]);
            (value / size, prefix.to_string())
        };
        let (value, prefix) = match self {
            Self::Percent | Self::Number | Self::Milliseconds => (value, String::new()),
            Self::PerSecond | Self::BytesPerSecond => {
                scaled(&[("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)])
            }
        };
        let digits = match value.abs() {
            value if value == 0.0 || value >= 99.95 => 0,
            value if value >= 9.995 => 1,
            _ => 2,
        };
        let symbol = if self == Self::Number { "" } else { self.symbol() };
        let space = if symbol.is_empty() || symbol == "/s" && prefix.is_empty() { "" } else { " " };
        format!("{value:.digits$}{space}{prefix}{symbol}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        let cases = [
            (0.0, Unit::Percent, "0 %"),
            (12.345, Unit::Percent, "12.3 %"),
            (100.0, Unit::Percent, "100 %"),
            (1.234, Unit::Number, "1.23"),
            (0.5, Unit::PerSecond, "0.50/s"),
            (12_345.0, Unit::PerSecond, "12.3 k/s"),
            (4_560_000.0, Unit::BytesPerSecond, "4.56 MB/s"),
            (7.0, Unit::BytesPerSecond, "7.00 B/s"),
            (3.0, Unit::Milliseconds, "3.00 ms"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(unit.quantity(value), text);
        }
        assert_eq!(Unit::PerSecond.quantity(-12_345.0), "-12.3 k/s");
    }

    #[test]
    fn the_end_of_long_names_is_shown() {
        assert_eq!(shortened("/kubepods/burstable/pod123456789/abc"), "…stable/pod123456789/abc");
        assert_eq!(shortened("vda"), "vda");
    }
}
