//! What can be done over HTTP, and by whom.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use chokepoint_proto::stream::command_update::What;
use chokepoint_proto::stream::from_collector::Message;
use chokepoint_proto::stream::{CommandUpdate, Hello, Part, Process, Processes, Window};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use super::super::{Peer, router};
use super::*;
use crate::access::Caller;
use crate::control::{Control, Heard, Link};
use crate::query::limits::Limits;
use crate::store_in_memory::fleet;

const RECORDING: &[u8] = include_bytes!("../../../tests/data/on-demand.json");
const HOST: &str = "127.0.0.1:4041";
const STRANGER: &str = "10.0.0.1";

struct Door {
    router: Router,
    link: Link,
    /// Numbers of the commands that the only agent heard of.
    commands: Arc<Mutex<Vec<u64>>>,
}

impl Door {
    fn new() -> Self {
        let control = Arc::new(Control::default());
        let commands = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&commands);
        let hello = Hello { agent: vec![7; 16], host: "a".to_owned(), ..Hello::default() };
        let link = control.connect(
            &hello,
            Box::new(move |said| {
                if let Some(Message::Command(command)) = said.message {
                    heard.lock().expect("no panic").push(command.id);
                }
                true
            }),
        );
        let router = router(
            Arc::new(fleet::store()),
            control,
            Arc::default(),
            Limits::default(),
            Arc::new(String::new),
        );
        Self { router, link, commands }
    }

    /// Asks as somebody at this address, with these headers; [`STRANGER`] is one without a role.
    async fn ask(
        &self,
        peer: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (u16, Vec<u8>) {
        let mut request = Request::builder().method(method).uri(format!("{BASE}{path}")).header("host", HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let caller = if peer == STRANGER { Caller::nobody() } else { Caller::anybody() };
        let request = request.extension(Peer(peer.parse().expect("an address"))).extension(caller);
        let request = request.body(body.into()).expect("a request");
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.expect("a body").to_bytes().to_vec())
    }

    async fn json(&self, method: &str, path: &str, body: &'static str) -> (u16, Value) {
        let json = [("content-type", "application/json")];
        let (status, body) = self.ask("127.0.0.1", method, path, &json, body).await;
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}

#[tokio::test]
async fn a_profile_is_asked_for_followed_and_fetched() {
    let door = Door::new();
    let (status, begun) =
        door.json("POST", "/profile", r#"{"pid": 7, "frequency": 499, "duration": "1s"}"#).await;
    assert_eq!((status, &begun["state"], &begun["host"]), (202, &"asked".into(), &"a".into()), "{begun}");
    let path = format!("/profile/{}", begun["id"].as_str().expect("an id"));
    let (status, early) = door.json("GET", &format!("{path}/flame.svg"), "").await;
    assert_eq!((status, &early["error"]["code"]), (409, &"not_done".into()));

    let command = door.commands.lock().expect("no panic")[0];
    let bytes = zstd::bulk::compress(RECORDING, 1).expect("it can be");
    door.link.take(CommandUpdate { id: command, what: Some(What::Part(Part { bytes, is_last: true })) });
    let (status, done) = door.json("GET", &format!("{path}?wait=20s"), "").await;
    assert_eq!((status, &done["state"]), (200, &"done".into()), "{done}");
    assert_eq!(done["outcome"]["verdict"]["code"], done["outcome"]["diagnosis"]["verdict"]["code"]);
    for (file, begins) in [
        ("flame.svg", &b"<?xml"[..]),
        ("profile.pb.gz", &[0x1f, 0x8b]),
        ("folded?type=wall", b"waits_c;"),
        ("speedscope", b"{"),
        ("profile.json", b"{\"schema\":\"chokepoint-profile\""),
    ] {
        let (status, body) = door.ask(STRANGER, "GET", &format!("{path}/{file}"), &[], "").await;
        assert!(
            status == 200 && body.starts_with(begins),
            "{file}: {status} {}",
            String::from_utf8_lossy(&body)
        );
    }
    let (status, flame) = door.json("GET", &format!("{path}/flamegraph?type=wall"), "").await;
    let weight = flame["sides"][0]["weight"].as_u64();
    assert!(status == 200 && weight > Some(0), "{flame}");
    // It was made before recordings had the times of their samples.
    for without in ["timeline", "bursts", "flamegraph?from_ms=1&until_ms=2"] {
        let (status, answer) = door.json("GET", &format!("{path}/{without}"), "").await;
        assert!(status == 404 && answer["error"]["message"].to_string().contains("no times"), "{answer}");
    }
    let (_, list) = door.json("GET", "/profile", "").await;
    assert_eq!(list["profiles"].as_array().map(Vec::len), Some(1));
    assert_eq!(door.json("DELETE", &path, "").await.0, 200);
    assert_eq!(door.json("GET", &path, "").await.0, 404);
}

#[tokio::test]
async fn the_processes_of_a_host_are_those_of_its_last_window() {
    let door = Door::new();
    let (status, none) = door.json("GET", "/processes?host=a", "").await;
    assert_eq!((status, &none["processes"], &none["until_unix_ms"]), (200, &json!([]), &json!(0)), "{none}");
    for pid in [7, 8] {
        let process = Process { pid, name: "<img>".to_owned(), cpu_ns: 500_000_000, ..Process::default() };
        let mut window = Window {
            start_unix_ns: 1_000_000_000,
            duration_ns: 1_000_000_000,
            processes: Some(Processes { processes: vec![process], left_out: 3 }),
            ..Window::default()
        };
        door.link.hear(Heard::take(&mut window).expect("there are some"));
    }
    let process = json!({"pid": 8, "name": "<img>", "cpus": 0.5, "pod": "", "container": ""});
    let expected = json!({"host": "a", "until_unix_ms": 2_000, "window_ms": 1_000, "processes": [process], "left_out": 3});
    // An agent is found by its identity, too.
    for host in ["a", "07070707"] {
        assert_eq!(door.json("GET", &format!("/processes?host={host}"), "").await, (200, expected.clone()));
    }
    let (status, refused) = door.json("GET", "/processes?host=b", "").await;
    assert!(
        status == 404 && refused["error"]["message"].to_string().contains("no agent of a host"),
        "{refused}"
    );
    assert_eq!(door.json("GET", "/processes", "").await.0, 400);
}

#[tokio::test]
async fn a_recording_with_times_is_shown_over_time() {
    let door = Door::new();
    let (_, begun) = door.json("POST", "/profile", r#"{"pid": 7, "duration": "1s"}"#).await;
    let path = format!("/profile/{}", begun["id"].as_str().expect("an id"));
    let mut recording: Value = serde_json::from_slice(RECORDING).expect("JSON");
    let sample = recording["samples"][0].clone();
    let moment = |offset_ms: u64, length_ms: u64| {
        json!({"offset_ns": offset_ms * 1_000_000, "length_ns": length_ms * 1_000_000, "thread": sample["thread"],
            "stack": sample["stack"], "weight": length_ms * 1_000_000})
    };
    recording["timeline"] = json!([moment(100, 50), moment(400, 200)]);
    let command = door.commands.lock().expect("no panic")[0];
    let bytes = zstd::bulk::compress(recording.to_string().as_bytes(), 1).expect("it can be");
    door.link.take(CommandUpdate { id: command, what: Some(What::Part(Part { bytes, is_last: true })) });
    assert_eq!(door.json("GET", &format!("{path}?wait=20s"), "").await.1["state"], "done");

    let (_, lines) = door.json("GET", &format!("{path}/timeline?type=wall"), "").await;
    assert_eq!(lines["threads"][0]["end_ns"], json!([100_000_000, 400_000_000]), "{lines}");
    assert_eq!(lines["threads"][0]["length_ns"], json!([50_000_000, 200_000_000]));
    assert_eq!(lines["classes"].as_array().map(Vec::len), Some(1));
    // All other samples have no time.
    assert!(lines["missing"].as_u64() > Some(0), "{lines}");
    let (_, bursts) = door.json("GET", &format!("{path}/bursts?type=wall"), "").await;
    let columns: Vec<Vec<u64>> = serde_json::from_value(bursts["columns"].clone()).expect("numbers");
    assert_eq!(columns.iter().flatten().sum::<u64>(), 250_000_000, "{bursts}");
    let (_, stretch) =
        door.json("GET", &format!("{path}/flamegraph?type=wall&from_ms=300&until_ms=350"), "").await;
    assert_eq!(stretch["sides"][0]["weight"], 50_000_000, "{stretch}");
    for bad in
        ["flamegraph?from_ms=5", "flamegraph?from_ms=5&until_ms=5", "timeline?type=faults", "bursts?type=no("]
    {
        assert_eq!(door.json("GET", &format!("{path}/{bad}"), "").await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_or_makes_no_sense_is_refused() {
    let door = Door::new();
    let json = ("content-type", "application/json");
    let ask = r#"{"pid": 7}"#;
    for (peer, headers, body, expected) in [
        (STRANGER, vec![json], ask, 401),
        ("127.0.0.1", vec![("content-type", "text/plain")], ask, 415),
        ("127.0.0.1", vec![], ask, 415),
        ("127.0.0.1", vec![json, ("origin", "http://evil.example")], ask, 403),
        ("127.0.0.1", vec![json, ("sec-fetch-site", "cross-site")], ask, 403),
        ("127.0.0.1", vec![json], "{", 400),
        ("127.0.0.1", vec![json], r#"{"pid": 7, "frequency": 100000}"#, 400),
        ("127.0.0.1", vec![json], r#"{"pod": "no/where"}"#, 404),
        ("127.0.0.1", vec![json, ("origin", "http://127.0.0.1:4041")], ask, 202),
        ("127.0.0.1", vec![json], ask, 202),
        ("::1", vec![json], ask, 429),
    ] {
        let (status, answer) = door.ask(peer, "POST", "/profile", &headers, body).await;
        assert_eq!(status, expected, "{peer} {headers:?} {body}: {}", String::from_utf8_lossy(&answer));
    }
    let long = " ".repeat(MAX_BODY_BYTES + 1);
    assert_eq!(door.ask("127.0.0.1", "POST", "/profile", &[json], long).await.0, 400);
    for (method, path, expected) in [
        ("PUT", "/profile", 405),
        ("DELETE", "/profile", 405),
        ("POST", "/profile/1-0", 405),
        ("DELETE", "/profile/1-0", 404),
        ("GET", "/profile/1-0", 404),
        ("GET", "/profile/1-0/flame.svg", 404),
        ("GET", "/profile/1-0?wait=soon", 400),
        ("GET", "/profile?what=this", 400),
        ("GET", "/profile/1-0/flame.png", 404),
    ] {
        let (status, answer) = door.json(method, path, "").await;
        assert_eq!(status, expected, "{method} {path}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    let (_, list) = door.json("GET", "/profile", "").await;
    let id = list["profiles"][0]["id"].as_str().expect("an id").to_owned();
    let elsewhere = [("sec-fetch-site", "cross-site")];
    assert_eq!(door.ask("127.0.0.1", "DELETE", &format!("/profile/{id}"), &elsewhere, "").await.0, 403);
    assert_eq!(door.ask(STRANGER, "DELETE", &format!("/profile/{id}"), &[], "").await.0, 401);
}
