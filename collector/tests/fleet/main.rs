//! A fleet whose collector is killed, whose collector's disk is full, whose network is cut and whose clocks jump loses nothing: what was
//! acknowledged is there once, what was not comes later or is counted as dropped.
//!
//! `CHOKEPOINT_FLEET_SECONDS` says for how long, where half a minute is not enough.

mod accounts;
#[path = "../common/mod.rs"]
mod common;
mod hosts;
mod network;

use std::time::{Duration, Instant};

use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};

use accounts::check;
use common::collector::{Collector, SmallDisk};
use common::*;
use hosts::Hosts;
use network::Network;

const AGENTS: u64 = 200;
/// The disk of the collector: room for all of it, until somebody else takes the rest.
const DISK_MIB: usize = 256;
/// How long all may take until it has arrived, when nothing hinders it any more.
const PATIENCE: Duration = Duration::from_secs(180);

/// What happens when, in parts of the whole time.
const DISK_IS_FULL: std::ops::Range<f64> = 0.30..0.45;
const NETWORK_IS_CUT: std::ops::Range<f64> = 0.60..0.75;
const CLOCKS_ARE_BACK: std::ops::Range<f64> = 0.2..0.5;
const CLOCKS_ARE_AHEAD: std::ops::Range<f64> = 0.7..0.8;

fn seconds() -> u64 {
    let text = std::env::var("CHOKEPOINT_FLEET_SECONDS");
    text.map_or(30, |text| text.parse().expect("CHOKEPOINT_FLEET_SECONDS is a number"))
}

#[test]
fn nothing_that_was_acknowledged_is_lost_and_nothing_is_there_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(disk) = SmallDisk::mount(directory.path(), DISK_MIB) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    let Some(mut network) = Network::new() else {
        eprintln!("skipped: this process may not have a network namespace");
        return;
    };
    let store = directory.path().join("store");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut hosts = Hosts::start(&runtime, AGENTS, &[network.address()]);

    let (begin, whole) = (Instant::now(), Duration::from_secs(seconds()));
    // Every ten seconds, and three times at least.
    let kill_every = (whole / 4).min(Duration::from_secs(10));
    let (mut collector, mut kills, mut ballast) = (Collector::try_run(network.collector(&store)), 0, None);
    assert!(collector.is_some(), "it says where it listens");
    let mut next_kill = kill_every;
    while begin.elapsed() < whole {
        let now = begin.elapsed();
        let part = now.as_secs_f64() / whole.as_secs_f64();
        if now >= next_kill {
            next_kill += kill_every;
            if let Some(killed) = collector.take() {
                killed.signal(libc::SIGKILL);
                kills += 1;
            }
        }
        if DISK_IS_FULL.contains(&part) != ballast.is_some() {
            ballast = if ballast.is_some() { None } else { Some(disk.fill()) };
        }
        // On a full disk it may be that it cannot even begin: it is started again.
        if collector.is_none() {
            collector = Collector::try_run(network.collector(&store));
        }
        network.cut(NETWORK_IS_CUT.contains(&part));
        let step_hours = match part {
            part if CLOCKS_ARE_BACK.contains(&part) => -20,
            part if CLOCKS_ARE_AHEAD.contains(&part) => 20,
            _ => 0,
        };
        // Ten times as often as agents do: a window of ten seconds each second.
        let due = now.as_secs();
        hosts.fill_up_to(due, step_hours);
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(ballast);
    network.cut(false);
    let collector = collector.or_else(|| Collector::try_run(network.collector(&store)));
    let collector = collector.expect("there is room again");
    hosts.connect_at_once();
    let waiting = Instant::now();
    while hosts.waiting() > 0 {
        assert!(waiting.elapsed() < PATIENCE, "{} batches still wait", hosts.waiting());
        std::thread::sleep(Duration::from_millis(100));
    }
    collector.signal(libc::SIGTERM);
    assert_eq!(collector.wait().code(), Some(0));
    assert!(kills >= 3, "{kills} kills");

    let store = Embedded::open(&store, Options::default()).expect("it opens");
    check(&store, &hosts);
    // All of it goes into history, and is the same there.
    while store.maintain(this_hour()).expect("maintenance") {}
    assert_eq!(store.holdings().expect("holdings").fresh_rows, 0);
    check(&store, &hosts);
    drop((store, hosts, runtime));
    drop(disk);
}
