//! A collector of which a shard does not answer says so in every answer that is of the others only: in the JSON, and to whom the command
//! line shows it.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use super::common::clickhouse::{Server, open, servers};
use super::common::collector::{Collector, PROGRAM};
use super::common::*;

const HOSTS: u8 = 8;
/// Every question that is answered of those shards that answer.
const QUESTIONS: [&[&str]; 13] = [
    &["flame", "wall"],
    &["top", "wall"],
    &["series", "wall"],
    &["decomposition", "wall"],
    &["constraints"],
    &["fleet"],
    &["regressions"],
    &["signals"],
    &["latencies"],
    &["retransmits"],
    &["labels"],
    &["agents"],
    &["diff", "wall", "--before-from", "now-2h"],
];

fn ask(http: SocketAddr, question: &[&str], more: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["query", "--url", &format!("http://{http}")]).args(question).args(more);
    command.output().expect("it runs")
}

#[test]
fn what_is_missing_is_told_in_every_answer() {
    let (Some(first), Some(mut second)) = (Server::start(), Server::start()) else { return };
    let at = servers(&[&first, &second], "partial");
    let now = this_hour();
    fill_hosts(&open(&at), HOSTS, now - HOUR, 1, 3);
    let http = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let mut command = Command::new(PROGRAM);
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http",
        &http.to_string(),
        "--store",
        &at.to_string(),
    ]);
    let _collector = Collector::try_run(command).expect("it says where it listens");
    let of_json = |output: &Output| -> serde_json::Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"))
    };
    let time = |question: &[&str]| if question == ["agents"] { &[][..] } else { &["--from", "now-3h"] };
    for question in QUESTIONS {
        let whole = ask(http, question, &[&["--json"], time(question)].concat());
        assert!(whole.status.success() && of_json(&whole).get("partial").is_none(), "{question:?} {whole:?}");
        assert!(!String::from_utf8_lossy(&whole.stderr).contains("partial"), "{question:?}");
    }
    second.kill();
    for question in QUESTIONS {
        let json = of_json(&ask(http, question, &[&["--json"], time(question)].concat()));
        let missing =
            json["partial"].as_array().unwrap_or_else(|| panic!("{question:?} says nothing: {json}"));
        assert!(missing.len() == 1 && missing[0].as_str().is_some_and(|why| why.starts_with("shard 2 of 2")));
        let shown = ask(http, question, time(question));
        let warned = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(shown.status.success() && warned.contains("the answer is partial"), "{question:?} {shown:?}");
        assert!(warned.contains("shard 2 of 2"), "{question:?}: {warned}");
    }
}
