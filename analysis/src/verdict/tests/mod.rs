//! Verdicts of recordings whose truth is known, and what holds of every recording.

mod explained;
mod services;
mod turns;
mod windows;

use super::*;
use crate::activity::Class;
use crate::coverage::Coverage;
use crate::durations::Durations;
use crate::failed_calls::{FailedCall, FailedCalls};
use crate::profile::{
    Basis as Counted, Builder, Function, Header, Line, Location, Module, ModuleKind, Sample, StackId, Thread,
    ThreadId, Unit, Wake,
};
use crate::run_queue::{Queue, RunQueue, Runner};
use crate::thread_time::{Parts, ThreadTime};

const SECOND: u64 = 1_000_000_000;
const WINDOW: u64 = 10 * SECOND;
/// A function that is a loop that waits for another thread.
const SPINS: &str = "takes_its_turn";

/// A recording in the making.
struct Recording {
    builder: Builder,
    times: Vec<ThreadTime>,
    run_queue: Option<RunQueue>,
    target: &'static str,
}

#[derive(Clone, Copy)]
struct Who {
    id: ThreadId,
    time: Option<usize>,
}

impl Recording {
    fn new() -> Self {
        Self { builder: Builder::new(), times: Vec::new(), run_queue: None, target: "pid 1" }
    }

    fn outsider(&mut self, pid: u32, name: &str) -> Who {
        let thread = Thread { pid, tid: pid, process_name: name.into(), thread_name: name.into() };
        Who { id: self.builder.thread(thread), time: None }
    }

    fn thread(&mut self, pid: u32, tid: u32, name: &str) -> Who {
        let thread = Thread { pid, tid, process_name: name.into(), thread_name: name.into() };
        self.times.push(ThreadTime {
            pid,
            tid,
            process_name: name.into(),
            thread_name: name.into(),
            cgroup_id: 0,
            elapsed_ns: 0,
            parts: Parts::default(),
            user_share: None,
            switches: 0,
            ended: false,
        });
        Who { id: self.builder.thread(thread), time: Some(self.times.len() - 1) }
    }

    fn stack(&mut self, class: Option<Class>, object: Option<&str>, functions: &[&str]) -> StackId {
        let mut locations = Vec::new();
        let object = object.map(|object| format!("[{object}]"));
        for name in object.into_iter().chain(class.map(Class::frame)) {
            locations.push(self.location(ModuleKind::Activity, "[activity]", &name));
        }
        for name in functions {
            let (kind, path) = match name.strip_suffix("_[k]") {
                Some(_) => (ModuleKind::Kernel, "[kernel]"),
                None => (ModuleKind::Binary, "/bin/program"),
            };
            locations.push(self.location(kind, path, name.trim_end_matches("_[k]")));
        }
        self.builder.stack(locations)
    }

    fn location(&mut self, kind: ModuleKind, path: &str, name: &str) -> crate::profile::LocationId {
        let module = self.builder.module(Module { kind, path: path.into(), build_id: Vec::new() });
        let function = self.builder.function(Function { name: name.into(), file: String::new() });
        self.builder.location(Location {
            module,
            address: 1,
            lines: vec![Line { function, line: 0 }],
            is_spin_wait: name == SPINS,
        })
    }

    fn spends(
        &mut self,
        who: Who,
        class: Class,
        object: Option<&str>,
        functions: &[&str],
        ns: u64,
    ) -> StackId {
        let stack = self.stack(Some(class), object, functions);
        self.builder.add(Sample { thread: who.id, stack, count: ns / 10_000_000, weight: ns });
        if let Some(time) = who.time {
            let time = &mut self.times[time];
            time.elapsed_ns += ns;
            match class {
                Class::CpuUser | Class::CpuKernel => time.parts.on_cpu_ns += ns,
                Class::CpuStolen => time.parts.stolen_ns += ns,
                Class::RunQueue => time.parts.preempted_ns += ns,
                Class::Throttled => time.parts.throttled_ns += ns,
                _ => time.parts.interruptible_ns += ns,
            }
        }
        stack
    }

    /// A wait that another ended.
    fn waits(
        &mut self,
        who: Who,
        class: Class,
        object: Option<&str>,
        functions: &[&str],
        ns: u64,
        enders: &[(Who, u64)],
    ) {
        self.waits_until(who, class, object, functions, ns, (&["gives_back"], enders));
    }

    /// The same, with the functions that ended it.
    fn waits_until(
        &mut self,
        who: Who,
        class: Class,
        object: Option<&str>,
        functions: &[&str],
        ns: u64,
        (by, enders): (&[&str], &[(Who, u64)]),
    ) {
        let stack = self.spends(who, class, object, functions, ns);
        let waker_stack = self.stack(None, None, by);
        for (ender, weight) in enders {
            let waker = Some(ender.id);
            self.builder.add_wake(Wake {
                thread: who.id,
                stack,
                waker,
                waker_stack,
                count: 10,
                weight: *weight,
            });
        }
    }

    fn finish(self) -> Profile {
        let header = Header {
            title: "Thread time".into(),
            kind: "all".into(),
            unit: Unit::Nanoseconds,
            basis: Counted::Weight,
            period: 10_000_000,
            start_unix_ns: 0,
            duration_ns: WINDOW,
            host: "h".into(),
            target: self.target.into(),
            cpus: 4,
            kernel: "6.1.0".into(),
            program: "0.1.0".into(),
        };
        let coverage = Coverage { attempted: 1000, captured: 1000, ..Coverage::default() };
        let mut profile = self.builder.finish(header, coverage);
        (profile.thread_times, profile.run_queue) = (self.times, self.run_queue);
        profile
    }
}

/// The queueing of a process behind another, or behind itself.
fn queued_behind(pid: u64, runner: u64, ns: u64) -> RunQueue {
    let queue = Queue {
        id: pid,
        name: "worker".into(),
        queued_ns: ns,
        latencies: Durations::default(),
        behind: vec![(Runner::One { id: runner, name: "runner".into() }, ns)],
    };
    RunQueue { processes: vec![queue], cgroups: Vec::new() }
}

const MUTEX: &[&str] = &["pthread_mutex_lock", "takes_turn"];

/// Four threads that take turns at one lock; the holder spends its time as it is told.
fn convoy(of_holder: Class) -> Profile {
    let mut r = Recording::new();
    let threads: Vec<Who> = (0..4).map(|n| r.thread(1, 10 + n, "worker")).collect();
    for (n, who) in threads.iter().enumerate() {
        r.spends(*who, of_holder, None, &["holds"], WINDOW / 4);
        let others: Vec<(Who, u64)> = threads
            .iter()
            .enumerate()
            .filter(|(m, _)| *m != n)
            .map(|(_, other)| (*other, WINDOW / 4))
            .collect();
        r.waits(*who, Class::Futex, Some("futex 0x10"), MUTEX, 3 * WINDOW / 4, &others);
    }
    r.finish()
}

#[test]
fn a_lock_is_the_constraint_while_its_holder_works() {
    let diagnosis = diagnose(&convoy(Class::CpuUser));
    let verdict = &diagnosis.verdict;
    assert_eq!((verdict.code, verdict.severity), (Code::LockMutex, Severity::Critical));
    assert!((verdict.share - 0.75).abs() < 1e-9, "{}", verdict.share);
    assert_eq!(verdict.gain_upper_bound, Some(4.0));
    assert_eq!(verdict.functions, ["pthread_mutex_lock", "takes_turn", "gives_back", "holds"]);
    assert!(verdict.path.iter().any(|step| step.contains("futex 0x10")), "{:?}", verdict.path);
}

#[test]
fn behind_a_lock_is_what_its_holder_waits_for() {
    for (class, code) in [
        (Class::Throttled, Code::CpuQuota),
        (Class::IoSync, Code::IoSyncWrite),
        (Class::RunQueue, Code::CpuSaturated),
        (Class::MemoryReclaim, Code::MemReclaim),
    ] {
        let verdict = diagnose(&convoy(class)).verdict;
        assert_eq!(verdict.code, code, "{verdict:#?}");
        assert!((verdict.share - 1.0).abs() < 1e-9, "{}", verdict.share);
    }
}

#[test]
fn a_client_and_its_server_are_limited_by_the_server() {
    let mut r = Recording::new();
    let (client, server) = (r.thread(1, 1, "client"), r.thread(2, 2, "server"));
    let ends = |a, b| format!("tcp 127.0.0.1:{a}-127.0.0.1:{b}");
    r.spends(client, Class::CpuUser, None, &["asks"], WINDOW / 20);
    r.waits(
        client,
        Class::NetReceive,
        Some(&ends(40_000, 80)),
        &["asks"],
        19 * WINDOW / 20,
        &[(server, 19 * WINDOW / 20)],
    );
    // What stands for frames that are missing is no function.
    r.spends(
        server,
        Class::CpuUser,
        None,
        &["answers", "[incomplete: no unwind table yet]"],
        19 * WINDOW / 20,
    );
    r.waits(
        server,
        Class::NetReceive,
        Some(&ends(80, 40_000)),
        &["serves"],
        WINDOW / 20,
        &[(client, WINDOW / 20)],
    );
    let verdict = diagnose(&r.finish()).verdict;
    assert_eq!((verdict.code, &verdict.culprits[..]), (Code::CpuSingleThread, &["server".to_owned()][..]));
    assert_eq!(verdict.functions, ["answers"]);
}

#[test]
fn an_answer_from_outside_is_waited_for_and_a_request_is_not() {
    let record = |object: &str| {
        let mut r = Recording::new();
        let (own, other) = (r.thread(1, 1, "own"), r.outsider(2, "other"));
        r.spends(own, Class::CpuUser, None, &["works"], WINDOW / 10);
        r.waits(
            own,
            Class::NetReceive,
            Some(object),
            &["reads"],
            9 * WINDOW / 10,
            &[(other, 9 * WINDOW / 10)],
        );
        diagnose(&r.finish()).verdict
    };
    let client = record("tcp 10.0.0.1:40000-10.0.0.2:5432");
    assert_eq!((client.code, &client.culprits[..]), (Code::NetDownstream, &["other".to_owned()][..]));
    assert!(client.path.contains(&"tcp 10.0.0.2:5432".to_owned()), "{:?}", client.path);
    let server = record("tcp 10.0.0.1:80-10.0.0.2:40000");
    assert_eq!(server.code, Code::NoneHealthy, "{server:#?}");
}

#[test]
fn who_ran_meanwhile_tells_a_neighbour_from_too_many_threads() {
    for (runner, code) in [(1, Code::CpuSaturated), (9, Code::CpuNoisyNeighbour)] {
        let mut r = Recording::new();
        for n in 0..4 {
            let who = r.thread(1, 1 + n, "worker");
            r.spends(who, Class::CpuUser, None, &["works"], WINDOW / 2);
            r.spends(who, Class::RunQueue, None, &["works"], WINDOW / 2);
        }
        r.run_queue = Some(queued_behind(1, runner, 2 * WINDOW));
        let verdict = diagnose(&r.finish()).verdict;
        assert_eq!(verdict.code, code, "{verdict:#?}");
        assert!((verdict.share - 0.5).abs() < 1e-9);
    }
}

#[test]
fn who_holds_a_lock_does_not_wait_for_it() {
    let mut r = Recording::new();
    let threads = ["a", "b", "c"].map(|name| r.thread(1, u32::from(name.as_bytes()[0]), name));
    for (n, class) in [Class::CpuUser, Class::IoSync, Class::Throttled].into_iter().enumerate() {
        r.spends(threads[n], class, None, &["holds"], WINDOW / 3);
        let next = threads[(n + 1) % 3];
        r.waits(threads[n], Class::Futex, Some("futex 0x10"), MUTEX, WINDOW / 3, &[(next, WINDOW / 3)]);
    }
    let profile = r.finish();
    let account = Account::of(&profile);
    let flow = Flow::of(&account);
    // While the second holds it, it is not waiting for the third.
    assert!(flow.parts.iter().all(|part| part.hops.len() <= 1), "{:#?}", flow.parts);
    assert_eq!(flow.parts.iter().filter(|part| part.is_behind_lock()).count(), 3);
}

#[test]
fn threads_that_a_lock_wakes_behind_each_other_are_not_short_of_cpus() {
    let record = |runner: u64| {
        let mut r = Recording::new();
        let threads: Vec<Who> = (0..4).map(|n| r.thread(1, 10 + n, "worker")).collect();
        for (n, who) in threads.iter().enumerate() {
            r.spends(*who, Class::CpuUser, None, &["holds"], WINDOW / 4);
            r.spends(*who, Class::RunQueue, None, &["holds"], WINDOW / 4);
            let other = threads[(n + 1) % 4];
            r.waits(*who, Class::Futex, Some("futex 0x10"), MUTEX, WINDOW / 2, &[(other, WINDOW / 2)]);
        }
        r.run_queue = Some(queued_behind(1, runner, WINDOW));
        diagnose(&r.finish())
    };
    let in_turns = record(1);
    assert_eq!(in_turns.verdict.code, Code::LockMutex);
    assert!((in_turns.verdict.share - 0.75).abs() < 1e-9, "{}", in_turns.verdict.share);
    let others = [Code::CpuSaturated, Code::WaitIpc];
    assert!(in_turns.ranked.iter().all(|finding| !others.contains(&finding.code)), "{in_turns:#?}");
    // Of four, one runs, and those that queue are not in its way.
    assert_eq!(in_turns.verdict.counter_evidence, []);
    let behind_another = record(9);
    assert!(behind_another.ranked.iter().any(|finding| finding.code == Code::CpuNoisyNeighbour));
}

#[test]
fn what_more_speaks_against_than_for_is_no_verdict() {
    let mut r = Recording::new();
    let threads: Vec<Who> = (0..8).map(|n| r.thread(1, 10 + n, "worker")).collect();
    for (n, who) in threads.iter().enumerate() {
        // More of them get on than a lock lets.
        r.spends(*who, Class::CpuUser, None, &["holds"], 4 * WINDOW / 10);
        let (other, waited) = (threads[(n + 1) % 8], 6 * WINDOW / 10);
        r.waits(*who, Class::Futex, Some("futex 0x10"), MUTEX, waited, &[(other, waited)]);
    }
    let diagnosis = diagnose(&r.finish());
    assert_eq!(diagnosis.verdict.code, Code::Unknown, "{:#?}", diagnosis.verdict);
    assert!(diagnosis.verdict.summary.contains("lock.mutex"), "{}", diagnosis.verdict.summary);
    assert_eq!(diagnosis.ranked[1].code, Code::LockMutex);
}

#[test]
fn loops_that_wait_are_told_by_their_instructions() {
    let record = |function: &str| {
        let mut r = Recording::new();
        for n in 0..2 {
            let who = r.thread(1, 10 + n, "worker");
            r.spends(who, Class::CpuUser, None, &["works"], WINDOW / 2);
            r.spends(who, Class::CpuUser, None, &[function, "works"], WINDOW / 2);
        }
        diagnose(&r.finish())
    };
    let verdict = record(SPINS).verdict;
    assert_eq!((verdict.code, &verdict.functions[0]), (Code::LockSpin, &SPINS.to_owned()));
    assert!((verdict.share - 0.5).abs() < 1e-9, "{}", verdict.share);
    let counts = record("counts");
    assert!(counts.ranked.iter().all(|finding| finding.code != Code::LockSpin), "{counts:#?}");
}

#[test]
fn short_pauses_over_and_over_make_health_less_certain() {
    let record = |pauses: u64| {
        let mut r = Recording::new();
        let who = r.thread(1, 1, "worker");
        r.spends(who, Class::CpuUser, None, &["works"], WINDOW / 10);
        let weight = 9 * WINDOW / 10;
        let stack = r.spends(who, Class::Timer, None, &["naps"], weight);
        let waker_stack = r.stack(None, None, &["hrtimer_interrupt_[k]"]);
        let wake = Wake { thread: who.id, stack, waker: None, waker_stack, count: pauses, weight };
        r.builder.add_wake(wake);
        diagnose(&r.finish()).verdict
    };
    let (polls, keeps_house) = (record(900), record(9));
    assert_eq!((polls.code, keeps_house.code), (Code::NoneHealthy, Code::NoneHealthy));
    assert_eq!((polls.counter_evidence.len(), keeps_house.counter_evidence.len()), (1, 0));
    assert!((keeps_house.confidence - polls.confidence - confidence::AGAINST).abs() < 1e-9);
}

/// A process that pauses nearly all of the time, with calls of it that failed.
fn refused(call: &str, error: &str, failed: u64) -> Diagnosis {
    let mut r = Recording::new();
    let who = r.thread(7, 7, "web");
    r.spends(who, Class::Timer, None, &["tries_again"], 99 * WINDOW / 100);
    r.spends(who, Class::CpuUser, None, &["answers"], WINDOW / 200);
    let entry = format!("__x64_sys_{call}_[k]");
    r.spends(who, Class::CpuKernel, None, &[&entry, "opens", "serves"], WINDOW / 200);
    let mut profile = r.finish();
    let call = FailedCall {
        pid: 7,
        process_name: "web".into(),
        call: call.into(),
        error: error.into(),
        failed,
        attempts: 1_000,
    };
    profile.failed_calls = Some(FailedCalls { looked_ns: SECOND, calls: vec![call] });
    diagnose(&profile)
}

#[test]
fn calls_that_a_limit_refuses_are_found_though_the_process_looks_idle() {
    let verdict = refused("openat", "EMFILE", 70).verdict;
    assert_eq!((verdict.code, verdict.severity), (Code::LimitFd, Severity::Critical));
    assert_eq!(verdict.processes, ["web"]);
    assert_eq!(verdict.functions[0], "opens");
    assert_eq!((verdict.evidence[0].value, verdict.evidence[0].unit), (70.0, "/s"));
    assert_eq!(refused("clone3", "EAGAIN", 70).verdict.code, Code::LimitPids);
    // One in a thousand is no limit to what the process does, and an error of another kind none of these limits.
    assert!(!refused("openat", "EMFILE", 1).verdict.code.is_constraint());
    assert!(!refused("write", "ENOSPC", 500).verdict.code.is_constraint());
}

#[test]
fn who_waits_for_work_or_for_a_time_is_idle() {
    let mut r = Recording::new();
    r.target = "host";
    let [epoll, sleeper, hung] = [1, 2, 3].map(|pid| r.thread(pid, pid, "daemon"));
    r.spends(epoll, Class::Event, None, &["loop"], WINDOW);
    r.spends(sleeper, Class::Timer, None, &["sleeps"], WINDOW);
    r.spends(hung, Class::Futex, Some("futex 0x1"), &["waits"], WINDOW);
    let diagnosis = diagnose(&r.finish());
    let verdict = &diagnosis.verdict;
    assert_eq!((verdict.code, verdict.severity), (Code::NoneIdle, Severity::None));
    assert!(diagnosis.ranked.iter().all(|finding| finding.severity <= Severity::Low));
}

#[test]
fn without_times_nothing_is_claimed() {
    let verdict = diagnose(&Recording::new().finish()).verdict;
    assert!(!verdict.code.is_constraint());
}

/// Threads with waits among each other, by a generator with this seed.
fn random(seed: u64, threads: u32, reversed: bool) -> Profile {
    let mut r = Recording::new();
    let mut state = seed;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let who: Vec<Who> =
        (0..threads).map(|n| r.thread(1 + n / 8, 1 + n, ["a", "b1", "b2", "c"][n as usize % 4])).collect();
    let mut waits: Vec<(Who, Class, String, u64, Who)> = Vec::new();
    for own in &who {
        r.spends(*own, Class::CpuUser, None, &["f"], 1 + next(SECOND));
        for _ in 0..next(5) {
            let class = Class::ALL[3 + next(20) as usize];
            let object = format!("futex {:#x}", next(4));
            waits.push((*own, class, object, 1 + next(SECOND), who[next(u64::from(threads)) as usize]));
        }
    }
    if reversed {
        waits.reverse();
    }
    for (own, class, object, ns, ender) in waits {
        r.waits(own, class, Some(&object), &["g"], ns, &[(ender, ns / 2)]);
    }
    r.finish()
}

#[test]
fn every_nanosecond_has_one_root_and_the_order_of_events_does_not_matter() {
    for seed in 0..50 {
        let profile = random(seed, 40, false);
        let account = Account::of(&profile);
        let flow = Flow::of(&account);
        let (told, there) = (flow.sum(|_| true), profile.total_weight() as f64);
        assert!((told - there).abs() < 1e-6 * there, "seed {seed}: {told} of {there}");
        let decomposed: u64 = account.by_class().iter().map(|(_, ns)| ns).sum();
        assert_eq!(decomposed, profile.total_weight());

        let (one, other) = (diagnose(&profile), diagnose(&random(seed, 40, true)));
        assert_eq!(one.verdict.code, other.verdict.code, "seed {seed}");
        assert!((one.verdict.share - other.verdict.share).abs() < 1e-6, "seed {seed}");
    }
}

#[test]
fn ten_thousand_threads_and_one_are_answered() {
    assert!(diagnose(&random(1, 10_000, false)).verdict.confidence > 0.0);
    assert!(diagnose(&random(1, 1, false)).verdict.confidence > 0.0);
}

#[test]
fn the_contract_of_the_json() {
    let value = serde_json::to_value(diagnose(&convoy(Class::CpuUser))).unwrap();
    assert_eq!(value["schema"], 1);
    for field in [
        "code",
        "confidence",
        "severity",
        "share",
        "gain_upper_bound",
        "processes",
        "culprits",
        "functions",
        "path",
        "hypothesis",
        "next_steps",
    ] {
        assert!(value["verdict"].get(field).is_some(), "{field}");
        assert!(value["ranked"][0].get(field).is_some(), "{field}");
    }
    assert_eq!(value["verdict"]["severity"], "critical");
    assert_eq!(value["decomposition"]["cpu.user"], 10.0);
    assert!(value["coverage"].is_object());
}

#[test]
fn codes_have_names_of_their_own() {
    let names: std::collections::HashSet<&str> = Code::ALL.into_iter().map(Code::name).collect();
    assert_eq!(names.len(), Code::ALL.len());
}

#[test]
fn the_page_says_what_the_json_says() {
    let diagnosis = diagnose(&convoy(Class::CpuUser));
    let page = text::page(&diagnosis, text::Style::default());
    for part in
        ["lock.mutex", "critical", "75 %", "at most 4.0 times", "futex", "Next", "Time of the threads"]
    {
        assert!(page.contains(part), "{part}:\n{page}");
    }
}
