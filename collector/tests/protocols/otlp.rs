//! OpenTelemetry's profiles, sent by the client and with the messages of its Collector.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::secured::{Collector, Place};
use crate::common::{MINUTE, this_hour};
use crate::peers::{paths, peer, printed, queried};

/// Sends, and says what came of it.
fn send(program: &Path, collector: &Collector, way: &str, host: &str, token: &str, form: &str) -> Value {
    let address = if way == "grpc" { collector.agents.to_string() } else { collector.queries.clone() };
    let start = (this_hour() - 10 * MINUTE).to_string();
    printed(program, &[way, &address, host, &start, token, form])
}

/// The flame graph of what the hour before this one has.
fn flame(collector: &Collector, selector: &str) -> BTreeMap<String, u64> {
    let seconds = |time: u64| (time / 1_000_000_000).to_string();
    let (from, until) = (seconds(this_hour() - 11 * MINUTE), seconds(this_hour()));
    paths(&queried(collector, &["flame", selector, "--from", &from, "--until", &until]))
}

fn is(path: &str, weight: u64) -> BTreeMap<String, u64> {
    [(path.to_owned(), weight)].into()
}

#[test]
fn profiles_are_stored_once_however_often_and_by_which_way_they_come() {
    let Some(program) = peer("otlp") else { return };
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    let well = json!({"error": "", "rejected": 0, "message": ""});
    // One host sends by each way, and sends again as who has not heard the answer: the one by the same way, the other by the other.
    for (way, host) in [("grpc", "a1"), ("http", "a2"), ("grpc", "a1"), ("grpc", "a2")] {
        assert_eq!(send(&program, &collector, way, host, "-", "whole"), well, "{way}");
    }
    for host in ["a1", "a2"] {
        let of = |kind: &str, service: &str| {
            format!("{kind}{{host=\"{host}\", service=\"{service}\", source=\"otlp\"}}")
        };
        assert_eq!(flame(&collector, &of("cpu", "shop")), is("total;main;work", 150_000_000));
        // The class says where nobody ran.
        let waited = is("total;main;do_sleep;[wait.other]", 700_000_000);
        assert_eq!(flame(&collector, &of("offcpu", "cart")), waited);
    }
    let pods = flame(&collector, "wall{pod=\"shop-0\", thread=\"worker-*\"}");
    assert_eq!(pods.values().sum::<u64>(), 2 * 150_000_000);
    assert_eq!(collector.wait_for(&[], "profiles_received", 8), 8);
    assert_eq!(collector.wait_for(&[], "profiles_known", 4), 4);
    assert_eq!(collector.wait_for(&[], "profiles_refused", 0), 0);
}

#[test]
fn a_profile_that_is_none_is_refused_alone() {
    let Some(program) = peer("otlp") else { return };
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    for (way, host) in [("grpc", "a1"), ("http", "a2")] {
        let told = send(&program, &collector, way, host, "-", "broken");
        assert_eq!((&told["error"], &told["rejected"]), (&json!(""), &json!(1)), "{told}");
        assert!(told["message"].as_str().is_some_and(|why| why.contains("stack 1000")), "{told}");
        let selector = format!("cpu{{host=\"{host}\"}}");
        assert_eq!(flame(&collector, &selector), is("total;main;work", 150_000_000));
    }
    assert_eq!(collector.wait_for(&[], "profiles_refused", 2), 2);
}

#[test]
fn only_agents_may_send_and_as_nobody_else() {
    let Some(program) = peer("otlp") else { return };
    let place = Place::new();
    let [agent, other, reader] =
        [("gateway", "agent"), ("another", "agent"), ("eyes", "reader")].map(|(name, role)| {
            fs::read_to_string(place.token(name, role, "")).expect("a token").trim().to_owned()
        });
    let collector = Collector::start(&place, &place.with(Vec::new(), &[("--tokens", &place.tokens())]));
    for way in ["grpc", "http"] {
        for (token, part) in [("-", "a token is asked for"), (reader.as_str(), "takes the role agent")] {
            let told = send(&program, &collector, way, "a1", token, "whole");
            assert!(told["error"].as_str().is_some_and(|error| error.contains(part)), "{way}: {told}");
        }
        // Two gateways may see the same host; each is an agent of its own.
        for token in [&agent, &other] {
            assert_eq!(send(&program, &collector, way, way, token, "whole")["error"], "", "{way}");
        }
    }
    let bearer = format!("Authorization: Bearer {reader}");
    assert_eq!(collector.wait_for(&["-H", &bearer], "profiles_received", 8), 8);
    assert_eq!(collector.wait_for(&["-H", &bearer], "requests_unauthenticated", 2), 2);
}
