//! What a sample takes on a server's disk, of windows that were recorded: printed, and held against the same rows without arrays.

use chokepoint_collector::store::Store;
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::Batch;

use super::common::clickhouse::{Server, open, servers};
use super::common::*;
use super::recorded::{Recorded, hello, totals};

const HOSTS: u64 = 10;
const WINDOWS: u64 = 60;

/// The same rows, one for each sample, in the order in which they compress best.
const PLAIN: &str = "CREATE TABLE bytes.plain (kind String, service String, series UInt64, class String, stack UInt64, \
                     start_unix_ns UInt64, count UInt64, weight UInt64) ENGINE = MergeTree \
                     PARTITION BY toDate(intDiv(start_unix_ns, 1000000000)) ORDER BY (kind, service, class, stack, series, start_unix_ns)";
const FILL: &str = "INSERT INTO bytes.plain SELECT kind, service, s, c, k, start_unix_ns, n, w FROM bytes.batches \
                    ARRAY JOIN series AS s, class AS c, stack AS k, count AS n, weight AS w";

#[test]
fn samples_take_few_bytes() {
    Server::start().iter().for_each(check);
}

#[test]
fn samples_take_few_bytes_on_a_current_server() {
    Server::current().iter().for_each(check);
}

fn check(server: &Server) {
    let store = open(&servers(&[server], "bytes"));
    let recorded = Recorded::load();
    let of_host = &|host: u64| {
        let mut samples = 0;
        let mut appender = store.appender(&hello(host), None).expect("an appender");
        let mut sender = Sender::new();
        for number in 0..WINDOWS {
            let whole = recorded.window(host, number, START + number * 10 * SECOND, 10 * SECOND);
            samples += whole.profiles.iter().map(|profile| totals(&whole, &profile.kind).0).sum::<u64>();
            let window = sender.next(&whole).expect("a whole window");
            let new = window.dictionary.clone().expect("a dictionary");
            let batch = Batch { sequence: number + 1, ..Batch::default() };
            let reset = new.reset;
            appender.append(&batch, &window, &new, reset).expect("it is stored");
        }
        samples
    };
    // All at once, as agents are.
    let samples: u64 = std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..HOSTS).map(|host| scope.spawn(move || of_host(host))).collect();
        hosts.into_iter().map(|host| host.join().expect("it is stored")).sum()
    });
    for sql in [PLAIN, FILL, "OPTIMIZE TABLE bytes.plain FINAL", "OPTIMIZE TABLE bytes.batches FINAL"] {
        server.ask(sql).expect("an answer");
    }
    let number = |sql: &str| -> u64 {
        let answer = server.ask(sql).expect("an answer");
        answer.trim().parse().unwrap_or_else(|_| panic!("{sql}: {answer:?}"))
    };
    assert_eq!(number("SELECT sum(length(series)) FROM bytes.batches"), samples);
    assert_eq!(number("SELECT count() FROM bytes.plain"), samples);
    let columns = |table: &str, only: &str| {
        number(&format!(
            "SELECT sum(data_compressed_bytes) FROM system.columns WHERE database = 'bytes' AND table = '{table}' {only}"
        ))
    };
    let of_samples = "AND name IN ('series', 'class', 'stack', 'count', 'weight')";
    let each = |bytes: u64| bytes as f64 / samples as f64;
    let (arrays, plain) = (columns("batches", of_samples), columns("plain", ""));
    eprintln!(
        "{samples} samples: {:.2} bytes each in arrays, {:.2} with all that windows have, {:.2} as rows of their own",
        each(arrays),
        each(columns("batches", "")),
        each(plain)
    );
    while store.maintain(START + 3 * HOUR).expect("maintenance") {}
    for table in ["minutes", "hours"] {
        server.ask(&format!("OPTIMIZE TABLE bytes.{table} FINAL")).expect("an answer");
        let rows = number(&format!("SELECT count() FROM bytes.{table}"));
        let bytes = columns(table, "");
        eprintln!("{table}: {rows} rows of {:.2} bytes each", bytes as f64 / rows as f64);
        // Each is of several samples, and none is of none.
        assert!(
            rows > 0
                && rows < samples
                && number(&format!("SELECT sum(windows) FROM bytes.{table}")) == samples
        );
    }
    // A number of 64 bits that says nothing of the next, for each of four columns, would be 32.
    assert!(arrays < 16 * samples, "{arrays} bytes of {samples} samples");
}
