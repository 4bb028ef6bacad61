//! The webhook: what crosses its level arrives, with the secret, also where nobody took it at first.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::SystemTime;

use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::from_agent;
use serde_json::Value;

use crate::common::secured::{Collector, Place};
use crate::common::stream::{PATIENCE, Stream};
use crate::common::{MINUTE, Random, SECOND, batch, hello, rollout, rows, window};

/// Takes requests at a port: the first is answered that it came at a bad time, the others that they are well. Tells each.
fn listen(listener: TcpListener) -> mpsc::Receiver<(Vec<String>, Value)> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_ascii_lowercase());
            }
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.expect("a length").parse().expect("a number")];
            reader.read_exact(&mut body).expect("the body");
            let status = if number == 0 { "503 Service Unavailable" } else { "204 No Content" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if tell.send((head, serde_json::from_slice(&body).expect("JSON"))).is_err() {
                return;
            }
        }
    });
    told
}

#[tokio::test]
async fn a_constraint_that_crosses_its_level_is_told_until_it_is_taken_and_so_is_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let told = listen(listener);
    let place = Place::new();
    let [config, secret] = ["alerts.toml", "secret"].map(|name| place.path(name));
    fs::write(&secret, "hush\n").expect("a file");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("its permissions");
    let text = format!(
        "[webhook]\nurl = \"http://{address}/hook\"\ntoken-file = {:?}\nlevel = \"warning\"\nlink = \"https://c.example\"\n",
        secret.display()
    );
    fs::write(&config, text).expect("a file");
    let collector = Collector::start(&place, &place.with(Vec::new(), &[("--alerts", &config)]));
    let (mut stream, _) = Stream::begin(collector.agents, hello(1)).await.expect("a stream");
    let mut sender = Sender::new();
    let mut number = 0;
    let mut says = async |code: &str| {
        number += 1;
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
        let rows = rows(&mut Random(number), 3);
        let window = window(now - SECOND, SECOND, &rows, code, 50.0);
        stream.say(from_agent::Message::Batch(batch(number, &mut sender, &window))).await;
        assert_eq!(stream.answer().await.expect("an answer").refused, "");
    };
    says("cpu.quota").await;
    // It is refused once for want of time, and comes again.
    let [first, again] = [(); 2].map(|()| told.recv_timeout(PATIENCE).expect("an alert"));
    assert_eq!(first.1, again.1);
    let (head, alert) = again;
    assert!(head[0].starts_with("post /hook "), "{head:?}");
    assert!(head.iter().any(|line| line == "authorization: bearer hush"), "{head:?}");
    assert_eq!((&alert["status"], &alert["code"]), (&"firing".into(), &"cpu.quota".into()));
    assert_eq!((&alert["labels"]["host"], &alert["severity"]), (&"host-1".into(), &2.into()));
    assert_eq!(alert["summary"], "cpu.quota limits it");
    let page = alert["links"]["page"].as_str().expect("a link");
    assert!(page.starts_with("https://c.example/verdict?host=host-1&from="), "{page}");
    // Something else limits it now: that is told, and that this is over.
    says("io.read").await;
    let mut both = [(); 2].map(|()| told.recv_timeout(PATIENCE).expect("an alert").1);
    both.sort_by_key(|alert| alert["status"].to_string());
    assert_eq!((&both[0]["status"], &both[0]["code"]), (&"firing".into(), &"io.read".into()));
    assert_eq!((&both[1]["status"], &both[1]["code"]), (&"resolved".into(), &"cpu.quota".into()));
    // And back: it was told lately.
    says("cpu.quota").await;
    assert_eq!(told.recv_timeout(PATIENCE).expect("an alert").1["status"], "resolved");
    collector.wait_for(&[], "alerts_silenced", 1);
    assert_eq!(collector.wait_for(&[], "alerts_sent", 4), 4);
    assert_eq!(collector.wait_for(&[], "alerts_retried", 1), 1);
    assert_eq!(collector.wait_for(&[], "alerts_lost", 0), 0);
}

#[tokio::test]
async fn a_service_that_is_limited_is_told_with_its_hosts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let told = listen(listener);
    let place = Place::new();
    let config = place.path("alerts.toml");
    let text = format!(
        "[webhook]\nurl = \"http://{address}\"\nlevel = \"warning\"\nabout = [\"services\"]\nlink = \"https://c.example\"\n"
    );
    fs::write(&config, text).expect("a file");
    let collector = Collector::start(&place, &place.with(Vec::new(), &[("--alerts", &config)]));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    for host in [1, 2, 3] {
        let (mut stream, _) = Stream::begin(collector.agents, hello(host)).await.expect("a stream");
        let mut sender = Sender::new();
        for number in 0..6 {
            let start = now - 12 * MINUTE + number * 2 * MINUTE;
            let window = rollout::window("web", start, 2 * MINUTE, host != 3);
            stream.say(from_agent::Message::Batch(batch(number + 1, &mut sender, &window))).await;
            assert_eq!(stream.answer().await.expect("an answer").refused, "");
        }
    }
    // The first is answered that it came at a bad time.
    let [first, again] = [(); 2].map(|()| told.recv_timeout(PATIENCE).expect("an alert").1);
    assert_eq!(first, again);
    assert_eq!((&again["scope"], &again["labels"]["service"]), (&"service".into(), &"web".into()));
    assert_eq!((&again["code"], &again["hosts_count"]), (&"cpu.quota".into(), &2.into()), "{again}");
    let mut hosts: Vec<&str> =
        again["hosts"].as_array().expect("hosts").iter().filter_map(Value::as_str).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["host-1", "host-2"]);
    let links = again["links"].as_object().expect("links");
    assert!(
        links["page"].as_str().is_some_and(|url| url.starts_with("https://c.example/explore?query=wall"))
    );
    // What the link to the API is of answers.
    let fleet =
        links["fleet"].as_str().and_then(|url| url.strip_prefix("https://c.example")).expect("a link");
    let answer = collector.curl(&[], fleet);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(answer["services"][0]["constraints"][0]["code"], "cpu.quota", "{answer}");
    assert_eq!(collector.wait_for(&[], "alerts_sent", 1), 1);
}
