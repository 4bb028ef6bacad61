//! The door: what agents say on gRPC is stored and answered, and no bytes do harm.

mod common;

use std::sync::Arc;
use std::time::Duration;

use chokepoint_collector::ingest::{Count, Counts, Limits, NotBegun, Refused, Session, Taken};
use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{Answer, Batch, CommandUpdate, Hello, Window, from_agent};
use prost::Message;
use tonic::Code;

use common::in_process::Collector;
use common::stream::{PATIENCE, Stream};
use common::*;

fn a_window(step: u64) -> (Vec<Row>, Window) {
    let rows = rows(&mut Random(step + 1), 6);
    let window = window(START + step * 10 * SECOND, 10 * SECOND, &rows, "cpu", 10.0);
    (rows, window)
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_answered_when_stored_and_stored_once() {
    let directory = directory();
    let collector = Collector::start(directory.path(), Limits::default()).await;
    let mut truth = Truth::new();
    // Two streams one after the other: the second sends again what the first had answered.
    for turn in 0..2 {
        let (mut stream, welcome) = Stream::begin(collector.address, hello(1)).await.expect("welcome");
        assert_eq!((welcome.protocol, welcome.max_unanswered), (1, 8));
        let mut sender = Sender::new();
        for step in 0..6 {
            let (rows, window) = a_window(step);
            if turn == 0 {
                add(&mut truth, 1, &rows);
            }
            stream.say(from_agent::Message::Batch(batch(step + 1, &mut sender, &window))).await;
        }
        // What a collector does not know is no error.
        stream.say(from_agent::Message::Update(CommandUpdate::default())).await;
        for step in 0..6 {
            let answer = stream.answer().await.expect("an answer");
            assert_eq!(answer, Answer { sequence: step + 1, refused: String::new() });
        }
        assert_eq!(told(&*collector.store, START, START + HOUR), truth);
    }
    let counts = &collector.counts;
    assert_eq!((counts.get(Count::BatchesStored), counts.get(Count::BatchesKnown)), (6, 6));
    assert!(counts.get(Count::WindowBytes) > 0 && counts.get(Count::WindowsSkewed) == 6);
    collector.stop().await;
    let store = Embedded::open(directory.path(), Options::default()).expect("it was closed");
    assert_eq!(told(&store, START, START + HOUR), truth);
}

/// Who connects and says nothing takes a place, and no more: when it goes, the next has it.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let directory = directory();
    let limits = Limits { connections: 2, ..Limits::default() };
    let collector = Collector::start(directory.path(), limits).await;
    let connect = || tokio::net::TcpStream::connect(collector.address);
    let silent = [connect().await.expect("a connection"), connect().await.expect("a connection")];
    let begin = tokio::spawn(Stream::begin(collector.address, hello(1)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!begin.is_finished(), "there is no place for it");
    drop(silent);
    let begun = tokio::time::timeout(PATIENCE, begin).await.expect("in time").expect("no panic");
    drop(begun.unwrap_or_else(|status| panic!("{status}")));
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_accepted_ends_the_stream_and_says_why() {
    let directory = directory();
    let limits = Limits { window_bytes: 16 << 10, message_bytes: 32 << 10, streams: 2, ..Limits::default() };
    let collector = Collector::start(directory.path(), limits).await;
    let address = collector.address;
    let (_, whole) = a_window(0);
    let good = || batch(1, &mut Sender::new(), &whole);

    // No hello, and none that is accepted.
    let mut stream = Stream::open(address).await;
    stream.say(from_agent::Message::Batch(good())).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    let nameless = Hello { host: String::new(), ..hello(1) };
    let status = Stream::begin(address, nameless).await.err().expect("it is refused");
    assert!(status.code() == Code::InvalidArgument && status.message().contains("name"), "{status}");

    // Batches that never will be: an answer that says so, and the end.
    let long = Batch { window_bytes: 1 << 40, ..good() };
    let bomb = Batch {
        window: zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("small"),
        window_bytes: 16 << 10,
        ..good()
    };
    let no_zstd = Batch { window: vec![1, 2, 3], ..good() };
    let no_reset = {
        let mut sender = Sender::new();
        sender.next(&whole).expect("a window");
        batch(1, &mut sender, &whole)
    };
    let no_length = batch(1, &mut Sender::new(), &Window { duration_ns: 0, ..whole.clone() });
    for (refused, why) in [
        (long, "16384"),
        (bomb, "uncompressed"),
        (no_zstd, "uncompressed"),
        (no_reset, "begin"),
        (no_length, "length"),
        (Batch { sequence: 0, ..good() }, "sequence 0"),
    ] {
        let (mut stream, _) = Stream::begin(address, hello(1)).await.expect("welcome");
        stream.say(from_agent::Message::Batch(refused)).await;
        let answer = stream.answer().await.expect("an answer");
        assert!(answer.refused.contains(why), "{why}: {answer:?}");
        assert_eq!(stream.end().await.code(), Code::InvalidArgument, "{why}");
    }
    let counts = &collector.counts;
    assert_eq!(counts.get(Count::HellosRefused), 2);
    assert_eq!(
        (
            counts.get(Count::BatchesTooLarge),
            counts.get(Count::BatchesDamaged),
            counts.get(Count::BatchesInvalid)
        ),
        (1, 2, 3)
    );

    // A message that is too large, and a second hello.
    let (mut stream, _) = Stream::begin(address, hello(1)).await.expect("welcome");
    stream.say(from_agent::Message::Batch(Batch { window: vec![0; 64 << 10], ..good() })).await;
    assert_eq!(stream.end().await.code(), Code::OutOfRange);
    let (mut stream, _) = Stream::begin(address, hello(1)).await.expect("welcome");
    stream.say(from_agent::Message::Hello(hello(1))).await;
    assert_eq!(stream.end().await.code(), Code::InvalidArgument);
    assert_eq!(counts.get(Count::MessagesRefused), 2);

    // A second stream of an agent ends the first; a third agent is one too many, until another goes.
    let (mut first, _) = Stream::begin(address, hello(1)).await.expect("welcome");
    let (second, _) = Stream::begin(address, hello(1)).await.expect("welcome");
    assert_eq!(first.end().await.code(), Code::Aborted);
    let (other, _) = Stream::begin(address, hello(2)).await.expect("welcome");
    let status = Stream::begin(address, hello(3)).await.err().expect("it is refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(other);
    let entered = async {
        while Stream::begin(address, hello(3)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, entered).await.expect("there is room again");
    drop(second);

    // Nothing of what was refused is there.
    assert_eq!(told(&*collector.store, 0, u64::MAX), Truth::new());
    // Stopping ends the streams.
    let (mut last, _) = Stream::begin(address, hello(1)).await.expect("welcome");
    let stopping = tokio::spawn(collector.stop());
    assert_eq!(last.end().await.code(), Code::Unavailable);
    stopping.await.expect("it stops");
}

/// Each time a valid batch with some bytes of its message or of its window changed: an answer or a refusal, and a store that goes on.
#[test]
fn no_bytes_do_harm() {
    let directory = directory();
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    let counts = Arc::new(Counts::default());
    let mut random = Random(11);
    let (_, whole) = a_window(0);
    let plain = Sender::new().next(&whole).expect("a window").encode_to_vec();
    let (mut stored, mut refused) = (0, 0);
    for sequence in 1..=2_000 {
        let mut session = Session::begin(&store, &hello(1), None, Limits::default(), Arc::clone(&counts))
            .unwrap_or_else(|_| panic!("a session"));
        let mut window = plain.clone();
        let in_window = random.below(2) == 0;
        if in_window {
            damage(&mut random, &mut window);
        }
        let mut batch = Batch {
            sequence,
            window_bytes: window.len() as u64,
            window: zstd::bulk::compress(&window, 1).expect("it compresses"),
            dropped_batches: 0,
        };
        if !in_window {
            let mut message = batch.encode_to_vec();
            damage(&mut random, &mut message);
            match Batch::decode(message.as_slice()) {
                Ok(damaged) => batch = damaged,
                Err(_) => continue,
            }
        }
        match session.take(&batch, START) {
            Taken::Stored => stored += 1,
            Taken::Refused(_) => refused += 1,
            Taken::Failed(error) => panic!("the store failed: {error}"),
        }
    }
    assert!(stored > 20 && refused > 200, "{stored} stored, {refused} refused");
    // All that was taken can be read.
    let sums = store.sums(&by_all(0, u64::MAX)).expect("sums");
    let stacks: Vec<_> = sums.sums.iter().filter_map(|sum| sum.stack).collect();
    store.frames(&stacks).expect("frames");
    while store.maintain(u64::MAX / 4).expect("maintenance") {}
    store.labels(&between(0, u64::MAX), 1_000).expect("labels");
    store.verdicts(&between(0, u64::MAX)).expect("verdicts");
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let position = random.below(bytes.len() as u64) as usize;
        match random.below(4) {
            0 => bytes[position] = random.below(256) as u8,
            1 => bytes[position] ^= 1 << random.below(8),
            2 => bytes.insert(position, random.below(256) as u8),
            _ => {
                bytes.truncate(bytes.len().max(2) - 1 - random.below(3).min(bytes.len() as u64 - 2) as usize)
            }
        }
    }
}

#[test]
fn refusals_say_what_was_wrong() {
    let directory = directory();
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    let counts = Arc::new(Counts::default());
    let (_, whole) = a_window(0);
    let take = |change: &dyn Fn(&mut Window)| {
        let mut session = Session::begin(&store, &hello(1), None, Limits::default(), Arc::clone(&counts))
            .unwrap_or_else(|_| panic!("a session"));
        let mut window = whole.clone();
        change(&mut window);
        let bytes = window.encode_to_vec();
        let batch = Batch {
            sequence: 1,
            window_bytes: bytes.len() as u64,
            window: zstd::bulk::compress(&bytes, 1).expect("it compresses"),
            dropped_batches: 0,
        };
        session.take(&batch, START)
    };
    let is_value = |taken| matches!(taken, Taken::Refused(Refused::Value(_)));
    assert!(is_value(take(&|window| window.duration_ns = u64::MAX)));
    assert!(is_value(take(&|window| window.start_unix_ns = u64::MAX - 5)));
    assert!(is_value(take(&|window| window.signals[0].value = f64::NAN)));
    assert!(is_value(take(&|window| window.profiles[0].kind = "k".repeat(500))));
    assert!(is_value(take(&|window| window.verdict.as_mut().expect("a verdict").severity = 9)));
    assert!(matches!(
        take(&|window| window.profiles[0].stack[0] = 1 << 30),
        Taken::Refused(Refused::Dictionary(_))
    ));
    assert!(matches!(
        take(&|window| window.profiles[0].count.truncate(1)),
        Taken::Refused(Refused::Dictionary(_))
    ));
    // A host whose clock is wrong is heard, and counted.
    assert!(matches!(take(&|window| window.start_unix_ns = START + 365 * 24 * HOUR), Taken::Stored));
    assert_eq!(counts.get(Count::WindowsSkewed), 1);
}

/// As many agents as may be known: those that are known are let in, others when some were forgotten.
#[test]
fn agents_that_are_known_are_bounded() {
    /// As `docs/collector.md` says.
    const AGENTS: u64 = 65_536;
    /// Longer than agents are known that never sent anything.
    const MONTH: u64 = 31 * 24 * HOUR;
    let directory = directory();
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    let counts = Arc::new(Counts::default());
    let begin = |number| Session::begin(&store, &hello(number), None, Limits::default(), Arc::clone(&counts));
    assert!(begin(1).is_ok());
    let catalogue =
        rusqlite::Connection::open(directory.path().join("catalogue.sqlite")).expect("a catalogue");
    let others = "WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
                  INSERT INTO agents (identity, host, kernel, program, cpus, seen_unix_ns)
                  SELECT CAST(printf('other%011d', n) AS BLOB), 1, '', '', 1, ?2 FROM numbers";
    let seen = i64::try_from(this_hour()).expect("before 2262");
    catalogue.execute(others, (AGENTS as i64 - 1, seen)).expect("they are written");
    assert!(begin(2).is_ok(), "there is room for one");
    for _ in 0..2 {
        assert!(matches!(begin(3), Err(NotBegun::TooMany(_))));
    }
    assert_eq!(counts.get(Count::StreamsTooMany), 2);
    assert!(begin(1).is_ok() && begin(2).is_ok(), "they are known");
    while store.maintain(this_hour() + MONTH).expect("upkeep") {}
    assert!(begin(3).is_ok());
}
