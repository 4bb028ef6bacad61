//! What a collector sends on by OTLP: to a real OpenTelemetry Collector that writes it to a file, and to another collector of ours.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::from_agent;
use serde_json::{Value, json};

use crate::common::secured::{Collector, Place, text};
use crate::common::stream::{PATIENCE, Stream};
use crate::common::{MINUTE, Random, SECOND, batch, hello, rows, this_hour, window};
use crate::peers::{paths, peer, queried};

/// The Collector, until it is dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    fn start(program: &Path, place: &Place, config: &Value) -> Self {
        let [file, log] = ["otelcol.json", "otelcol.log"].map(|name| place.path(name));
        // JSON is YAML.
        fs::write(&file, config.to_string()).expect("a file");
        let child = Command::new(program)
            .args(["--feature-gates", "service.profilesSupport", "--config"])
            .arg(file)
            .stderr(File::create(log).expect("a log"))
            .spawn();
        Self(child.expect("it starts"))
    }
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// Streams windows as a host, the last of them twice, and says how many there are.
async fn fill(collector: &Collector, host: u8) {
    let (mut stream, _) = Stream::begin(collector.agents, hello(host)).await.expect("a stream");
    let mut sender = Sender::new();
    let mut random = Random(u64::from(host));
    for number in [0, 1, 2, 2] {
        let mut rows = rows(&mut random, 30);
        for row in rows.iter_mut().filter(|row| row.class == "lock") {
            row.class = "futex";
        }
        let start = this_hour() - 10 * MINUTE + number * MINUTE;
        let window = window(start, 10 * SECOND, &rows, "cpu.quota", 50.0);
        stream.say(from_agent::Message::Batch(batch(number + 1, &mut sender, &window))).await;
        assert_eq!(stream.answer().await.expect("an answer").refused, "");
    }
}

/// What a collector has of a host: all thread time by path, which ends with the class.
fn stored(collector: &Collector, token: Option<&Path>, host: &str) -> BTreeMap<String, u64> {
    let (from, until) = (this_hour() - 11 * MINUTE, this_hour());
    let [from, until] = [from, until].map(|time| (time / SECOND).to_string());
    let selector = format!("wall{{host=\"{host}\"}}");
    let mut arguments = vec!["flame", &selector, "--from", &from, "--until", &until];
    let token = token.map(|path| path.display().to_string());
    arguments.extend(token.iter().flat_map(|token| ["--token-file", token]));
    paths(&queried(collector, &arguments))
}

/// What the Collector has written of each host, in the same form.
#[derive(Debug, Default)]
struct Written {
    paths: BTreeMap<String, BTreeMap<String, u64>>,
    /// Attributes of resources, of any of their profiles.
    resources: Vec<BTreeMap<String, String>>,
    types: Vec<(String, String)>,
    lost: Vec<String>,
}

/// A number, which JSON has as text where it may be long; 0 where it is left out.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn each<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    of[name].as_array().into_iter().flatten()
}

impl Written {
    fn read(path: &Path) -> Self {
        let mut written = Self::default();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            // The last may be half of one.
            if let Ok(message) = serde_json::from_str::<Value>(line) {
                written.add(&message);
            }
        }
        written
    }

    fn add(&mut self, message: &Value) {
        let known = &message["dictionary"];
        let at = |table: &str, index: &Value| &known[table][number(index) as usize];
        let string = |index: &Value| at("stringTable", index).as_str().unwrap_or_default().to_owned();
        // Names and texts stand in the dictionary, or where they belong.
        let attribute = |one: &Value| -> (String, String) {
            let text = |whole: &Value, number: &Value| {
                whole.as_str().map_or_else(|| string(number), ToOwned::to_owned)
            };
            let value = &one["value"];
            let value = match &value["intValue"] {
                Value::Null => text(&value["stringValue"], &value["stringValueStrindex"]),
                whole => number(whole).to_string(),
            };
            (text(&one["key"], &one["keyStrindex"]), value)
        };
        let attributes = |indices: &Value| -> BTreeMap<String, String> {
            let of = indices.as_array().into_iter().flatten().map(|index| at("attributeTable", index));
            of.map(attribute).collect()
        };
        for resource in each(message, "resourceProfiles") {
            let named: BTreeMap<String, String> =
                each(&resource["resource"], "attributes").map(attribute).collect();
            let of_host = self.paths.entry(named["host.name"].clone()).or_default();
            for profile in each(resource, "scopeProfiles").flat_map(|scope| each(scope, "profiles")) {
                let of = &profile["sampleType"];
                self.types.push((string(&of["typeStrindex"]), string(&of["unitStrindex"])));
                self.lost.extend(attributes(&profile["attributeIndices"]).remove("chokepoint.lost_samples"));
                for sample in each(profile, "samples") {
                    let mut path = vec!["total".to_owned()];
                    let stack = at("stackTable", &sample["stackIndex"]);
                    let mut places: Vec<&Value> = each(stack, "locationIndices").collect();
                    places.reverse();
                    for place in places {
                        let line = &at("locationTable", place)["lines"][0];
                        path.push(string(&at("functionTable", &line["functionIndex"])["nameStrindex"]));
                    }
                    let class = &attributes(&sample["attributeIndices"])["chokepoint.class"];
                    path.push(format!("[{class}]"));
                    *of_host.entry(path.join(";")).or_default() += number(&sample["values"][0]);
                }
            }
            self.resources.push(named);
        }
    }
}

#[tokio::test]
async fn an_opentelemetry_collector_writes_what_is_stored() {
    let Some(program) = peer("otelcol") else { return };
    let [first, second] = [(); 2].map(|()| Place::new());
    let [grpc, http] = [(); 2].map(|()| free_port());
    let shown = first.authority.issue(&["collector"]);
    let path = |path: &Path| path.display().to_string();
    // One of them over TLS, with a certificate at both ends.
    let secured: Vec<String> = [
        ("--otlp-endpoint", format!("https://localhost:{grpc}")),
        ("--otlp-ca", path(&first.authority.ca)),
        ("--otlp-cert", path(&shown.cert)),
        ("--otlp-key", path(&shown.key)),
        ("--otlp-profiles", "wall".to_owned()),
    ]
    .into_iter()
    .flat_map(|(option, value)| [option.to_owned(), value])
    .collect();
    let open = ["--otlp-protocol=http", "--otlp-profiles=cpu,lock"].map(str::to_owned);
    let open = [&open[..], &[format!("--otlp-endpoint=http://127.0.0.1:{http}")]].concat();
    let collectors = [Collector::start(&first, &secured), Collector::start(&second, &open)];
    for (number, collector) in collectors.iter().enumerate() {
        fill(collector, number as u8 + 1).await;
    }
    // The Collector comes when what is sent was refused once: it comes again.
    for collector in &collectors {
        collector.wait_for(&[], "otlp_retries", 1);
    }
    let written = first.path("written.json");
    let config = json!({
        "receivers": {"otlp": {"protocols": {
            "grpc": {
                "endpoint": format!("127.0.0.1:{grpc}"),
                "tls": {
                    "cert_file": path(&first.host.cert),
                    "key_file": path(&first.host.key),
                    "client_ca_file": path(&first.authority.ca),
                },
            },
            "http": {"endpoint": format!("127.0.0.1:{http}")},
        }}},
        "exporters": {"file": {"path": path(&written)}},
        "service": {"pipelines": {"profiles": {"receivers": ["otlp"], "exporters": ["file"]}}},
    });
    let _peer = Peer::start(&program, &first, &config);
    for (number, collector) in collectors.iter().enumerate() {
        let sent = collector.wait_for(&[], "otlp_profiles_sent", 1);
        assert!(sent > 1, "{sent}");
        let host = format!("host-{}", number + 1);
        let wanted = stored(collector, None, &host);
        assert!(wanted.len() > 20, "{wanted:?}");
        let begin = Instant::now();
        // It is written when it was taken, once a second.
        let told = loop {
            let told = Written::read(&written);
            if told.paths.get(&host) == Some(&wanted) {
                break told;
            }
            let log = fs::read(first.path("otelcol.log")).unwrap_or_default();
            assert!(
                begin.elapsed() < PATIENCE,
                "{:?} is not {wanted:?}\n{}",
                told.paths.get(&host),
                text(&log)
            );
            sleep(Duration::from_millis(200));
        };
        let all = |named: &BTreeMap<String, String>, wanted: &[(&str, &str)]| {
            wanted.iter().all(|(name, value)| named.get(*name).is_some_and(|own| own == value))
        };
        let zone = if number == 0 { "odd" } else { "even" };
        let wanted = [
            ("host.name", host.as_str()),
            ("process.executable.name", "web"),
            ("k8s.pod.name", "web-1"),
            ("cloud.availability_zone", zone),
        ];
        assert!(told.resources.iter().any(|named| all(named, &wanted)), "{:?}", told.resources);
        let is_time = |(name, unit): &(String, String)| {
            ["cpu", "off_cpu"].contains(&name.as_str()) && unit == "nanoseconds"
        };
        assert!(told.types.iter().all(is_time), "{:?}", told.types);
        assert!(!told.lost.is_empty() && told.lost.iter().all(|lost| lost == "3"), "{:?}", told.lost);
        for (count, is) in [("otlp_profiles_lost", 0), ("otlp_profiles_rejected", 0)] {
            assert_eq!(collector.wait_for(&[], count, 0), is, "{count}");
        }
    }
}

#[tokio::test]
async fn another_collector_stores_what_is_sent_on_with_the_token_that_it_asks_for() {
    for (protocol, host) in [("grpc", 3), ("http", 4)] {
        let [from, to] = [(); 2].map(|()| Place::new());
        let [agent, reader] =
            [("gateway", "agent"), ("eyes", "reader")].map(|(name, role)| to.token(name, role, ""));
        let receiver = Collector::start(&to, &to.with(Vec::new(), &[("--tokens", &to.tokens())]));
        let endpoint = match protocol {
            "grpc" => format!("http://{}", receiver.agents),
            _ => receiver.queries.clone(),
        };
        let options = [
            format!("--otlp-endpoint={endpoint}"),
            format!("--otlp-protocol={protocol}"),
            "--otlp-profiles=wall".to_owned(),
        ];
        let options = from.with(options.to_vec(), &[("--otlp-token-file", &agent)]);
        let collector = Collector::start(&from, &options);
        fill(&collector, host).await;
        let sent = collector.wait_for(&[], "otlp_profiles_sent", 2);
        let bearer = crate::common::secured::bearer(&reader);
        assert_eq!(receiver.wait_for(&["-H", &bearer], "profiles_received", sent), sent);
        let host = format!("host-{host}");
        let own = stored(&collector, None, &host);
        assert!(own.len() > 20, "{own:?}");
        assert_eq!(stored(&receiver, Some(&reader), &host), own, "{protocol}");
        assert_eq!(collector.wait_for(&[], "otlp_profiles_lost", 0), 0);
    }
}
