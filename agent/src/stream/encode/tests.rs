use std::collections::BTreeMap;
use std::sync::Arc;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Sample, Unit,
};
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
    let observed = Observed { profile, diagnosis: None, notes: Vec::new(), cost: Cost::default() };
    let window = encode(observed, &limits, |_| labels("shop"));
    let mut receiver = Receiver::new();
    assert!(receiver.take(&mut window.clone()).expect("it is as the protocol says"));
    (window, receiver.known().clone())
}

/// A row in words: process and thread, class, functions from the leaf on, count, weight.
fn rows(window: &Window, known: &Dictionary) -> Vec<(String, String, String, u64, u64)> {
    let text = |number: u32| known.strings[number as usize].as_str();
    let wall = &window.profiles[0];
    let rows = (0..wall.subject.len()).map(|row| {
        let subject = &known.subjects[wall.subject[row] as usize];
        let mut functions = Vec::new();
        let mut node = wall.stack[row];
        while node > 0 {
            let location = &known.locations[known.stack_location[node as usize - 1] as usize];
            let function = &known.functions[location.lines[0].function as usize];
            functions.push(text(function.name));
            node = known.stack_parent[node as usize - 1];
        }
        let whose = format!("{}/{}", text(subject.process), text(subject.thread));
        (whose, text(wall.class[row]).to_owned(), functions.join(" "), wall.count[row], wall.weight[row])
    });
    rows.collect()
}

fn row(whose: &str, class: &str, stack: &str, count: u64, weight: u64) -> (String, String, String, u64, u64) {
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
