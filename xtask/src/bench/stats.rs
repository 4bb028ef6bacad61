//! Repeated readings, and what they come to.

use std::fmt;

/// Readings of one quantity, in the order they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings(Vec<f64>);

impl Readings {
    /// Adds a reading.
    pub fn push(&mut self, reading: f64) {
        self.0.push(reading);
    }

    /// The middle reading, or the mean of the two in the middle; `NaN` where there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
        }
    }

    /// The lowest reading.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The highest reading.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// Each reading less the one taken in the same turn.
    pub fn less(&self, baseline: &Self) -> Self {
        self.0.iter().zip(&baseline.0).map(|(reading, base)| reading - base).collect()
    }

    /// Each reading converted.
    pub fn map(&self, convert: impl Fn(f64) -> f64) -> Self {
        self.0.iter().map(|reading| convert(*reading)).collect()
    }

    /// The median and the range, with a unit.
    pub fn show(&self, digits: usize, unit: &'static str) -> Shown<'_> {
        Shown { readings: self, digits, unit }
    }
}

impl FromIterator<f64> for Readings {
    fn from_iter<I: IntoIterator<Item = f64>>(readings: I) -> Self {
        Self(readings.into_iter().collect())
    }
}

/// Readings as text.
pub struct Shown<'a> {
    readings: &'a Readings,
    digits: usize,
    unit: &'static str,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readings, digits, unit } = self;
        if readings.0.is_empty() {
            return f.write_str("not measured");
        }
        write!(f, "{:.digits$} {unit}", readings.median())?;
        if readings.0.len() > 1 {
            write!(f, " ({:.digits$} to {:.digits$})", readings.min(), readings.max())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(values: &[f64]) -> Readings {
        values.iter().copied().collect()
    }

    #[test]
    fn medians() {
        for (values, median) in [
            (&[3.0][..], 3.0),
            (&[9.0, 1.0, 5.0], 5.0),
            (&[4.0, 1.0, 100.0, 2.0], 3.0),
            (&[-1.0, -2.0, -3.0], -2.0),
        ] {
            assert_eq!(readings(values).median(), median, "{values:?}");
        }
        assert!(Readings::default().median().is_nan());
    }

    #[test]
    fn turns_are_paired() {
        let sum = readings(&[5.0, 7.0]);
        assert_eq!(sum.less(&readings(&[1.0, 2.0])), readings(&[4.0, 5.0]));
        assert_eq!(sum.map(|value| value * 2.0), readings(&[10.0, 14.0]));
    }

    #[test]
    fn a_range_is_shown_where_there_is_one() {
        assert_eq!(readings(&[1.0, 2.04, 3.0]).show(1, "s").to_string(), "2.0 s (1.0 to 3.0)");
        assert_eq!(readings(&[2.0]).show(0, "MB").to_string(), "2 MB");
        assert_eq!(Readings::default().show(0, "MB").to_string(), "not measured");
    }
}
