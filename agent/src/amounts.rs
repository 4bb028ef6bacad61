//! Numbers with their units, as command lines and files have them.

use std::time::Duration;

/// A time: `10`, `10s`, `500ms`, `2m`, `1h`.
///
/// # Errors
/// What to give, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("give seconds, or a number with ms, s, m or h".to_owned()),
    };
    let number: f64 =
        digits.parse().map_err(|_| "give seconds, or a number with ms, s, m or h".to_owned())?;
    match Duration::try_from_secs_f64(number * factor) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("the time must be longer than nothing".to_owned()),
    }
}

/// A size: `500000`, `256MB`, `1GiB`.
///
/// # Errors
/// What to give, in words.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "give bytes, or a number with kB, MB, GB, KiB, MiB or GiB";
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: u64 = digits.trim().parse().map_err(|_| EXPECTED.to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is more than there can be".to_owned())
}

/// A share of a whole: `1%`, `0.5 %`.
///
/// # Errors
/// What to give, in words.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("give per cent, more than 0 and up to 100: 1%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares() {
        assert_eq!(parse_bytes("256MB"), Ok(256_000_000));
        assert_eq!(parse_bytes("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("12"), Ok(12));
        for text in ["", "MB", "1.5MB", "1mb", "-1", "99999999999GB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0.5 %"), Ok(0.005));
        for text in ["", "1", "0%", "101%", "%", "NaN%"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
    }
}
