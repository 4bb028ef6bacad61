//! Times and durations as people and tools write them: `now-1h`, RFC 3339, Unix seconds; `1h30m`.

use thiserror::Error;

/// Characters of a time at most.
const MAX_LENGTH: usize = 64;
/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;
/// The units of durations, nanoseconds, the greatest first. A year has 365 days, as PromQL has it.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400 * SECOND_NS),
    ("w", 7 * 86_400 * SECOND_NS),
    ("d", 86_400 * SECOND_NS),
    ("h", 3600 * SECOND_NS),
    ("m", 60 * SECOND_NS),
    ("s", SECOND_NS),
    ("ms", 1_000_000),
];

/// A text that is no time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadTime {
    /// Not a time.
    #[error("{0:?} is no time: write now-1h, 2026-01-31T12:00:00Z, or Unix seconds")]
    Instant(String),
    /// Too large for Unix seconds.
    #[error("{0} is no time of this age: Unix times are in seconds, not in milliseconds")]
    NotSeconds(String),
    /// Not a duration.
    #[error("{0:?} is no duration: write 30s, 5m, 1h30m or 7d")]
    Duration(String),
}

/// A moment, nanoseconds since the Unix epoch.
///
/// # Errors
/// The text is none.
pub fn instant(text: &str, now_unix_ns: u64) -> Result<u64, BadTime> {
    let text = text.trim();
    let bad = || BadTime::Instant(shortened(text));
    if text.len() > MAX_LENGTH {
        return Err(bad());
    }
    if let Some(offset) = text.strip_prefix("now") {
        let offset = offset.trim();
        if offset.is_empty() {
            return Ok(now_unix_ns);
        }
        let before = offset.strip_prefix('-').ok_or_else(bad)?;
        return Ok(now_unix_ns.saturating_sub(duration_ns(before.trim())?));
    }
    match seconds(text) {
        Some(Some(unix_ns)) => Ok(unix_ns),
        Some(None) => Err(BadTime::NotSeconds(shortened(text))),
        None => rfc3339(text).ok_or_else(bad),
    }
}

/// A duration, nanoseconds: above 0.
///
/// # Errors
/// The text is none.
pub fn duration_ns(text: &str) -> Result<u64, BadTime> {
    let bad = || BadTime::Duration(shortened(text));
    let mut rest = text.trim();
    if rest.is_empty() || rest.len() > MAX_LENGTH {
        return Err(bad());
    }
    let mut sum: u64 = 0;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == &rest[..length]).ok_or_else(bad)?;
        // Each unit once, the greatest first.
        if *unit_ns >= smallest {
            return Err(bad());
        }
        smallest = *unit_ns;
        sum = number.checked_mul(*unit_ns).and_then(|ns| sum.checked_add(ns)).ok_or_else(bad)?;
        rest = &rest[length..];
    }
    if sum > 0 { Ok(sum) } else { Err(bad()) }
}

/// A duration as it is written: `1h30m`.
#[must_use]
pub fn written(duration_ns: u64) -> String {
    let mut rest = duration_ns;
    let mut text = String::new();
    // Weeks and years are not what people count hours in.
    for (name, unit_ns) in &UNITS[2..] {
        if rest >= *unit_ns {
            text.push_str(&format!("{}{name}", rest / unit_ns));
            rest %= unit_ns;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Unix seconds with up to nine decimals; the inner `None`: a number that is none of this age.
fn seconds(text: &str) -> Option<Option<u64>> {
    /// The year 5138: seconds are below it, milliseconds of any time since 1973 above.
    const LIMIT_S: u64 = 100_000_000_000;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction_ns: u64 = format!("{fraction:0<9}").parse().ok()?;
    let whole = whole.parse::<u64>().ok().filter(|seconds| *seconds < LIMIT_S);
    Some(whole.and_then(|seconds| seconds.checked_mul(SECOND_NS)?.checked_add(fraction_ns)))
}

/// `2026-01-31T12:00:00Z`, with decimals or an offset; `2026-01-31` is its first moment in UTC.
fn rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, until: usize, least: i64, most: i64| {
        let digits =
            text.get(from..until).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<i64>().ok().filter(|number| (least..=most).contains(number))
    };
    let is = |at: usize, allowed: &[u8]| text.as_bytes().get(at).is_some_and(|byte| allowed.contains(byte));
    let (year, month, day) = (number(0, 4, 1970, 9999)?, number(5, 7, 1, 12)?, number(8, 10, 1, 31)?);
    if !is(4, b"-") || !is(7, b"-") || day > days_of(year, month) {
        return None;
    }
    let day_s = days_since_1970(year, month, day) * 86_400;
    if text.len() == 10 {
        return u64::try_from(day_s).ok()?.checked_mul(SECOND_NS);
    }
    // A second that is a leap second is the next one's begin.
    let (hour, minute, second) = (number(11, 13, 0, 23)?, number(14, 16, 0, 59)?, number(17, 19, 0, 60)?);
    if !is(10, b"Tt ") || !is(13, b":") || !is(16, b":") {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut fraction_ns = 0;
    if let Some(decimals) = rest.strip_prefix('.') {
        let digits = decimals.find(|c: char| !c.is_ascii_digit())?;
        if !(1..=9).contains(&digits) {
            return None;
        }
        fraction_ns = format!("{:0<9}", &decimals[..digits]).parse().ok()?;
        rest = &decimals[digits..];
    }
    let offset_s = offset_s(rest)?;
    let unix_s = u64::try_from(day_s + hour * 3600 + minute * 60 + second - offset_s).ok()?;
    unix_s.checked_mul(SECOND_NS)?.checked_add(fraction_ns)
}

/// `Z`, `+02:00`.
fn offset_s(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let two = |digits: &str, most: i64| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|number| is_number && *number <= most)
    };
    Some(sign * (two(hours, 23)? * 3600 + two(minutes, 59)? * 60))
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Years are reckoned from March, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const MARCH_OF_YEAR_0_TO_1970: i64 = 719_468;
    let year = year - i64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - MARCH_OF_YEAR_0_TO_1970
}

/// Enough of a text to be told in an error.
fn shortened(text: &str) -> String {
    text.chars().take(MAX_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_709_210_096 * SECOND_NS;

    #[test]
    fn times_are_read_in_all_three_ways() {
        // The expected side is what `date -u -d TEXT +%s` prints.
        for (text, unix_s) in [
            ("now", 1_709_210_096),
            ("now-1h", 1_709_206_496),
            ("now - 1d1h", 1_709_120_096),
            ("1709210096", 1_709_210_096),
            ("0", 0),
            ("2024-02-29T12:34:56Z", 1_709_210_096),
            ("2024-02-29t14:34:56+02:00", 1_709_210_096),
            ("2024-02-29 07:04:56-05:30", 1_709_210_096),
            ("2000-03-01", 951_868_800),
            ("2025-12-31T23:59:59Z", 1_767_225_599),
            ("1970-01-01T00:00:00Z", 0),
        ] {
            assert_eq!(instant(text, NOW), Ok(unix_s * SECOND_NS), "{text}");
        }
        assert_eq!(instant("1.25", NOW), Ok(1_250_000_000));
        assert_eq!(instant("1970-01-01T00:00:01.25Z", NOW), Ok(1_250_000_000));
    }

    #[test]
    fn what_is_no_time_is_told_so() {
        for text in [
            "",
            "yesterday",
            "now+1h",
            "now-",
            "now-1",
            "2023-02-29",
            "2024-13-01T00:00:00Z",
            "2024-02-29T12:34",
            "2024-02-29T12:34:56",
            "2024-02-29T12:34:56.Z",
            "1969-12-31T23:59:59Z",
            "-1",
            "1e9",
            "1.2.3",
            "2024-02-2é",
            "2024-02-29T12:34:56+é:00",
            "2024-02-29T12:34:56é",
            "+020-02-29",
        ] {
            assert!(instant(text, NOW).is_err(), "{text}");
        }
        let error = instant("1709210096000", NOW).expect_err("milliseconds").to_string();
        assert!(error.contains("in seconds"), "{error}");
        assert!(instant(&"1".repeat(1000), NOW).expect_err("long").to_string().len() < 200);
    }

    #[test]
    fn durations_are_those_of_promql() {
        for (text, seconds) in
            [("30s", 30), ("1h30m", 5400), ("1d", 86_400), ("2w", 1_209_600), ("1y", 31_536_000)]
        {
            assert_eq!(duration_ns(text), Ok(seconds * SECOND_NS), "{text}");
        }
        assert_eq!(duration_ns("1s500ms"), Ok(1_500_000_000));
        for text in ["", "0s", "1", "s", "1m1h", "1h1h", "1.5h", "-1h", "9999999999y", "1 h", "1µs"] {
            assert!(duration_ns(text).is_err(), "{text}");
        }
        assert_eq!([written(5400 * SECOND_NS), written(0)], ["1h30m", "0s"]);
    }
}
