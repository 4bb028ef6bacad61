//! What happens to a collector must not happen to what it has acknowledged: killed in the middle of everything, with a full disk, stopped.

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{Appended, Store, SumQuery};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{Answer, from_agent};

use common::collector::{Collector, SmallDisk, command};
use common::stream::Stream;
use common::*;

/// The begin of an hour that is over, so that what was written goes into segments at once.
fn recent() -> u64 {
    this_hour() - 3 * HOUR
}

/// An agent that keeps what is not answered, and sends it again.
struct Host {
    number: u8,
    start: u64,
    answered: u64,
}

impl Host {
    /// Its batch of this number: one row whose weight tells which it is.
    fn window(&self, sequence: u64) -> chokepoint_proto::stream::Window {
        let row = Row {
            kind: "wall",
            process: "web".to_owned(),
            pod: String::new(),
            class: "cpu.user",
            stack: vec!["main".to_owned(), format!("f{}", sequence % 50)],
            count: 1,
            weight: weight(sequence),
        };
        window(self.start + sequence * 10 * SECOND, 10 * SECOND, &[row], "cpu", 1.0)
    }

    /// Sends up to this batch, or until the collector is gone. Kills it when `until` answers have come, with more under way.
    async fn send(&mut self, collector: &Collector, until: Option<u64>, last: u64) {
        let Ok((mut stream, welcome)) = Stream::begin(collector.address, hello(self.number)).await else {
            return;
        };
        let mut sender = Sender::new();
        let mut sent = self.answered;
        let mut answers = 0;
        while self.answered < last {
            while sent < last && sent - self.answered < u64::from(welcome.max_unanswered) {
                sent += 1;
                let batch = batch(sent, &mut sender, &self.window(sent));
                stream.say(from_agent::Message::Batch(batch)).await;
            }
            if until.is_some_and(|until| answers >= until) {
                collector.signal(libc::SIGKILL);
            }
            match stream.answer().await {
                Ok(answer) => {
                    self.answered += 1;
                    answers += 1;
                    assert_eq!(answer, Answer { sequence: self.answered, refused: String::new() });
                }
                Err(_) => return,
            }
        }
    }
}

fn weight(sequence: u64) -> u64 {
    1_000_000 + sequence
}

/// What each host's windows weigh, by sequence.
fn weights(store: &dyn Store, start: u64) -> BTreeMap<(String, u64), u64> {
    let query = SumQuery {
        selection: between(0, u64::MAX),
        kind: "wall".to_owned(),
        group_by: vec!["host".to_owned()],
        step_ns: Some(10 * SECOND),
        max_sums: 1_000_000,
        ..SumQuery::default()
    };
    let sums = store.sums(&query).expect("sums").sums;
    sums.into_iter()
        .map(|sum| ((sum.group[0].clone(), (sum.start_unix_ns - start) / (10 * SECOND)), sum.weight))
        .collect()
}

#[test]
fn what_was_acknowledged_survives_kills() {
    const BATCHES: u64 = 300;
    let directory = directory();
    let start = recent();
    let mut hosts: Vec<Host> = (1..=4).map(|number| Host { number, start, answered: 0 }).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut kills = 0;
    while hosts.iter().any(|host| host.answered < BATCHES) {
        let collector = Collector::start(directory.path());
        runtime.block_on(async {
            let [first, rest @ ..] = &mut hosts[..] else { panic!("there are hosts") };
            // One of them has the collector killed after some answers, each time others.
            let turn = kills;
            let sends = rest.iter_mut().map(|host| host.send(&collector, None, BATCHES));
            let kill = (turn < 15).then_some(3 + turn * 7 % 19);
            let first = first.send(&collector, kill, BATCHES);
            let mut all: Vec<std::pin::Pin<Box<dyn Future<Output = ()> + '_>>> = vec![Box::pin(first)];
            all.extend(sends.map(|send| Box::pin(send) as std::pin::Pin<Box<dyn Future<Output = ()> + '_>>));
            // Together, until the last of them is done or the collector is gone.
            std::future::poll_fn(|context| {
                all.retain_mut(|send| send.as_mut().poll(context).is_pending());
                if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
        });
        if kills < 15 {
            let status = collector.wait();
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
            kills += 1;
        } else {
            collector.signal(libc::SIGTERM);
            assert_eq!(collector.wait().code(), Some(0));
        }
        // Every batch that was answered is there, once; others are there or not.
        let store = Embedded::open(directory.path(), Options::default()).expect("it opens after a kill");
        let weights = weights(&store, start);
        for host in &hosts {
            let name = format!("host-{}", host.number);
            for sequence in 1..=host.answered {
                assert_eq!(
                    weights.get(&(name.clone(), sequence)),
                    Some(&weight(sequence)),
                    "{name} {sequence}"
                );
            }
        }
        for ((host, sequence), sum) in &weights {
            assert_eq!(*sum, weight(*sequence), "{host} {sequence}");
        }
        for agent in store.agents().expect("agents") {
            let of_host = weights.keys().filter(|(host, _)| *host == agent.labels["host"]).count();
            assert_eq!(agent.batches, of_host as u64);
        }
        // What the next start finds to do.
        store.maintain(start + 4 * HOUR).expect("maintenance");
    }
    assert_eq!(kills, 15);
    let store = Embedded::open(directory.path(), Options::default()).expect("it opens");
    let all = weights(&store, start);
    assert_eq!(all.len() as u64, 4 * BATCHES);
    assert_eq!(all.values().sum::<u64>(), 4 * (1..=BATCHES).map(weight).sum::<u64>());
    assert!(store.holdings().expect("holdings").segments > 0);
}

#[test]
fn exit_codes_tell_what_to_do() {
    let directory = directory();
    let first = Collector::start(directory.path());
    let output = command(directory.path()).output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("another collector has"), "{said}");
    let elsewhere = common::directory();
    let taken = first.address.to_string();
    let output = command(elsewhere.path()).args(["--max-gib", "1"]).output_with_listen(&taken);
    assert_eq!(output.code(), Some(4));
    first.signal(libc::SIGINT);
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(command(directory.path()).arg("--nothing").output().expect("it ends").status.code(), Some(2));
}

/// Runs a command that is to end by itself, with another address to listen on.
trait OutputWithListen {
    fn output_with_listen(&mut self, listen: &str) -> ExitStatus;
}

impl OutputWithListen for Command {
    fn output_with_listen(&mut self, listen: &str) -> ExitStatus {
        let mut arguments: Vec<_> = self.get_args().map(ToOwned::to_owned).collect();
        let position = arguments.iter().position(|argument| argument == "127.0.0.1:0").expect("an address");
        arguments[position] = listen.into();
        let output = Command::new(self.get_program()).args(arguments).output();
        output.expect("it ends").status
    }
}

#[test]
fn a_full_disk_refuses_and_then_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(directory.path(), 16) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    let path = directory.path().join("store");
    let store = Embedded::open(&path, Options::default()).expect("a store");
    let mut random = Random(21);
    let mut truth = Truth::new();
    let mut agent = Agent::new(&store, 1);
    let mut step = 0;
    let mut send = |agent: &mut Agent, truth: &mut Truth| {
        let rows = rows(&mut random, 5);
        step += 1;
        let sent = agent.send_as(step, &window(START + step * SECOND, SECOND, &rows, "cpu", 1.0));
        if sent.is_ok() {
            add(truth, 1, &rows);
        }
        sent
    };
    for _ in 0..5 {
        assert_eq!(send(&mut agent, &mut truth).expect("it is stored"), Appended::New);
    }
    // Something else takes all that is left.
    let ballast = disk.fill();
    let mut failures = 0;
    while failures < 5 {
        // After an error a stream begins anew, as an agent's does.
        match store.appender(&hello(1), None) {
            Err(_) => failures += 1,
            Ok(_) => {
                agent = Agent::new(&store, 1);
                if send(&mut agent, &mut truth).is_err() {
                    failures += 1;
                }
            }
        }
    }
    // Upkeep may fail, and harms nothing.
    let _ = store.maintain(START + 3 * HOUR);
    assert_eq!(told(&store, START, START + HOUR), truth);
    drop(ballast);
    agent = Agent::new(&store, 1);
    for _ in 0..5 {
        assert_eq!(send(&mut agent, &mut truth).expect("it is stored again"), Appended::New);
    }
    while store.maintain(START + 3 * HOUR).expect("maintenance") {}
    assert_eq!(told(&store, START, START + HOUR), truth);
    drop((agent, store));
    let store = Embedded::open(&path, Options::default()).expect("it opens");
    assert_eq!(told(&store, START, START + HOUR), truth);
    let catalogue = rusqlite::Connection::open(path.join("catalogue.sqlite")).expect("a catalogue");
    let check: String =
        catalogue.pragma_query_value(None, "integrity_check", |row| row.get(0)).expect("a check");
    assert_eq!(check, "ok");
    drop((store, catalogue));
    drop(disk);
}
