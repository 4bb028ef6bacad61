//! Windows of hours that are over are added up, once, and answers stay what they were: with all of them there, with some that come late, and
//! when nothing but sums is left.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chokepoint_collector::store::clickhouse::{ClickHouse, Keep, Options};
use chokepoint_collector::store::{Appended, SignalQuery, Store, SumQuery};

use super::common::clickhouse::{Server, number, open, options, servers};
use super::common::*;

/// Windows are of hours from here on,
static BEGIN: LazyLock<u64> = LazyLock::new(|| *TO_COME);
/// and before here.
static END: LazyLock<u64> = LazyLock::new(|| *BEGIN + DAY);
const HOURS: u64 = 3;
const HOSTS: u8 = 3;
const DAY: u64 = 24 * HOUR;
/// Between two windows of a host.
const EVERY: u64 = 7 * MINUTE + 10 * SECOND;
/// Longer than an hour rests before it is added up again.
const REST: u64 = 11 * MINUTE;

/// Answers about all of it and about parts that are whole minutes, by steps that sums of minutes have.
fn answers(store: &dyn Store) -> Vec<chokepoint_collector::store::Sums> {
    let mut answers = Vec::new();
    for step_ns in [None, Some(MINUTE), Some(HOUR)] {
        for (from, until) in [(0, *END), (*BEGIN + 13 * MINUTE, *BEGIN + HOUR + 47 * MINUTE)] {
            answers.push(store.sums(&SumQuery { step_ns, ..by_all(from, until) }).expect("sums"));
        }
    }
    answers
}

fn fill(store: &dyn Store) -> Truth {
    let mut random = Random(41);
    let mut truth = Truth::new();
    for host in 1..=HOSTS {
        let mut agent = Agent::new(store, host);
        for start in (0..HOURS * HOUR).step_by(EVERY as usize).map(|offset| *BEGIN + offset) {
            let rows = rows(&mut random, 5);
            add(&mut truth, host, &rows);
            assert_eq!(
                agent.send(&window(start, 10 * SECOND, &rows, "cpu", 50.0)).expect("it is stored"),
                Appended::New
            );
        }
    }
    truth
}

/// A window that comes late, into the first hour.
fn late(store: &dyn Store, truth: &mut Truth, sequence: u64) {
    let rows = rows(&mut Random(sequence), 4);
    add(truth, 2, &rows);
    let window = window(*BEGIN + 20 * MINUTE, 10 * SECOND, &rows, "cpu", 80.0);
    assert_eq!(Agent::new(store, 2).send_as(sequence, &window).expect("it is stored"), Appended::New);
}

/// A window of now, so that others are not those with the highest number.
fn newest(store: &dyn Store, sequence: u64) {
    let window = window(*BEGIN + 2 * DAY, 10 * SECOND, &rows(&mut Random(8), 2), "cpu", 1.0);
    assert_eq!(Agent::new(store, 9).send_as(sequence, &window).expect("it is stored"), Appended::New);
}

fn maintain(stores: [&ClickHouse; 2], now: u64) {
    while stores.iter().any(|store| store.maintain(now).expect("maintenance")) {}
}

fn keeping(server: &Server, keep: Keep) -> ClickHouse {
    let options = Options { keep: Some(keep), ..options() };
    ClickHouse::open(&servers(&[server], "rolled"), &options).expect("a store")
}

#[test]
fn a_server_that_is_killed_while_it_adds_up_loses_and_doubles_nothing() {
    let Some(mut server) = Server::start() else { return };
    let at = servers(&[&server], "rolled");
    let truth = fill(&open(&at));
    let mut now = *BEGIN + (HOURS + 1) * HOUR;
    let mut random = Random(std::process::id().into());
    for delay in [0, random.below(40)] {
        let store = open(&at);
        let rolls = "SELECT count() FROM rolled.rolls";
        let before = number(&server, rolls);
        std::thread::scope(|scope| {
            // It ends when the server does not answer.
            let adding = scope.spawn(|| while store.maintain(now).unwrap_or(false) {});
            while number(&server, rolls) == before {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(delay));
            server.kill();
            adding.join().expect("it is told");
        });
        server.begin();
        assert_eq!(told(&open(&at), 0, *END), truth);
        // Who has begun is waited for.
        now += REST;
    }
    let half_way =
        "SELECT count() FROM (SELECT roll FROM rolled.rolls GROUP BY roll HAVING max(is_done) = 0)";
    assert!(number(&server, half_way) > 0, "or this shows nothing");
    let store = open(&at);
    maintain([&store, &store], now);
    assert_eq!(number(&server, "SELECT uniqExact(hour) FROM rolled.rolls WHERE is_done = 1"), HOURS);
    assert_eq!(told(&store, 0, *END), truth);
    // What was left half-way goes.
    let until = Instant::now() + Duration::from_secs(30);
    while number(&server, half_way) > 0
        || number(&server, "SELECT uniqExact(roll) FROM rolled.minutes") > HOURS
    {
        assert!(Instant::now() < until, "what nobody finishes goes");
        store.maintain(now + REST).expect("maintenance");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(told(&store, 0, *END), truth);
}

#[test]
fn hours_are_added_up_once_and_answers_stay() {
    Server::start().iter().for_each(check);
}

#[test]
fn hours_are_added_up_once_and_answers_stay_on_a_current_server() {
    Server::current().iter().for_each(check);
}

fn check(server: &Server) {
    let at = servers(&[server], "rolled");
    let (one, other) = (open(&at), open(&at));
    let (mut first, mut second) = (Agent::new(&one, 9), Agent::new(&other, 9));
    let mut truth = fill(&one);
    // Both have looked what is stored before either stores the second: its rows are there twice.
    for sequence in 1..=2 {
        let rows = rows(&mut Random(sequence), 4);
        add(&mut truth, 9, &rows);
        let window = window(*BEGIN + sequence * MINUTE, 10 * SECOND, &rows, "cpu", 50.0);
        let sent =
            [&mut first, &mut second].map(|agent| agent.send_as(sequence, &window).expect("an answer"));
        assert_eq!(sent[1], if sequence == 1 { Appended::Known } else { Appended::New });
    }
    let begun = answers(&one);
    assert_eq!(told(&one, 0, *END), truth);

    // The third hour is not over for long enough.
    let now = *BEGIN + HOURS * HOUR + MINUTE;
    maintain([&one, &other], now);
    let done = "SELECT uniqExact(hour) FROM rolled.rolls WHERE is_done = 1";
    assert_eq!(number(server, done), HOURS - 1);
    assert!(
        number(server, "SELECT count() FROM rolled.minutes")
            > number(server, "SELECT count() FROM rolled.hours")
    );
    assert_eq!(answers(&one), begun);
    let now = now + 5 * MINUTE;
    maintain([&other, &one], now);
    assert_eq!(number(server, done), HOURS);
    assert_eq!((answers(&one), answers(&other)), (begun.clone(), begun));
    // Nobody has anything left to do.
    assert!(!one.maintain(now).expect("maintenance") && !other.maintain(now).expect("maintenance"));

    // What comes late is told at once, and added up later; what was added up before is not read any more, and goes.
    late(&one, &mut truth, 1_000);
    assert_eq!(told(&other, 0, *END), truth);
    let rolls = "SELECT count() FROM rolled.rolls WHERE is_done = 1";
    maintain([&one, &other], now);
    assert_eq!(number(server, rolls), HOURS, "an hour rests");
    let now = now + REST;
    maintain([&other, &one], now);
    assert_eq!(number(server, rolls), HOURS + 1);
    assert_eq!(told(&one, 0, *END), truth);
    let now = now + REST;
    let until = Instant::now() + Duration::from_secs(30);
    while number(server, rolls) > HOURS
        || number(server, "SELECT uniqExact(roll) FROM rolled.minutes") > HOURS
    {
        assert!(Instant::now() < until, "what is replaced goes");
        one.maintain(now).expect("maintenance");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(told(&one, 0, *END), truth);
    let whole = answers(&one);

    // Windows go, sums stay.
    let now = *BEGIN + 2 * DAY;
    newest(&one, 3);
    let kept = keeping(server, Keep::new(1, 2, 30));
    kept.maintain(now).expect("maintenance");
    let left = format!("SELECT count() FROM rolled.batches WHERE start_unix_ns < {}", *END);
    assert_eq!(number(server, &left), 0, "or this shows nothing");
    assert_eq!(answers(&one), whole);
    // By the minute now, as all that comes later.
    let query =
        SignalQuery { selection: between(0, *END), name: "cpu.utilization".to_owned(), max_values: 1_000 };
    let signals = one.signals(&query).expect("signals");
    let of_late = signals.iter().find(|series| series.labels["host"] == "host-2").expect("a series");
    let at_late: Vec<_> =
        of_late.values.iter().filter(|value| value.start_unix_ns == *BEGIN + 20 * MINUTE).collect();
    assert_eq!(at_late.iter().map(|value| (value.value, value.max)).collect::<Vec<_>>(), [(80.0, 81.0)]);
    assert_eq!(signals.len(), usize::from(HOSTS) + 1);
    assert!(one.labels(&between(0, *END), 10).expect("labels").iter().any(|(name, _)| name == "pod"));

    // And what comes after that, twice: beside the sums, and when it was added up.
    for sequence in [1_001, 1_002] {
        late(&one, &mut truth, sequence);
        assert_eq!(told(&one, 0, *END), truth);
        let now = now + (sequence - 1_000) * REST;
        maintain([&one, &other], now);
        assert_eq!(told(&one, 0, *END), truth);
    }
    kept.maintain(now + 3 * REST).expect("maintenance");
    assert!(number(server, &left) > 0, "what has the highest number stays");
    newest(&one, 4);
    kept.maintain(now + 3 * REST).expect("maintenance");
    assert_eq!(number(server, &left), 0);
    assert_eq!(told(&other, 0, *END), truth);

    // Then those of minutes, and then all.
    kept.maintain(*BEGIN + 4 * DAY).expect("maintenance");
    let minutes = format!("SELECT count() FROM rolled.minutes WHERE hour < {}", *END / HOUR);
    assert_eq!(number(server, &minutes), 0);
    assert_eq!(told(&one, *BEGIN, *BEGIN + HOURS * HOUR), truth);
    // What comes then is added up to hours alone: minutes of some would be taken for those of all.
    late(&one, &mut truth, 1_004);
    maintain([&one, &other], *BEGIN + 4 * DAY + REST);
    assert_eq!((number(server, &minutes), told(&one, *BEGIN, *BEGIN + HOURS * HOUR)), (0, truth.clone()));
    // A window that cannot be added up goes with its day a week later all the same.
    late(&one, &mut Truth::new(), 1_003);
    newest(&one, 5);
    let busy = format!("INSERT INTO rolled.rolls VALUES ({}, 1, 0, 0, {}, 0)", *BEGIN / HOUR, u64::MAX);
    server.ask(&busy).expect("an answer");
    kept.maintain(*BEGIN + 8 * DAY).expect("maintenance");
    assert!(number(server, &left) > 0);
    kept.maintain(*BEGIN + 9 * DAY).expect("maintenance");
    assert_eq!(number(server, &left), 0);
    assert_eq!(told(&one, *BEGIN, *BEGIN + HOURS * HOUR), truth);
    kept.maintain(*BEGIN + 40 * DAY).expect("maintenance");
    assert_eq!(told(&one, 0, *END), Truth::new());
}
