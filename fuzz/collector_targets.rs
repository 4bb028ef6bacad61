//! What the fuzzer calls with any bytes that a collector may be sent. The collector's tests call it with the corpus.

use chokepoint_collector::query::profile_type::ProfileType;
use chokepoint_collector::query::{selector, time};

/// What a query's parameters say: a selector, or a time.
pub fn query(content: &[u8]) {
    let text = String::from_utf8_lossy(content);
    match selector::parse(&text) {
        Ok(selector) => drop(ProfileType::of(&selector)),
        Err(error) => assert!(error.at >= 1 && error.at <= text.chars().count() + 1),
    }
    let _ = time::instant(&text, u64::MAX);
    if let Ok(duration_ns) = time::duration_ns(&text) {
        assert!(duration_ns > 0);
        let written = time::written(duration_ns);
        assert!(duration_ns < 1_000_000 || time::duration_ns(&written).is_ok(), "{written}");
    }
}
