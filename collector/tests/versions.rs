//! Stores that earlier versions wrote: each is still read, and written on.
//!
//! A fixture is what the version's own program made; it is never made anew by a later one.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{Appended, SignalQuery, Store, StoreError};

use common::*;

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
    let last = window(START + 120 * SECOND, 10 * SECOND, &rows, "cpu", 50.0);
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
