//! Every number of every answer is told with the source it is from, and is what that source says.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::*;
use crate::block::{Block, Device, Key, Latency, Operation, Owner, Requests, Totals};
use crate::connections::Connection;
use crate::memory::{Memory, ProcessMemory};
use crate::signals::{Distribution, Level, Signal, Signals, definition};

/// Where numbers are from that are no signals'.
const SOURCES: [&str; 12] = [
    "threads",
    "wakers",
    "run queue",
    "CPU samples",
    "stacks",
    "block requests",
    "held bios",
    "page faults",
    "connections",
    "failed calls",
    "host",
    "coverage",
];

fn with(mut profile: Profile, signals: &[(&str, f64)]) -> Profile {
    let signal = |(name, value): &(&str, f64)| {
        let definition = definition(name).unwrap_or_else(|| panic!("no signal {name}"));
        Signal {
            name: (*name).to_owned(),
            instance: String::new(),
            resource: definition.resource,
            kind: definition.kind,
            unit: definition.unit,
            value: *value,
            steps: Distribution::of(vec![*value]),
            level: Level::None,
            thresholds: None,
        }
    };
    let signals = signals.iter().map(signal).collect();
    profile.signals = Some(Signals { schema: 1, window_s: 10.0, steps: 10, signals, missing: Vec::new() });
    profile
}

/// Four threads that spend their time so, each `parts` with its class and functions.
fn four(parts: &[(Class, &[&str], u64)]) -> Recording {
    let mut r = Recording::new();
    for n in 0..4 {
        let who = r.thread(1, 1 + n, "worker");
        for (class, functions, tenths) in parts {
            r.spends(who, *class, None, functions, tenths * WINDOW / 10);
        }
    }
    r
}

/// Requests of a device that took so long in all.
fn requests(operation: Operation, count: u64, ns: u64) -> Block {
    let mut device = Latency { total_ns: ns, ..Latency::default() };
    (0..count).for_each(|_| device.times.add(ns / count));
    let key = Key {
        device: Device { name: "sda".into(), ..Device::default() },
        operation,
        owner: Owner::default(),
        of_target: true,
    };
    let totals = Totals { requests: count, device, ..Totals::default() };
    Block { requests: vec![Requests { key, totals }], ..Block::default() }
}

fn waiting_for(class: Class, functions: &[&str], block: Block) -> Profile {
    let mut profile = four(&[(class, functions, 9), (Class::CpuUser, &["works"], 1)]).finish();
    profile.block = Some(block);
    profile
}

/// Each waits for the next, in turns.
fn turns(class: Class, functions: &[&str]) -> Profile {
    let mut r = Recording::new();
    let all: Vec<Who> = (0..4).map(|n| r.thread(1, 10 + n, "worker")).collect();
    for (n, who) in all.iter().enumerate() {
        r.spends(*who, Class::CpuUser, None, &["holds"], WINDOW / 4);
        let ns = 3 * WINDOW / 4;
        r.waits(*who, class, Some("futex 0x10"), functions, ns, &[(all[(n + 1) % 4], ns)]);
    }
    r.finish()
}

fn churning() -> Profile {
    let mut r = Recording::new();
    let parent = r.thread(1, 1, "shell");
    for n in 0..200 {
        let child = r.thread(100 + n, 100 + n, "true");
        r.spends(child, Class::CpuUser, None, &["starts"], WINDOW / 400);
        r.times[1 + n as usize].ended = true;
        r.waits(parent, Class::Child, None, &["wait4", "runs"], WINDOW / 400, &[(child, WINDOW / 400)]);
    }
    r.finish()
}

fn pool_of(service: bool) -> Profile {
    let mut r = Recording::new();
    let all: Vec<Who> = (0..16).map(|n| r.thread(1, 10 + n, "handler")).collect();
    let outside = r.outsider(2, "service");
    for who in &all[..2] {
        if service {
            let answer = Some("tcp 127.0.0.1:40000-127.0.0.1:5432");
            r.waits(*who, Class::Event, answer, &["asks"], WINDOW, &[(outside, WINDOW)]);
        } else {
            r.spends(*who, Class::CpuUser, None, &["handles"], WINDOW);
        }
    }
    for who in &all[2..] {
        let ends = [(all[0], WINDOW / 2), (all[1], WINDOW / 2)];
        r.waits(*who, Class::Futex, Some("futex 0x10"), &["sem_wait", "borrows"], WINDOW, &ends);
    }
    r.finish()
}

fn asks_another(retransmits: u64) -> Profile {
    let mut r = Recording::new();
    let (own, other) = (r.thread(1, 1, "own"), r.outsider(2, "other"));
    r.spends(own, Class::CpuUser, None, &["works"], WINDOW / 10);
    let ns = 9 * WINDOW / 10;
    r.waits(own, Class::NetReceive, Some("tcp 10.0.0.1:40000-10.0.0.2:81"), &["reads"], ns, &[(other, ns)]);
    let mut profile = r.finish();
    let address = |host, port| SocketAddr::from(([10, 0, 0, host], port));
    profile.connections = vec![Connection {
        namespace: 1,
        local: address(1, 40_000),
        remote: address(2, 81),
        is_accepted: false,
        pid: Some(1),
        process_name: "own".into(),
        peer_pid: None,
        open: true,
        rtt_us: 1_500,
        min_rtt_us: 1_000,
        congestion_window: 10,
        bytes_sent: 1_000_000,
        bytes_received: 1_000,
        retransmits,
        busy_ns: 0,
        receiver_limited_ns: 0,
        buffer_limited_ns: 0,
    }];
    profile
}

/// A parent that waits for a child: that naps, or that is no part of the target.
fn parent(child_naps: bool) -> Profile {
    let mut r = Recording::new();
    let parent = r.thread(1, 1, "parent");
    r.spends(parent, Class::CpuUser, None, &["works"], WINDOW / 10);
    let child = if child_naps {
        let child = r.thread(2, 2, "child");
        r.spends(child, Class::Timer, None, &["naps"], WINDOW);
        child
    } else {
        r.outsider(2, "child")
    };
    let ns = 9 * WINDOW / 10;
    r.waits(parent, Class::Child, None, &["wait4", "awaits"], ns, &[(child, ns)]);
    r.finish()
}

/// A recording for each detector.
fn recordings() -> Vec<Profile> {
    use Class::{
        CpuKernel, CpuStolen, CpuUser, Event, Idle, IoDirtyThrottled, IoRead, IoSync, IoWrite, LockFile,
        LockKernel, MemoryReclaim, NetAccept, RunQueue, Throttled,
    };
    let mut queued = four(&[(CpuUser, &["works"], 5), (RunQueue, &["works"], 5)]);
    queued.run_queue = Some(queued_behind(1, 1, 2 * WINDOW));
    let mut behind = four(&[(CpuUser, &["works"], 5), (RunQueue, &["works"], 5)]);
    behind.run_queue = Some(queued_behind(1, 9, 2 * WINDOW));
    let mut single = Recording::new();
    let who = single.thread(1, 1, "loop");
    single.spends(who, CpuUser, None, &["works"], WINDOW);
    let mut faulting =
        four(&[(CpuKernel, &["handle_mm_fault_[k]", "touches"], 6), (CpuUser, &["works"], 2)]).finish();
    let process = ProcessMemory { pid: 1, minor_faults: 2_000_000, ..ProcessMemory::default() };
    faulting.memory = Some(Memory { processes: vec![process], ..Memory::default() });
    let mut outside = Recording::new();
    let (writer, reader) = (outside.thread(1, 1, "writer"), outside.outsider(2, "reader"));
    outside.waits(
        writer,
        Class::Ipc,
        Some("pipe 7"),
        &["pipe_write_[k]", "hands"],
        WINDOW,
        &[(reader, WINDOW)],
    );
    let collecting =
        four(&[(CpuUser, &["mark", "G1EvacuateRegionsTask::work"], 5), (CpuUser, &["works"], 3)]);
    let storm = four(&[(CpuUser, &["serves"], 5), (NetAccept, &["accepts"], 5)]);
    let mut storm = storm.finish();
    storm.header.target = "host".into();
    let spin = four(&[(CpuUser, &["works"], 5), (CpuUser, &[SPINS, "works"], 5)]);
    let mut database = Recording::new();
    let all: Vec<Who> = (1..5).map(|pid| database.thread(pid, pid, "database")).collect();
    for (n, who) in all.iter().enumerate() {
        database.spends(*who, CpuUser, None, &["updates"], WINDOW / 5);
        let ends = [(all[(n + 1) % 4], 4 * WINDOW / 5)];
        let kill = &["__x64_sys_kill_[k]", "gives"][..];
        database.waits_until(*who, Event, Some("epoll"), &["latch", "row"], 4 * WINDOW / 5, (kill, &ends));
    }
    let reclaims = || four(&[(MemoryReclaim, &["allocates"], 6), (CpuUser, &["works"], 2)]).finish();
    let (slow, fast) = (4 * WINDOW / 2, WINDOW / 100);
    vec![
        single.finish(),
        queued.finish(),
        behind.finish(),
        with(four(&[(CpuUser, &["works"], 10)]).finish(), &[("cpu.utilization", 99.0)]),
        with(convoy(Throttled), &[("group.throttled_periods", 80.0)]),
        with(four(&[(CpuUser, &["works"], 4), (CpuStolen, &["works"], 4)]).finish(), &[("cpu.steal", 35.0)]),
        four(&[(CpuKernel, &["__x64_sys_read_[k]", "reads"], 7), (CpuUser, &["works"], 1)]).finish(),
        churning(),
        waiting_for(IoRead, &["reads"], requests(Operation::Read, 100, slow)),
        waiting_for(IoWrite, &["writes"], requests(Operation::Write, 100, slow)),
        waiting_for(IoSync, &["flushes"], requests(Operation::Flush, 100, slow)),
        waiting_for(IoDirtyThrottled, &["writes"], requests(Operation::Write, 100, slow)),
        waiting_for(IoRead, &["reads"], requests(Operation::Read, 100, fast)),
        with(reclaims(), &[("memory.refaults", 900.0)]),
        with(reclaims(), &[("memory.swap_in", 900.0)]),
        faulting,
        collecting.finish(),
        turns(Class::Futex, MUTEX),
        turns(Class::Futex, &["take_gil", "evaluates"]),
        turns(Class::Futex, &["ObjectMonitor::enter", "prices"]),
        turns(LockKernel, &["rwsem_down_write_slowpath_[k]", "maps"]),
        turns(LockFile, &["flock_[k]", "locks"]),
        database.finish(),
        spin.finish(),
        pool_of(false),
        pool_of(true),
        asks_another(0),
        asks_another(200),
        with(storm, &[("tcp.opened", 100.0), ("tcp.resets", 90.0)]),
        with(four(&[(Idle, &["waits"], 10)]).finish(), &[("tcp.listen_overflows", 7.0)]),
        with_failing("openat", "EMFILE"),
        with_failing("clone3", "EAGAIN"),
        outside.finish(),
        parent(false),
        parent(true),
        four(&[(Idle, &["waits"], 10)]).finish(),
        four(&[(CpuUser, &["works"], 3), (Idle, &["waits"], 7)]).finish(),
        four(&[(Class::Other, &["waits"], 9), (CpuUser, &["works"], 1)]).finish(),
    ]
}

fn with_failing(call: &str, error: &str) -> Profile {
    let mut profile = four(&[(Class::Timer, &["tries"], 10)]).finish();
    let call = FailedCall {
        pid: 1,
        process_name: "worker".into(),
        call: call.into(),
        error: error.into(),
        failed: 70,
        attempts: 100,
    };
    profile.failed_calls = Some(FailedCalls { looked_ns: SECOND, calls: vec![call] });
    profile
}

/// The numbers that stand alone in a sentence, with the digits behind their points.
fn numbers(text: &str) -> impl Iterator<Item = (f64, usize)> {
    let words = text.split([' ', ',']).map(|word| word.trim_end_matches(['.', ':']));
    words.filter_map(|word| {
        let is_number = word.chars().all(|letter| letter.is_ascii_digit() || letter == '.');
        let digits = word.split_once('.').map_or(0, |(_, digits)| digits.len());
        Some((word.parse().ok().filter(|_| is_number)?, digits))
    })
}

fn check(finding: &Finding, profile: &Profile) {
    let code = finding.code;
    let facts: Vec<&Fact> = finding.evidence.iter().chain(&finding.counter_evidence).collect();
    for fact in facts.iter().copied().chain(&finding.confidence_from) {
        assert!(fact.value.is_finite() && !fact.what.is_empty(), "{code}: {fact:?}");
        match fact.source.strip_prefix("signal ") {
            Some(name) => {
                assert!(definition(name).is_some(), "{code}: no signal is called {name}");
                let signals = profile.signals.iter().flat_map(|signals| &signals.signals);
                let Some(signal) = signals.into_iter().find(|signal| signal.name == name) else { continue };
                let is_own = fact.what.starts_with("for a number") || fact.what.starts_with("for the number");
                let is_share = fact.what.contains("held back by it");
                assert!(is_own || is_share || (fact.value - signal.value).abs() < 1e-9, "{code}: {fact:?}");
            }
            None => assert!(SOURCES.contains(&fact.source.as_str()), "{code}: {fact:?}"),
        }
    }
    for (number, digits) in numbers(&finding.summary) {
        let shown = |fact: &&&Fact| format!("{:.digits$}", fact.value) == format!("{number:.digits$}");
        assert!(
            facts.iter().any(|fact| shown(&fact)),
            "{code}: {number} of {:?} is in no fact",
            finding.summary
        );
    }
    if code.is_constraint() {
        let share = finding.share * 100.0;
        assert!(facts.iter().any(|fact| (fact.value - share).abs() < 1e-6), "{code}: {share} is in no fact");
    }
    if let Some(gain) = finding.gain_upper_bound {
        assert!((gain - 1.0 / (1.0 - finding.share)).abs() < 1e-3, "{code}: {gain}");
    }
    let sum: f64 = finding.confidence_from.iter().map(|part| part.value).sum();
    assert!((sum - finding.confidence).abs() < 1e-9, "{code}: {sum} is not {}", finding.confidence);
}

#[test]
fn every_number_of_every_answer_is_traced() {
    let mut seen = BTreeSet::new();
    for profile in recordings() {
        let diagnosis = diagnose(&profile);
        for finding in diagnosis.ranked.iter().chain([&diagnosis.verdict]) {
            seen.insert(finding.code);
            check(finding, &profile);
        }
        let page = text::page(&diagnosis, text::Style { explain: true, ..text::Style::default() });
        let verdict = &diagnosis.verdict;
        let told = verdict.evidence.iter().chain(&verdict.counter_evidence).chain(&diagnosis.modifiers);
        for fact in told {
            assert!(page.contains(&fact.number()) && page.contains(&format!("[{}]", fact.source)), "{page}");
        }
    }
    let missing: Vec<&str> =
        Code::ALL.into_iter().filter(|code| !seen.contains(code)).map(Code::name).collect();
    assert_eq!(missing, [""; 0], "no recording has these");
}

#[test]
fn time_that_was_taken_is_told_beside_whatever_limits() {
    let quiet = diagnose(&with(convoy(Class::CpuUser), &[("cpu.steal", 4.0)]));
    assert_eq!(quiet.modifiers, []);
    let taken = diagnose(&with(convoy(Class::CpuUser), &[("cpu.steal", 25.0), ("cpu.interrupts", 6.0)]));
    assert_eq!(taken.verdict.code, Code::LockMutex);
    let told: Vec<(&str, f64)> =
        taken.modifiers.iter().map(|fact| (fact.source.as_str(), fact.value)).collect();
    assert_eq!(told, [("signal cpu.steal", 25.0), ("signal cpu.interrupts", 6.0)]);
    let page = text::page(&taken, text::Style::default());
    assert!(page.contains("25 %") && page.contains("taken by the hypervisor"), "{page}");
    let verdict = &taken.verdict;
    assert_eq!(verdict.confidence, quiet.verdict.confidence);
}

#[test]
fn what_was_not_looked_at_makes_an_answer_less_sure_and_is_told() {
    let whole = with(
        waiting_for(Class::IoSync, &["flushes"], requests(Operation::Flush, 100, 2 * WINDOW)),
        &[("block.pressure", 90.0)],
    );
    let mut bare = whole.clone();
    (bare.signals, bare.block) = (None, None);
    let (whole, bare) = (diagnose(&whole), diagnose(&bare));
    assert_eq!((whole.verdict.code, bare.verdict.code), (Code::IoSyncWrite, Code::IoSyncWrite));
    assert!(whole.verdict.confidence - bare.verdict.confidence > 0.29, "{:#?}", bare.verdict);
    for missing in ["signals were not read", "block devices were not watched"] {
        let is_told = |of: &Diagnosis| of.coverage.missing.iter().any(|what| what.contains(missing));
        assert_eq!((is_told(&whole), is_told(&bare)), (false, true), "{missing}");
    }
}
