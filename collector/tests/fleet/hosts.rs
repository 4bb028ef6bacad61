//! Agents with the spool and the connection that real ones have.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chokepoint::stream::connection::credentials::Credentials;
use chokepoint::stream::connection::{SharedSpool, Status, Target, deliver};
use chokepoint::stream::spool::{Limits, Spool};
use chokepoint_proto::stream::Hello;
use chokepoint_tls::Stamp;
use prost::Message;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::common::*;

/// Length of a window.
pub const WINDOW_NS: u64 = 10 * SECOND;
/// One in so many has room for few batches.
const SMALL_SPOOLS: u64 = 10;

/// A simulated host.
pub struct Host {
    pub name: String,
    /// Weight of each window, by when it began.
    pub made: BTreeMap<u64, u64>,
    number: u64,
    spool: Arc<SharedSpool>,
    status: Arc<Status>,
    target: watch::Sender<Option<Target>>,
    _state: tempfile::TempDir,
}

impl Host {
    /// Batches that the collector has said it has.
    pub fn acknowledged(&self) -> u64 {
        assert_eq!(self.status.refused.load(Ordering::Relaxed), 0, "{}: none is refused", self.name);
        self.status.stored.load(Ordering::Relaxed)
    }

    /// Batches that the spool had no room for.
    pub fn dropped(&self) -> u64 {
        self.spool.lock().fill().dropped
    }
}

/// All of them.
pub struct Hosts {
    each: Vec<Host>,
    first_unix_ns: u64,
}

impl Hosts {
    /// So many, that send to one of these collectors each. Their first windows begin a day ago, so that they go into segments at once.
    pub fn start(runtime: &Runtime, count: u64, collectors: &[SocketAddr]) -> Self {
        let collectors: Vec<String> = collectors.iter().map(|address| format!("http://{address}")).collect();
        let host = |number| {
            let state = directory();
            let small = Limits { disk_bytes: 24 << 10, memory_bytes: 0 };
            let limits = if number % SMALL_SPOOLS == 0 { small } else { Limits::default() };
            let (spool, remarks) = Spool::open(state.path(), limits).expect("a spool");
            assert!(remarks.is_empty(), "{remarks:?}");
            let name = format!("host-{number}");
            let hello = Hello {
                agent: spool.identity().to_vec(),
                host: name.clone(),
                labels: Vec::new(),
                ..hello(1)
            };
            let (spool, status) = (Arc::new(SharedSpool::new(spool)), Arc::new(Status::default()));
            let target = Target {
                collector: collectors.join(","),
                credentials: Credentials::default(),
                stamp: Stamp::default(),
                hello,
            };
            let (target, watched) = watch::channel(Some(target));
            runtime.spawn(deliver(Arc::clone(&spool), Arc::clone(&status), Arc::default(), None, watched));
            Host { name, made: BTreeMap::new(), number, spool, status, target, _state: state }
        };
        Self { each: (0..count).map(host).collect(), first_unix_ns: this_hour() - 24 * HOUR }
    }

    pub fn each(&self) -> &[Host] {
        &self.each
    }

    /// Makes the windows that are missing up to this number, by a clock that is wrong by so many hours. Hosts take turns, as in a fleet.
    pub fn fill_up_to(&mut self, number: u64, step_hours: i64) {
        for host in &mut self.each {
            while (host.made.len() as u64) < number {
                let next = host.made.len() as u64;
                let start =
                    self.first_unix_ns.saturating_add_signed(step_hours * HOUR as i64) + next * WINDOW_NS;
                let weight = 1_000_000 * (host.number + 1) + next;
                let row = Row {
                    kind: "wall",
                    process: format!("service-{}", host.number % 7),
                    pod: String::new(),
                    class: "cpu.user",
                    stack: vec!["main".to_owned(), format!("f{}", next % 50)],
                    count: 1,
                    weight,
                };
                let window = window(start, WINDOW_NS, &[row], "cpu", 1.0).encode_to_vec();
                let bytes = zstd::bulk::compress(&window, 1).expect("it compresses");
                host.made.insert(start, weight);
                // `None`: it is counted as dropped.
                host.spool.append(bytes, window.len() as u64);
            }
        }
    }

    /// Has all try again now, not when their pause is over.
    pub fn connect_at_once(&self) {
        for host in &self.each {
            host.target.send_modify(|target| {
                let target = target.as_mut().expect("there always is one");
                target.hello.program.push_str("-again");
            });
        }
    }

    /// Batches that are in spools.
    pub fn waiting(&self) -> u64 {
        self.each.iter().map(|host| host.spool.lock().fill().batches).sum()
    }
}
