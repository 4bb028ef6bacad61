//! The same windows and the same questions, whatever they are, give the same answers on both homes.

use std::collections::BTreeMap;

use chokepoint_collector::labels::{Matcher, Operator};
use chokepoint_collector::store::clickhouse::{ClickHouse, Keep, Options as ClickHouseOptions};
use chokepoint_collector::store::{Selection, SignalQuery, Store, SumQuery};

use super::common::clickhouse::{Server, number, open, options, servers};
use super::common::*;
use super::{Embedded, Options};

/// Fleets, and questions to each before and after the embedded home makes history of it.
const FLEETS: u64 = 2;
const QUESTIONS: usize = 25;
const HOSTS: u8 = 4;
const WINDOWS: u64 = 40;

/// A sum with its stack as names.
type Told = (Vec<String>, u64, String, Option<Vec<String>>, u64, u64);

fn sums(store: &dyn Store, query: &SumQuery) -> Vec<Told> {
    let sums = store.sums(query).expect("sums").sums;
    let stacks: Vec<_> = sums.iter().filter_map(|sum| sum.stack).collect();
    let frames = store.frames(&stacks).expect("frames");
    let mut leaves = frames.leaves.iter();
    let mut told: Vec<Told> = sums
        .into_iter()
        .map(|sum| {
            let stack = sum.stack.map(|_| {
                let leaf = *leaves.next().expect("a leaf for each stack");
                let names = frames.leaf_first(leaf).map(|at| {
                    let place = &frames.locations[at];
                    let module = &frames.modules[place.module];
                    let (function, line) = place.lines[0];
                    format!("{:?} {:x} {:?}:{line}", module, place.address, frames.functions[function])
                });
                names.collect()
            });
            (sum.group, sum.start_unix_ns, sum.class, stack, sum.count, sum.weight)
        })
        .collect();
    told.sort_unstable();
    told
}

/// A time of some of the windows, or of none.
fn time(random: &mut Random) -> Selection {
    let from = *TO_COME + 22 * HOUR + random.below(4 * 360) * 10 * SECOND;
    let length = [5 * SECOND, MINUTE, 90 * MINUTE, 30 * HOUR][random.below(4) as usize];
    between(from - from % SECOND, from + length)
}

fn matchers(random: &mut Random) -> Vec<Matcher> {
    let one = |random: &mut Random| match random.below(7) {
        0 => matcher("host", Operator::Is, "host-2"),
        1 => matcher("process", Operator::Matches, "web|db"),
        2 => matcher("pod", Operator::IsNot, "web-1"),
        3 => matcher("zone", Operator::Is, "odd"),
        4 => matcher("pod", Operator::MatchesNot, "web-[01]"),
        5 => matcher("service", Operator::Is, ""),
        _ => matcher("instance", Operator::Is, "ring full"),
    };
    (0..random.below(3)).map(|_| one(random)).collect()
}

/// Asks both the same, and says what the question was where the answers differ. Where windows have gone, what limited hosts has gone with
/// them in one home only.
fn compare(one: &dyn Store, other: &dyn Store, random: &mut Random, have_windows: bool) {
    let mut selection = time(random);
    selection.matchers = matchers(random);
    let labels = ["host", "process", "pod", "zone", "thread", "nothing"];
    let group_by = labels.iter().filter(|_| random.below(3) == 0).map(|name| (*name).to_owned()).collect();
    let query = SumQuery {
        selection: selection.clone(),
        kind: ["wall", "faults", "none"][random.below(3) as usize].to_owned(),
        classes: if random.below(3) == 0 {
            vec!["lock".to_owned(), "nobody's".to_owned()]
        } else {
            Vec::new()
        },
        group_by,
        step_ns: [None, Some(10 * SECOND), Some(MINUTE), Some(HOUR)][random.below(4) as usize],
        by_class: random.below(2) == 0,
        by_stack: random.below(2) == 0,
        max_sums: 100_000,
    };
    assert_eq!(sums(one, &query), sums(other, &query), "{query:?}");
    assert_eq!(one.sums(&query).expect("sums").unit, other.sums(&query).expect("sums").unit, "{query:?}");
    let name = ["", "cpu.utilization", "agent.lost_samples", "none"][random.below(4) as usize].to_owned();
    let signals = SignalQuery { selection: selection.clone(), name, max_values: 100_000 };
    assert_eq!(
        one.signals(&signals).expect("signals"),
        other.signals(&signals).expect("signals"),
        "{signals:?}"
    );
    let labels = |store: &dyn Store| store.labels(&selection, 1_000).expect("labels");
    assert_eq!(labels(one), labels(other), "{selection:?}");
    if have_windows {
        let verdicts = |store: &dyn Store| store.verdicts(&selection).expect("verdicts");
        assert_eq!(verdicts(one), verdicts(other), "{selection:?}");
    }
}

/// Windows around midnight with gaps, some of them sent again.
fn fill(stores: [&dyn Store; 2], random: &mut Random) {
    for host in 1..=HOSTS {
        let mut agents = stores.map(|store| Agent::new(store, host));
        let mut start = *TO_COME + 23 * HOUR + random.below(60) * MINUTE;
        for sequence in 1..=WINDOWS {
            start += 10 * SECOND * (1 + random.below(4) / 3 * random.below(200));
            let length = 1 + random.below(6) as usize;
            let mut rows = rows(random, length);
            for row in &mut rows {
                row.kind = ["wall", "faults"][random.below(2) as usize];
            }
            let verdict = ["cpu", "lock"][(random.below(8) / 7) as usize];
            let mut window = window(start, 10 * SECOND, &rows, verdict, random.below(100) as f64);
            if random.below(6) == 0 {
                window.verdict = None;
            }
            for agent in &mut agents {
                agent.send_as(sequence, &window).expect("it is stored");
                if sequence % 7 == 0 {
                    agent.send_as(sequence - 3, &window).expect("it is stored already");
                }
            }
        }
    }
}

#[test]
fn both_homes_answer_the_same() {
    Server::start().iter().for_each(compare_homes);
}

#[test]
fn both_homes_answer_the_same_on_a_current_server() {
    Server::current().iter().for_each(compare_homes);
}

fn compare_homes(server: &Server) {
    for fleet in 1..=FLEETS {
        let directory = directory();
        let embedded = Embedded::open(directory.path(), Options::default()).expect("a store");
        let at = servers(&[server], &format!("same_{fleet}"));
        let distributed = open(&at);
        let mut random = Random(fleet * 7_919);
        fill([&embedded, &distributed], &mut random);
        for is_history in [false, true] {
            if is_history {
                while embedded.maintain(*TO_COME + 40 * HOUR).expect("maintenance") {}
                while distributed.maintain(*TO_COME + 40 * HOUR).expect("maintenance") {}
            }
            for _ in 0..QUESTIONS {
                compare(&embedded, &distributed, &mut random, true);
            }
        }
        assert_eq!(embedded.kinds().expect("kinds"), distributed.kinds().expect("kinds"));
        let agents = |store: &dyn Store| -> BTreeMap<String, _> {
            let agents = store.agents().expect("agents").into_iter();
            agents.map(|agent| (agent.agent.clone(), agent)).collect()
        };
        assert_eq!(agents(&embedded), agents(&distributed));
        // Nothing but sums of minutes is left, and then of hours: long times are asked of them. The windows of now are beside them.
        let options = ClickHouseOptions { keep: Some(Keep::new(2, 14, 400)), ..options() };
        let forgetful = ClickHouse::open(&at, &options).expect("a store");
        for days in [5, 20] {
            let now = *TO_COME + days * 24 * HOUR;
            for store in [&embedded as &dyn Store, &forgetful] {
                let newest = window(now, 10 * SECOND, &rows(&mut Random(days), 3), "cpu", 1.0);
                Agent::new(store, HOSTS).send_as(WINDOWS + days, &newest).expect("it is stored");
                while store.maintain(now).expect("maintenance") {}
            }
            let table = if days == 5 { "batches" } else { "minutes" };
            let left = format!(
                "SELECT count() FROM {}.{table} WHERE hour < {}",
                at.database,
                (*TO_COME + 96 * HOUR) / HOUR
            );
            assert_eq!(number(server, &left), 0, "or this shows nothing");
            for _ in 0..QUESTIONS {
                compare(&embedded, &forgetful, &mut random, false);
            }
        }
    }
}
