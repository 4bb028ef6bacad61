//! From a thread to an answer: a real agent, a real collector that is killed meanwhile, and queries of what it kept.

use std::time::{Duration, Instant};

use chokepoint_tests::block::LoopDevice;
use chokepoint_tests::net::{SERVER_4, Wire};
use chokepoint_tests::serving::{ANY_PORT, Serving};
use chokepoint_tests::workload::{eventually, path};
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

/// Where the server listens, and two ports at which nothing is done.
const PORT: u16 = 7001;
const UNUSED: [u16; 2] = [7008, 7009];
/// Reads of the device, and pages that are touched.
const READS: u64 = 500;
const PAGES: u64 = 200_000;
/// Of minor faults one in so many is seen on each CPU: what is told of one is off by so many for each CPU at most.
const FAULTS_TO_A_SAMPLE: u64 = 1_009;

fn total(answer: &Value, list: &str, name: &str) -> u64 {
    let numbers = array(answer, list).iter().map(|entry| entry[name].as_u64().expect("a number"));
    numbers.sum()
}

#[test]
fn what_happens_beside_thread_time_is_as_the_kernel_counts_it() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let Some(device) = LoopDevice::new(4 << 20) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let Some(wire) = Wire::new() else {
        return eprintln!("skipped: this machine has no network namespaces, veth pairs or clsact queues");
    };
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = |name: &str| directory.path().join(name);
    let mut sink = wire.server(&path("tcp_c"));
    let sink = Workload::start_program(sink.args(["sink", &PORT.to_string()]));
    let listens = || {
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp6", sink.pid())).ok()?;
        table.contains(&format!(":{PORT:04X} ")).then_some(())
    };
    eventually("the server to listen", listens);
    let toucher = file("touched.done");
    let pages = PAGES.to_string();
    let faults = Workload::start("memory_c", &[toucher.to_str().expect("text"), "fresh", &pages]);
    eventually("the workload", || toucher.with_extension("ready").exists().then_some(()));

    let collector = Serving::start(&file("store"), ANY_PORT, ANY_PORT);
    let (url, state) = (format!("http://{}", collector.grpc), file("state").to_string_lossy().into_owned());
    let arguments = ["agent", "--collector", &url, "--state-dir", &state, "--window", "2s"];
    let agent = Agent::new(arguments.iter().chain(&["--max-overhead", "100%"])).start();
    wait_for_batches(&collector, 1);

    wire.lose(5, UNUSED[0], UNUSED[1]);
    let sent = file("sent");
    let mut client = wire.client(&path("tcp_c"));
    client.args(["new", SERVER_4, &PORT.to_string(), "8000000"]).arg(&sent);
    let client = Workload::start_program(&mut client);
    let spinners: Vec<Workload> = (0..6).map(|_| Workload::start("waits_c", &["spin"])).collect();
    let (before, direct) = (device.statistics(), device.open());
    for at in 0..READS {
        direct.read((at % 1_000) * 4096, 4096).expect("it can be read");
    }
    let reads = device.statistics().reads - before.reads;
    assert!(reads >= READS, "{reads}");
    // SAFETY: the children have not been waited for, so the numbers are still their own.
    unsafe {
        libc::kill(faults.pid() as i32, libc::SIGUSR1);
        libc::kill(client.pid() as i32, libc::SIGUSR1);
    }
    eventually("the pages to be touched", || toucher.exists().then_some(()));
    eventually("the connection's end", || sent.exists().then_some(()));
    let batches = wait_for_batches(&collector, 1)["batches"].as_u64().expect("a number");
    wait_for_batches(&collector, batches + 3);
    let retransmits = client.truth()["retransmits"] as u64;
    assert!(retransmits > 0, "nothing was lost");
    agent.signal(libc::SIGTERM);
    let finished = agent.finish().succeeded();
    drop(spinners);

    let disk = format!("{{device=\"{}\", operation=\"read\"}}", device.name());
    let disk = collector.query(&["latencies", &disk, "--of", "disk"]);
    let [instance] = array(&disk, "instances") else { panic!("{disk}\n{}", finished.stderr) };
    assert_eq!(instance["instance"], format!("{} read", device.name()));
    let buckets = array(&disk, "bounds").len();
    let counts = array(instance, "counts").iter().map(|counts| counts.as_array().expect("numbers"));
    assert!(counts.clone().all(|counts| counts.len() == buckets));
    let told: u64 = counts.flatten().filter_map(Value::as_u64).sum();
    // On some hosts a program is left out now and then: the request is counted, but not its time.
    assert!(told <= reads && told as f64 >= 0.99 * reads as f64, "{told} of {reads}");

    let queues = collector.query(&["latencies", "--of", "run-queue"]);
    let of_spinners = array(&queues, "instances").iter().find(|told| told["instance"] == "waits_c");
    let of_spinners = of_spinners.unwrap_or_else(|| panic!("{queues}"));
    // Six on two CPUs wait for each other for longer than a millisecond, again and again.
    let bounds: Vec<Option<u64>> = array(&queues, "bounds").iter().map(Value::as_u64).collect();
    let long = array(of_spinners, "counts").iter().flat_map(|counts| {
        let counts = counts.as_array().expect("numbers").iter().filter_map(Value::as_u64);
        counts.zip(&bounds).filter(|(_, bound)| bound.is_none_or(|bound| bound > 1_000_000))
    });
    assert!(long.map(|(count, _)| count).sum::<u64>() > 10, "{of_spinners}");

    let peers = collector.query(&["retransmits"]);
    let remote = format!("{SERVER_4}:{PORT}");
    let peer = array(&peers, "peers").iter().find(|peer| peer["remote"] == remote.as_str());
    let peer = peer.unwrap_or_else(|| panic!("{peers}"));
    assert_eq!(peer["count"].as_u64(), Some(retransmits), "{peers}");
    let by_stack = collector.query(&["top", "retransmits{process=\"tcp_c\"}"]);
    let names = array(&by_stack, "functions").iter().filter_map(|function| function["name"].as_str());
    assert!(total(&peers, "peers", "count") >= by_stack["weight"].as_u64().expect("a number"), "{by_stack}");
    assert!(names.clone().any(|name| name == "main"), "{:?}", names.collect::<Vec<_>>());

    let faults = collector.query(&["top", "faults{process=\"memory_c\"}"]);
    let weight = faults["weight"].as_u64().expect("a number");
    let cpus = std::thread::available_parallelism().expect("there are CPUs").get() as u64;
    // On each CPU the last faults before it and the first of it may count for another process, and its own for others.
    let slack = 2 * cpus * FAULTS_TO_A_SAMPLE + PAGES / 50;
    assert!(weight.abs_diff(PAGES) <= slack, "{weight} of {PAGES}: {faults}");
    let names = array(&faults, "functions").iter().filter_map(|function| function["name"].as_str());
    assert!(names.clone().any(|name| name == "touch_fresh_pages"), "{:?}", names.collect::<Vec<_>>());
}
