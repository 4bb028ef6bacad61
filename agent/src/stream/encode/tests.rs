use std::collections::BTreeMap;
use std::sync::Arc;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Sample, Unit,
};
use chokepoint_analysis::thread_time::{Parts, ThreadTime};
use chokepoint_proto::dictionary::Receiver;
use chokepoint_proto::stream::Dictionary;

use super::*;
use crate::time_profiles::NOT_SAMPLED;

/// A profile as the symbolizing stage builds it.
struct Made(Builder);

impl Made {
    fn new() -> Self {
        Self(Builder::new())
    }

    fn frame(&mut self, kind: ModuleKind, name: &str) -> LocationId {
        let module = self.0.module(Module { kind, path: "/bin/x".into(), build_id: vec![7] });
        let function = self.0.function(Function { name: name.into(), file: String::new() });
        let address = name.bytes().map(u64::from).sum();
        let lines = vec![Line { function, line: 3 }];
        self.0.location(Location { module, address, lines, is_spin_wait: false })
    }

    /// Time of a thread: what it waited for and its class stand above the functions, leaf first.
    fn add(&mut self, tid: u32, name: &str, above: &[&str], functions: &[&str], weight: u64) {
        let thread = Thread { pid: 1, tid, process_name: "web".into(), thread_name: name.into() };
        let mut stack: Vec<_> = above.iter().map(|name| self.frame(ModuleKind::Activity, name)).collect();
        stack.extend(functions.iter().map(|name| self.frame(ModuleKind::Binary, name)));
        let (thread, stack) = (self.0.thread(thread), self.0.stack(stack));
        let count = u64::from(!functions.is_empty());
        self.0.add(Sample { thread, stack, count, weight });
    }

    fn finish(self) -> Profile {
        let header = Header {
            title: "Thread time".into(),
            kind: "all".into(),
            unit: Unit::Nanoseconds,
            basis: Basis::Weight,
            period: 1,
            start_unix_ns: 10_000,
            duration_ns: 500,
            host: "h".into(),
            target: "host".into(),
            cpus: 2,
            kernel: String::new(),
            program: String::new(),
        };
        self.0.finish(header, Coverage { captured: 5, notes: vec!["so".into()], ..Coverage::default() })
    }
}

fn labels(service: &str) -> Labels {
    Arc::from(vec![("service", service.to_owned())])
}

fn encoded(profile: &Profile, limits: Limits) -> (Window, Dictionary) {
    encoded_with(observed(profile), limits)
}

/// Nothing but the time of threads.
fn observed(profile: &Profile) -> Observed<'_> {
    Observed {
        profile,
        faults: None,
        retransmits: None,
        run_queues: Vec::new(),
        disks: Vec::new(),
        peers: Vec::new(),
        services: Vec::new(),
        diagnosis: None,
        notes: Vec::new(),
        cost: Cost::default(),
    }
}

fn encoded_with(observed: Observed<'_>, limits: Limits) -> (Window, Dictionary) {
    let window = encode(observed, &limits, |_| labels("shop"));
    let mut receiver = Receiver::new();
    assert!(receiver.take(&mut window.clone()).expect("it is as the protocol says"));
    (window, receiver.known().clone())
}

/// The rows of thread time.
fn rows(window: &Window, known: &Dictionary) -> Vec<Row> {
    rows_of(&window.profiles[0], known)
}

/// A row in words: process and thread, class, functions from the leaf on, count, weight.
type Row = (String, String, String, u64, u64);

fn rows_of(profile: &chokepoint_proto::stream::Profile, known: &Dictionary) -> Vec<Row> {
    let text = |number: u32| known.strings[number as usize].as_str();
    let rows = (0..profile.subject.len()).map(|row| {
        let subject = &known.subjects[profile.subject[row] as usize];
        let mut functions = Vec::new();
        let mut node = profile.stack[row];
        while node > 0 {
            let location = &known.locations[known.stack_location[node as usize - 1] as usize];
            let function = &known.functions[location.lines[0].function as usize];
            functions.push(text(function.name));
            node = known.stack_parent[node as usize - 1];
        }
        let whose = format!("{}/{}", text(subject.process), text(subject.thread));
        let class = profile.class.get(row).map_or("", |class| text(*class)).to_owned();
        (whose, class, functions.join(" "), profile.count[row], profile.weight[row])
    });
    rows.collect()
}

fn row(whose: &str, class: &str, stack: &str, count: u64, weight: u64) -> Row {
    (whose.to_owned(), class.to_owned(), stack.to_owned(), count, weight)
}

#[test]
fn classes_are_a_column_and_add_up_to_the_profiles() {
    let mut made = Made::new();
    made.add(1, "web", &["[cpu.user]"], &["burn", "main"], 300);
    made.add(2, "pool-1", &["[tcp 10.0.0.1:80]", "[net.recv]"], &["read", "main"], 70);
    // Another thread of the pool, with another peer: the same row.
    made.add(3, "pool-2", &["[tcp 10.0.0.2:80]", "[net.recv]"], &["read", "main"], 30);
    // Exact time without a sample.
    made.add(3, "pool-2", &["[cpu.kernel]", NOT_SAMPLED], &[], 5);
    let profile = made.finish();
    let (window, known) = encoded(&profile, Limits::default());
    assert_eq!(
        rows(&window, &known),
        [
            row("web/web", "cpu.user", "burn main", 1, 300),
            row("web/pool-*", "cpu.kernel", "", 0, 5),
            row("web/pool-*", "net.recv", "read main", 2, 100),
        ]
    );
    let mut by_class: BTreeMap<String, u64> = BTreeMap::new();
    for (_, class, _, _, weight) in rows(&window, &known) {
        *by_class.entry(class).or_default() += weight;
    }
    let truth = [("cpu.kernel", 5), ("cpu.user", 300), ("net.recv", 100)];
    assert_eq!(by_class, truth.map(|(class, weight)| (class.to_owned(), weight)).into());
    assert_eq!(window.profiles[0].weight.iter().sum::<u64>(), profile.total_weight());
    assert!(!known.strings.iter().any(|text| text.starts_with('[') || Class::from_frame(text).is_some()));
    assert_eq!((window.start_unix_ns, window.duration_ns), (10_000, 500));
    let losses = window.losses.expect("there are always some");
    assert_eq!((losses.captured, losses.notes), (5, vec!["so".to_owned()]));
}

/// A thread that ran and queued for so long.
fn ran(pid: u32, tid: u32, cpu_ns: u64, queued_ns: u64, ended: bool) -> ThreadTime {
    ThreadTime {
        pid,
        tid,
        process_name: format!("p{pid}"),
        thread_name: format!("t{tid}"),
        cgroup_id: 0,
        elapsed_ns: cpu_ns + queued_ns,
        parts: Parts { on_cpu_ns: cpu_ns, woken_ns: queued_ns, ..Parts::default() },
        user_share: None,
        switches: 0,
        ended,
    }
}

#[test]
fn the_processes_that_ran_most_and_live_are_told_with_their_numbers() {
    let mut made = Made::new();
    made.add(1, "web", &["[cpu.user]"], &["burn"], 1);
    let mut profile = made.finish();
    let told = |profile: &Profile| {
        let labels = vec![
            ("container", "server".to_owned()),
            ("namespace", "shop".to_owned()),
            ("pod", "web-0".to_owned()),
        ];
        let labels: Labels = labels.into();
        encode(observed(profile), &Limits::default(), |_| Labels::clone(&labels)).processes
    };
    // A recording without the scheduler's events does not know who ran.
    assert_eq!(told(&profile), None);
    profile.thread_times = vec![
        ran(7, 7, 10, 0, true),
        // Its first thread has ended, the process has not.
        ran(8, 8, 10, 0, true),
        ran(8, 9, 10, 5, false),
        ran(5, 5, 30, 0, false),
        ran(0, 0, 1_000, 0, false),
    ];
    let processes = told(&profile).expect("it is known who ran");
    let shown: Vec<_> = processes.processes.iter().map(|of| (of.pid, of.name.as_str(), of.cpu_ns)).collect();
    assert_eq!(shown, [(5, "p5", 30), (8, "p8", 20)]);
    assert_eq!(
        (processes.processes[0].pod.as_str(), processes.processes[0].container.as_str()),
        ("shop/web-0", "server")
    );
    profile.thread_times = (1..=100).map(|pid| ran(pid, pid, u64::from(pid), 0, false)).collect();
    let processes = told(&profile).expect("it is known who ran");
    assert_eq!((processes.processes.len(), processes.left_out, processes.processes[0].pid), (64, 36, 100));
}

#[test]
fn what_is_over_the_limits_is_put_together_and_loses_no_time() {
    let mut made = Made::new();
    for (tid, name) in (0..).zip(["a", "b", "c", "d"]) {
        made.add(tid, name, &["[cpu.user]"], &["leaf", name], 100 - u64::from(tid));
    }
    let profile = made.finish();
    // Two stacks of two nodes each.
    let (window, known) = encoded(&profile, Limits { subjects: 3, nodes: 4 });
    assert_eq!(
        rows(&window, &known),
        [
            row("web/a", "cpu.user", "leaf a", 1, 100),
            row("web/b", "cpu.user", "leaf b", 1, 99),
            row("[other threads]/[other threads]", "cpu.user", "", 2, 98 + 97),
        ]
    );
    let notes = window.losses.expect("there are always some").notes;
    assert!(notes.iter().any(|note| note.starts_with("2 groups of threads")), "{notes:?}");
    assert!(notes.iter().any(|note| note.starts_with("2 stacks left out")), "{notes:?}");
}

#[test]
fn threads_that_differ_in_numbers_are_one_subject() {
    for (name, group) in
        [("worker-12", "worker-*"), ("pool-1-thread-37", "pool-*-thread-*"), ("main", "main")]
    {
        assert_eq!(group_name(name), group);
    }
    let mut made = Made::new();
    made.add(1, "web", &["[idle]"], &["wait"], 1);
    let mut profile = made.finish();
    let whose = |profile: &Profile| {
        let (window, known) = encoded(profile, Limits::default());
        rows(&window, &known)[0].0.clone()
    };
    for (process, thread, expected) in [
        ("python3", "python3", "python3/python3"),
        ("ksoftirqd/1", "ksoftirqd/1", "ksoftirqd/*/ksoftirqd/*"),
        ("x264", "x264:7", "x264/x*:*"),
    ] {
        profile.threads[0].process_name = process.into();
        profile.threads[0].thread_name = thread.into();
        assert_eq!(whose(&profile), expected);
    }
}

#[test]
fn what_happened_has_the_subjects_of_thread_time_and_stacks_without_the_peer() {
    let mut time = Made::new();
    time.add(1, "web", &["[cpu.user]"], &["burn", "main"], 300);
    let time = time.finish();
    let mut faults = Made::new();
    faults.add(1, "web", &["[minor fault]"], &["alloc", "main"], 2_018);
    faults.add(1, "web", &["[major fault]"], &["alloc", "main"], 1);
    faults.add(9, "short", &["[minor fault]"], &["start"], 1_009);
    let faults = faults.finish();
    let mut retransmits = Made::new();
    retransmits.add(1, "web", &["[tcp 10.0.0.5:80]"], &["send", "main"], 4);
    retransmits.add(1, "web", &["[tcp 10.0.0.6:80]"], &["send", "main"], 3);
    retransmits.add(1, "web", &["[tcp 10.0.0.6:80]", NOT_SAMPLED], &[], 2);
    let retransmits = retransmits.finish();
    let instance = Instance {
        labels: vec![("instance", "vda read".to_owned())],
        counts: BTreeMap::from([("2048".to_owned(), 7)]),
    };
    let all = || Observed {
        faults: Some(&faults),
        retransmits: Some(&retransmits),
        disks: vec![instance.clone()],
        ..observed(&time)
    };
    let (window, known) = encoded_with(all(), Limits::default());
    let kinds: Vec<&str> = window.profiles.iter().map(|profile| profile.kind.as_str()).collect();
    assert_eq!(kinds, ["wall", "faults", "retransmits", "latency.disk"]);
    assert_eq!(
        rows_of(&window.profiles[1], &known),
        [
            row("web/web", "", "[minor fault] alloc main", 1, 2_018),
            row("web/web", "", "[major fault] alloc main", 1, 1),
            row("web/short", "", "[minor fault] start", 1, 1_009),
        ]
    );
    assert_eq!(
        rows_of(&window.profiles[2], &known),
        [row("web/web", "", "", 0, 2), row("web/web", "", "send main", 2, 7)]
    );
    assert_eq!(rows_of(&window.profiles[3], &known), [row("/", "2048", "", 7, 7)]);
    assert!(!known.strings.iter().any(|text| text.contains("10.0.0.")));

    // Who did not run in the window is put together with others where there are too many.
    let (window, known) = encoded_with(all(), Limits { subjects: 2, ..Limits::default() });
    let whose: Vec<String> = rows_of(&window.profiles[1], &known).into_iter().map(|row| row.0).collect();
    assert_eq!(whose, ["web/web", "web/web", "[other threads]/[other threads]"]);
}
