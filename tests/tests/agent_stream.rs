//! The continuous mode: a real agent streams a known workload's windows to a collector that fails, and is killed itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use chokepoint_proto::stream::Window;
use chokepoint_tests::agent::{Running, get};
use chokepoint_tests::collector::{FakeCollector, Received, Recording, Row};
use chokepoint_tests::{Agent, Workload, in_vm, live, share_tolerance, skip_if};

/// The shortest that a window may take, and a second more.
const WINDOW_NS: u64 = 2_000_000_000;
/// From the end of a window until it is here: it is named and diagnosed first. An unoptimised build on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// A thread's parts are read at the window's end, one thread after the other.
const EXACT: f64 = 0.01;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn start(collector: SocketAddr, metrics: SocketAddr, state: &Path) -> Running {
    let config = state.join("agent.toml");
    let (state, config) = (state.to_string_lossy(), config.to_string_lossy());
    let (collector, metrics) = (format!("http://{collector}"), metrics.to_string());
    let arguments = [
        "agent",
        "--collector",
        &collector,
        "--metrics",
        &metrics,
        "--state-dir",
        &state,
        "--window",
        "2s",
        // An unoptimised build is not to be slowed down by its own governor.
        "--max-overhead",
        "100%",
        "--config",
        &config,
    ];
    Agent::new(arguments).start()
}

/// Waits until so many windows satisfy a condition.
fn wait_for(recording: &Recording, what: &str, is_there: impl Fn(&[Received]) -> bool) -> Vec<Received> {
    let start = Instant::now();
    loop {
        let received = recording.received();
        if is_there(&received) {
            return received;
        }
        let sequences: Vec<_> = received.iter().map(|batch| batch.sequence).collect();
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}; there are {sequences:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Time that a single-threaded process ran, nanoseconds, by the kernel's own count.
fn ran_ns(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it runs");
    text.split(' ').next().and_then(|ran| ran.parse().ok()).expect("it is a number")
}

fn sum(rows: &[Row], is_wanted: impl Fn(&Row) -> bool) -> u64 {
    rows.iter().filter(|row| is_wanted(row)).map(|row| row.weight).sum()
}

/// Windows that are missing before this one by its own word: on a machine that is too busy to read them in time, an agent gives some up.
fn given_up(window: &Window) -> u64 {
    let notes = window.losses.iter().flat_map(|losses| &losses.notes);
    notes
        .filter(|note| note.contains("were given up"))
        .filter_map(|note| note.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Each window's content by its number; of one that came twice, both are the same.
fn contents(received: &[Received]) -> BTreeMap<u64, (u64, u64, &[Row])> {
    let mut contents = BTreeMap::new();
    for batch in received {
        let content = (batch.window.start_unix_ns, batch.window.duration_ns, &batch.rows[..]);
        let before = contents.insert(batch.sequence, content);
        assert!(before.is_none_or(|before| before == content), "{} has two contents", batch.sequence);
    }
    contents
}

fn assert_in_order(received: &[Received]) {
    let streams: BTreeSet<u64> = received.iter().map(|batch| batch.stream).collect();
    for stream in streams {
        let of_stream = received.iter().filter(|batch| batch.stream == stream);
        let sequences: Vec<u64> = of_stream.map(|batch| batch.sequence).collect();
        assert!(sequences.is_sorted_by(|one, next| one < next), "stream {stream}: {sequences:?}");
    }
}

#[test]
fn windows_reach_the_collector_once_whatever_fails() {
    let _live = live();
    skip_if!(in_vm(), "under emulation, a window takes longer to read than to come");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let free = TcpListener::bind(ANY_PORT).and_then(|listener| listener.local_addr());
    let metrics = free.expect("there is a free port");
    let recording = Recording::default();
    let collector = FakeCollector::listen(ANY_PORT, &recording);
    let address = collector.address;
    let configure =
        |text: &str| std::fs::write(directory.path().join("agent.toml"), text).expect("it can be written");
    configure("labels = { zone = 'test' }");
    let spinner = Workload::start("waits_c", &["spin"]);
    let (begin, ran_before) = (Instant::now(), ran_ns(spinner.pid()));
    let mut agent = start(address, metrics, directory.path());

    // What is told is true.
    let received = wait_for(&recording, "four windows", |received| received.len() >= 4);
    let (elapsed_ns, ran) = (begin.elapsed().as_nanos() as u64, ran_ns(spinner.pid()) - ran_before);
    // The first begins when the agent does, and all end at multiples of their length.
    let whole = &received[1..];
    let is_spinner = |row: &Row| row.process == "waits_c";
    let (mut told_ns, mut user_ns, mut windows_ns, mut samples) = (0, 0, 0, 0);
    for batch in whole {
        let duration_ns = batch.window.duration_ns;
        assert!(duration_ns.abs_diff(WINDOW_NS) < WINDOW_NS / 5, "{duration_ns}");
        let all = sum(&batch.rows, is_spinner) as f64;
        assert!((all / duration_ns as f64 - 1.0).abs() < EXACT, "{all} of {duration_ns}");
        told_ns +=
            sum(&batch.rows, |row| is_spinner(row) && matches!(&*row.class, "cpu.user" | "cpu.kernel"));
        user_ns += sum(&batch.rows, |row| is_spinner(row) && row.class == "cpu.user");
        let of_spinner = batch.rows.iter().filter(|row| is_spinner(row) && row.class.starts_with("cpu."));
        samples += of_spinner.map(|row| row.count).sum::<u64>();
        windows_ns += duration_ns;
        let losses = batch.window.losses.as_ref().expect("there are always some");
        assert!(losses.captured > 0 && batch.window.verdict.is_some() && !batch.window.signals.is_empty());
        assert!(batch.window.cost.as_ref().is_some_and(|cost| cost.cpu_ns > 0 && cost.frequency_hz == 19));
    }
    // It cannot have run in the windows more than it ran in all, nor less than that without the time outside of them.
    let slack = EXACT * windows_ns as f64;
    assert!(told_ns as f64 <= ran as f64 + slack, "{told_ns} of {ran}");
    assert!(told_ns as f64 >= ran as f64 - (elapsed_ns - windows_ns) as f64 - slack, "{told_ns} of {ran}");
    // It has no system calls: what is not user code is interrupts, a few per cent where another machine has the CPU now and then.
    let user = user_ns as f64 / told_ns as f64;
    assert!(user >= 0.95 - share_tolerance(0.95, samples), "{user} of {samples} samples");
    let spins = whole.iter().flat_map(|batch| &batch.rows).filter(|row| is_spinner(row));
    assert!(spins.clone().any(|row| row.functions.iter().any(|function| function == "main")));
    assert!(spins.clone().all(|row| row.labels.iter().any(|label| label == "service")));
    for pair in whole.windows(2) {
        let [one, next] = [&pair[0].window, &pair[1].window];
        let gap_ns = next.start_unix_ns - (one.start_unix_ns + one.duration_ns);
        assert_eq!(given_up(next), (gap_ns + WINDOW_NS / 2) / WINDOW_NS, "{gap_ns} are missing");
        assert!(gap_ns == 0 || given_up(next) > 0, "windows follow each other");
        let off = next.start_unix_ns % WINDOW_NS;
        assert!(off < WINDOW_NS / 5, "windows end at multiples of their length: {off}");
    }
    let hello = received[0].hello.clone();
    assert_eq!((hello.protocol, hello.agent.len()), (1, 16));
    assert!(hello.labels.iter().any(|label| label.name == "zone" && label.value == "test"));
    let page = get(metrics, "/metrics");
    assert!(page.contains("chokepoint_agent_connected 1"), "{page}");
    assert!(get(metrics, "/healthz").starts_with("HTTP/1.1 200"));

    // Another configuration counts at once; one that makes no sense changes nothing.
    for text in ["labels = { zone = 'other' }", "lables = {}"] {
        configure(text);
        agent.signal(libc::SIGHUP);
        let last = recording.received().len();
        let received = wait_for(&recording, "two more windows", |received| received.len() >= last + 2);
        let labels = &received[last + 1].hello.labels;
        assert!(labels.iter().any(|label| label.name == "zone" && label.value == "other"), "{labels:?}");
    }
    configure("");
    let received = recording.received();

    // The collector takes and does not answer, is gone, and comes back.
    recording.answer(false);
    let taken = received.len();
    let received = wait_for(&recording, "two unanswered windows", |received| received.len() >= taken + 2);
    drop(collector);
    let before_gone = recording.received().len();
    std::thread::sleep(Duration::from_secs(5));
    recording.answer(true);
    let last = received.iter().map(|batch| batch.sequence).max().expect("there are some");
    let collector = FakeCollector::listen(address, &recording);
    let received = wait_for(&recording, "windows after the collector came back", |received| {
        received.iter().any(|batch| batch.sequence >= last + 4)
    });
    assert_in_order(&received);
    let known: Vec<u64> = contents(&received).into_keys().collect();
    assert_eq!(known, (1..=*known.last().expect("there are some")).collect::<Vec<_>>(), "none is missing");
    // At most as many as may be on their way, and of the stream that ended for the configuration one or two.
    let came_twice = received.len() - known.len();
    assert!((1..=8).contains(&came_twice), "{came_twice} were sent again: those that nobody had answered");
    assert!(received.len() > before_gone);

    // The agent is killed, and another one goes on.
    agent.signal(libc::SIGKILL);
    let _ = agent.finish();
    let last = recording.received().iter().map(|batch| batch.sequence).max().expect("there are some");
    agent = start(address, metrics, directory.path());
    let received = wait_for(&recording, "windows of the second agent", |received| {
        received.iter().any(|batch| batch.sequence >= last + 3)
    });
    assert!(received.iter().all(|batch| batch.hello.agent == hello.agent && batch.dropped == 0));
    assert_in_order(&received);
    let known: Vec<u64> = contents(&received).into_keys().collect();
    assert_eq!(known, (1..=*known.last().expect("there are some")).collect::<Vec<_>>(), "none is missing");

    // It ends in order: the window under way is sent, and nothing is left.
    let before = recording.received().len();
    std::thread::sleep(Duration::from_millis(700));
    agent.signal(libc::SIGTERM);
    let ended = agent.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(recording.received().len() > before, "the last window came");
    let left = std::fs::read_dir(directory.path().join("spool")).expect("it is there").count();
    assert_eq!(left, 0, "{}", ended.stderr);
    drop(collector);
}
