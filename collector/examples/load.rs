//! How much a store takes in on this machine: agents that send windows as busy hosts do, through the same checks as from the network.
//!
//!     cargo run -p chokepoint-collector --example load -- DIRECTORY [AGENTS] [WINDOWS]
//!
//! The windows are of the last full hours, so that afterwards they go into segments at once. Prints rates, bytes a row, and how long queries
//! take, before and after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use chokepoint_collector::ingest::{Counts, Limits, Session, Taken};
use chokepoint_collector::labels::{Matcher, Operator};
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{Selection, Store, SumQuery};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{
    Batch, Dictionary, Function, Hello, Line, Location, Module, ModuleKind, Profile, Signal, Subject, Window,
};
use prost::Message;

/// Rows of a window: what a host with 2 CPUs and a hundred processes has in ten seconds.
const ROWS: usize = 1_500;
/// Distinct stacks of a program, of which each window has some.
const STACKS: u64 = 8_000;
/// Frames of a stack.
const DEPTH: u64 = 30;
/// Groups of threads of a host.
const SUBJECTS: u64 = 120;
/// Signals of a window.
const SIGNALS: u64 = 80;
/// Length of a window.
const WINDOW_NS: u64 = 10_000_000_000;
const HOUR_NS: u64 = 3_600_000_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let mut number = |default| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (agents, windows) = (number(16), number(60));
    let store = Embedded::open(&directory, Options::default()).expect("a store");
    let now = now_unix_ns();
    let start = now - now % HOUR_NS - 2 * HOUR_NS;
    let counts = Arc::new(Counts::default());

    println!("making {windows} windows of {agents} agents");
    let batches: Vec<Vec<Batch>> = (0..agents).map(|agent| batches(agent, windows, start)).collect();
    let bytes: usize = batches.iter().flatten().map(|batch| batch.window.len()).sum();
    let total = (agents * windows) as f64;
    println!("{:.1} kB a window on the wire", bytes as f64 / total / 1e3);

    // First windows bring nearly all names.
    let begin = Instant::now();
    let mut sessions = Vec::new();
    for (agent, batches) in batches.iter().enumerate() {
        let session =
            Session::begin(&store, &hello(agent as u64), None, Limits::default(), Arc::clone(&counts));
        let mut session = session.unwrap_or_else(|_| panic!("a session"));
        assert!(matches!(session.take(&batches[0], now), Taken::Stored));
        sessions.push(session);
    }
    println!("first windows, with {STACKS} stacks of {DEPTH} frames: {:.2} s", begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (session, batches) in sessions.iter_mut().zip(&batches) {
            scope.spawn(move || {
                for batch in &batches[1..] {
                    assert!(matches!(session.take(batch, now), Taken::Stored));
                }
            });
        }
    });
    let total = (agents * (windows - 1)) as f64;
    let taken = begin.elapsed().as_secs_f64();
    println!("took in {:.0} windows/s, {:.0} rows/s", total / taken, total * ROWS as f64 / taken);
    let total = (agents * windows) as f64;
    ask(&store, start, "fresh");

    let begin = Instant::now();
    while store.maintain(now).expect("maintenance") {}
    let holdings = store.holdings().expect("holdings");
    println!(
        "segments in {:.1} s: {} files, {:.2} bytes a row of all levels, {:.2} bytes a row taken in",
        begin.elapsed().as_secs_f64(),
        holdings.segments,
        holdings.segment_bytes as f64 / holdings.segment_rows as f64,
        holdings.segment_bytes as f64 / (total * ROWS as f64),
    );
    let mut of_level: BTreeMap<String, u64> = BTreeMap::new();
    for entry in std::fs::read_dir(directory.join("segments")).expect("segments") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().rsplit_once('-').expect("a name").0.to_owned();
        *of_level.entry(name).or_default() += entry.metadata().expect("a length").len();
    }
    for (level, bytes) in of_level {
        println!("  {level}: {:.2} bytes a row taken in", bytes as f64 / (total * ROWS as f64));
    }
    let length = |name| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len()) as f64;
    let catalogue = length("catalogue.sqlite") + length("catalogue.sqlite-wal");
    println!("catalogue, with its log: {:.1} MB", catalogue / 1e6);
    ask(&store, start, "segments");
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's word");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    println!("peak of memory, with what was sent: {}", peak.trim_start_matches("VmHWM:").trim());
}

/// How long the flame graph of one service takes, of a time in whole hours and of one that is not.
fn ask(store: &dyn Store, start: u64, what: &str) {
    for (name, from_unix_ns, until_unix_ns) in
        [("whole hours", start, start + 2 * HOUR_NS), ("odd times", start + 1, start + 2 * HOUR_NS - 1)]
    {
        let matchers = vec![Matcher::new("process", Operator::Matches, "process-1.").expect("an expression")];
        let query = SumQuery {
            selection: Selection { matchers, from_unix_ns, until_unix_ns, ..Selection::default() },
            kind: "wall".to_owned(),
            by_stack: true,
            max_sums: 1_000_000,
            ..SumQuery::default()
        };
        let begin = Instant::now();
        let sums = store.sums(&query).expect("sums").sums.len();
        println!("{what}, {name}: {sums} stacks in {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    }
}

fn hello(agent: u64) -> Hello {
    Hello {
        protocol: 1,
        agent: [agent.to_le_bytes(), [1; 8]].concat(),
        host: format!("host-{agent}"),
        ..Hello::default()
    }
}

/// What an agent sends in this time.
fn batches(agent: usize, windows: usize, start: u64) -> Vec<Batch> {
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ (agent as u64 + 1);
    let dictionary = dictionary();
    let mut sender = Sender::new();
    (0..windows)
        .map(|window| {
            let whole = window_of(&mut random, &dictionary, start + window as u64 * WINDOW_NS);
            let bytes = sender.next(&whole).expect("a whole window").encode_to_vec();
            Batch {
                sequence: window as u64 + 1,
                window_bytes: bytes.len() as u64,
                window: zstd::bulk::compress(&bytes, 1).expect("it compresses"),
                dropped_batches: 0,
            }
        })
        .collect()
}

fn below(random: &mut u64, end: u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random % end
}

/// Few stacks have most of the samples.
fn skewed(random: &mut u64, end: u64) -> u64 {
    let ends = [1 + below(random, end), 1 + below(random, end)];
    let end = 1 + below(random, ends[0].min(ends[1]));
    below(random, end)
}

fn window_of(random: &mut u64, dictionary: &Dictionary, start_unix_ns: u64) -> Window {
    let mut rows: BTreeMap<(u32, u32, u32), (u64, u64)> = BTreeMap::new();
    while rows.len() < ROWS {
        let subject = skewed(random, SUBJECTS);
        // Each program has its own stacks.
        let stack = (subject % 20) * (STACKS / 20) + skewed(random, STACKS / 20);
        let leaf = (stack + 1) * DEPTH;
        let class = 1 + below(random, 4);
        let count = below(random, 4);
        rows.insert(
            (subject as u32, leaf as u32, class as u32),
            (count, (1 + count) * 52_631_578 + below(random, 1_000_000)),
        );
    }
    let mut profile = Profile { kind: "wall".to_owned(), ..Profile::default() };
    for ((subject, stack, class), (count, weight)) in rows {
        profile.subject.push(subject);
        profile.stack.push(stack);
        profile.class.push(class);
        profile.count.push(count);
        profile.weight.push(weight);
    }
    let signals = (0..SIGNALS).map(|name| Signal {
        name: 10 + name as u32,
        value: below(random, 1_000) as f64 / 10.0,
        max: below(random, 1_000) as f64 / 10.0,
        ..Signal::default()
    });
    Window {
        start_unix_ns,
        duration_ns: WINDOW_NS,
        dictionary: Some(dictionary.clone()),
        profiles: vec![profile],
        signals: signals.collect(),
        ..Window::default()
    }
}

/// What all windows refer to: all hosts run the same programs.
fn dictionary() -> Dictionary {
    let mut dictionary = Dictionary { reset: true, ..Dictionary::default() };
    let strings = &mut dictionary.strings;
    strings.push(String::new());
    strings.extend((1..10).map(|class| format!("class.{class}")));
    strings.extend((0..SIGNALS).map(|signal| format!("signal.{signal}")));
    let first_process = strings.len() as u32;
    strings.extend((0..20).map(|process| format!("process-{process}")));
    let first_thread = strings.len() as u32;
    strings.extend((0..SUBJECTS).map(|thread| format!("thread-{thread}")));
    let first_function = strings.len() as u32;
    let functions = STACKS * 2;
    strings.extend(
        (0..functions).map(|function| format!("a::module::with::a_function_{function}::of_some_length")),
    );
    dictionary.subjects.extend((0..SUBJECTS as u32).map(|subject| Subject {
        process: first_process + subject % 20,
        thread: first_thread + subject,
        labels: Vec::new(),
    }));
    dictionary.modules.push(Module {
        kind: ModuleKind::Binary as i32,
        path: first_process,
        build_id: vec![7; 20],
    });
    for function in 0..functions as u32 {
        dictionary.functions.push(Function { name: first_function + function, file: 0 });
        let lines = vec![Line { function, line: 5 }];
        dictionary.locations.push(Location {
            module: 0,
            address: u64::from(function) * 64,
            lines,
            is_spin_wait: false,
        });
    }
    for stack in 0..STACKS {
        for depth in 0..DEPTH {
            let node = dictionary.stack_parent.len() as u32;
            dictionary.stack_parent.push(if depth == 0 { 0 } else { node });
            dictionary.stack_location.push(((stack * 31 + depth * 97) % functions) as u32);
        }
    }
    dictionary
}

fn now_unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64
}
