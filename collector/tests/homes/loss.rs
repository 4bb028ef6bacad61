//! Two collectors of one store on two servers, one of the collectors killed at random and one of the servers killed and started again: what
//! was acknowledged is there once, what was not comes later or is counted as dropped.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use super::accounts::check;
use super::common::clickhouse::{Server, open, servers};
use super::common::collector::{Collector, PROGRAM};
use super::common::*;
use super::hosts::Hosts;

const AGENTS: u64 = 60;
/// How long all may take until it has arrived, when nothing hinders it any more.
const PATIENCE: Duration = Duration::from_secs(120);
const WHOLE: Duration = Duration::from_secs(24);
/// Between two kills of a collector, about.
const KILL_EVERY_S: u64 = 5;
/// A shard is away in this part of the time.
const SHARD_IS_AWAY: std::ops::Range<f64> = 0.35..0.6;

fn command(address: SocketAddr, store: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--listen", &address.to_string(), "--http", "127.0.0.1:0", "--store", store]);
    command
}

#[test]
fn collectors_that_die_and_shards_that_come_back_lose_nothing() {
    let (Some(first), Some(mut second)) = (Server::start(), Server::start()) else { return };
    let at = servers(&[&first, &second], "loss");
    let store = at.to_string();
    // They are started again where agents know them.
    let addresses = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let addresses = addresses.map(|listener| listener.local_addr().expect("an address"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut collectors = addresses.map(|address| Collector::try_run(command(address, &store)));
    assert!(collectors.iter().all(Option::is_some), "they say where they listen");
    let mut hosts = Hosts::start(&runtime, AGENTS, &addresses);
    let mut random = Random(std::process::id().into());
    let begin = Instant::now();
    let (mut kills, mut is_away, mut next_kill) = (0, false, Duration::from_secs(KILL_EVERY_S));
    while begin.elapsed() < WHOLE {
        let part = begin.elapsed().as_secs_f64() / WHOLE.as_secs_f64();
        if begin.elapsed() >= next_kill {
            next_kill += Duration::from_secs(3 + random.below(2 * KILL_EVERY_S - 5));
            if let Some(killed) = collectors[random.below(2) as usize].take() {
                killed.signal(libc::SIGKILL);
                kills += 1;
            }
        } else {
            // A moment later, as whatever watches over it would.
            for (collector, address) in collectors.iter_mut().zip(addresses) {
                if collector.is_none() {
                    *collector = Collector::try_run(command(address, &store));
                }
            }
        }
        if SHARD_IS_AWAY.contains(&part) != is_away {
            is_away = !is_away;
            if is_away { second.kill() } else { second.begin() }
        }
        hosts.fill_up_to(begin.elapsed().as_secs(), 0);
        std::thread::sleep(Duration::from_millis(200));
    }
    if is_away {
        second.begin();
    }
    for (collector, address) in collectors.iter_mut().zip(addresses) {
        if collector.is_none() {
            *collector = Collector::try_run(command(address, &store));
        }
    }
    hosts.connect_at_once();
    let waiting = Instant::now();
    while hosts.waiting() > 0 {
        assert!(waiting.elapsed() < PATIENCE, "{} batches still wait", hosts.waiting());
        std::thread::sleep(Duration::from_millis(100));
    }
    for collector in collectors.into_iter().flatten() {
        collector.signal(libc::SIGTERM);
        assert_eq!(collector.wait().code(), Some(0));
    }
    assert!(kills >= 2, "{kills} kills");
    let store = open(&at);
    check(&store, &hosts);
    // When the servers have merged what came twice, too.
    for server in [&first, &second] {
        server.ask("OPTIMIZE TABLE loss.batches FINAL").expect("an answer");
    }
    check(&store, &hosts);
    drop((store, hosts, runtime));
}
