//! What becomes of a fleet's windows: sums of minutes and hours that really are sums.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::Store;
use parquet::file::reader::{FileReader, SerializedFileReader};

use common::*;

const HOSTS: u8 = 6;

/// A window each ten seconds of each host, in the order of time, all with the same stacks.
fn stream(agents: &mut [Agent], rows: &[Row], from: u64, until: u64) {
    for start in (from..until).step_by(10 * SECOND as usize) {
        for agent in &mut *agents {
            agent.send(&window(start, 10 * SECOND, rows, "cpu", 1.0)).expect("it is stored");
        }
    }
}

/// How many rows there are of each key (series, class, stack, start), in all files of a level.
fn rows_by_key(store: &Path, level: &str) -> BTreeMap<[String; 4], u64> {
    let mut rows = BTreeMap::new();
    for entry in fs::read_dir(store.join("segments")).expect("segments") {
        let entry = entry.expect("an entry");
        if !entry.file_name().to_string_lossy().starts_with(&format!("samples-{level}-")) {
            continue;
        }
        let file = SerializedFileReader::new(File::open(entry.path()).expect("a file")).expect("Parquet");
        for row in file.get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            let columns: BTreeMap<_, _> = row.get_column_iter().collect();
            let of = |name: &str| columns[&name.to_owned()].to_string();
            *rows.entry([of("series"), of("class"), of("stack"), of("start_unix_ns")]).or_default() += 1;
        }
    }
    rows
}

#[test]
fn minutes_and_hours_of_many_agents_are_one_row_each() {
    let directory = directory();
    // A segment has windows of two agents or so, as one of a large fleet has those of some tens.
    let options = Options { segment_rows: 600, ..Options::default() };
    let store = Embedded::open(directory.path(), options).expect("a store");
    let rows = rows(&mut Random(1), 10);
    let mut agents: Vec<Agent> = (1..=HOSTS).map(|host| Agent::new(&store, host)).collect();
    // Upkeep while they stream, as a collector has it.
    for minute in 0..70 {
        let start = START + minute * MINUTE;
        stream(&mut agents, &rows, start, start + MINUTE);
        while store.maintain(start + MINUTE).expect("upkeep") {}
    }
    let holdings = store.holdings().expect("holdings");
    let in_an_hour = 60 * 6 * rows.len() * usize::from(HOSTS);
    let waiting_at_most = 20 * 6 * (rows.len() + 10) * usize::from(HOSTS);
    assert!(
        holdings.fresh_rows < waiting_at_most as u64,
        "{holdings:?}: windows go into segments before their hour is over"
    );
    while store.maintain(START + 3 * HOUR).expect("upkeep") {}

    let of = |level| rows_by_key(directory.path(), level);
    for (level, rows_each) in [("windows", 1), ("minutes", 1), ("hours", 1)] {
        let twice = of(level).into_values().filter(|times| *times > rows_each).count();
        assert_eq!(twice, 0, "{level}: rows of the same are one");
    }
    let keys = rows.len() * usize::from(HOSTS);
    assert_eq!(of("windows").len(), in_an_hour / 60 * 70);
    assert_eq!(of("minutes").len(), keys * 70);
    assert_eq!(of("hours").len(), keys * 2);
    let mut truth = Truth::new();
    for host in 1..=HOSTS {
        (0..60 * 6).for_each(|_| add(&mut truth, host, &rows));
    }
    assert_eq!(told(&store, START, START + HOUR), truth);
}
