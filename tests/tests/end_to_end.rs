//! From a thread to an answer: a real agent, a real collector that is killed meanwhile, and queries of what it kept.

use std::time::{Duration, Instant};

use chokepoint_tests::serving::{ANY_PORT, Serving};
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};
use serde_json::Value;

/// A window is here some seconds after its end, of an unoptimised build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A thread's parts are read at a window's end, one thread after the other.
const EXACT: f64 = 0.01;

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// What the collector says of its only agent, as soon as it has stored so many windows.
fn wait_for_batches(collector: &Serving, wanted: u64) -> Value {
    let start = Instant::now();
    loop {
        let answer = collector.query(&["agents"]);
        let stored = |agent: &Value| agent["batches"].as_u64().unwrap_or_default() >= wanted;
        if let [agent] = array(&answer, "agents")
            && stored(agent)
        {
            return agent.clone();
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {wanted} windows: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_an_agent_sees_is_asked_of_a_collector_that_was_killed() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let (store, state) = (directory.path().join("store"), directory.path().join("state"));
    let spinner = Workload::start("waits_c", &["spin"]);
    let collector = Serving::start(&store, ANY_PORT, ANY_PORT);
    let (grpc, http) = (collector.grpc.to_string(), collector.http.to_string());
    let (url, state) = (format!("http://{grpc}"), state.to_string_lossy().into_owned());
    // An unoptimised build is not to be slowed down by its own governor.
    let arguments = ["agent", "--collector", &url, "--state-dir", &state, "--window", "2s"];
    let agent = Agent::new(arguments.iter().chain(&["--max-overhead", "100%", "--label", "zone=z1"])).start();
    wait_for_batches(&collector, 3);

    // What it has acknowledged it still has, and what comes meanwhile comes later.
    collector.kill();
    std::thread::sleep(Duration::from_secs(3));
    let collector = Serving::start(&store, &grpc, &http);
    wait_for_batches(&collector, 6);
    agent.signal(libc::SIGTERM);
    let finished = agent.finish().succeeded();
    drop(spinner);

    let told = wait_for_batches(&collector, 1);
    assert_eq!(told["dropped_batches"], 0, "{told}\n{}", finished.stderr);
    assert_eq!(told["labels"]["zone"], "z1");
    // Each window once, one after the other.
    let signals = collector.query(&["signals", "cpu.utilization{zone=\"z1\"}"]);
    let [series] = array(&signals, "signals") else { panic!("{signals}") };
    let starts: Vec<u64> = array(series, "values")
        .iter()
        .map(|value| value["start_unix_ms"].as_u64().expect("a time"))
        .collect();
    assert_eq!(Some(starts.len() as u64), told["batches"].as_u64(), "{starts:?}");
    assert!(starts.is_sorted_by(|one, next| one < next), "{starts:?}");
    // One thread lived through all of them: a window that was lost, or is there twice, would be two seconds.
    let end = told["last_window_unix_ms"].as_u64().expect("a time");
    let windows_s = (end - starts[0]) as f64 / 1e3;
    let lived = collector.query(&["decomposition", "wall{process=\"waits_c\"}"]);
    let [scope] = array(&lived, "scopes") else { panic!("{lived}") };
    let lived_s = scope["weight"].as_u64().expect("nanoseconds") as f64 / 1e9;
    assert!((lived_s / windows_s - 1.0).abs() < EXACT, "{lived_s} s lived in {windows_s} s");
    let functions = collector.query(&["top", "cpu{process=\"waits_c\"}"]);
    let names = array(&functions, "functions").iter().filter_map(|function| function["name"].as_str());
    assert!(names.clone().any(|name| name == "main"), "{:?}", names.collect::<Vec<_>>());
    let constraints = collector.query(&["constraints"]);
    assert!(!array(&constraints, "scopes").is_empty(), "{constraints}");
}
