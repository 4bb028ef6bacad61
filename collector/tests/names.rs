//! Names that nothing refers to any more go, and no others: whatever is written meanwhile, and wherever a crash ends it.

mod common;

use std::fs;
use std::path::Path;

use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use parquet::file::reader::{FileReader, SerializedFileReader};

use common::*;

/// Looks for names that may go whenever anything was deleted.
fn options() -> Options {
    Options { hours_ns: 10 * HOUR, name_slack_bytes: 0, ..Options::default() }
}

/// A row in which all names are of one family.
fn row(family: &str, number: u64) -> Row {
    Row {
        kind: "wall",
        process: format!("{family}-process"),
        pod: format!("{family}-pod-{}", number % 3),
        class: "cpu.user",
        stack: vec![format!("{family}-main"), format!("{family}-{number}")],
        count: 1,
        weight: 1 + number,
    }
}

fn count(store: &Path, sql: &str) -> u64 {
    let catalogue = rusqlite::Connection::open(store.join("catalogue.sqlite")).expect("a catalogue");
    catalogue.query_row(sql, (), |row| row.get::<_, i64>(0)).expect(sql).unsigned_abs()
}

/// The bytes of all names, as the schema counts them.
fn name_bytes(store: &Path) -> u64 {
    let sql = include_str!("../src/store/embedded/schema_2.sql");
    let (_, names) = sql.split_once("FROM (").expect("a sum of all tables");
    let (names, _) = names.split_once(");").expect("its end");
    count(store, &format!("SELECT sum(bytes) FROM ({names})"))
}

/// Strings that begin so.
fn strings(store: &Path, family: &str) -> u64 {
    count(store, &format!("SELECT count(*) FROM strings WHERE text LIKE '{family}-%'"))
}

/// Rows of all files of names of this content.
fn told_to_others(store: &Path, content: &str) -> i64 {
    let files =
        fs::read_dir(store.join("names")).expect("files").map(|entry| entry.expect("an entry").path());
    let own =
        files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(content)));
    own.map(|path| {
        let file = SerializedFileReader::new(fs::File::open(path).expect("a file")).expect("a Parquet file");
        file.metadata().file_metadata().num_rows()
    })
    .sum()
}

/// Each number that names refer to each other by, and what it would be to lack it.
const DANGLING: [&str; 8] = [
    "SELECT count(*) FROM nodes WHERE parent <> 0 AND parent NOT IN (SELECT id FROM nodes)",
    "SELECT count(*) FROM nodes WHERE location NOT IN (SELECT id FROM locations)",
    "SELECT count(*) FROM locations WHERE module NOT IN (SELECT id FROM modules)",
    "SELECT count(*) FROM functions WHERE name NOT IN (SELECT id FROM strings) OR file NOT IN (SELECT id FROM strings)",
    "SELECT count(*) FROM modules WHERE path NOT IN (SELECT id FROM strings)",
    "SELECT count(*) FROM series WHERE host NOT IN (SELECT id FROM label_sets) OR own NOT IN (SELECT id FROM label_sets)",
    "SELECT count(*) FROM agents WHERE host NOT IN (SELECT id FROM label_sets)",
    "SELECT count(*) FROM signals WHERE name NOT IN (SELECT id FROM strings) OR unit NOT IN (SELECT id FROM strings)",
];

fn assert_whole(store: &Path) {
    for sql in DANGLING {
        assert_eq!(count(store, sql), 0, "{sql}");
    }
}

#[test]
fn names_go_with_the_last_that_refers_to_them() {
    let directory = directory();
    let path = directory.path();
    let store = Embedded::open(path, options()).expect("a store");
    let send = |agent: &mut Agent, start: u64, rows: &[Row]| {
        agent.send(&window(start, 10 * SECOND, rows, "cpu", 1.0)).expect("it is stored");
    };
    let old: Vec<Row> = (0..50).map(|number| row("old", number)).collect();
    let kept: Vec<Row> = (0..50).map(|number| row("kept", number)).collect();
    let mut truth = Truth::new();
    send(&mut Agent::new(&store, 1), START, &old);
    // This one stays open: what it was told stays.
    let mut open = Agent::new(&store, 2);
    send(&mut open, START, &[row("told", 1)]);
    let late = START + 20 * HOUR;
    send(&mut Agent::new(&store, 3), late, &kept);
    add(&mut truth, 3, &kept);
    while store.maintain(late + 2 * HOUR).expect("maintenance") {}
    assert_eq!(told(&store, late, late + HOUR), truth);
    let before = store.holdings().expect("holdings");
    // The names are looked for, and after a while they go.
    let (stacks, series) = (told_to_others(path, "stacks"), told_to_others(path, "series"));
    while store.maintain(late + 2 * HOUR + 2 * MINUTE).expect("maintenance") {}
    let after = store.holdings().expect("holdings");
    assert_eq!(
        (strings(path, "old"), strings(path, "kept") > 50, strings(path, "told") > 0),
        (0, true, true)
    );
    assert!(after.name_bytes < before.name_bytes && after.deleted_names > 150, "{before:?} {after:?}");
    assert_eq!(after.name_bytes, name_bytes(path));
    // Files for others are without them, too: 50 leaves with what they have in common, 3 pods with 4 labels each.
    assert_eq!(told_to_others(path, "stacks"), stacks - 51);
    assert!(told_to_others(path, "series") <= series - 12);
    assert_whole(path);
    assert_eq!(told(&store, late, late + HOUR), truth);
    let (start, again) = (late + 10 * MINUTE, [row("told", 1), row("old", 7)]);
    send(&mut open, start, &again);
    add(&mut truth, 2, &again);
    assert_eq!(told(&store, late, late + HOUR), truth);
    drop((open, store));
    let store = Embedded::open(path, options()).expect("it opens");
    assert_eq!(told(&store, late, late + HOUR), truth);
    assert_eq!(store.holdings().expect("holdings").name_bytes, name_bytes(path));
}

/// What would be on the disk if the collector were killed now.
fn killed(store: &Path) -> tempfile::TempDir {
    let copy = directory();
    for folder in ["segments", "names"] {
        fs::create_dir(copy.path().join(folder)).expect("a directory");
        for entry in fs::read_dir(store.join(folder)).expect("files") {
            let path = entry.expect("an entry").path();
            fs::copy(&path, copy.path().join(folder).join(path.file_name().expect("a name")))
                .expect("a copy");
        }
    }
    for file in ["catalogue.sqlite", "catalogue.sqlite-wal"] {
        fs::copy(store.join(file), copy.path().join(file)).expect("a copy");
    }
    copy
}

#[test]
fn no_kill_and_no_batch_meanwhile_loses_a_name() {
    for seed in 1..=3 {
        let directory = directory();
        let path = directory.path();
        let store = Embedded::open(path, options()).expect("a store");
        let mut random = Random(seed);
        let mut truth = Truth::new();
        let late = START + 20 * HOUR;
        let mut agents: Vec<Agent> = (0..4).map(|number| Agent::new(&store, number)).collect();
        let mut send = |random: &mut Random, truth: &mut Truth, hour: u64| {
            let host = random.below(4) as usize;
            // Streams end and begin at any time.
            if random.below(3) == 0 {
                let sequence = agents[host].sequence;
                agents[host] = Agent::new(&store, host as u8);
                agents[host].sequence = sequence;
            }
            let mut rows: Vec<Row> =
                (0..5).map(|_| row(["a", "b", "c"][random.below(3) as usize], random.below(12))).collect();
            rows.sort();
            rows.dedup();
            let start = hour + random.below(300) * 10 * SECOND;
            agents[host].send(&window(start, 10 * SECOND, &rows, "cpu", 1.0)).expect("it is stored");
            if hour == late {
                add(truth, host as u8, &rows);
            }
        };
        for _ in 0..30 {
            send(&mut random, &mut truth, START);
        }
        let mut now = late + 5 * MINUTE;
        let (mut deleted, mut kills) = (0, 0);
        for _ in 0..150 {
            if random.below(4) == 0 {
                send(&mut random, &mut truth, late);
            }
            // A tick of upkeep, and now and then the pause that it waits for.
            if !store.maintain(now).expect("maintenance") {
                now += 70 * SECOND;
            }
            deleted = deleted.max(store.holdings().expect("holdings").deleted_names);
            if random.below(4) == 0 {
                let copy = killed(path);
                let store = Embedded::open(copy.path(), options()).expect("it opens after a kill");
                assert_eq!(told(&store, late, late + HOUR), truth, "seed {seed}");
                assert_whole(copy.path());
                kills += 1;
            }
        }
        assert_eq!(told(&store, late, late + HOUR), truth, "seed {seed}");
        assert!(deleted > 0 && kills > 10, "seed {seed}: {deleted} deleted, {kills} kills");
    }
}

#[test]
fn a_catalogue_stays_within_its_limit_and_the_oldest_goes() {
    let directory = directory();
    let limit = 60_000;
    let options = Options { hours_ns: 1_000 * HOUR, max_name_bytes: limit, ..options() };
    let store = Embedded::open(directory.path(), options).expect("a store");
    let (mut stored, mut refused) = (0, 0);
    for hour in 0..60 {
        // Every process compiles its code anew.
        let rows: Vec<Row> = (0..20).map(|number| row(&format!("jit{hour}"), number)).collect();
        let start = START + hour * HOUR;
        let mut agent = Agent::new(&store, 1);
        match agent.send_as(hour + 1, &window(start, 10 * SECOND, &rows, "cpu", 1.0)) {
            Ok(_) => {
                stored += 1;
                let mut truth = Truth::new();
                add(&mut truth, 1, &rows);
                assert_eq!(told(&store, start, start + HOUR), truth);
            }
            Err(_) => refused += 1,
        }
        drop(agent);
        for minutes in [130, 132, 134] {
            while store.maintain(start + minutes * MINUTE).expect("maintenance") {}
        }
        let holdings = store.holdings().expect("holdings");
        // One batch may go beyond it.
        assert!(holdings.name_bytes < limit + 8_000, "hour {hour}: {holdings:?}");
    }
    let holdings = store.holdings().expect("holdings");
    assert!(holdings.deleted_names > 1_000 && holdings.deleted_rows > 0, "{holdings:?}");
    assert!(stored > 55, "{stored} stored, {refused} refused");
    assert_whole(directory.path());
}
