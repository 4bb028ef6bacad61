//! Windows whose sums are known.

#![allow(dead_code, reason = "each test uses a part")]

pub mod clickhouse;
pub mod collector;
pub mod in_process;
pub mod rollout;
pub mod secured;
pub mod stream;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::SystemTime;

use chokepoint_collector::labels::{Matcher, Operator};
use chokepoint_collector::store::{Appended, Appender, Selection, Store, StoreError, SumQuery};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{
    Batch, Cost, Dictionary, Function, Hello, Label, Line, Location, Loss, Losses, Module, ModuleKind,
    Profile, Signal, Subject, Unit, Verdict, Window,
};
use prost::Message;

/// The build that all rows' stacks are in.
pub const BUILD_ID: [u8; 3] = [1, 2, 3];

pub const SECOND: u64 = 1_000_000_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
/// 2026-01-01, a whole hour.
pub const START: u64 = 1_767_225_600 * SECOND;

/// Samples of one thread name with one stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub kind: &'static str,
    pub process: String,
    pub pod: String,
    pub class: &'static str,
    /// Functions, outermost first.
    pub stack: Vec<String>,
    pub count: u64,
    pub weight: u64,
}

/// A midnight to come: what servers keep for days by their own clocks is there until then.
pub static TO_COME: LazyLock<u64> = LazyLock::new(|| (this_hour() / (24 * HOUR) + 1) * 24 * HOUR);

/// When the present hour began.
pub fn this_hour() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    now - now % HOUR
}

/// A directory for a store. In memory where there is such a place: a disk confirms a thousand transactions in ten seconds.
pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// An agent that says hello as this host.
pub fn hello(number: u8) -> Hello {
    Hello {
        protocol: 1,
        agent: [number; 16].to_vec(),
        host: format!("host-{number}"),
        kernel: "6.1.0".to_owned(),
        program: "0.1.0".to_owned(),
        cpus: 2,
        labels: vec![Label {
            name: "zone".to_owned(),
            value: if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        }],
    }
}

/// Numbers that look random and are the same in each run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Rows as a host might have them in one window.
pub fn rows(random: &mut Random, length: usize) -> Vec<Row> {
    let mut rows: BTreeMap<Row, ()> = BTreeMap::new();
    while rows.len() < length {
        let process = ["web", "db", "batch"][random.below(3) as usize];
        let depth = 1 + random.below(6);
        let row = Row {
            kind: "wall",
            process: process.to_owned(),
            pod: if process == "web" { format!("web-{}", random.below(3)) } else { String::new() },
            class: ["cpu.user", "cpu.kernel", "lock"][random.below(3) as usize],
            stack: (0..depth).map(|depth| format!("f{}_{depth}", random.below(4))).collect(),
            count: random.below(5),
            weight: 1 + random.below(1_000_000),
        };
        rows.insert(row, ());
    }
    rows.into_keys().collect()
}

#[derive(Default)]
struct Numbers {
    dictionary: Dictionary,
    strings: BTreeMap<String, u32>,
}

impl Numbers {
    fn string(&mut self, text: &str) -> u32 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = self.dictionary.strings.len() as u32;
        self.dictionary.strings.push(text.to_owned());
        self.strings.insert(text.to_owned(), number);
        number
    }

    fn subject(&mut self, row: &Row) -> u32 {
        let mut labels = Vec::new();
        if !row.pod.is_empty() {
            labels = vec![self.string("pod"), self.string(&row.pod)];
        }
        let subject = Subject { process: self.string(&row.process), thread: self.string("main"), labels };
        position(&mut self.dictionary.subjects, subject)
    }

    /// The leaf's number plus one.
    fn stack(&mut self, process: &str, stack: &[String]) -> u32 {
        let mut parent = 0;
        for name in stack {
            let function = Function { name: self.string(name), file: self.string("main.c") };
            let function = position(&mut self.dictionary.functions, function);
            let module = Module {
                kind: ModuleKind::Binary as i32,
                path: self.string(&format!("/bin/{process}")),
                build_id: BUILD_ID.to_vec(),
            };
            let module = position(&mut self.dictionary.modules, module);
            let address = address_of(name);
            let lines = vec![Line { function, line: 7 }];
            let location = Location { module, address, lines, is_spin_wait: false };
            let location = position(&mut self.dictionary.locations, location);
            let nodes = self.dictionary.stack_parent.iter().zip(&self.dictionary.stack_location);
            let known = nodes.clone().position(|(own, at)| (*own, *at) == (parent, location));
            let node = known.unwrap_or_else(|| {
                self.dictionary.stack_parent.push(parent);
                self.dictionary.stack_location.push(location);
                self.dictionary.stack_parent.len() - 1
            });
            parent = node as u32 + 1;
        }
        parent
    }
}

/// Where a function is: the same in every window, and above what SQLite's signed numbers hold.
pub fn address_of(function: &str) -> u64 {
    function.bytes().fold(u64::MAX, |address, byte| address.wrapping_mul(257) ^ u64::from(byte))
}

fn position<T: PartialEq>(list: &mut Vec<T>, entry: T) -> u32 {
    let known = list.iter().position(|own| *own == entry);
    known.unwrap_or_else(|| {
        list.push(entry);
        list.len() - 1
    }) as u32
}

/// A whole window with these rows, and a signal, a verdict, losses and cost.
pub fn window(start_unix_ns: u64, duration_ns: u64, rows: &[Row], verdict: &str, busy: f64) -> Window {
    let mut numbers = Numbers::default();
    numbers.dictionary.reset = true;
    let mut profiles: BTreeMap<&str, Profile> = BTreeMap::new();
    for row in rows {
        let (subject, stack) = (numbers.subject(row), numbers.stack(&row.process, &row.stack));
        let class = numbers.string(row.class);
        let profile = profiles.entry(row.kind).or_insert_with(|| Profile {
            kind: row.kind.to_owned(),
            unit: Unit::Nanoseconds as i32,
            ..Profile::default()
        });
        profile.subject.push(subject);
        profile.stack.push(stack);
        profile.class.push(class);
        profile.count.push(row.count);
        profile.weight.push(row.weight);
    }
    let signal = Signal {
        name: numbers.string("cpu.utilization"),
        instance: numbers.string(""),
        resource: numbers.string("cpu"),
        kind: numbers.string("utilization"),
        unit: numbers.string("%"),
        value: busy,
        p50: busy,
        p95: busy,
        p99: busy,
        p999: busy,
        max: busy + 1.0,
        level: u32::from(busy > 90.0),
    };
    Window {
        start_unix_ns,
        duration_ns,
        dictionary: Some(numbers.dictionary),
        profiles: profiles.into_values().collect(),
        signals: vec![signal],
        verdict: Some(Verdict {
            code: verdict.to_owned(),
            confidence: 0.5,
            severity: 2,
            share: 0.25,
            summary: format!("{verdict} limits it"),
            diagnosis: "{}".to_owned(),
        }),
        losses: Some(Losses {
            captured: 100,
            lost: vec![Loss { cause: "ring full".to_owned(), samples: 3 }],
            notes: Vec::new(),
        }),
        cost: Some(Cost { cpu_ns: duration_ns / 200, resident_bytes: 1 << 20, ..Cost::default() }),
        processes: None,
    }
}

/// An agent that sends to a store.
pub struct Agent {
    appender: Box<dyn Appender>,
    sender: Sender,
    pub sequence: u64,
}

impl Agent {
    pub fn new(store: &dyn Store, number: u8) -> Self {
        let appender = store.appender(&hello(number), None).expect("an appender");
        Self { appender, sender: Sender::new(), sequence: 0 }
    }

    /// Sends a whole window as the next batch.
    pub fn send(&mut self, whole: &Window) -> Result<Appended, StoreError> {
        self.sequence += 1;
        self.send_as(self.sequence, whole)
    }

    /// Sends a whole window as this batch.
    pub fn send_as(&mut self, sequence: u64, whole: &Window) -> Result<Appended, StoreError> {
        let window = self.sender.next(whole).expect("a whole window");
        let new = window.dictionary.clone().expect("a dictionary");
        let batch = Batch { sequence, ..Batch::default() };
        let reset = new.reset;
        self.appender.append(&batch, &window, &new, reset)
    }
}

/// A batch that carries a window as a stream would: with what is new only.
pub fn batch(sequence: u64, sender: &mut Sender, whole: &Window) -> Batch {
    let window = sender.next(whole).expect("a whole window").encode_to_vec();
    Batch {
        sequence,
        window_bytes: window.len() as u64,
        window: zstd::bulk::compress(&window, 1).expect("it compresses"),
        dropped_batches: 0,
    }
}

/// All of this time.
pub fn between(from_unix_ns: u64, until_unix_ns: u64) -> Selection {
    Selection { from_unix_ns, until_unix_ns, ..Selection::default() }
}

/// The sums of wall time in this time, kept apart by everything.
pub fn by_all(from_unix_ns: u64, until_unix_ns: u64) -> SumQuery {
    SumQuery {
        selection: between(from_unix_ns, until_unix_ns),
        kind: "wall".to_owned(),
        classes: Vec::new(),
        group_by: vec!["host".to_owned(), "process".to_owned(), "pod".to_owned()],
        step_ns: None,
        by_class: true,
        by_stack: true,
        max_sums: 1_000_000,
    }
}

/// A condition.
pub fn matcher(name: &str, operator: Operator, value: &str) -> Matcher {
    Matcher::new(name, operator, value).expect("a matcher")
}

/// What a sum is of, as [`by_all`] keeps them apart: host, process, pod, class, stack.
pub type Key = (String, String, String, String, Vec<String>);

/// Sums by what they are of.
pub type Truth = BTreeMap<Key, (u64, u64)>;

/// Adds rows of a host to the truth.
pub fn add(truth: &mut Truth, host: u8, rows: &[Row]) {
    for row in rows {
        let key = (
            format!("host-{host}"),
            row.process.clone(),
            row.pod.clone(),
            row.class.to_owned(),
            row.stack.clone(),
        );
        let sum = truth.entry(key).or_default();
        *sum = (sum.0 + row.count, sum.1 + row.weight);
    }
}

/// The store's sums in this time, with stacks as names.
pub fn told(store: &dyn Store, from_unix_ns: u64, until_unix_ns: u64) -> Truth {
    let sums = store.sums(&by_all(from_unix_ns, until_unix_ns)).expect("sums");
    let stacks: Vec<_> = sums.sums.iter().map(|sum| sum.stack.expect("a stack")).collect();
    let frames = store.frames(&stacks).expect("frames");
    let mut told = Truth::new();
    for (sum, leaf) in sums.sums.iter().zip(&frames.leaves) {
        let stack: Vec<_> = frames.leaf_first(*leaf).map(|location| &frames.locations[location]).collect();
        let mut names: Vec<String> =
            stack.iter().map(|frame| frames.functions[frame.lines[0].0].name.clone()).collect();
        names.reverse();
        for frame in stack {
            assert_eq!(frames.modules[frame.module].path, format!("/bin/{}", sum.group[1]));
        }
        let [host, process, pod] = <[String; 3]>::try_from(sum.group.clone()).expect("three labels");
        let key = (host, process, pod, sum.class.clone(), names);
        assert!(told.insert(key, (sum.count, sum.weight)).is_none(), "a sum is there twice");
    }
    told
}

/// Windows of ten seconds of so many hosts over this time, and what they add up to.
pub fn fill_hosts(store: &dyn Store, hosts: u8, from_unix_ns: u64, minutes: u64, seed: u64) -> Truth {
    let mut random = Random(seed);
    let mut truth = Truth::new();
    for host in 1..=hosts {
        let mut agent = Agent::new(store, host);
        for step in 0..minutes * 6 {
            let rows = rows(&mut random, 5);
            let start = from_unix_ns + step * 10 * SECOND;
            let sent = agent.send_as(start / SECOND, &window(start, 10 * SECOND, &rows, "cpu", 50.0));
            assert_eq!(sent.expect("it is stored"), Appended::New);
            add(&mut truth, host, &rows);
        }
    }
    truth
}
