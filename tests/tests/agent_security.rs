//! The real agent and the real collector, with certificates and tokens of every kind: who is let in streams, who is not says why.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use chokepoint_tests::agent::{Running, get};
use chokepoint_tests::serving::{ANY_PORT, Serving, new_token};
use chokepoint_tests::{Agent, in_vm, live, skip_if};
use chokepoint_tls::testing::{Authority, Issued};

/// Of an unoptimised build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn metric(metrics: SocketAddr, name: &str) -> u64 {
    let page = get(metrics, "/metrics");
    let begin = format!("chokepoint_agent_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&begin));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn shown(issued: &Issued) -> String {
    format!("cert = '{}'\nkey = '{}'\n", issued.cert.display(), issued.key.display())
}

/// Has the agent go by another configuration.
fn configure(agent: &Running, config: &Path, text: &str) {
    std::fs::write(config, text).expect("it can be written");
    agent.signal(libc::SIGHUP);
}

#[test]
fn an_agent_streams_to_whom_it_trusts_and_who_trusts_it_and_says_why_it_does_not() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no collector");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let place = |name: &str| directory.path().join(name);
    let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
    let (ours, theirs) =
        (Authority::new(directory.path(), "ours"), Authority::new(elsewhere.path(), "theirs"));
    let host = ours.issue(&["localhost"]);
    for (name, role) in [("reader", "reader"), ("agent-1", "agent")] {
        new_token(&place("tokens"), &place(name), name, role);
    }
    let [cert, key, ca, tokens] = [&host.cert, &host.key, &ours.ca, &place("tokens")].map(|file| path(file));
    let reader = path(&place("reader"));
    let asking = ["--ca", &ca, "--token-file", &reader];
    let common = ["--tls-cert", &cert, "--tls-key", &key, "--tokens", &tokens];
    let certified = [&common[..], &["--client-ca", &ca]].concat();
    let by_certificate = Serving::start_secured(&place("store-1"), &certified, &asking);
    let by_token = Serving::start_secured(&place("store-2"), &common, &asking);
    let plain = Serving::start(&place("store-3"), ANY_PORT, ANY_PORT);
    let to = |serving: &Serving| format!("collector = 'https://localhost:{}'\n", serving.grpc.port());

    let free = TcpListener::bind(ANY_PORT).and_then(|listener| listener.local_addr());
    let (metrics, config) = (free.expect("there is a free port"), place("agent.toml"));
    let mine = ours.issue(&["agent-1"]);
    let trusting = format!("{}ca = '{ca}'\n", to(&by_certificate));
    let good = trusting.clone() + &shown(&mine);
    std::fs::write(&config, &good).expect("it can be written");
    let (state, address, file) = (path(&place("state")), metrics.to_string(), path(&config));
    let arguments =
        ["agent", "--config", &file, "--metrics", &address, "--state-dir", &state, "--window", "1s"];
    // Its log is read while it runs.
    let log = place("log");
    let shell = format!("exec \"$@\" 2> '{}'", log.display());
    let agent =
        Agent::through(&["sh", "-c", &shell, "sh"], arguments.iter().chain(&["--max-overhead", "100%"]))
            .start();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let batches =
        |serving: &Serving| serving.query(&["agents"])["agents"][0]["batches"].as_u64().unwrap_or(0);
    wait_until("two windows", || batches(&by_certificate) >= 2);

    let with_token = |name: &str| format!("token-file = '{}'\n", place(name).display());
    let cases = [
        (trusting.clone(), "it asks for a client's certificate: give cert and key"),
        (trusting.clone() + &shown(&theirs.issue(&["agent-1"])), "of no authority that is trusted there"),
        (trusting.clone() + &shown(&ours.issue_expired(&["agent-1"])), "which has expired: renew it"),
        (trusting.clone() + &shown(&ours.issue_nameless()), "make it with a subjectAltName"),
        (
            trusting.clone() + &shown(&ours.issue(&["agent-2"])),
            "the agent belongs to another token or certificate",
        ),
        (good.replace(&ca, &path(&theirs.ca)), "its certificate is of no authority that is trusted here"),
        (good.clone() + "server-name = 'other'\n", "is for localhost and not for other"),
        (good.clone() + &with_token("reader"), "has the role reader, and this takes the role agent"),
        (format!("collector = 'http://{}'\n", by_certificate.grpc), "is it https:// there"),
        (format!("collector = 'https://{}'\nca = '{ca}'\n", plain.grpc), "is it http:// there"),
        (to(&by_token) + &format!("ca = '{ca}'\n"), "a token is asked for: give the agent one"),
    ];
    for (text, why) in &cases {
        let before = said().len();
        configure(&agent, &config, text);
        wait_until(why, || said()[before..].contains(why));
        assert_eq!(metric(metrics, "connected"), 0, "{why}");
    }
    // A file that cannot be read changes nothing.
    configure(&agent, &config, &(to(&by_token) + "ca = '/nowhere'\n"));
    wait_until("the file", || said().contains("cannot read /nowhere"));
    // By token, and back by certificate of the same name: the agent is still its own.
    let by_its_token = to(&by_token) + &format!("ca = '{ca}'\n") + &with_token("agent-1");
    configure(&agent, &config, &by_its_token);
    wait_until("a window by token", || batches(&by_token) >= 1);
    let before = batches(&by_certificate);
    configure(&agent, &config, &good);
    wait_until("another window by certificate", || batches(&by_certificate) > before);
    let told = by_certificate.query(&["agents"]);
    assert_eq!(told["agents"][0]["owner"], "agent-1");

    agent.signal(libc::SIGTERM);
    let _ = agent.finish().succeeded();
    let secret = std::fs::read_to_string(place("agent-1")).expect("a token");
    assert!(!said().contains(secret.trim()), "no secret is in the log");
}
