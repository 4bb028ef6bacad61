//! All numbers of a document that somebody else has sent, added up: where the sum is small enough, so is every sum of some of them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The largest that all numbers of a recording together may be: with the time of day in nanoseconds, which until 2100 is the largest there is, they
/// stay within a signed number, whatever is added up of them.
const MOST: u128 = 1 << 62;

/// Whether nothing that is added up of a document's whole numbers can overflow. What is no JSON is for its reader to refuse.
pub(super) fn are_bounded(json: &[u8]) -> bool {
    serde_json::from_slice::<Total>(json).map_or(true, |Total(total)| total <= MOST)
}

/// The sum of the whole numbers.
struct Total(u128);

impl<'de> Deserialize<'de> for Total {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Adding)
    }
}

struct Adding;

impl<'de> Visitor<'de> for Adding {
    type Value = Total;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Total, E> {
        Ok(Total(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Total, E> {
        Ok(Total(number.unsigned_abs().into()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Total, E> {
        Ok(Total(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Total, E> {
        Ok(Total(0))
    }

    fn visit_str<E>(self, _: &str) -> Result<Total, E> {
        Ok(Total(0))
    }

    fn visit_unit<E>(self) -> Result<Total, E> {
        Ok(Total(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Total, A::Error> {
        let mut sum: u128 = 0;
        while let Some(Total(more)) = list.next_element()? {
            sum = sum.saturating_add(more);
        }
        Ok(Total(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Total, A::Error> {
        let mut sum: u128 = 0;
        while let Some((IgnoredAny, Total(more))) = map.next_entry()? {
            sum = sum.saturating_add(more);
        }
        Ok(Total(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_all_numbers_is_bounded() {
        let most = MOST as u64;
        for (json, expected) in [
            (format!(r#"{{"a": [{most}], "b": "18446744073709551615"}}"#), true),
            (format!(r#"{{"a": [{most}], "b": {{"c": 1}}}}"#), false),
            (format!("[{}]", vec![u64::MAX.to_string(); 100].join(",")), false),
            (format!("[-{most}, -1]"), false),
            ("[1.5e300, null, true, 3]".to_owned(), true),
            // Not to be judged here.
            ("[".repeat(100_000), true),
            (String::new(), true),
        ] {
            assert_eq!(are_bounded(json.as_bytes()), expected, "{:.80}", json);
        }
    }
}
