//! Whatever the fuzzer was started with, or found, does no harm any more.

#[path = "../../fuzz/collector_targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn queries() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/query");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        targets::query(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}
