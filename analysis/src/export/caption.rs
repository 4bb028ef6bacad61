//! What a profile is, in words.

use crate::names;
use crate::profile::{Header, Profile};

/// What was measured, and of whom: `CPU time: pid 42`.
pub(super) fn title(header: &Header) -> String {
    names::printable(&format!("{}: {}", header.title, header.target))
}

/// Where and when, and how much of it was seen; one statement an entry.
pub(super) fn facts(profile: &Profile) -> Vec<String> {
    let header = &profile.header;
    let mut facts = vec![
        names::printable(&header.host),
        utc(header.start_unix_ns),
        format!("{:.1} s", header.duration_ns as f64 / 1e9),
    ];
    facts.extend(profile.coverage.statements());
    facts
}

/// A time as people read it: `2026-01-31 23:59:59 UTC`.
#[must_use]
pub fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day counted from 1970-01-01. Years are reckoned from March, so that the leap day is the
/// last of its year and a month's first day is a linear function of its number.
fn date(day: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const MARCH_OF_YEAR_0_TO_1970: u64 = 719_468;
    let since_march_0 = day + MARCH_OF_YEAR_0_TO_1970;
    let (era, day_of_era) = (since_march_0 / DAYS_IN_400_YEARS, since_march_0 % DAYS_IN_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_IN_400_YEARS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        // The expected side is what `date -u -d @SECONDS` prints.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_210_096, "2024-02-29 12:34:56 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1_000_000_000 + 999_999_999), expected);
        }
        let _ = utc(u64::MAX);
    }
}
