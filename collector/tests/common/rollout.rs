//! A service that is rolled out anew, and held back by its quota since.

use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{
    Batch, Dictionary, Function, Hello, Line, Location, Module, ModuleKind, Profile, Subject, Unit, Window,
};

use super::{HOUR, SECOND, START};

/// Length of its windows.
pub const WINDOW: u64 = 120 * SECOND;
/// Fourteen hours, in the last of which the second version is there.
pub const WINDOWS: u64 = 14 * 30;
pub const ROLLED_OUT: u64 = START + 13 * HOUR;

/// Two hosts, fourteen hours of each, in a store in this directory.
pub fn store(path: &std::path::Path) -> Embedded {
    let store = Embedded::open(path, Options::default()).expect("a store");
    for host in 0..2_u8 {
        let hello =
            Hello { protocol: 1, agent: vec![host; 16], host: format!("host-{host}"), ..Hello::default() };
        let mut appender = store.appender(&hello, None).expect("an appender");
        let mut sender = Sender::new();
        for at in 0..WINDOWS {
            let start = START + at * WINDOW;
            let window =
                sender.next(&window("web", start, WINDOW, start >= ROLLED_OUT)).expect("a whole window");
            let new = window.dictionary.clone().expect("a dictionary");
            let batch = Batch { sequence: at + 1, ..Batch::default() };
            appender.append(&batch, &window, &new, new.reset).expect("it is stored");
        }
    }
    store
}

/// A window of a service of one thread: of two minutes half of one in each of two functions, with a little more or less each time. The second
/// version computes longer, and its quota holds it back.
pub fn window(service: &str, start_unix_ns: u64, duration_ns: u64, is_second: bool) -> Window {
    let strings = [
        "",
        service,
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
    let little = start_unix_ns / WINDOW * 7 % 5;
    let part = |seconds: u64| seconds * duration_ns / 120;
    let rows: &[(&str, u32, u64)] = if is_second {
        &[("cpu.user", 1, 20 + little), ("cpu.user", 2, 30 + little), ("throttled", 0, 60)]
    } else {
        &[("cpu.user", 1, 20 + little), ("cpu.user", 2, 10 + little), ("idle", 0, 80)]
    };
    let version = if is_second { "2" } else { "1" };
    let labels = [("service", service), ("version", version)];
    Window {
        start_unix_ns,
        duration_ns,
        profiles: vec![Profile {
            kind: "wall".to_owned(),
            unit: Unit::Nanoseconds.into(),
            subject: vec![0; rows.len()],
            stack: rows.iter().map(|row| row.1).collect(),
            class: rows.iter().map(|row| number(row.0)).collect(),
            count: rows.iter().map(|row| row.2).collect(),
            weight: rows.iter().map(|row| part(row.2)).collect(),
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
                process: number(service),
                thread: number(service),
                labels: labels.iter().flat_map(|(name, value)| [number(name), number(value)]).collect(),
            }],
        }),
        ..Window::default()
    }
}
