//! Two servers as two shards: each has its agents, and what one of them would have told is told to be missing.

use chokepoint_collector::store::clickhouse::ClickHouse;
use chokepoint_collector::store::{Appended, Asker, Store};

use super::common::clickhouse::{Server, open, options, servers};
use super::common::*;

const HOSTS: u8 = 8;

/// The sums of all time, and what is missing of them.
fn told_with_missing(store: &dyn Store) -> (u64, Vec<String>) {
    let mut query = by_all(0, u64::MAX);
    query.by_stack = false;
    let asker = Asker::default();
    query.selection.asker = asker.clone();
    let weight = store.sums(&query).expect("sums").sums.iter().map(|sum| sum.weight).sum();
    (weight, asker.missing())
}

/// Windows of all hosts, one each; how much they weigh.
fn fill(store: &dyn Store, sequence: u64) -> u64 {
    let mut random = Random(sequence + 77);
    let mut weight = 0;
    for host in 1..=HOSTS {
        let rows = rows(&mut random, 5);
        weight += rows.iter().map(|row| row.weight).sum::<u64>();
        let window = window(START + sequence * 10 * SECOND, 10 * SECOND, &rows, "cpu", 1.0);
        let sent = Agent::new(store, host).send_as(sequence, &window).expect("it is stored");
        assert_eq!(sent, Appended::New);
    }
    weight
}

#[test]
fn a_shard_that_does_not_answer_is_told_and_comes_back() {
    let (Some(first), Some(mut second)) = (Server::start(), Server::start()) else { return };
    let at = servers(&[&first, &second], "two");
    let store = open(&at);
    let whole = fill(&store, 1);
    assert_eq!(told_with_missing(&store), (whole, Vec::new()));
    assert_eq!(store.agents().expect("agents").len(), usize::from(HOSTS));
    // Each shard has some, where the servers' own function says.
    let count = |server: &Server| {
        let count = server.ask("SELECT uniqExact(agent) FROM two.batches").expect("an answer");
        count.trim().parse::<u8>().expect("a number")
    };
    let of_both = [count(&first), count(&second)];
    assert!(of_both[0] > 0 && of_both[1] > 0 && of_both[0] + of_both[1] == HOSTS, "{of_both:?}");
    let sharded = second
        .ask("SELECT count() FROM two.agents WHERE cityHash64('', values[indexOf(names, 'host')]) % 2 != 1");
    assert_eq!(sharded.as_deref().map(str::trim), Some("0"));
    // The servers are told apart: in another order they are other shards.
    let wrong =
        ClickHouse::open(&servers(&[&second, &first], "two"), &options()).expect_err("the order counts");
    assert!(
        std::error::Error::source(&wrong).is_some_and(|why| why.to_string().contains("in the order")),
        "{wrong:?}"
    );

    second.kill();
    let (part, missing) = told_with_missing(&store);
    assert!(part > 0 && part < whole, "{part} of {whole}");
    assert_eq!(missing.len(), 1);
    assert!(missing[0].starts_with("shard 2 of 2") && missing[0].contains(&second.address().to_string()));
    // What cannot be told in part is not told.
    assert!(store.agents().is_err() && store.kinds().is_err());
    // Agents of the other shard are stored; those of this one are to come again.
    let mut random = Random(5);
    let rows = rows(&mut random, 2);
    let again = window(START + 20 * SECOND, 10 * SECOND, &rows, "cpu", 1.0);
    let mut stored = 0;
    let mut refused = Vec::new();
    for host in 1..=HOSTS {
        match store.appender(&hello(host), None).is_ok() {
            true => {
                Agent::new(&store, host).send_as(2, &again).expect("its shard answers");
                stored += 1;
            }
            false => refused.push(host),
        }
    }
    assert_eq!((stored, refused.len()), (of_both[0], usize::from(of_both[1])));
    // A collector that begins now serves what there is.
    let late = open(&at);
    assert_eq!(told_with_missing(&late).1.len(), 1);

    second.begin();
    // It is asked again within seconds.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !told_with_missing(&store).1.is_empty() || !told_with_missing(&late).1.is_empty() {
        assert!(std::time::Instant::now() < until, "it answers");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for host in refused {
        Agent::new(&store, host).send_as(2, &again).expect("its shard answers again");
    }
    let weight: u64 = rows.iter().map(|row| row.weight).sum();
    let all = whole + weight * u64::from(HOSTS);
    assert_eq!(told_with_missing(&store), (all, Vec::new()));
    assert_eq!(told_with_missing(&late), (all, Vec::new()));
}

#[test]
fn a_batch_that_two_collectors_store_counts_once() {
    let Some(server) = Server::start() else { return };
    let at = servers(&[&server], "twice");
    let (one, other) = (open(&at), open(&at));
    let mut random = Random(11);
    let windows: Vec<_> = (0..3)
        .map(|step| {
            let rows = rows(&mut random, 5);
            (window(START + step * 10 * SECOND, 10 * SECOND, &rows, "cpu", 1.0), rows)
        })
        .collect();
    let mut truth = Truth::new();
    for (_, rows) in &windows {
        add(&mut truth, 1, rows);
    }
    // Both have looked what is stored before either stores the second.
    let (mut first, mut second) = (Agent::new(&one, 1), Agent::new(&other, 1));
    assert_eq!(second.send_as(1, &windows[0].0).expect("an answer"), Appended::New);
    assert_eq!(first.send_as(1, &windows[0].0).expect("an answer"), Appended::Known);
    assert_eq!(first.send_as(2, &windows[1].0).expect("an answer"), Appended::New);
    assert_eq!(second.send_as(2, &windows[1].0).expect("an answer"), Appended::New);
    assert_eq!(first.send_as(3, &windows[2].0).expect("an answer"), Appended::New);
    let rows = server.ask("SELECT count() FROM twice.batches WHERE kind = '' AND sequence = 2");
    assert_eq!(rows.as_deref().map(str::trim), Some("2"), "or this shows nothing");
    for store in [&one, &other] {
        assert_eq!(told(store, 0, u64::MAX), truth);
        let agents = store.agents().expect("agents");
        assert_eq!((agents.len(), agents[0].batches), (1, 3));
        assert_eq!(store.verdicts(&between(0, u64::MAX)).expect("verdicts")[0].windows, 3);
    }
    // Merged, too.
    server.ask("OPTIMIZE TABLE twice.batches FINAL").expect("an answer");
    assert_eq!(told(&one, 0, u64::MAX), truth);
}
