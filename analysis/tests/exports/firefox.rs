use chokepoint_analysis::export::{self, ExportError, Format, Options};
use serde_json::Value;

use crate::recording::{self, PERIOD_NS, START_UNIX_NS};
use crate::value;

fn sum(numbers: &Value) -> f64 {
    numbers.as_array().expect("numbers").iter().map(|number| number.as_f64().expect("a number")).sum()
}

/// A sample's functions from its root, with their categories.
fn stack(file: &Value, thread: &Value, sample: usize) -> Vec<(String, String)> {
    let at = |table: &str, column: &str, index: &Value| {
        let index = usize::try_from(index.as_u64().expect("an index")).expect("small");
        thread[table][column][index].clone()
    };
    let mut frames = Vec::new();
    let mut next = thread["samples"]["stack"][sample].clone();
    while !next.is_null() {
        let frame = at("stackTable", "frame", &next);
        let function = at("frameTable", "func", &frame);
        let name = at("funcTable", "name", &function);
        let name = &thread["stringArray"][usize::try_from(name.as_u64().expect("an index")).expect("small")];
        let category = at("frameTable", "category", &frame);
        let category = usize::try_from(category.as_u64().expect("an index")).expect("small");
        let category = &file["meta"]["categories"][category]["name"];
        frames.push((name.as_str().expect("a name").into(), category.as_str().expect("a name").into()));
        next = at("stackTable", "prefix", &next);
    }
    frames.reverse();
    frames
}

#[test]
fn each_thread_has_its_samples_at_their_times() {
    let profile = recording::everything();
    let file = value(&profile, Format::Firefox, &Options::default());

    let meta = &file["meta"];
    let start_ms = meta["startTime"].as_f64().expect("a time");
    assert!((start_ms - START_UNIX_NS as f64 / 1e6).abs() < 0.001, "starts at {start_ms}");
    assert!((meta["interval"].as_f64().expect("ms") - PERIOD_NS as f64 / 1e6).abs() < 1e-6);
    assert_eq!(meta["symbolicated"], true);
    assert!(meta["product"].as_str().expect("a name").contains("85 of 90 samples, 5 lost"));

    let threads = file["threads"].as_array().expect("threads");
    assert_eq!(threads.len(), profile.threads.len());
    let counted: f64 = threads.iter().map(|thread| sum(&thread["samples"]["weight"])).sum();
    assert_eq!(counted, profile.total_count() as f64);
    let cpu_us: f64 = threads.iter().map(|thread| sum(&thread["samples"]["threadCPUDelta"])).sum();
    assert!((cpu_us * 1e3 / profile.total_weight() as f64 - 1.0).abs() < 1e-4, "{cpu_us} µs");

    // The worker's samples follow the 35 of the main thread.
    let worker = threads.iter().find(|thread| thread["name"] == "worker_1").expect("the worker");
    assert_eq!(
        (&worker["pid"], &worker["tid"], &worker["isMainThread"]),
        (&"10".into(), &"11".into(), &false.into())
    );
    let first_ms = worker["samples"]["timeDeltas"][0].as_f64().expect("a time");
    assert!((first_ms - 35.0 * PERIOD_NS as f64 / 1e6).abs() < 1e-6, "{first_ms} ms");
    let expected = [
        ("main", "User"),
        ("http::Server::serve(int)", "User"),
        ("libc.so.6+0x9d5a0", "User"),
        ("do_syscall_64", "Kernel"),
        ("vfs_read", "Kernel"),
    ];
    assert_eq!(
        stack(&file, worker, 0),
        expected.map(|(name, category)| (name.to_owned(), category.to_owned()))
    );
}

#[test]
fn sums_without_times_are_refused_and_nothing_is_written() {
    let mut profile = recording::everything();
    profile.timeline.clear();
    let mut out = Vec::new();
    let error =
        export::write(&profile, Format::Firefox, &Options::default(), &mut out).expect_err("no timeline");
    assert!(matches!(error, ExportError::NoTimeline(Format::Firefox)));
    assert!(error.to_string().starts_with("the recording has no timeline, which firefox.json needs"));
    assert!(out.is_empty());
}

#[test]
fn an_empty_recording_has_a_thread_without_samples() {
    let file = value(&recording::empty(), Format::Firefox, &Options::default());
    let threads = file["threads"].as_array().expect("threads");
    assert_eq!((threads.len(), &threads[0]["samples"]["length"]), (1, &0.into()));
}

#[test]
fn samples_of_thread_time_weigh_milliseconds() {
    let file = value(&recording::waits(), Format::Firefox, &Options::default());
    let samples = &file["threads"][0]["samples"];
    assert_eq!(samples["weightType"], "tracing-ms");
    // What is left of a millisecond goes to the next sample.
    assert_eq!(samples["weight"], serde_json::json!([3, 5, 0]));
}
