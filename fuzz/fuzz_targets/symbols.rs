#![no_main]

#[path = "../collector_targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|content: &[u8]| targets::symbols(content));
