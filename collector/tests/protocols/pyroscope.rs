//! Profiles as Pyroscope's clients send them: by the uploader of its Go client, and by a Push.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::secured::{Collector, Place};
use crate::common::{MINUTE, this_hour};
use crate::peers::{paths, peer, printed, queried};

fn send(program: &Path, collector: &Collector, way: &str, host: &str, token: &str) -> Value {
    let start = (this_hour() - 10 * MINUTE).to_string();
    printed(program, &[way, &collector.queries, host, &start, token])
}

fn flame(collector: &Collector, arguments: &[&str]) -> Value {
    let seconds = |time: u64| (time / 1_000_000_000).to_string();
    let (from, until) = (seconds(this_hour() - 11 * MINUTE), seconds(this_hour()));
    queried(collector, &[&["flame"], arguments, &["--from", &from, "--until", &until]].concat())
}

#[test]
fn profiles_of_both_ways_are_stored_once() {
    let Some(program) = peer("pyroscope") else { return };
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    for (way, host) in [("ingest", "a1"), ("push", "a2"), ("ingest", "a1"), ("push", "a2")] {
        assert_eq!(send(&program, &collector, way, host, "-")["error"], "", "{way}");
    }
    // The values of waits are called as each way has it.
    for (host, delay, contentions) in
        [("a1", "mutex_duration", "mutex_count"), ("a2", "mutex_delay", "mutex_contentions")]
    {
        let of = |kind: &str, weight: u64| {
            let selector =
                format!("{kind}{{host=\"{host}\", service=\"shop\", region=\"eu\", source=\"pyroscope\"}}");
            let found = flame(&collector, &[&selector]);
            let wanted: BTreeMap<String, u64> = [("total;main.main;main.work".to_owned(), weight)].into();
            assert_eq!(paths(&found), wanted, "{selector}");
            (found["unit"].clone(), found["sides"][0]["samples"].clone())
        };
        assert_eq!(of("cpu", 250_000_000), ("ns".into(), 25.into()));
        assert_eq!(of(delay, 40_000_000), ("ns".into(), 1.into()));
        assert_eq!(of(contentions, 4).0, "count");
    }
    assert_eq!(collector.wait_for(&[], "profiles_known", 4), 4);
    assert_eq!(collector.wait_for(&[], "profiles_refused", 0), 0);
}

#[test]
fn what_is_no_profile_or_not_an_agents_is_refused() {
    let Some(program) = peer("pyroscope") else { return };
    let place = Place::new();
    let [agent, reader] = [("shop", "agent"), ("eyes", "reader")].map(|(name, role)| {
        fs::read_to_string(place.token(name, role, "")).expect("a token").trim().to_owned()
    });
    let collector = Collector::start(&place, &place.with(Vec::new(), &[("--tokens", &place.tokens())]));
    for way in ["ingest", "push"] {
        for (token, part) in [("-", "a token is asked for"), (reader.as_str(), "takes the role agent")] {
            let told = send(&program, &collector, way, "a1", token);
            assert!(told["error"].as_str().is_some_and(|error| error.contains(part)), "{way}: {told}");
        }
    }
    let told = send(&program, &collector, "broken", "a1", &agent);
    assert!(told["error"].as_str().is_some_and(|error| error.contains("invalid_argument")), "{told}");
    let bearer = format!("Authorization: Bearer {reader}");
    // Both profiles of the request: one of them alone would be told as if it were all.
    assert_eq!(collector.wait_for(&["-H", &bearer], "profiles_refused", 2), 2);
    assert_eq!(collector.wait_for(&["-H", &bearer], "batches_stored", 0), 0);
}
