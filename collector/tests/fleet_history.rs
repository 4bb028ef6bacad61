//! Since when something limits a service, what was rolled out then, what is usual, and which function takes more time since.

use chokepoint_collector::query::fleet::regressions::regressions;
use chokepoint_collector::query::fleet::{Change, Past, fleet};
use chokepoint_collector::query::limits::Limits;
use chokepoint_collector::query::question::{Question, Range};
use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{
    Batch, Dictionary, Function, Hello, Line, Location, Module, ModuleKind, Profile, Subject, Unit, Window,
};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3_600 * SECOND;
/// 2026-01-01, a whole hour.
const START: u64 = 1_767_225_600 * SECOND;
const WINDOW: u64 = 120 * SECOND;
/// Fourteen hours, in the last of which the second version is there.
const WINDOWS: u64 = 14 * 30;
const ROLLED_OUT: u64 = START + 13 * HOUR;

/// A service of one thread: half a minute in each of two functions, with a little more or less each time. The second version computes longer,
/// and its quota holds it back.
fn window(at: u64) -> Window {
    let is_second = START + at * WINDOW >= ROLLED_OUT;
    let strings = [
        "",
        "web",
        "service",
        "version",
        "1",
        "2",
        "cpu.user",
        "throttled",
        "idle",
        "main",
        "compute",
        "/bin/web",
    ];
    let number = |text: &str| strings.iter().position(|known| *known == text).expect("a string") as u32;
    let little = at * 7 % 5;
    let rows: &[(&str, u32, u64)] = if is_second {
        &[("cpu.user", 1, 20 + little), ("cpu.user", 2, 30 + little), ("throttled", 0, 60)]
    } else {
        &[("cpu.user", 1, 20 + little), ("cpu.user", 2, 10 + little), ("idle", 0, 80)]
    };
    let version = if is_second { "2" } else { "1" };
    let labels = [("service", "web"), ("version", version)];
    Window {
        start_unix_ns: START + at * WINDOW,
        duration_ns: WINDOW,
        profiles: vec![Profile {
            kind: "wall".to_owned(),
            unit: Unit::Nanoseconds.into(),
            subject: vec![0; rows.len()],
            stack: rows.iter().map(|row| row.1).collect(),
            class: rows.iter().map(|row| number(row.0)).collect(),
            count: rows.iter().map(|row| row.2).collect(),
            weight: rows.iter().map(|row| row.2 * SECOND).collect(),
        }],
        dictionary: Some(Dictionary {
            reset: true,
            strings: strings.map(str::to_owned).to_vec(),
            functions: ["main", "compute"].map(|name| Function { name: number(name), file: 0 }).to_vec(),
            modules: vec![Module {
                kind: ModuleKind::Binary.into(),
                path: number("/bin/web"),
                build_id: Vec::new(),
            }],
            locations: (0..2)
                .map(|function| Location {
                    module: 0,
                    address: u64::from(function) * 16,
                    lines: vec![Line { function, line: 1 }],
                    is_spin_wait: false,
                })
                .collect(),
            stack_parent: vec![0, 1],
            stack_location: vec![0, 1],
            subjects: vec![Subject {
                process: number("web"),
                thread: number("web"),
                labels: labels.iter().flat_map(|(name, value)| [number(name), number(value)]).collect(),
            }],
        }),
        ..Window::default()
    }
}

fn store(path: &std::path::Path) -> Embedded {
    let store = Embedded::open(path, Options::default()).expect("a store");
    for host in 0..2_u8 {
        let hello =
            Hello { protocol: 1, agent: vec![host; 16], host: format!("host-{host}"), ..Hello::default() };
        let mut appender = store.appender(&hello, None).expect("an appender");
        let mut sender = Sender::new();
        for at in 0..WINDOWS {
            let window = sender.next(&window(at)).expect("a whole window");
            let new = window.dictionary.clone().expect("a dictionary");
            let batch = Batch { sequence: at + 1, ..Batch::default() };
            appender.append(&batch, &window, &new, new.reset).expect("it is stored");
        }
    }
    store
}

#[test]
fn a_constraint_has_its_begin_its_change_and_what_was_usual_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let limits = Limits::default();
    let ask = |from_unix_ns| {
        let range = Range { from_unix_ns, until_unix_ns: START + WINDOWS * WINDOW };
        Question::new("{}", range, Vec::new(), &limits).expect("a question")
    };
    let past = Past::default();
    let found = fleet(&store, &ask(ROLLED_OUT + HOUR / 2), 10, &past, &limits).expect("an answer");
    let [constraint] = &found.services[0].constraints[..] else { panic!("{:#?}", found.services) };
    assert_eq!((constraint.code.as_str(), constraint.hosts), ("cpu.quota", 2));
    let began = (constraint.since_unix_ms, constraint.since_is_earlier);
    assert_eq!(began, (ROLLED_OUT / 1_000_000, false));
    let text = |text: &str| vec![text.to_owned()];
    let change = Change { label: "version".to_owned(), before: text("1"), since: text("2") };
    assert_eq!(constraint.changes, [change]);
    let usual = constraint.usual.as_ref().expect("thirteen hours are enough");
    assert!((0.4..0.6).contains(&usual.now), "{usual:?}");
    let told: Vec<_> = usual
        .baselines
        .iter()
        .map(|baseline| (baseline.over.as_str(), baseline.median, baseline.is_unusual))
        .collect();
    assert_eq!(told, [("24h", 0.0, true), ("7d", 0.0, true)]);

    // And what was rolled out made one function slower, and not the other.
    let found = regressions(&store, &ask(ROLLED_OUT - HOUR), &limits).expect("an answer");
    let [change] = &found.changes[..] else { panic!("{found:#?}") };
    assert_eq!((change.label.as_str(), &*change.before, &*change.after), ("version", "1", "2"));
    assert_eq!(change.at_unix_ms, ROLLED_OUT / 1_000_000);
    let names = |of: &[chokepoint_analysis::compare::selections::Compared]| -> Vec<String> {
        of.iter().map(|function| function.name.clone()).collect()
    };
    assert!(names(&change.grew).contains(&"compute".to_owned()), "{:#?}", change.grew);
    assert!(!names(&change.grew).contains(&"main".to_owned()), "{:#?}", change.grew);
}
