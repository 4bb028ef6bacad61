//! What the continuous mode costs and sends. It takes minutes and judges nothing, so it is run by hand:
//! `cargo test -p chokepoint-tests --test agent_cost -- --ignored --nocapture`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chokepoint_tests::collector::{FakeCollector, Recording};
use chokepoint_tests::{Agent, Workload, live};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Windows that are printed. In the first ones tables and names are made.
const WINDOWS: usize = 7;

fn print_windows(title: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let recording = Recording::default();
    let collector = FakeCollector::listen(ANY_PORT, &recording);
    let (url, state) = (format!("http://{}", collector.address), directory.path().to_string_lossy());
    let arguments = ["agent", "--collector", &url, "--state-dir", &state, "--max-overhead", "100%"];
    let agent = Agent::new(arguments).start();
    println!("{title}");
    println!("  window      s  CPU %  programs %  RSS MB   rows  samples   kB  kB/s  verdict");
    let mut printed = 0;
    while printed < WINDOWS {
        std::thread::sleep(Duration::from_millis(500));
        for batch in recording.received().iter().skip(printed) {
            let cost = batch.window.cost.clone().unwrap_or_default();
            let seconds = batch.window.duration_ns as f64 / 1e9;
            let percent = |ns: u64| ns as f64 / 1e7 / seconds;
            println!(
                "  {:6} {seconds:6.2} {:6.2} {:11.2} {:7.1} {:6} {:8} {:4.0} {:5.1}  {}",
                batch.sequence,
                percent(cost.cpu_ns),
                percent(cost.program_ns),
                cost.resident_bytes as f64 / 1e6,
                batch.rows.len(),
                batch.rows.iter().map(|row| row.count).sum::<u64>(),
                batch.bytes as f64 / 1e3,
                batch.bytes as f64 / 1e3 / seconds,
                batch.window.verdict.as_ref().map_or("", |verdict| &verdict.code),
            );
            printed += 1;
        }
    }
    agent.signal(libc::SIGTERM);
    let _ = agent.finish();
}

#[test]
#[ignore = "measures, and judges nothing"]
fn what_it_costs_and_sends() {
    let _live = live();
    print_windows("as the host is: per cent of one CPU");
    let _busy: Vec<Workload> = ["mix", "churn"]
        .into_iter()
        .flat_map(|mode| [mode; 2])
        .map(|mode| Workload::start("waits_c", &[mode, "1000000"]))
        .chain([Workload::start("waits_c", &["spin"])])
        .collect();
    print_windows("with waits, short-lived threads and processes, and a spinner");
}
