//! Waits: the stacks they are in, what they are for, what ended them, and which of them are chosen.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::profile::Profile;
use chokepoint_tests::accounts::{adds_up, classes_of, share, thread, window};
use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::stacks::functions;
use chokepoint_tests::{Workload, agent, in_vm, live, share_tolerance, skip_if, target_dir};

/// Of a host, until there are waits enough for a judgement.
const MOST_RECORDINGS: usize = 5;

#[test]
fn a_wait_that_does_not_end_is_there_with_its_stack() {
    let _live = live();
    let workload = Workload::start("waits_c", &["hang"]);
    // Its table is built by the window's end.
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "off-cpu", "--pid", &pid, "-d", "2"]);
    adds_up(&profile);
    let classes = classes_of(&profile, "");
    assert!(share(&classes, Class::Ipc) > 0.999, "{classes:?}");
    skip_if!(
        !reads_stacks_of_waiting_threads(),
        "this kernel cannot read the memory of a thread that does not run"
    );
    let hanging = classes_of(&profile, "hangs");
    assert!(
        hanging.values().sum::<u64>() as f64 > 0.999 * profile.total_weight() as f64,
        "the caller of read is in the stack: {:?}",
        profile.samples.iter().map(|sample| functions(&profile, sample)).collect::<Vec<_>>()
    );
}

/// `bpf_copy_from_user_task` came with Linux 5.18.
fn reads_stacks_of_waiting_threads() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(18))
}

#[test]
fn waits_for_the_disk_are_told_with_the_file() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no disk");
    let directory = tempfile::tempdir_in(target_dir()).unwrap();
    let file = directory.path().join("data");
    let workload = Workload::start("waits_c", &["sync", file.to_str().unwrap()]);
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "wall", "--pid", &pid, "-d", "2"]);
    adds_up(&profile);
    let mut classes = classes_of(&profile, "syncs");
    skip_if!(share(&classes, Class::CpuKernel) > 0.9, "this file system does not wait for a disk");
    // How long it queues is what others do on the machine.
    classes.retain(|class, _| !matches!(class, Class::RunQueue | Class::CpuUser | Class::CpuKernel));
    let io = [Class::IoSync, Class::IoWrite].map(|class| share(&classes, class)).iter().sum::<f64>();
    assert!(io > 0.9, "{classes:?}");
    let named = format!("[file {} on ", file.display());
    let with_name = profile
        .samples
        .iter()
        .any(|sample| functions(&profile, sample).iter().any(|name| name.starts_with(&named)));
    assert!(with_name, "{named} is in no stack");
}

#[test]
fn who_polls_one_file_waits_for_that_and_pauses_are_told_from_paces() {
    let _live = live();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("server.sock");
    let workload = Workload::start("waits_c", &["poll", socket.to_str().unwrap()]);
    let profile = agent::record(&["-e", "off-cpu", "--pid", &workload.pid().to_string(), "-d", window()]);
    let named = |function: &str, object: &str| {
        let mut sums = (0, 0);
        for sample in &profile.samples {
            let names = functions(&profile, sample);
            let is_wait = !names.contains(&"[run-queue]") && names.contains(&function);
            // The last begins before the window's end, and may not be over: what it polls is not known then.
            sums.0 += if is_wait { sample.weight } else { 0 };
            sums.1 += if is_wait && names.contains(&object) { sample.weight } else { 0 };
        }
        sums
    };
    let asked = format!("[unix -{}]", socket.display());
    let nameless = profile.functions.iter().any(|function| function.name == "[unix]");
    skip_if!(nameless, "this kernel has no unix_diag");
    for (function, object) in [
        ("polls", asked.as_str()),
        ("selects", &asked),
        ("awaits_event", &asked),
        ("keeps_pace", "[until a set time]"),
    ] {
        let (all, with_name) = named(function, object);
        assert!(
            all > 0 && with_name as f64 > 0.9 * all as f64,
            "{function}: {with_name} of {all} ns for {object}"
        );
    }
    // Which of several is waited for, nobody knows.
    let (all, with_name) = named("polls_several", &asked);
    assert!(all > 0 && with_name == 0, "{with_name} of {all} ns");
}

#[test]
fn what_ends_a_wait_is_joined_to_it() {
    let _live = live();
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "offwake", "--pid", &pid, "-d", window()]);
    let mut by_helper = 0;
    let mut by_interrupt = 0;
    let (mut reads, mut naps) = (0, 0);
    for sample in &profile.samples {
        // A waker's functions are in the stacks of what it woke.
        if profile.thread(sample.thread).thread_name != "mixer" {
            continue;
        }
        let names = functions(&profile, sample);
        if names.contains(&"reads") {
            reads += sample.weight;
            // The waker's stack is upside down, so that what woke is next to what waited.
            let wait = names.iter().position(|name| *name == "reads");
            let waker = names.iter().position(|name| *name == "answers_reader");
            by_helper += if waker > wait { sample.weight } else { 0 };
        }
        if names.contains(&"naps") {
            naps += sample.weight;
            by_interrupt += if names.contains(&"[woken by an interrupt]") { sample.weight } else { 0 };
        }
    }
    assert!(reads > 0 && naps > 0, "{} samples", profile.samples.len());
    assert!(by_helper as f64 > 0.9 * reads as f64, "{by_helper} of {reads} ns were ended by the helper");
    assert!(by_interrupt as f64 > 0.9 * naps as f64, "{by_interrupt} of {naps} ns were ended by a timer");
}

#[test]
fn every_chosen_wait_is_accounted_for() {
    let _live = live();
    let workload = Workload::start("waits_c", &["mix"]);
    let profile = agent::record(&["-e", "off-cpu", "--pid", &workload.pid().to_string(), "-d", window()]);
    let coverage = &profile.coverage;
    assert!(coverage.captured > 100, "{coverage:?}");
    assert_eq!(coverage.attempted, coverage.captured + coverage.total_lost(), "{coverage:?}");
    let switches: u64 = profile.thread_times.iter().map(|time| time.switches).sum();
    // All of a target's waits are taken, also those that go on; but for those whose end was hidden.
    assert!(
        coverage.attempted + 2 + unseen_arrivals(&profile) >= switches,
        "{switches} switches: {coverage:?}"
    );
    assert!(coverage.total_lost() * 100 <= coverage.attempted, "{coverage:?}");
    let stacks = &coverage.user_stacks;
    assert!(stacks.complete as f64 > 0.9 * coverage.captured as f64, "{coverage:?}");
}

/// Times that a thread came to its CPU unseen: some hosts hide threads from tracing, and whom they give the CPU to.
fn unseen_arrivals(profile: &Profile) -> u64 {
    let notes = profile.coverage.notes.iter();
    notes
        .filter_map(|note| note.split_once(" times a thread came to its CPU unseen")?.0.parse::<u64>().ok())
        .sum()
}

#[test]
fn it_agrees_with_offcputime() {
    let _live = live();
    skip_if!(in_vm() || !chokepoint_tests::workload::on_path("offcputime"), "offcputime is not installed");
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid().to_string();
    let watch = RunShares::watch(workload.pid());
    let mut peer = Command::new("offcputime");
    // On its errors' stream it tells of each stack that it could not take.
    peer.args(["-p", &pid, "4"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let peer = peer.spawn().expect("offcputime can be run");
    let profile = agent::record(&["-e", "off-cpu", "--pid", &pid, "-d", "3"]);
    let output = peer.wait_with_output().unwrap();
    let spread = watch.spread(Duration::from_secs(3));
    // `    -                mixer (4711)` and then microseconds.
    let text = String::from_utf8_lossy(&output.stdout);
    let mut theirs = 0.0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.contains("mixer (") {
            theirs += lines.next().unwrap().trim().parse::<f64>().unwrap();
        }
    }
    let mixer = thread(&profile, "mixer");
    let on_cpu_ns = mixer.parts.on_cpu_ns + mixer.parts.stolen_ns;
    let ours = 1.0 - on_cpu_ns as f64 / mixer.elapsed_ns as f64;
    let theirs = theirs / 4e6;
    // The two do not watch quite the same time: both are of windows in which the share of time on CPUs differed by this much.
    let tolerance = 0.03 + spread;
    assert!(
        (ours - theirs).abs() < tolerance,
        "off the CPU {ours:.3} of the time, {theirs:.3} by offcputime, tolerance {tolerance:.3}"
    );
}

/// Functions of the workload that wait, each by a stack of its own.
const WAITS: [&str; 4] = ["naps_briefly", "naps_long", "reads", "polls"];

#[test]
fn stacks_agree_with_offcputime() {
    let _live = live();
    skip_if!(in_vm() || !chokepoint_tests::workload::on_path("offcputime"), "offcputime is not installed");
    let workload = Workload::start("framed_c", &[]);
    let pid = workload.pid().to_string();
    let mut peer = Command::new("offcputime");
    peer.args(["-p", &pid, "4"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let peer = peer.spawn().expect("offcputime can be run");
    let profile = agent::record(&["-e", "wall", "--pid", &pid, "-d", "3"]);
    let output = peer.wait_with_output().unwrap();
    let theirs = told_stacks(&String::from_utf8_lossy(&output.stdout));
    let ours: Vec<(Vec<String>, u64)> = profile
        .samples
        .iter()
        .map(|sample| (functions(&profile, sample), sample.weight))
        .filter(|(names, _)| {
            let class = names.iter().find_map(|name| Class::from_frame(name));
            !matches!(class, Some(Class::CpuUser | Class::CpuKernel | Class::CpuStolen))
        })
        .map(|(names, weight)| (names.into_iter().rev().map(str::to_owned).collect(), weight))
        .collect();
    let waited = workload.truth();
    let truth = WAITS.map(|wait| waited[wait]);
    let [ours_by, theirs_by] = [&ours, &theirs].map(|stacks| WAITS.map(|wait| time_in(stacks, wait)));
    for (at, wait) in WAITS.into_iter().enumerate() {
        let shares = [ours_by, theirs_by, truth].map(|times| times[at] / times.iter().sum::<f64>());
        eprintln!(
            "measured: {wait} has {shares:.3?} of all waits: chokepoint, offcputime, the program itself"
        );
        // A window begins and ends within a round of some 16 ms: half a per cent of three seconds at either end. The rest is what the
        // threads' CPUs were busier in one window than in the other.
        for other in &shares[1..] {
            assert!((shares[0] - other).abs() <= 0.04, "{wait}: {shares:?}");
        }
        // The same functions in the same order, kernel and user, where ours also knows of inlined ones.
        let frames = |stacks: &[(Vec<String>, u64)]| {
            let stacks = stacks.iter().filter(|(names, _)| names.iter().any(|name| name == wait));
            stacks.max_by_key(|(_, time)| *time).map(|(names, _)| names.clone()).expect("it waits")
        };
        let (own, peers) = (frames(&ours), frames(&theirs));
        let switching =
            peers.iter().rposition(|name| name.starts_with("schedule")).expect("it gives up its CPU");
        let main = peers.iter().position(|name| name == "main").expect("it begins in main");
        let mut rest = own.iter();
        for frame in &peers[switching + 1..=main] {
            assert!(
                rest.any(|own| plain(own) == plain(frame)),
                "no {frame} in its place in {own:#?}: {peers:#?}"
            );
        }
        assert!(switching + 4 < main, "the kernel's frames are there: {peers:?}");
    }
}

/// Stacks with their time in nanoseconds, functions leaf first, from what offcputime prints: a function a line, then
/// `    -                framed_c (4711)`, then microseconds.
fn told_stacks(text: &str) -> Vec<(Vec<String>, u64)> {
    let mut stacks = Vec::new();
    let mut frames = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("- ") {
            let us: u64 = lines.next().and_then(|line| line.parse().ok()).expect("the time follows");
            stacks.push((std::mem::take(&mut frames), us * 1_000));
        } else if !line.is_empty() {
            frames.push(line.to_owned());
        }
    }
    stacks
}

/// Time of the stacks that have this function.
fn time_in(stacks: &[(Vec<String>, u64)], function: &str) -> f64 {
    let with = stacks.iter().filter(|(names, _)| names.iter().any(|name| name == function));
    with.map(|(_, time)| *time as f64).sum()
}

/// A kernel function without what the compiler put behind its name.
fn plain(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// Watches, by the kernel's own count, how much of the time a process's first thread runs.
struct RunShares {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<Vec<(Instant, f64)>>,
    host: HostTime,
}

impl RunShares {
    fn watch(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut readings = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).unwrap();
                readings.push((Instant::now(), text.split(' ').next().unwrap().parse().unwrap()));
                std::thread::sleep(Duration::from_millis(50));
            }
            readings
        });
        Self { stop, watcher, host: HostTime::begin() }
    }

    /// By how much the share of time on a CPU differs between windows of this length or more.
    fn spread(self, window: Duration) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let readings = self.watcher.join().unwrap();
        let first = readings[0].0;
        let stolen = self.host.stolen_at_most_ns() as f64 / first.elapsed().as_nanos() as f64;
        let mut shares = Vec::new();
        for (index, (begin, before)) in readings.iter().enumerate() {
            let end = readings[index..].iter().find(|(end, _)| end.duration_since(*begin) >= window);
            let share = |(end, after): &(Instant, f64)| {
                (after - before) / end.duration_since(*begin).as_nanos() as f64
            };
            shares.extend(end.map(share));
        }
        let most = shares.iter().copied().fold(0.0, f64::max);
        let least = shares.iter().copied().fold(1.0, f64::min);
        // What was stolen is not in the kernel's count, and may have come in one window alone.
        (most - least).max(0.0) + stolen
    }
}

#[test]
fn the_hosts_waits_are_chosen_without_bias() {
    let _live = live();
    skip_if!(in_vm(), "too few waits for a judgement");
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid();
    // Blocked time of the mixer by what it waited in, of all waits and of those that the budget chooses.
    let blocked = |profile: &Profile| {
        let mut by_class: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
        for sample in &profile.samples {
            let thread = profile.thread(sample.thread);
            let names = functions(profile, sample);
            let class = names.iter().find_map(|name| Class::from_frame(name)).expect("a class");
            if thread.pid == pid && thread.thread_name == "mixer" && class != Class::RunQueue {
                let sum = by_class.entry(class).or_default();
                *sum = (sum.0 + sample.count, sum.1 + sample.weight);
            }
        }
        by_class
    };
    let all = blocked(&agent::record(&["-e", "off-cpu", "--pid", &pid.to_string(), "-d", "2"]));
    // On a host where others have the CPUs, few of the chosen waits are the mixer's.
    let mut chosen: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
    let mut samples = 0;
    for _ in 0..MOST_RECORDINGS {
        for (class, (count, weight)) in blocked(&agent::record(&["-e", "off-cpu", "-d", "6"])) {
            let sum = chosen.entry(class).or_default();
            *sum = (sum.0 + count, sum.1 + weight);
        }
        samples = chosen.values().map(|(count, _)| count).sum();
        if samples > 50 {
            break;
        }
    }
    assert!(samples > 50, "{chosen:?}");
    let share = |sums: &BTreeMap<Class, (u64, u64)>, class: Class| {
        let total: u64 = sums.values().map(|(_, weight)| weight).sum();
        sums.get(&class).map_or(0.0, |(_, weight)| *weight as f64 / total as f64)
    };
    // Waits shorter than the period all stand for the same, so shares scatter as those of independent samples do.
    for class in [Class::Timer, Class::Ipc, Class::Futex] {
        let (expected, measured) = (share(&all, class), share(&chosen, class));
        let tolerance = share_tolerance(expected, samples) + 0.03;
        assert!(
            (measured - expected).abs() < tolerance,
            "{class}: {measured:.3} of the chosen, {expected:.3} of all, tolerance {tolerance:.3}: {chosen:?}"
        );
    }
}
