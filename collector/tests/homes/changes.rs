//! A store that changes while it has windows: its schema, and how many servers it has.

use std::error::Error;

use chokepoint_collector::store::clickhouse::{ClickHouse, Dialect, Keep, Options, Servers};
use chokepoint_collector::store::{Appended, Store};

use super::common::clickhouse::{Server, number, open, options, servers};
use super::common::*;

/// Statements of the first version of the schema.
const FIRST_VERSION: usize = 7;
const HOSTS: u8 = 8;

fn why(error: &dyn Error) -> String {
    error.source().map_or_else(String::new, ToString::to_string)
}

/// Two collectors that begin at once.
fn open_at_once(at: &Servers) -> Vec<ClickHouse> {
    std::thread::scope(|scope| {
        let opened = [(); 2].map(|()| scope.spawn(|| open(at)));
        opened.map(|store| store.join().expect("a store")).into()
    })
}

#[test]
fn a_store_of_before_there_were_sums_is_answered_and_goes_on() {
    let Some(server) = Server::start() else { return };
    let made = open_at_once(&servers(&[&server], "made"));
    let truth = fill_hosts(&made[0], 2, START, 2, 7);
    assert_eq!(told(&made[1], 0, u64::MAX), truth);
    // The same windows, as the version before has stored them.
    server.ask("CREATE DATABASE before").expect("an answer");
    for statement in Dialect::Plain.statements_after(0, "before").iter().take(FIRST_VERSION) {
        let statement = statement.replace("IF NOT EXISTS ", "IF NOT EXISTS before.");
        server.ask(&statement).expect("an answer");
    }
    server
        .ask("CREATE TABLE before.schema (version UInt32, shard UInt32, shards UInt32) ENGINE = MergeTree ORDER BY version")
        .expect("an answer");
    server.ask("INSERT INTO before.schema VALUES (1, 0, 1)").expect("an answer");
    for (to, from) in [("windows", "batches")]
        .into_iter()
        .chain(["series", "frames", "stacks", "kinds", "agents", "owners"].map(|table| (table, table)))
    {
        server.ask(&format!("INSERT INTO before.{to} SELECT * FROM made.{from}")).expect("an answer");
    }

    let at = servers(&[&server], "before");
    let stores = open_at_once(&at);
    for store in &stores {
        assert_eq!(told(store, 0, u64::MAX), truth);
        assert_eq!(store.verdicts(&between(0, u64::MAX)).expect("verdicts").len(), 2);
        assert_eq!(store.agents().expect("agents")[0].batches, 12);
    }
    // What is sent again is known, and what is new is told with what was there: the hour is not added up without it.
    let mut random = Random(3);
    let rows = rows(&mut random, 4);
    let next = window(START + 3 * MINUTE, 10 * SECOND, &rows, "cpu", 1.0);
    let mut agent = Agent::new(&stores[0], 1);
    assert_eq!(agent.send_as((START + 10 * SECOND) / SECOND, &next).expect("an answer"), Appended::Known);
    assert_eq!(agent.send_as(2 * START / SECOND, &next).expect("an answer"), Appended::New);
    let mut both = truth;
    add(&mut both, 1, &rows);
    while stores[1].maintain(START + 30 * HOUR).expect("maintenance") {}
    assert_eq!(number(&server, "SELECT count() FROM before.rolls"), 0);
    assert_eq!(told(&stores[1], 0, u64::MAX), both);
    // They go when they are too old, by the day.
    let keep = Options { keep: Some(Keep::new(1, 1, 30)), ..options() };
    let kept = ClickHouse::open(&at, &keep).expect("a store");
    kept.maintain(START + 30 * HOUR).expect("maintenance");
    assert!(number(&server, "SELECT count() FROM before.windows") > 0);
    kept.maintain(START + 50 * HOUR).expect("maintenance");
    assert_eq!(number(&server, "SELECT count() FROM before.windows"), 0);
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let Some(server) = Server::start() else { return };
    let at = servers(&[&server], "newer");
    drop(open(&at));
    server.ask("INSERT INTO newer.schema VALUES (99, 0, 1)").expect("an answer");
    let refused = why(&ClickHouse::open(&at, &options()).expect_err("it is newer"));
    assert!(refused.contains("version 99") && refused.contains("use the newer one"), "{refused}");
}

#[test]
fn a_store_that_grows_keeps_what_it_has_and_counts_it_once() {
    let (Some(first), Some(second)) = (Server::start(), Server::start()) else { return };
    let small = servers(&[&first], "grown");
    let before = open(&small);
    let mut truth = Truth::new();
    let mut random = Random(23);
    let mut windows: Vec<Vec<_>> = Vec::new();
    for host in 1..=HOSTS {
        let mut agent = Agent::new(&before, host);
        let own: Vec<_> = (1..=4)
            .map(|sequence| {
                let rows = rows(&mut random, 4);
                add(&mut truth, host, &rows);
                window(START + sequence * 10 * SECOND, 10 * SECOND, &rows, "cpu", 1.0)
            })
            .collect();
        for window in &own[..3] {
            agent.send(window).expect("it is stored");
        }
        windows.push(own);
    }
    let mut stale = Agent::new(&before, 1);

    // The new one comes last; in front it would be another shard.
    let wrong =
        why(&ClickHouse::open(&servers(&[&second, &first], "grown"), &options())
            .expect_err("the order counts"));
    assert!(wrong.contains("new ones after them"), "{wrong}");
    let large = servers(&[&first, &second], "grown");
    let after = open(&large);
    for host in 1..=HOSTS {
        let mut agent = Agent::new(&after, host);
        let own = &windows[usize::from(host) - 1];
        // The last of before is sent again, for its sender did not hear that it is stored.
        assert_eq!(agent.send_as(3, &own[2]).expect("an answer"), Appended::Known, "{host}");
        assert_eq!(agent.send_as(4, &own[3]).expect("an answer"), Appended::New, "{host}");
    }
    assert_eq!(told(&after, 0, u64::MAX), truth);
    let agents_of = |server: &Server, last: u64| {
        number(server, &format!("SELECT uniqExact(agent) FROM grown.batches WHERE sequence = {last}"))
    };
    assert_eq!((agents_of(&first, 3), agents_of(&second, 3)), (u64::from(HOSTS), 0));
    let moved = agents_of(&second, 4);
    assert!(moved > 0 && agents_of(&first, 4) + moved == u64::from(HOSTS), "{moved}");
    let sharded =
        "SELECT count() FROM grown.agents WHERE cityHash64('', values[indexOf(names, 'host')]) % 2 != 1";
    assert_eq!(number(&second, sharded), 0);
    // What is told of a host goes on over both.
    let verdicts = after.verdicts(&between(0, u64::MAX)).expect("verdicts");
    assert_eq!(verdicts.iter().map(|span| span.windows).collect::<Vec<_>>(), [4; HOSTS as usize]);
    let agents = after.agents().expect("agents");
    assert!(agents.len() == usize::from(HOSTS) && agents.iter().all(|agent| agent.batches == 4));

    // Who does not know of it neither writes nor answers any more.
    let refused = stale.send_as(5, &windows[0][3]).expect_err("it has grown");
    assert!(why(&refused).contains("start the collector with all of them"), "{refused:?}");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(before.sums(&by_all(0, u64::MAX)).is_err());
    let refused = why(&ClickHouse::open(&small, &options()).expect_err("it has grown"));
    assert!(refused.contains("grown to 2 servers"), "{refused}");
    // Any other comes to the same.
    assert_eq!(told(&open(&large), 0, u64::MAX), truth);
}
