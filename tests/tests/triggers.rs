//! Profiles by themselves: a signal of a real agent becomes critical, the collector has it make a profile, keeps what came of it, and says in the
//! alert where it is. Neither within the silence nor beyond the budget is there another.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::serving::Serving;
use chokepoint_tests::workload::eventually_within;
use chokepoint_tests::{Agent, Running, Workload, in_vm, live, skip_if};
use serde_json::Value;

/// An agent of a busy machine takes many seconds to load its programs, and to name what they saw.
const PATIENCE: Duration = Duration::from_secs(120);
/// How collectors are reached, as they say it.
const LINK: &str = "https://collector.example";

/// Takes alerts, and says where.
fn webhook() -> (SocketAddr, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                let line = line.trim().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().expect("a number");
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            if tell.send(serde_json::from_slice(&body).expect("JSON")).is_err() {
                return;
            }
        }
    });
    (address, told)
}

/// A collector that has profiles made, and an agent of its own.
struct Triggered {
    collector: Serving,
    alerts: mpsc::Receiver<Value>,
    _agent: Running,
}

impl Triggered {
    /// Begins in this directory; `profile` is what is configured of profiles that are made by themselves.
    fn start(directory: &Path, profile: &str) -> Self {
        let (hook, alerts) = webhook();
        std::fs::create_dir(directory).expect("a directory");
        let config = directory.join("alerts.toml");
        let text = format!(
            "[webhook]\nurl = \"http://{hook}\"\nlevel = \"low\"\nabout = [\"hosts\"]\nlink = \"{LINK}\"\n\
             [profile]\nlevel = \"low\"\nsignals = [\"group.throttled_periods\"]\nduration = \"2s\"\n{profile}"
        );
        std::fs::write(&config, text).expect("it can be written");
        let config = config.to_string_lossy();
        let collector = Serving::start_with(&directory.join("store"), &["--alerts", &config], &[]);
        let (url, state) = (format!("http://{}", collector.grpc), directory.join("state"));
        let state = state.to_string_lossy();
        // On a busy machine its own governor is not to make windows longer.
        let to = ["agent", "--collector", &url, "--state-dir", &state];
        let _agent = Agent::new(to.iter().chain(&["--window", "2s", "--max-overhead", "100%"])).start();
        Self { collector, alerts, _agent }
    }

    fn wait_for_a_profile(&self) {
        let has_begun = || (self.collector.counted("triggers_begun") > 0).then_some(());
        eventually_within(PATIENCE, "a profile that was begun", has_begun);
    }

    /// Waits until more crossings than so many were held back: not one has a profile.
    fn wait_for_one_held_back(&self, before: u64) {
        let is_held_back = || (self.collector.counted("triggers_held_back") > before).then_some(());
        eventually_within(PATIENCE, "a crossing that is held back", is_held_back);
        assert_eq!(self.collector.counted("triggers_begun"), 1);
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.collector.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }
}

/// What uses up its group's quota for as long as it lives.
fn throttled(name: &str) -> Option<(Workload, Cgroup)> {
    let group = Cgroup::with_quota(name, 10)?;
    let workload = Workload::start("waits_c", &["spin"]);
    group.add(workload.pid());
    Some((workload, group))
}

#[test]
fn what_becomes_critical_is_profiled_once_and_the_alert_says_where() {
    let _live = live();
    skip_if!(in_vm(), "under emulation, a window takes longer to read than to come");
    let Some(_throttled) = throttled("chokepoint-trigger-1") else {
        skip_if!(true, "no cpu controller is to be had");
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let silent = Triggered::start(&directory.path().join("silent"), "silence = \"1h\"\n");
    let poor = Triggered::start(&directory.path().join("poor"), "silence = \"1ms\"\nbudget = 1\n");

    // It begins by itself, is kept, and has what the workload did.
    silent.wait_for_a_profile();
    let list = silent.json("/api/v1/profile");
    let [begun] = list["profiles"].as_array().expect("profiles").as_slice() else { panic!("{list}") };
    assert_eq!(begun["asked_by"], "trigger");
    let place = format!("/api/v1/profile/{}", begun["id"].as_str().expect("its id"));
    let done = eventually_within(PATIENCE, "its end", || {
        let shown = silent.json(&place);
        assert_ne!(shown["state"], "failed", "{shown}");
        (shown["state"] == "done").then_some(shown)
    });
    assert!(done["recorded_ms"].as_u64() >= Some(2_000), "{done}");
    let (status, stacks) = silent.collector.ask("GET", &format!("{place}/folded?type=wall"), "");
    assert_eq!(status, 200, "{stacks}");
    assert!(stacks.lines().any(|stack| stack.contains("waits_c") && stack.contains("throttled")), "{stacks}");

    // What is told of this host has its verdict, and links that answer, one of them to the profile.
    let alert = silent.alerts.recv_timeout(PATIENCE).expect("an alert");
    assert_eq!((&alert["status"], &alert["scope"]), (&"firing".into(), &"host".into()), "{alert}");
    assert!(alert["severity"].as_u64() >= Some(1) && alert["summary"] != "", "{alert}");
    assert_eq!(alert["links"]["profile"], format!("{LINK}{place}"), "{alert}");
    let links = alert["links"].as_object().expect("links");
    assert!(links.contains_key("page") && links.contains_key("flamegraph"), "{alert}");
    for link in links.values().filter_map(Value::as_str) {
        let path = link.strip_prefix(LINK).unwrap_or_else(|| panic!("{link} is elsewhere"));
        let (status, body) = silent.collector.ask("GET", path, "");
        assert_eq!(status, 200, "{link}: {body}");
    }

    // Another crossing has none: one host's in its silence, the other's beyond its budget, however short the silence.
    poor.wait_for_a_profile();
    let both = [&silent, &poor].map(|one| (one, one.collector.counted("triggers_held_back")));
    let _another = throttled("chokepoint-trigger-2");
    for (one, before) in both {
        one.wait_for_one_held_back(before);
    }
}
