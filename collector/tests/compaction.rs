//! What becomes of a fleet's windows: sums of minutes and hours that really are sums, and nothing left of agents that are long gone.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{Appended, Store};
use parquet::file::reader::{FileReader, SerializedFileReader};

use common::*;

const HOSTS: u8 = 6;
const DAY: u64 = 24 * HOUR;

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

#[test]
fn what_was_missing_of_an_agents_last_window_is_told() {
    let directory = directory();
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    let mut agent = Agent::new(&store, 1);
    let mut send = |step: u64, notes: Vec<String>, given_up: Vec<String>| {
        let mut window = window(START + step * 10 * SECOND, 10 * SECOND, &[], "cpu", 1.0);
        window.losses.as_mut().expect("losses").notes = notes;
        window.cost.as_mut().expect("cost").given_up = given_up;
        agent.send(&window).expect("it is stored");
    };
    let status = || store.agents().expect("agents").remove(0);
    let said = |text: &str| vec![text.to_owned()];
    send(1, said("no counter of cycles"), said("stacks of waits"));
    assert_eq!((status().notes, status().given_up), (said("no counter of cycles"), said("stacks of waits")));
    // One that comes late says nothing of the present.
    send(0, said("long ago"), Vec::new());
    assert_eq!((status().notes, status().given_up), (said("no counter of cycles"), said("stacks of waits")));
    send(2, (0..20).map(|number| format!("{number}{}", "ä".repeat(1_000))).collect(), Vec::new());
    let last = status();
    assert_eq!((last.notes.len(), &*last.notes[16], last.given_up.len()), (17, "and 4 more", 0));
    assert!(last.notes.iter().all(|note| note.chars().count() <= 256));
}

#[test]
fn agents_of_which_nothing_is_left_are_forgotten() {
    let directory = directory();
    let options = Options { hours_ns: 10 * DAY, ..Options::default() };
    let store = Embedded::open(directory.path(), options).expect("a store");
    let now = this_hour();
    let window = window(now, 10 * SECOND, &rows(&mut Random(2), 3), "cpu", 1.0);
    assert_eq!(Agent::new(&store, 1).send(&window).expect("it is stored"), Appended::New);
    // One that never sends anything, and one whose number must not be given out again.
    drop(Agent::new(&store, 2));
    drop(Agent::new(&store, 3));
    let hosts = |after_days| {
        while store.maintain(now + after_days * DAY).expect("upkeep") {}
        let agents = store.agents().expect("agents");
        agents.into_iter().map(|agent| agent.labels["host"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(hosts(12), ["host-1", "host-2", "host-3"], "what its spool still has is known");
    assert_eq!(store.holdings().expect("holdings").segments, 0);
    assert_eq!(Agent::new(&store, 1).send(&window).expect("an answer"), Appended::Known);
    assert_eq!(hosts(32), ["host-1", "host-3"]);
    assert_eq!(hosts(42), ["host-3"]);
    assert_eq!(store.holdings().expect("holdings").forgotten_agents, 2);
    assert_eq!(Agent::new(&store, 1).send(&window).expect("it is stored"), Appended::New);
}
