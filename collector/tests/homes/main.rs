//! What every home of the store keeps to: the same checks on each.
//!
//! The distributed home's half needs a server, and says where there is none that it is skipped.

#[path = "../fleet/accounts.rs"]
mod accounts;
mod bytes;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod encrypted;
#[path = "../fleet/hosts.rs"]
mod hosts;
mod loss;
mod partial;
#[path = "../fleet/recorded.rs"]
mod recorded;
mod rollups;
mod same;
mod shards;
mod together;

use chokepoint_collector::labels::Operator;
use chokepoint_collector::store::clickhouse::Servers;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{Appended, SignalQuery, Store, StoreError, SumQuery};

use common::clickhouse::{Server, open, servers};
use common::*;

/// A store's home, empty at first, in which it may be opened again and again.
trait Home {
    fn open(&self) -> Box<dyn Store>;
}

struct InDirectory(tempfile::TempDir);

impl Home for InDirectory {
    fn open(&self) -> Box<dyn Store> {
        Box::new(Embedded::open(self.0.path(), Options::default()).expect("a store"))
    }
}

struct OnServers(Servers);

impl Home for OnServers {
    fn open(&self) -> Box<dyn Store> {
        Box::new(open(&self.0))
    }
}

/// A check, by its name.
type Check = (&'static str, fn(&dyn Home));

const SUITE: &[Check] = &[
    ("appended", what_was_appended_is_there),
    ("once", a_batch_is_there_once_however_often_it_comes),
    ("queries", queries_keep_apart_and_select_what_they_say),
    ("told", signals_verdicts_labels_and_agents_are_told),
    ("owned", an_agent_is_its_first_owners),
];

#[test]
fn the_embedded_home_keeps_to_it() {
    for (_, check) in SUITE {
        check(&InDirectory(directory()));
    }
}

#[test]
fn the_distributed_home_keeps_to_it() {
    let Some(server) = Server::start() else { return };
    for (name, check) in SUITE {
        check(&OnServers(servers(&[&server], name)));
    }
}

#[test]
fn the_distributed_home_keeps_to_it_on_a_current_server() {
    let Some(server) = Server::current() else { return };
    for (name, check) in SUITE {
        check(&OnServers(servers(&[&server], name)));
    }
}

/// Windows of ten seconds of three hosts over this time, and what they add up to.
fn fill(store: &dyn Store, from_unix_ns: u64, minutes: u64, seed: u64) -> Truth {
    fill_hosts(store, 3, from_unix_ns, minutes, seed)
}

fn what_was_appended_is_there(home: &dyn Home) {
    let store = home.open();
    let truth = fill(&*store, START, 3, 1);
    assert_eq!(told(&*store, START, START + HOUR), truth);
    // The time is half open, and windows count by when they began.
    assert_eq!(told(&*store, START + 3 * MINUTE, START + HOUR), Truth::new());
    assert_eq!(told(&*store, 0, u64::MAX), truth);
    drop(store);
    let store = home.open();
    assert_eq!(told(&*store, START, START + HOUR), truth);
    // The next stream's numbers are others, and mean the same in the store.
    let mut both = fill(&*store, START + 10 * MINUTE, 1, 2);
    for (key, (count, weight)) in truth {
        let sum = both.entry(key).or_default();
        *sum = (sum.0 + count, sum.1 + weight);
    }
    assert_eq!(told(&*store, START, START + HOUR), both);
}

fn a_batch_is_there_once_however_often_it_comes(home: &dyn Home) {
    let mut random = Random(3);
    let mut truth = Truth::new();
    let windows: Vec<_> = (0..12)
        .map(|step| {
            let rows = rows(&mut random, 4);
            add(&mut truth, 1, &rows);
            window(START + step * 10 * SECOND, 10 * SECOND, &rows, "cpu", 1.0)
        })
        .collect();
    // With gaps, and in any order: each is new the first time only.
    let order = [5, 6, 9, 1, 7, 6, 2, 12, 3, 4, 8, 10, 11, 1, 12, 8, 5];
    let mut seen = Vec::new();
    for (turn, sequence) in order.into_iter().enumerate() {
        // Each time with a new stream, every third time after a restart.
        let store = home.open();
        let mut agent = Agent::new(&*store, 1);
        for _ in 0..=turn % 3 {
            let expected = if seen.contains(&sequence) { Appended::Known } else { Appended::New };
            seen.push(sequence);
            let window = &windows[sequence as usize - 1];
            assert_eq!(agent.send_as(sequence, window).expect("an answer"), expected, "{sequence}");
        }
    }
    let store = home.open();
    assert_eq!(told(&*store, START, START + HOUR), truth);
    let agents = store.agents().expect("agents");
    assert_eq!((agents.len(), agents[0].batches, &*agents[0].agent), (1, 12, &*"01".repeat(16)));
    assert_eq!(agents[0].last_window_unix_ns, START + 120 * SECOND);
    // Another agent's numbers are its own.
    assert_eq!(Agent::new(&*store, 2).send_as(5, &windows[0]).expect("an answer"), Appended::New);
}

fn queries_keep_apart_and_select_what_they_say(home: &dyn Home) {
    let store = home.open();
    let truth = fill(&*store, START, 2, 4);
    let total = |test: &dyn Fn(&Key) -> bool| {
        truth.iter().filter(|(key, _)| test(key)).map(|(_, sum)| sum.1).sum::<u64>()
    };
    let everything = SumQuery {
        selection: between(START, START + HOUR),
        kind: "wall".to_owned(),
        max_sums: 1_000,
        ..SumQuery::default()
    };
    let sums = store.sums(&everything).expect("sums");
    assert_eq!(sums.sums.len(), 1);
    assert_eq!((sums.sums[0].weight, sums.sums[0].stack), (total(&|_| true), None));

    let weight =
        |query: &SumQuery| store.sums(query).expect("sums").sums.iter().map(|sum| sum.weight).sum::<u64>();
    let with = |matchers| {
        let mut query = everything.clone();
        query.selection.matchers = matchers;
        weight(&query)
    };
    assert_eq!(with(vec![matcher("host", Operator::Is, "host-2")]), total(&|key| key.0 == "host-2"));
    assert_eq!(with(vec![matcher("zone", Operator::Is, "odd")]), total(&|key| key.0 != "host-2"));
    assert_eq!(with(vec![matcher("pod", Operator::Is, "")]), total(&|key| key.2.is_empty()));
    let of_pods =
        with(vec![matcher("pod", Operator::Matches, "web-[01]"), matcher("thread", Operator::Is, "main")]);
    assert_eq!(of_pods, total(&|key| key.2 == "web-0" || key.2 == "web-1"));
    assert_eq!(with(vec![matcher("pod", Operator::Is, "x")]), 0);
    assert_eq!(with(vec![matcher("nothing", Operator::IsNot, "")]), 0);

    let classes = vec!["lock".to_owned(), "nobody says this".to_owned()];
    assert_eq!(weight(&SumQuery { classes, ..everything.clone() }), total(&|key| key.3 == "lock"));
    let by_minute = SumQuery { step_ns: Some(MINUTE), ..everything.clone() };
    let steps: Vec<u64> =
        store.sums(&by_minute).expect("sums").sums.iter().map(|sum| sum.start_unix_ns).collect();
    assert_eq!(steps, [START, START + MINUTE]);

    assert!(matches!(
        store.sums(&SumQuery { max_sums: 5, ..by_all(START, START + HOUR) }),
        Err(StoreError::TooLarge { limit: 5, .. })
    ));
    let other = store.sums(&SumQuery { kind: "faults".to_owned(), ..everything }).expect("sums");
    assert_eq!((other.sums.len(), other.unit), (0, None));
    assert!(matches!(
        store.frames(&[chokepoint_collector::store::StackId(1 << 40)]),
        Err(StoreError::NoStack(_))
    ));
}

fn signals_verdicts_labels_and_agents_are_told(home: &dyn Home) {
    let store = home.open();
    let mut agent = Agent::new(&*store, 1);
    // A run, a window without a diagnosis in it, a gap, and another constraint.
    let codes = ["cpu", "cpu", "cpu", "", "cpu", "gap", "gap", "cpu", "lock"];
    for (step, code) in codes.into_iter().enumerate() {
        let start = START + step as u64 * 10 * SECOND;
        let mut window = window(start, 10 * SECOND, &[], code, 90.0 + step as f64);
        if code.is_empty() {
            window.verdict = None;
        }
        if code != "gap" {
            agent.send(&window).expect("it is stored");
        }
    }
    let spans: Vec<_> = store
        .verdicts(&between(START, START + HOUR))
        .expect("verdicts")
        .into_iter()
        .map(|span| {
            let offset = |at: u64| (at - START) / SECOND;
            assert_eq!((&*span.labels["host"], &*span.diagnosis, span.severity), ("host-1", "{}", 2));
            (span.code, offset(span.from_unix_ns), offset(span.until_unix_ns), span.windows)
        })
        .collect();
    let expected = [("cpu", 0, 50, 4), ("cpu", 70, 80, 1), ("lock", 80, 90, 1)];
    assert_eq!(spans, expected.map(|(code, from, until, windows)| (code.to_owned(), from, until, windows)));
    // A run that began before is told with its begin; one of another host is not.
    let middle = store.verdicts(&between(START + 20 * SECOND, START + 30 * SECOND)).expect("verdicts");
    assert_eq!((middle.len(), middle[0].from_unix_ns), (1, START));
    let mut other = between(START, START + HOUR);
    other.matchers = vec![matcher("host", Operator::Is, "host-2")];
    assert!(store.verdicts(&other).expect("verdicts").is_empty());

    let query = |name: &str, max_values| SignalQuery {
        selection: between(START, START + HOUR),
        name: name.to_owned(),
        max_values,
    };
    let series = store.signals(&query("cpu.utilization", 100)).expect("signals");
    assert_eq!((series.len(), &*series[0].unit, &*series[0].labels["zone"]), (1, "%", "odd"));
    let values: Vec<_> = series[0].values.iter().map(|value| (value.value, value.max, value.level)).collect();
    assert_eq!((values.len(), values[0], values[6]), (7, (90.0, 91.0, 0), (98.0, 99.0, 1)));
    assert!(matches!(store.signals(&query("", 7)), Err(StoreError::TooLarge { .. })));
    // What was lost and what it cost is told, too.
    let lost = store.signals(&query("agent.lost_samples", 100)).expect("signals");
    assert_eq!((&*lost[0].labels["instance"], lost[0].values[0].value), ("ring full", 3.0));
    let cpu = store.signals(&query("agent.cpu", 100)).expect("signals");
    assert_eq!(cpu[0].values[0].value, 0.5);

    let labels = store.labels(&between(START, START + HOUR), 10).expect("labels");
    let names: Vec<_> = labels.iter().map(|(name, values)| (name.as_str(), values.len())).collect();
    assert_eq!(names, [("host", 1), ("instance", 1), ("zone", 1)]);
    let status = store.agents().expect("agents").remove(0);
    assert_eq!((&*status.labels["host"], &*status.kernel, status.batches), ("host-1", "6.1.0", 7));
}

fn an_agent_is_its_first_owners(home: &dyn Home) {
    let store = home.open();
    let hello = hello(1);
    store.appender(&hello, None).expect("nobody was asked");
    store.appender(&hello, Some("a")).expect("the first who proves to be it");
    drop(store);
    let store = home.open();
    assert!(matches!(store.appender(&hello, Some("b")), Err(StoreError::NotOwned)));
    store.appender(&hello, Some("a")).expect("it is still its owner's");
    assert_eq!(store.agents().expect("agents")[0].owner, "a");
}
