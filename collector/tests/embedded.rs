//! The embedded store: what was appended is there, once, whatever happens to it on its way into history.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use chokepoint_collector::store::embedded::{Embedded, OpenError, Options};
use chokepoint_collector::store::{Appended, SignalQuery, Store, SumQuery};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use common::*;

fn open(path: &Path) -> Embedded {
    Embedded::open(path, Options::default()).expect("a store")
}

/// Has everything done that is due.
fn maintain(store: &dyn Store, now_unix_ns: u64) {
    while store.maintain(now_unix_ns).expect("maintenance") {}
}

/// Windows of ten seconds of three hosts over this time, and what they add up to.
fn fill(store: &dyn Store, from_unix_ns: u64, minutes: u64, seed: u64) -> Truth {
    fill_hosts(store, 3, from_unix_ns, minutes, seed)
}

#[test]
fn history_says_the_same_as_fresh_windows() {
    let directory = directory();
    // Segments of few rows, so that an hour has several of them.
    let options = Options { segment_rows: 300, ..Options::default() };
    let store = Embedded::open(directory.path(), options).expect("a store");
    let truth = fill_hosts(&store, 1, START - 7 * MINUTE, 80, 5);
    let queries = [
        (START - HOUR, START + 4 * HOUR, None),
        (START, START + HOUR, Some(10 * SECOND)),
        (START - 7 * MINUTE + 10 * SECOND, START + HOUR + 90 * SECOND, Some(5 * MINUTE)),
        (START + 5 * SECOND, START + 2 * HOUR - 5 * SECOND, None),
        (START - HOUR, START + HOUR + MINUTE, Some(HOUR)),
    ]
    .map(|(from, until, step_ns)| SumQuery { step_ns, ..by_all(from, until) });
    let answers =
        |store: &dyn Store| queries.iter().map(|query| store.sums(query).expect("sums")).collect::<Vec<_>>();
    let labels = |store: &dyn Store| store.labels(&between(START, START + MINUTE), 100).expect("labels");
    let signals = |store: &dyn Store| {
        let query =
            SignalQuery { selection: between(START, START + HOUR), name: String::new(), max_values: 100_000 };
        store.signals(&query).expect("signals")
    };
    let before = (answers(&store), labels(&store), signals(&store));
    assert!(before.0.iter().all(|sums| !sums.sums.is_empty()));
    // Step by step: whatever is moved, answers stay.
    let now = START + 4 * HOUR;
    let mut turns = 0;
    while store.maintain(now).expect("maintenance") {
        turns += 1;
        assert!((answers(&store), labels(&store), signals(&store)) == before, "turn {turns}");
    }
    let holdings = store.holdings().expect("holdings");
    assert_eq!(holdings.fresh_rows, 0);
    assert!(turns > 10 && holdings.segments > 30, "{turns} turns, {holdings:?}");
    drop(store);
    let store = open(directory.path());
    assert_eq!(answers(&store), before.0);
    assert_eq!(told(&store, 0, u64::MAX), truth);
    // What comes late joins what is there.
    let late = fill(&store, START + 2 * HOUR + 30 * MINUTE, 1, 6);
    let mut random = Random(9);
    let late_rows = rows(&mut random, 5);
    let mut agent = Agent::new(&store, 1);
    agent.send_as(1, &window(START + MINUTE, 10 * SECOND, &late_rows, "cpu", 1.0)).expect("it is stored");
    let mut all = truth;
    for (key, (count, weight)) in late {
        let sum = all.entry(key).or_default();
        *sum = (sum.0 + count, sum.1 + weight);
    }
    add(&mut all, 1, &late_rows);
    assert_eq!(told(&store, 0, u64::MAX), all);
    maintain(&store, now + 2 * HOUR);
    assert_eq!(told(&store, 0, u64::MAX), all);
    assert_eq!(told(&store, START - HOUR, START + 4 * HOUR), all);
}

/// Rows of all Parquet files of a folder whose names begin so, each column by its name.
fn parquet_rows(folder: &Path, prefix: &str) -> Vec<BTreeMap<String, String>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let file = fs::File::open(entry.path()).expect("a file");
            let reader = SerializedFileReader::new(file).expect("a Parquet file");
            for row in reader.get_row_iter(None).expect("rows") {
                let row = row.expect("a row");
                let columns = row.get_column_iter().map(|(name, value)| match value {
                    Field::Str(text) => (name.clone(), text.clone()),
                    other => (name.clone(), other.to_string()),
                });
                rows.push(columns.collect());
            }
        }
    }
    rows
}

#[test]
fn any_reader_of_parquet_understands_history() {
    let directory = directory();
    let store = open(directory.path());
    let mut truth = fill_hosts(&store, 2, START, 2, 12);
    maintain(&store, START + 2 * HOUR);
    // What is new comes in files of its own.
    for (key, (count, weight)) in fill_hosts(&store, 2, START + HOUR, 2, 13) {
        let sum = truth.entry(key).or_default();
        *sum = (sum.0 + count, sum.1 + weight);
    }
    maintain(&store, START + 3 * HOUR);
    drop(store);

    let names = directory.path().join("names");
    let mut stacks: BTreeMap<String, (String, String)> = BTreeMap::new();
    for row in parquet_rows(&names, "stacks-") {
        assert!(row["module"].starts_with("/bin/") && row["build_id"] == "010203" && row["line"] == "7");
        let known = stacks.insert(row["stack"].clone(), (row["caller"].clone(), row["function"].clone()));
        assert!(known.is_none(), "each is there once");
    }
    let mut labels: BTreeMap<(String, String), String> = BTreeMap::new();
    for row in parquet_rows(&names, "series-") {
        labels.insert((row["series"].clone(), row["name"].clone()), row["value"].clone());
    }
    for level in ["windows", "minutes", "hours"] {
        let mut told = Truth::new();
        for row in parquet_rows(&directory.path().join("segments"), &format!("samples-{level}-")) {
            let label = |name: &str| {
                labels.get(&(row["series"].clone(), name.to_owned())).cloned().unwrap_or_default()
            };
            assert_eq!(
                (&*row["kind"], &row["host"], &row["service"]),
                ("wall", &label("host"), &label("process"))
            );
            let mut stack = Vec::new();
            let mut node = row["stack"].clone();
            while let Some((caller, function)) = stacks.get(&node) {
                stack.insert(0, function.clone());
                node = caller.clone();
            }
            let key = (row["host"].clone(), label("process"), label("pod"), row["class"].clone(), stack);
            let sum = told.entry(key).or_default();
            let number = |name: &str| row[name].parse::<u64>().expect("a number");
            *sum = (sum.0 + number("count"), sum.1 + number("weight"));
        }
        assert_eq!(told, truth, "{level}");
    }
    let signals = parquet_rows(&directory.path().join("segments"), "signals-windows-");
    let of_cpu = signals.iter().filter(|row| row["signal"] == "cpu.utilization" && row["unit"] == "%");
    assert_eq!(of_cpu.count(), 2 * 2 * 12);
}

#[test]
fn what_is_old_goes_the_finest_first() {
    let directory = directory();
    let options = Options {
        windows_ns: 4 * HOUR,
        minutes_ns: 24 * HOUR,
        hours_ns: 72 * HOUR,
        segment_rows: 700,
        ..Options::default()
    };
    let store = Embedded::open(directory.path(), options).expect("a store");
    let truth = fill(&store, START, 120, 7);
    let files = || fs::read_dir(directory.path().join("segments")).expect("segments").count();
    maintain(&store, START + 3 * HOUR);
    let all = store.holdings().expect("holdings");
    assert_eq!((all.deleted_rows, files() as u64), (0, all.segments));

    // Windows go: sums of minutes and hours stay, also where a part of a minute was asked for.
    maintain(&store, START + 7 * HOUR);
    let minutes = store.holdings().expect("holdings");
    assert!(minutes.segment_rows < all.segment_rows && minutes.segments == files() as u64);
    assert_eq!(minutes.deleted_rows, all.segment_rows - minutes.segment_rows);
    assert_eq!(minutes.deleted_bytes, all.segment_bytes - minutes.segment_bytes);
    assert_eq!(told(&store, START, START + 2 * HOUR), truth);
    assert_eq!(told(&store, START - 1, START + 2 * HOUR + 1), truth);
    let by_minute = SumQuery { step_ns: Some(MINUTE), ..by_all(START, START + 2 * HOUR) };
    let steps = |query: &SumQuery| {
        let sums = store.sums(query).expect("sums").sums;
        sums.iter().map(|sum| sum.start_unix_ns).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(steps(&by_minute), 120);

    maintain(&store, START + 28 * HOUR);
    assert_eq!(told(&store, START, START + 2 * HOUR), truth);
    assert_eq!(told(&store, START - 5, START + 2 * HOUR + 5), truth);
    assert_eq!(steps(&by_minute), 2, "only hours are left");

    maintain(&store, START + 80 * HOUR);
    assert_eq!(told(&store, 0, u64::MAX), Truth::new());
    assert_eq!((files(), store.holdings().expect("holdings").segments), (0, 0));
    assert_eq!(store.holdings().expect("holdings").deleted_rows, all.segment_rows);
    assert!(store.verdicts(&between(0, u64::MAX)).expect("verdicts").is_empty());
    // A batch that was deleted comes not again.
    assert_eq!(
        Agent::new(&store, 1)
            .send_as(START / SECOND, &window(START, 10 * SECOND, &[], "", 0.0))
            .expect("an answer"),
        Appended::Known
    );
}

#[test]
fn bytes_are_bounded_and_sums_outlive_windows() {
    let directory = directory();
    let small = Options { segment_rows: 700, ..Options::default() };
    let store = Embedded::open(directory.path(), small.clone()).expect("a store");
    let truth = fill(&store, START, 180, 8);
    maintain(&store, START + 5 * HOUR);
    let all = store.holdings().expect("holdings");
    drop(store);
    // Half of it: windows go, and nothing of the sums.
    let bounded = Options { max_bytes: all.segment_bytes * 2 / 3, ..small.clone() };
    let store = Embedded::open(directory.path(), bounded).expect("a store");
    maintain(&store, START + 5 * HOUR);
    let left = store.holdings().expect("holdings");
    assert!(left.segment_bytes <= all.segment_bytes * 2 / 3 && left.segment_bytes > 0, "{left:?}");
    assert_eq!(told(&store, START, START + 3 * HOUR), truth);
    // Times that are no whole hours are answered from what is left, each row once.
    assert_eq!(told(&store, START - 1, START + 3 * HOUR + 1), truth);
    drop(store);
    let none = Options { max_bytes: 0, ..small };
    let store = Embedded::open(directory.path(), none).expect("a store");
    maintain(&store, START + 5 * HOUR);
    let left = store.holdings().expect("holdings");
    assert_eq!((left.segments, left.deleted_bytes), (0, all.segment_bytes));
    assert_eq!(told(&store, 0, u64::MAX), Truth::new());
}

#[test]
fn a_query_reads_on_what_is_deleted_meanwhile() {
    let directory = directory();
    let options = Options {
        windows_ns: HOUR,
        minutes_ns: HOUR,
        hours_ns: HOUR,
        segment_rows: 100,
        ..Options::default()
    };
    let store = Embedded::open(directory.path(), options).expect("a store");
    let truth = fill(&store, START, 60, 9);
    maintain(&store, START + HOUR + 30 * MINUTE);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            maintain(&store, START + 9 * HOUR);
            is_over.store(true, std::sync::atomic::Ordering::Release);
        });
        // All or, once the hour's turn has come, nothing; and never an error.
        while !is_over.load(std::sync::atomic::Ordering::Acquire) {
            let told = told(&store, START, START + HOUR);
            assert!(told == truth || told.len() < truth.len());
        }
    });
    assert_eq!(told(&store, START, START + HOUR), Truth::new());
    maintain(&store, START + 9 * HOUR);
    assert_eq!(fs::read_dir(directory.path().join("segments")).expect("segments").count(), 0);
}

#[test]
fn a_store_that_is_open_or_newer_is_refused() {
    let directory = directory();
    let store = open(directory.path());
    let refused = Embedded::open(directory.path(), Options::default()).expect_err("it is in use");
    assert!(matches!(&refused, OpenError::InUse(path) if path == directory.path()), "{refused}");
    drop(store);
    drop(open(directory.path()));
    let catalogue =
        rusqlite::Connection::open(directory.path().join("catalogue.sqlite")).expect("a catalogue");
    catalogue.pragma_update(None, "user_version", 7).expect("a version");
    drop(catalogue);
    let refused = Embedded::open(directory.path(), Options::default()).expect_err("it is newer");
    assert!(matches!(refused, OpenError::TooNew { found: 7, .. }), "{refused}");
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let directory = directory();
    let store = open(directory.path());
    let truth = fill(&store, START, 60, 10);
    maintain(&store, START + 3 * HOUR);
    let segments = store.holdings().expect("holdings").segments;
    drop(store);
    let path = directory.path().join("segments");
    for leftover in ["samples-windows-0000000099.parquet", "samples-hours-0000000098.tmp"] {
        fs::write(path.join(leftover), b"half").expect("a leftover");
    }
    let store = open(directory.path());
    assert_eq!(fs::read_dir(&path).expect("segments").count() as u64, segments);
    assert_eq!(told(&store, START, START + HOUR), truth);
    // A segment that is gone is an error that names it, and no smaller sum.
    for entry in fs::read_dir(&path).expect("segments") {
        fs::remove_file(entry.expect("an entry").path()).expect("it goes");
    }
    let error = store.sums(&by_all(START, START + HOUR)).expect_err("nothing to read");
    assert!(error.to_string().contains("samples-hours"), "{error}");
}
