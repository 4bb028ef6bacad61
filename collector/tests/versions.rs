//! Stores that earlier versions wrote: each is still read, and written on. Windows that earlier agents sent: each is still understood.
//!
//! A fixture is what the version's own program made; it is never made anew by a later one.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{Appended, SignalQuery, Store, StoreError};
use chokepoint_proto::dictionary::Receiver;
use chokepoint_proto::stream;
use prost::Message;

use common::*;

/// Ten windows of an agent that knew thread time alone.
const OF_THREAD_TIME_ALONE: &[u8] = include_bytes!("data/windows.zst");
/// A window with every kind of rows, and all that is told of an agent's cost.
const OF_ALL_SOURCES: &[u8] = include_bytes!("data/window-of-all-sources");

/// What the store has beside the catalogue.
const FOLDERS: [&str; 2] = ["segments", "names"];

fn fixture(version: usize) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stores/{version}"))
}

/// Two hosts' windows of two minutes in segments of all levels, and one more that is fresh. Whose the agents are, version 1 does not know.
#[test]
fn the_first_version_is_read() {
    let (_directory, store) = copied(1);
    assert_whole(&store);
    assert!(store.agents().expect("agents").iter().all(|agent| agent.owner.is_empty()));
    // Whoever proves first who it is has it from then on.
    assert!(store.appender(&hello(1), Some("first")).is_ok());
    assert!(matches!(store.appender(&hello(1), Some("second")), Err(StoreError::NotOwned)));
}

/// The same; the first agent is one's.
#[test]
fn the_second_version_is_read() {
    let (_directory, store) = copied(2);
    assert_whole(&store);
    let agents = store.agents().expect("agents");
    assert_eq!(agents.iter().map(|agent| &*agent.owner).collect::<Vec<_>>(), ["owner-1", ""]);
    assert!(matches!(store.appender(&hello(1), Some("other")), Err(StoreError::NotOwned)));
}

/// The same; what was missing of agents' last windows and when they were heard is told, too.
#[test]
fn the_third_version_is_read() {
    let (directory, store) = copied(3);
    let agents = store.agents().expect("agents");
    assert_eq!(agents.iter().map(|agent| &*agent.owner).collect::<Vec<_>>(), ["owner-1", ""]);
    assert_eq!(agents[0].notes, ["no counter of cycles"]);
    assert_eq!(agents[0].given_up, ["stacks of waits"]);
    assert_eq!((agents[1].notes.len(), agents[1].given_up.len()), (0, 0));
    assert_whole(&store);
    drop(store);
    let catalogue =
        rusqlite::Connection::open(directory.path().join("catalogue.sqlite")).expect("a catalogue");
    let one = |sql| catalogue.query_row(sql, (), |row| row.get::<_, i64>(0)).expect(sql);
    assert_eq!(one("SELECT count(*) FROM agents WHERE seen_unix_ns > 0"), 2);
    assert_eq!(one("SELECT count(*) FROM segments WHERE first_agent <> 1"), 0);
}

/// A store that is a copy of a fixture.
fn copied(version: usize) -> (tempfile::TempDir, Embedded) {
    let directory = directory();
    let store = directory.path();
    for folder in FOLDERS {
        fs::create_dir(store.join(folder)).expect("a directory");
        for entry in fs::read_dir(fixture(version).join(folder)).expect("the fixture") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, store.join(folder).join(path.file_name().expect("a name"))).expect("a copy");
        }
    }
    let catalogue = fs::read(fixture(version).join("catalogue.sqlite.zst")).expect("the fixture");
    let catalogue = zstd::stream::decode_all(catalogue.as_slice()).expect("it is whole");
    fs::write(store.join("catalogue.sqlite"), catalogue).expect("a copy");
    let store = Embedded::open(store, Options::default()).expect("it opens");
    (directory, store)
}

fn assert_whole(store: &Embedded) {
    let holdings = store.holdings().expect("holdings");
    assert_eq!((holdings.segments, holdings.fresh_rows > 0), (6, true));
    for (from, until) in [(START, START + HOUR), (START + 1, START + HOUR), (START - HOUR, START + HOUR - 1)]
    {
        let told = told(store, from, until);
        let totals = told.values().fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        let expected = if from > START { INNER } else { ALL };
        assert_eq!((told.len() as u64, totals.0, totals.1), expected, "{from} to {until}");
    }
    let signals = SignalQuery {
        selection: between(START, START + HOUR),
        name: "cpu.utilization".to_owned(),
        max_values: 100,
    };
    let signals = store.signals(&signals).expect("signals");
    assert_eq!(signals.iter().map(|series| series.values.len()).collect::<Vec<_>>(), [13, 12]);
    let spans = store.verdicts(&between(START, START + HOUR)).expect("verdicts");
    assert_eq!(
        spans.iter().map(|span| (&*span.code, span.windows)).collect::<Vec<_>>(),
        [("cpu", 13), ("cpu", 12)]
    );
    // It knows what it has, and takes more.
    let mut agent = Agent::new(store, 1);
    let window = window(START + HOUR, 10 * SECOND, &[], "cpu", 1.0);
    assert_eq!(agent.send_as(13, &window).expect("an answer"), Appended::Known);
    assert_eq!(agent.send_as(14, &window).expect("an answer"), Appended::New);
}

/// Sums, samples and weight of all of it, and of what began after the first instant.
const ALL: (u64, u64, u64) = (123, 261, 60_766_967);
const INNER: (u64, u64, u64) = (113, 237, 54_916_158);

/// Writes the fixture of the schema's present version, for the commit that makes it.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_fixture() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    let mut random = Random(1);
    for host in 1..=2 {
        let mut agent = Agent::new(&store, host);
        if host == 1 {
            store.appender(&hello(host), Some("owner-1")).expect("it is nobody's yet");
        }
        for step in 0..12 {
            let rows = rows(&mut random, 5);
            agent
                .send(&window(START + step * 10 * SECOND, 10 * SECOND, &rows, "cpu", 50.0))
                .expect("it is stored");
        }
    }
    while store.maintain(START + 2 * HOUR).expect("maintenance") {}
    let rows = rows(&mut random, 5);
    let mut last = window(START + 120 * SECOND, 10 * SECOND, &rows, "cpu", 50.0);
    last.losses.as_mut().expect("losses").notes = vec!["no counter of cycles".to_owned()];
    last.cost.as_mut().expect("cost").given_up = vec!["stacks of waits".to_owned()];
    let mut agent = Agent::new(&store, 1);
    agent.send_as(13, &last).expect("it is stored");
    for from in [START, START + 1] {
        let told = told(&store, from, START + HOUR);
        println!(
            "{} {:?}",
            told.len(),
            told.values().fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1))
        );
    }
    drop((agent, store));
    let catalogue =
        rusqlite::Connection::open(directory.path().join("catalogue.sqlite")).expect("a catalogue");
    let version: usize =
        catalogue.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
    catalogue
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); VACUUM; PRAGMA journal_mode = delete")
        .expect("one file");
    drop(catalogue);
    let to = fixture(version);
    fs::create_dir_all(&to).expect("a directory");
    let content = fs::read(directory.path().join("catalogue.sqlite")).expect("a catalogue");
    let content = zstd::bulk::compress(&content, 19).expect("it compresses");
    fs::write(to.join("catalogue.sqlite.zst"), content).expect("it is written");
    for folder in FOLDERS {
        fs::create_dir_all(to.join(folder)).expect("a directory");
        for entry in fs::read_dir(directory.path().join(folder)).expect("files") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, to.join(folder).join(path.file_name().expect("a name"))).expect("it is copied");
        }
    }
}

/// A window, and what its dictionary has.
fn taken(bytes: &[u8]) -> (stream::Window, stream::Dictionary) {
    let window = stream::Window::decode(bytes).expect("it is a window");
    let mut receiver = Receiver::new();
    assert!(receiver.take(&mut window.clone()).expect("it is as the protocol says"));
    (window, receiver.known().clone())
}

#[test]
fn windows_of_thread_time_alone_are_understood() {
    let bytes = zstd::stream::decode_all(OF_THREAD_TIME_ALONE).expect("it is whole");
    let (mut bytes, mut windows) = (bytes.as_slice(), 0);
    while !bytes.is_empty() {
        let window = stream::Window::decode_length_delimited(&mut bytes).expect("a window");
        let (window, _) = taken(&window.encode_to_vec());
        let [wall] = &window.profiles[..] else { panic!("{} profiles", window.profiles.len()) };
        assert_eq!((wall.kind.as_str(), wall.unit()), ("wall", stream::Unit::Nanoseconds));
        assert!(!wall.subject.is_empty() && wall.class.len() == wall.subject.len());
        let cost = window.cost.expect("it is told");
        assert!(cost.cpu_ns > 0 && cost.resident_bytes > 0);
        // Absent is zero: there were no recordings on demand.
        assert_eq!((cost.demand_cpu_ns, cost.demand_program_ns), (0, 0));
        windows += 1;
    }
    assert_eq!(windows, 10);
}

#[test]
fn windows_of_all_sources_are_understood() {
    let (window, known) = taken(OF_ALL_SOURCES);
    assert_eq!(window, all_sources());
    let text = |number: u32| known.strings[number as usize].as_str();
    let disk = window.profiles.iter().find(|profile| profile.kind == "latency.disk").expect("it is there");
    let subject = &known.subjects[disk.subject[0] as usize];
    assert_eq!(
        (text(subject.process), text(subject.labels[0]), text(subject.labels[1])),
        ("", "instance", "vda read")
    );
    assert_eq!((text(disk.class[0]), disk.count[0]), ("49152", 7));
}

/// What the fixture says.
fn all_sources() -> stream::Window {
    let strings = ["", "web", "service", "instance", "vda read", "49152", "more", "remote", "10.0.0.5:5432"];
    let subject =
        |process, labels: &[u32]| stream::Subject { process, thread: process, labels: labels.to_vec() };
    let counted = |kind: &str, subject, class: &[u32], count: &[u64]| stream::Profile {
        kind: kind.to_owned(),
        unit: stream::Unit::Count.into(),
        subject: vec![subject; count.len()],
        stack: vec![0; count.len()],
        class: class.to_vec(),
        count: count.to_vec(),
        weight: count.to_vec(),
    };
    stream::Window {
        start_unix_ns: 1_700_000_000_000_000_000,
        duration_ns: 10_000_000_000,
        dictionary: Some(stream::Dictionary {
            reset: true,
            strings: strings.map(str::to_owned).to_vec(),
            subjects: vec![
                subject(1, &[2, 1]),
                subject(0, &[3, 4]),
                subject(0, &[3, 1, 2, 1]),
                subject(0, &[7, 8]),
            ],
            ..stream::Dictionary::default()
        }),
        profiles: vec![
            stream::Profile { unit: stream::Unit::Nanoseconds.into(), ..counted("wall", 0, &[1], &[3]) },
            counted("faults", 0, &[], &[2_018]),
            counted("retransmits", 0, &[], &[12]),
            counted("latency.run-queue", 2, &[5, 6], &[40, 1]),
            counted("latency.disk", 1, &[5, 6], &[7, 2]),
            counted("retransmits.peers", 3, &[], &[12]),
        ],
        cost: Some(stream::Cost {
            cpu_ns: 1,
            program_ns: 2,
            resident_bytes: 3,
            frequency_hz: 19,
            given_up: vec!["something".to_owned()],
            demand_cpu_ns: 4,
            demand_program_ns: 5,
        }),
        ..stream::Window::default()
    }
}

/// Writes it, for the commit that makes it.
#[test]
#[ignore = "writes into the source tree"]
fn write_the_window() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/window-of-all-sources");
    fs::write(path, all_sources().encode_to_vec()).expect("it is written");
}
