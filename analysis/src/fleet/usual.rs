//! Whether a number is what it usually is: by the last 24 hours, the last seven days, and the same hour of the week in the weeks before.

use serde::{Deserialize, Serialize};

/// Standard deviations from which on a number is far away: of a normal distribution 3 in 10,000 are further.
pub(super) const SIGMAS: f64 = 3.6;
/// The standard deviation of a normal distribution by the median distance from its median.
pub(super) const SPREAD: f64 = 1.4826;
/// Values that a baseline has at least, but one of the hour of the week, of which there are few.
const LEAST_VALUES: usize = 12;
const LEAST_OF_SEASON: usize = 3;
/// By so much it must differ to matter: a twentieth of the time.
const MATTERS: f64 = 0.05;
/// Nanoseconds of an hour.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Hours of a week.
const WEEK_HOURS: u64 = 168;

/// What a part of the demand, 0 to 1, usually is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usual {
    /// Over which time: `24h`, `7d`, or `hour of week`.
    pub over: String,
    /// Hours that it is from.
    pub hours: usize,
    /// Their median.
    pub median: f64,
    /// How far half of them are from it.
    pub deviation: f64,
    /// Whether what is now is unusual.
    pub is_unusual: bool,
}

/// One hour: when it began, and the part of the demand.
pub type Hour = (u64, f64);

/// What is usual of a number, by the hours before `now_unix_ns`, which are in the order of time. A baseline with too few hours is left out.
#[must_use]
pub fn usual(now: f64, now_unix_ns: u64, hours: &[Hour]) -> Vec<Usual> {
    let this_hour = now_unix_ns / HOUR_NS;
    // The hour under way may be what is asked about.
    let earlier = |at: u64| this_hour.checked_sub(at / HOUR_NS).filter(|ago| *ago > 0);
    let of = |is: &dyn Fn(u64) -> bool| -> Vec<f64> {
        hours.iter().filter(|(at, _)| earlier(*at).is_some_and(is)).map(|(_, value)| *value).collect()
    };
    // An hour before and after count, too: what comes once a week does not come to the minute.
    let is_season = |ago: u64| ago >= WEEK_HOURS - 1 && (ago + 1) % WEEK_HOURS <= 2;
    let baselines = [
        ("24h", of(&|ago| ago <= 24), LEAST_VALUES),
        ("7d", of(&|ago| ago <= WEEK_HOURS), LEAST_VALUES),
        ("hour of week", of(&is_season), LEAST_OF_SEASON),
    ];
    baselines
        .into_iter()
        .filter(|(_, values, least)| values.len() >= *least)
        .map(|(over, values, _)| {
            let median_of = median(&values);
            let distances: Vec<f64> = values.iter().map(|value| (value - median_of).abs()).collect();
            let deviation = median(&distances);
            let distance = now - median_of;
            Usual {
                over: over.to_owned(),
                hours: values.len(),
                median: median_of,
                deviation,
                is_unusual: distance.abs() > (SIGMAS * SPREAD * deviation).max(MATTERS),
            }
        })
        .collect()
}

/// The value in the middle; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_HOUR: u64 = 10_000;

    fn ask(now: f64, hours: impl Iterator<Item = (u64, f64)>) -> Vec<(String, bool)> {
        let hours: Vec<Hour> = hours.map(|(ago, value)| ((NOW_HOUR - ago) * HOUR_NS, value)).collect();
        let found = usual(now, NOW_HOUR * HOUR_NS + 7, &hours);
        found.into_iter().map(|usual| (usual.over, usual.is_unusual)).collect()
    }

    fn named(found: &[(&str, bool)]) -> Vec<(String, bool)> {
        found.iter().map(|(over, is)| ((*over).to_owned(), *is)).collect()
    }

    #[test]
    fn what_was_always_so_is_usual_and_what_was_not_is_not() {
        let quiet = |ago: u64| (ago, 0.1 + (ago % 3) as f64 / 100.0);
        let expected = |is| named(&[("24h", is), ("7d", is), ("hour of week", is)]);
        assert_eq!(ask(0.11, (0..=700).map(quiet)), expected(false));
        assert_eq!(ask(0.6, (0..=700).map(quiet)), expected(true));
    }

    #[test]
    fn what_comes_every_week_at_this_hour_is_usual_for_it() {
        let weekly = |ago: u64| (ago, if (ago + 1) % 168 <= 2 { 0.6 } else { 0.1 });
        let found = ask(0.6, (2..=700).map(weekly));
        assert_eq!(found, named(&[("24h", true), ("7d", true), ("hour of week", false)]));
    }

    #[test]
    fn of_few_hours_nothing_is_said() {
        assert!(ask(0.6, (0..=11).map(|ago| (ago, 0.1))).is_empty());
    }
}
