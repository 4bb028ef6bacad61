//! What limits a fleet of a hundred hosts of which it is known. Each host replays what a real agent recorded of a program whose constraint is
//! known (`tests/src/bottlenecks`), as another service. Whom web waits for, and where db is asked, was recorded of two processes of one host: here
//! they have the addresses of their hosts.
//!
//! | service | hosts | truth |
//! |---|---|---|
//! | checkout | 20 | a CPU quota on 6 of them |
//! | web | 25 | waits for db |
//! | db | 5 | reads from a disk |
//! | api | 20 | a noisy neighbour, batch, on one of them |
//! | store | 25 | one of the hosts has a slow disk |
//! | spare | 5 | has next to nothing to do |

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_collector::query::fleet::{Constraint, Fleet, Past, Service, fleet};
use chokepoint_collector::query::limits::Limits;
use chokepoint_collector::query::question::{Question, Range};
use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::latency::Latency;
use chokepoint_proto::stream::{Batch, Dictionary, Hello, Profile, Window};
use prost::Message;

const SECOND: u64 = 1_000_000_000;
/// 2026-01-01, a whole hour.
const START: u64 = 1_767_225_600 * SECOND;
/// Windows of each host.
const WINDOWS: u64 = 6;
const WINDOW: u64 = 10 * SECOND;
/// By how much longer the requests of the slow disk take.
const SLOWER: u64 = 256;

/// What was recorded of which program. A name is that of a bottleneck's case.
const RECORDINGS: [(&str, &[u8]); 6] = [
    ("cpu-quota", include_bytes!("data/fleet/cpu-quota.zst")),
    ("net-slow-server", include_bytes!("data/fleet/net-slow-server.zst")),
    ("cpu-neighbour", include_bytes!("data/fleet/cpu-neighbour.zst")),
    ("healthy-server", include_bytes!("data/fleet/healthy-server.zst")),
    ("io-read", include_bytes!("data/fleet/io-read.zst")),
    ("idle-server", include_bytes!("data/fleet/idle-server.zst")),
];

/// A part of a host: what was recorded of a program, as a service.
struct Plays {
    recording: &'static str,
    process: &'static str,
    service: &'static str,
    /// Where it is asked, or asks from, and whom it asks; empty where it neither asks nor is asked.
    local: String,
    remote: String,
}

fn plays(recording: &'static str, process: &'static str, service: &'static str) -> Plays {
    Plays { recording, process, service, local: String::new(), remote: String::new() }
}

struct Machine {
    name: String,
    plays: Vec<Plays>,
    has_slow_disk: bool,
}

/// The fleet.
fn machines() -> Vec<Machine> {
    let mut machines = Vec::new();
    let mut add = |service: &str, number: usize, plays, has_slow_disk| {
        machines.push(Machine { name: format!("{service}-{number:02}"), plays, has_slow_disk });
    };
    for number in 0..20 {
        let recording = if number % 3 == 0 && number < 18 { ("cpu-quota", "bound_cpu_c") } else { HEALTHY };
        add("checkout", number, vec![plays(recording.0, recording.1, "checkout")], false);
    }
    for number in 0..25 {
        let (local, remote) = (format!("10.0.1.{number}"), format!("10.0.9.{}:5432", number % 5));
        let asks = Plays { local, remote, ..plays("net-slow-server", "app", "web") };
        add("web", number, vec![asks], false);
    }
    for number in 0..5 {
        let serves =
            Plays { local: format!("10.0.9.{number}:5432"), ..plays("net-slow-server", "backend", "db") };
        add("db", number, vec![serves, plays("io-read", "bound_io_c", "db")], false);
    }
    for number in 0..20 {
        if number == 7 {
            let both = vec![
                plays("cpu-neighbour", "bound_cpu_c", "api"),
                plays("cpu-neighbour", "batch_job", "batch"),
            ];
            add("api", number, both, false);
        } else {
            add("api", number, vec![plays(HEALTHY.0, HEALTHY.1, "api")], false);
        }
    }
    for number in 0..25 {
        let is_slow = number == 11;
        let recording = if is_slow { ("io-read", "bound_io_c") } else { HEALTHY };
        add("store", number, vec![plays(recording.0, recording.1, "store")], is_slow);
    }
    for number in 0..5 {
        add("spare", number, vec![plays("idle-server", "store", "spare")], false);
    }
    machines
}

const HEALTHY: (&str, &str) = ("healthy-server", "store");

fn recordings() -> BTreeMap<&'static str, Vec<Window>> {
    let read = |bytes: &[u8]| {
        let bytes = zstd::stream::decode_all(bytes).expect("it is whole");
        let (mut bytes, mut windows) = (bytes.as_slice(), Vec::new());
        while !bytes.is_empty() {
            windows.push(Window::decode_length_delimited(&mut bytes).expect("a window"));
        }
        // The first and the last are cut short.
        windows[1..windows.len() - 1].to_vec()
    };
    RECORDINGS.into_iter().map(|(name, bytes)| (name, read(bytes))).collect()
}

/// A host's window of what it plays. Dictionaries are put one behind the other.
#[derive(Default)]
struct Merged {
    all: Dictionary,
    profiles: BTreeMap<String, Profile>,
}

impl Merged {
    fn string(&mut self, text: &str) -> u32 {
        self.all.strings.push(text.to_owned());
        self.all.strings.len() as u32 - 1
    }

    fn add(&mut self, window: &Window, plays: &Plays, has_slow_disk: bool) {
        let old = window.dictionary.as_ref().expect("it is whole");
        let [strings, functions, modules, locations, nodes, subjects] = [
            self.all.strings.len(),
            self.all.functions.len(),
            self.all.modules.len(),
            self.all.locations.len(),
            self.all.stack_parent.len(),
            self.all.subjects.len(),
        ]
        .map(|length| length as u32);
        let mut new = old.clone();
        new.functions.iter_mut().for_each(|function| {
            function.name += strings;
            function.file += strings;
        });
        new.modules.iter_mut().for_each(|module| module.path += strings);
        for location in &mut new.locations {
            location.module += modules;
            location.lines.iter_mut().for_each(|line| line.function += functions);
        }
        new.stack_parent.iter_mut().for_each(|parent| *parent += if *parent > 0 { nodes } else { 0 });
        new.stack_location.iter_mut().for_each(|location| *location += locations);
        self.all.strings.append(&mut new.strings);
        self.all.functions.append(&mut new.functions);
        self.all.modules.append(&mut new.modules);
        self.all.locations.append(&mut new.locations);
        self.all.stack_parent.append(&mut new.stack_parent);
        self.all.stack_location.append(&mut new.stack_location);
        for subject in &mut new.subjects {
            subject.process += strings;
            subject.thread += strings;
            subject.labels.iter_mut().for_each(|number| *number += strings);
            self.renamed(&mut subject.labels, plays);
        }
        self.all.subjects.append(&mut new.subjects);
        for profile in &window.profiles {
            let kept = self.profiles.entry(profile.kind.clone()).or_insert_with(|| Profile {
                kind: profile.kind.clone(),
                unit: profile.unit,
                ..Profile::default()
            });
            for row in 0..profile.subject.len() {
                let process = old.subjects[profile.subject[row] as usize].process;
                let process = old.strings[process as usize].as_str();
                // Of a disk, or of the program.
                if !process.is_empty() && process != plays.process {
                    continue;
                }
                kept.subject.push(profile.subject[row] + subjects);
                let stack = profile.stack[row];
                kept.stack.push(if stack > 0 { stack + nodes } else { 0 });
                kept.count.push(profile.count[row]);
                kept.weight.push(profile.weight[row]);
                if let Some(class) = profile.class.get(row) {
                    let class = if has_slow_disk && profile.kind == Latency::Disk.kind() {
                        let slower = slower(&old.strings[*class as usize]);
                        self.all.strings.push(slower);
                        self.all.strings.len() as u32 - 1
                    } else {
                        class + strings
                    };
                    kept.class.push(class);
                }
            }
        }
    }

    /// The service is another one; nothing else is known of the subject.
    fn renamed(&mut self, labels: &mut Vec<u32>, plays: &Plays) {
        let text = |all: &Self, number: u32| all.all.strings[number as usize].clone();
        let mut renamed = BTreeMap::new();
        for pair in labels.chunks(2) {
            let (name, value) = (text(self, pair[0]), text(self, pair[1]));
            let value = match name.as_str() {
                "service" | "instance" => plays.service.to_owned(),
                "device" | "operation" => value,
                // Who asked whom was on one host.
                "local" => plays.local.clone(),
                "remote" => plays.remote.clone(),
                _ => continue,
            };
            renamed.insert(name, value);
        }
        labels.clear();
        for (name, value) in renamed.into_iter().filter(|(_, value)| !value.is_empty()) {
            let (name, value) = (self.string(&name), self.string(&value));
            labels.extend([name, value]);
        }
    }
}

fn slower(class: &str) -> String {
    let Ok(bound) = class.parse::<u64>() else { return class.to_owned() };
    let later = Latency::Disk.bounds_ns().find(|known| *known >= bound * SLOWER);
    later.map_or_else(|| "more".to_owned(), |bound| bound.to_string())
}

/// A store with the fleet's windows.
fn store(path: &std::path::Path) -> Embedded {
    let store = Embedded::open(path, Options::default()).expect("a store");
    let recordings = recordings();
    for (number, machine) in machines().iter().enumerate() {
        let hello = Hello {
            protocol: 1,
            agent: [[number as u8; 8], [3; 8]].concat(),
            host: machine.name.clone(),
            program: "0.1.0".to_owned(),
            ..Hello::default()
        };
        let mut appender = store.appender(&hello, None).expect("an appender");
        let mut sender = Sender::new();
        for at in 0..WINDOWS {
            let mut merged =
                Merged { all: Dictionary { reset: true, ..Dictionary::default() }, ..Merged::default() };
            let mut signals = Vec::new();
            for (part, plays) in machine.plays.iter().enumerate() {
                let recorded = &recordings[plays.recording];
                let window = &recorded[(number + at as usize) % recorded.len()];
                let strings = merged.all.strings.len() as u32;
                merged.add(window, plays, machine.has_slow_disk);
                // Of one host.
                if part == 0 {
                    for mut signal in window.signals.iter().copied() {
                        for number in [
                            &mut signal.name,
                            &mut signal.instance,
                            &mut signal.resource,
                            &mut signal.kind,
                            &mut signal.unit,
                        ] {
                            *number += strings;
                        }
                        signals.push(signal);
                    }
                }
            }
            let whole = Window {
                start_unix_ns: START + at * WINDOW,
                duration_ns: WINDOW,
                profiles: merged.profiles.into_values().collect(),
                signals,
                dictionary: Some(merged.all),
                ..Window::default()
            };
            let window = sender.next(&whole).expect("a whole window");
            let new = window.dictionary.clone().expect("a dictionary");
            let batch = Batch { sequence: at + 1, ..Batch::default() };
            appender.append(&batch, &window, &new, new.reset).expect("it is stored");
        }
    }
    store
}

fn asked(store: &dyn Store) -> Fleet {
    let limits = Limits::default();
    let range = Range { from_unix_ns: START, until_unix_ns: START + WINDOWS * WINDOW };
    let question = Question::new("{}", range, Vec::new(), &limits).expect("a question");
    fleet(store, &question, 50, &Past::default(), &limits).expect("an answer")
}

fn service<'f>(found: &'f Fleet, name: &str) -> &'f Service {
    let is = |service: &&Service| service.labels.get("service").is_some_and(|service| service == name);
    found.services.iter().find(is).unwrap_or_else(|| panic!("no {name}"))
}

/// Code and hosts, in the order of their names.
fn told(constraints: &[Constraint]) -> Vec<(String, Vec<String>)> {
    let mut told: Vec<_> = constraints
        .iter()
        .map(|constraint| {
            let hosts: BTreeSet<&String> = constraint.named_hosts.iter().collect();
            (constraint.code.clone(), hosts.into_iter().cloned().collect())
        })
        .collect();
    told.sort();
    told
}

#[test]
fn each_service_has_its_constraint_on_the_right_hosts_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let found = asked(&store(directory.path()));
    let names = |service: &str, numbers: &[usize]| -> Vec<String> {
        numbers.iter().map(|number| format!("{service}-{number:02}")).collect()
    };
    let all = |service: &str, count: usize| names(service, &(0..count).collect::<Vec<_>>());
    let [checkout, web, db, api, store] = [
        names("checkout", &[0, 3, 6, 9, 12, 15]),
        all("web", 25),
        all("db", 5),
        names("api", &[7]),
        names("store", &[11]),
    ];
    type Expected<'a> = (&'a str, usize, &'a [(&'a str, &'a [String])], &'a [(&'a str, &'a [String])]);
    let expected: [Expected<'_>; 7] = [
        ("checkout", 20, &[("cpu.quota", &checkout)], &[]),
        ("web", 25, &[("net.downstream", &web)], &[]),
        ("db", 5, &[("io.read", &db)], &[]),
        ("api", 20, &[], &[("cpu.noisy-neighbour", &api)]),
        // It is limited itself, by the CPUs that it takes from others.
        ("batch", 1, &[("cpu.saturated", &api)], &[]),
        ("store", 25, &[], &[("io.read", &store)]),
        ("spare", 5, &[], &[]),
    ];
    let owned = |groups: &[(&str, &[String])]| -> Vec<(String, Vec<String>)> {
        groups.iter().map(|(code, hosts)| ((*code).to_owned(), hosts.to_vec())).collect()
    };
    for (name, hosts, constraints, exceptions) in expected {
        let service = service(&found, name);
        assert_eq!(service.hosts, hosts as u64, "{name}");
        assert_eq!(told(&service.constraints), owned(constraints), "{name}: {:#?}", service.constraints);
        assert_eq!(told(&service.exceptions), owned(exceptions), "{name}: {:#?}", service.exceptions);
    }
    assert_eq!(found.services.len(), expected.len());
    let throttled = &service(&found, "checkout").constraints[0];
    assert!((throttled.share_of_hosts - 0.3).abs() < 1e-9 && throttled.severity >= 2, "{throttled:?}");

    // From who waits to what is behind it.
    let [callee] = &service(&found, "web").constraints[0].waits_for[..] else {
        panic!("{:#?}", service(&found, "web").constraints)
    };
    assert_eq!((callee.labels["service"].as_str(), callee.code.as_deref()), ("db", Some("io.read")));
    assert_eq!(callee.hosts, db);
    assert!(callee.address.starts_with("10.0.9.") && callee.address.ends_with(":5432"), "{}", callee.address);

    let [neighbour] = &found.neighbours[..] else { panic!("{:?}", found.neighbours) };
    assert_eq!((neighbour.host.as_str(), neighbour.victim["service"].as_str()), ("api-07", "api"));
    assert_eq!(neighbour.culprits, ["batch"]);

    let odd: Vec<(&str, &str)> =
        found.outliers.iter().map(|outlier| (outlier.host.as_str(), outlier.code.as_str())).collect();
    assert_eq!(odd, [("api-07", "cpu.noisy-neighbour"), ("store-11", "io.read")], "{:#?}", found.outliers);
    let slow = &found.outliers[1].differences;
    assert!(slow.iter().any(|difference| difference.name.ends_with("latency.disk")), "{slow:?}");
    assert_eq!(found.missing, [""; 0]);
}
