//! Whatever the fuzzer was started with, or found, does no harm any more.

#[path = "../../fuzz/collector_targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

fn replay(corpus: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(corpus);
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        target(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn queries() {
    replay("query", targets::query);
}

#[test]
fn windows() {
    replay("window", targets::window);
}

#[test]
fn exports_of_opentelemetry() {
    replay("otlp", targets::otlp);
}

#[test]
fn what_pyroscopes_clients_send() {
    replay("push", targets::push);
}

#[test]
fn what_grafana_asks() {
    replay("connect", targets::connect);
}

#[test]
fn recordings() {
    replay("recording", targets::recording);
}

#[test]
fn symbols_of_builds() {
    replay("symbols", targets::symbols);
}
