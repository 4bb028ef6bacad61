//! Whatever the fuzzer was started with, or found, does no harm any more.

#[path = "../../fuzz/targets.rs"]
#[allow(dead_code, reason = "made for the fuzzer and the unit tests, too")]
mod targets;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn call_frame_information() {
    replay("eh_frame", targets::eh_frame);
}

#[test]
fn whole_files() {
    replay("elf_table", targets::elf_table);
}

#[test]
fn tables_of_go() {
    replay("gopclntab", targets::gopclntab);
}

#[test]
fn jitdumps() {
    replay("jitdump", targets::jitdump);
}

#[test]
fn files_of_the_cache() {
    replay("cache_file", targets::cache_file);
}
