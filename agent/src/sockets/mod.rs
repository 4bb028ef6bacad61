//! The statistics of TCP connections, also of those that lose nothing: round-trip time, congestion window, and what held them back.
//!
//! The kernel's list is looked at when the window begins, each few seconds and when it ends. What a connection did in the window is
//! the difference between its first and its last look; one that began in it counts from its beginning, one that ends counts up to
//! the last look at it. One that lives for less than the time between two looks is not seen.

mod diag;
mod unix;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use chokepoint_analysis::connections::Connection;

use crate::connections::sockets_of;
use crate::process;
pub use diag::Diag;
use diag::Told;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Connections that are looked at in one go: some 50 ms.
const MAX_LOOKED_AT: usize = 20_000;
/// Connections that are remembered; about 250 bytes each. Of more, later ones are left out.
const MAX_REMEMBERED: usize = 40_000;
/// Connections that are told, those that carried most.
const MAX_TOLD: usize = 1_000;
/// Network namespaces that are looked at.
const MAX_NAMESPACES: usize = 64;
/// Open files that are looked at for the processes of connections in one go: some 50 ms.
const MAX_FILES: usize = 50_000;
/// Time between two such searches in windows without end, in what the last one took.
const SPARING_PAUSE: u32 = 1_000;

/// A connection between its first and its last look.
#[derive(Clone, Debug)]
struct Watched {
    /// As it was when the window began; `None` where it began in the window.
    first: Option<Told>,
    last: Told,
    owner: Option<u32>,
    name: String,
    /// The process at the other end, where it was found.
    peer: Option<u32>,
    /// The number of the last look that it was in.
    look: u32,
}

/// The connections of a recording.
#[derive(Debug, Default)]
pub struct Sockets {
    namespaces: HashMap<u32, Diag>,
    closed_namespaces: HashSet<u32>,
    connections: HashMap<(u32, u64), Watched>,
    /// Ports that are or were listened on, by namespace.
    listening: HashSet<(u32, u16)>,
    looks: u32,
    left_out: u64,
    refused: Option<String>,
    /// When the processes of connections may be searched again; `None`: with each look.
    search_due: Option<Instant>,
}

/// Sockets of a look that are not the target's, by their ends.
#[derive(Debug, Default)]
struct OtherEnds {
    connections: HashMap<(u32, SocketAddr, SocketAddr), u64>,
    listening: HashMap<(u32, SocketAddr), u64>,
}

impl OtherEnds {
    fn add(&mut self, namespace: u32, told: &Told) {
        if told.inode == 0 {
            // Nobody has it open any more.
        } else if told.listens {
            self.listening.insert((namespace, told.local), told.inode);
        } else {
            self.connections.insert((namespace, told.local, told.remote), told.inode);
        }
    }

    /// The socket at the other end of a connection: its own, or the one that is listened on there, which outlives short connections.
    fn opposite(&self, namespace: u32, told: &Told) -> Option<u64> {
        let Told { local, remote, .. } = *told;
        let own = self.connections.get(&(namespace, remote, local));
        let port = remote.port();
        let anywhere = [SocketAddr::from(([0; 4], port)), SocketAddr::from(([0; 16], port))];
        let listening = || {
            // Of other hosts' ports, those of this one say nothing.
            let is_here = remote.ip().is_loopback() || remote.ip() == local.ip();
            let at = std::iter::once(remote).chain(anywhere.into_iter().filter(|_| is_here));
            at.into_iter().find_map(|at| self.listening.get(&(namespace, at)))
        };
        own.or_else(listening).copied()
    }
}

/// What they came to.
#[derive(Clone, Debug, Default)]
pub struct SocketsSeen {
    /// Those that carried most come first.
    pub connections: Vec<Connection>,
    /// What is missing, in words.
    pub notes: Vec<String>,
}

impl Sockets {
    /// For windows without end: the processes of connections are searched no more often than costs a thousandth of a CPU.
    #[must_use]
    pub fn sparing() -> Self {
        Self { search_due: Some(Instant::now()), ..Self::default() }
    }

    /// Looks at all connections of the host, or at those of the processes that `is_target` names.
    pub fn look(&mut self, is_host: bool, is_target: impl Fn(u32) -> bool) {
        let (tgids, others): (Vec<u32>, Vec<u32>) =
            process::all().partition(|tgid| is_host || is_target(*tgid));
        self.find_namespaces(&tgids);
        let mut owners: HashMap<u64, u32> = HashMap::new();
        if !is_host {
            find_owners(&tgids, |inode, tgid| _ = owners.insert(inode, tgid));
        }
        let is_first = self.looks == 0;
        self.looks += 1;
        let mut left = MAX_LOOKED_AT;
        let (connections, listening, look) = (&mut self.connections, &mut self.listening, self.looks);
        let mut left_out = 0;
        let mut ends = OtherEnds::default();
        for (namespace, diag) in &self.namespaces {
            let mut seen = 0;
            let asked = diag.ask(left, |told| {
                seen += 1;
                let owner = owners.get(&told.inode).copied();
                if !is_host && owner.is_none() {
                    ends.add(*namespace, &told);
                }
                if told.listens {
                    listening.insert((*namespace, told.local.port()));
                    return;
                }
                let key = (*namespace, told.cookie);
                if let Some(known) = connections.get_mut(&key) {
                    (known.last, known.look) = (told, look);
                } else if !is_host && owner.is_none() {
                    // Of somebody else.
                } else if connections.len() >= MAX_REMEMBERED {
                    left_out += 1;
                } else {
                    let first = is_first.then_some(told);
                    connections.insert(
                        key,
                        Watched { first, last: told, owner: None, name: String::new(), peer: None, look },
                    );
                }
                if let (Some(owner), Some(known)) = (owner, connections.get_mut(&key)) {
                    known.set_owner(owner);
                }
            });
            match asked {
                Ok(true) => {}
                Ok(false) => left_out += 1,
                Err(error) => self.refused = Some(error.to_string()),
            }
            left = left.saturating_sub(seen);
        }
        self.left_out += left_out;
        if is_host {
            self.find_owners_of_busiest(&tgids);
        } else {
            self.find_peers(&ends, &others);
        }
    }

    /// Finds the processes at the other ends of the target's connections, among those that are not of the target.
    fn find_peers(&mut self, ends: &OtherEnds, others: &[u32]) {
        let look = self.looks;
        let mut wanted: HashMap<u64, Vec<(u32, u64)>> = HashMap::new();
        let is_new = |known: &Watched| known.look == look && known.owner.is_some() && known.peer.is_none();
        for (key, known) in self.connections.iter().filter(|(_, known)| is_new(known)).take(MAX_TOLD) {
            if let Some(inode) = ends.opposite(key.0, &known.last) {
                wanted.entry(inode).or_default().push(*key);
            }
        }
        if wanted.is_empty() {
            return;
        }
        find_owners(others, |inode, tgid| {
            for key in wanted.get(&inode).into_iter().flatten() {
                if let Some(known) = self.connections.get_mut(key) {
                    known.peer = Some(tgid);
                }
            }
        });
    }

    /// Opens those of the processes, and this process's own for the whole host.
    fn find_namespaces(&mut self, tgids: &[u32]) {
        for tgid in tgids {
            let path = format!("/proc/{tgid}/ns/net");
            let Ok(facts) = fs::metadata(&path) else { continue };
            let namespace = facts.ino() as u32;
            if self.namespaces.contains_key(&namespace) || self.closed_namespaces.contains(&namespace) {
                continue;
            }
            let opened = if self.namespaces.len() >= MAX_NAMESPACES {
                Err(std::io::Error::other("too many namespaces"))
            } else {
                Diag::open_of(*tgid)
            };
            match opened {
                Ok(diag) => _ = self.namespaces.insert(namespace, diag),
                Err(error) => {
                    tracing::debug!(%error, namespace, "connections of a network namespace");
                    self.closed_namespaces.insert(namespace);
                }
            }
        }
    }

    fn find_owners_of_busiest(&mut self, tgids: &[u32]) {
        let mut busiest: Vec<((u32, u64), u64)> = self
            .connections
            .iter()
            .filter(|(_, known)| known.owner.is_none() && known.look == self.looks)
            .map(|(key, known)| (*key, known.bytes()))
            .collect();
        busiest.sort_by_key(|(key, bytes)| (Reverse(*bytes), *key));
        let wanted: HashMap<u64, (u32, u64)> = busiest
            .into_iter()
            .take(MAX_TOLD)
            .map(|(key, _)| (self.connections[&key].last.inode, key))
            .filter(|(inode, _)| *inode != 0)
            .collect();
        let start = Instant::now();
        if wanted.is_empty() || self.search_due.is_some_and(|due| start < due) {
            return;
        }
        find_owners(tgids, |inode, tgid| {
            if let Some(known) = wanted.get(&inode).and_then(|key| self.connections.get_mut(key)) {
                known.set_owner(tgid);
            }
        });
        if let Some(due) = &mut self.search_due {
            *due = Instant::now() + start.elapsed() * SPARING_PAUSE;
        }
    }

    /// What they came to.
    #[must_use]
    pub fn finish(&self) -> SocketsSeen {
        let told = |((namespace, _), known): (&(u32, u64), &Watched)| {
            let is_accepted = self.listening.contains(&(*namespace, known.last.local.port()));
            Connection { is_accepted, ..known.told(*namespace, self.looks) }
        };
        let mut connections: Vec<Connection> = self.connections.iter().map(told).collect();
        connections.sort_by_key(|connection| {
            let Connection { local, remote, busy_ns, .. } = connection;
            (Reverse(connection.bytes()), Reverse(*busy_ns), *local, *remote)
        });
        let too_many = connections.len().saturating_sub(MAX_TOLD) as u64 + self.left_out;
        connections.truncate(MAX_TOLD);
        let mut notes = Vec::new();
        if too_many > 0 {
            notes.push(format!("{too_many} connections or more are without statistics: there were too many"));
        }
        if !self.closed_namespaces.is_empty() {
            notes.push(format!(
                "connections of {} network namespaces are without statistics: entering them needs CAP_SYS_ADMIN, or there are too many",
                self.closed_namespaces.len()
            ));
        }
        if let Some(refused) = &self.refused {
            notes.push(format!("connections are without statistics: {refused}"));
        }
        SocketsSeen { connections, notes }
    }

    /// The same of a window that another follows: what comes after the last look counts for that.
    pub fn close_window(&mut self) -> SocketsSeen {
        let seen = self.finish();
        let look = self.looks;
        self.connections.retain(|_, known| known.look == look);
        self.connections.values_mut().for_each(|known| known.first = Some(known.last));
        // Those of processes that are gone would fill the table in time.
        self.namespaces.clear();
        self.closed_namespaces.clear();
        (self.left_out, self.refused) = (0, None);
        seen
    }
}

impl Watched {
    fn set_owner(&mut self, tgid: u32) {
        if self.owner != Some(tgid) {
            self.owner = Some(tgid);
            self.name = process::name(tgid).unwrap_or_default();
        }
    }

    /// Bytes in the window.
    fn bytes(&self) -> u64 {
        let of = |told: &Told| told.bytes_sent.saturating_add(told.bytes_received);
        of(&self.last).saturating_sub(self.first.as_ref().map_or(0, of))
    }

    fn told(&self, namespace: u32, looks: u32) -> Connection {
        let last = &self.last;
        let since = |of: fn(&Told) -> u64| of(last).saturating_sub(self.first.as_ref().map_or(0, of));
        let ns = |us: u64| us.saturating_mul(1_000);
        Connection {
            namespace,
            local: last.local,
            remote: last.remote,
            // Who listens is known of all together.
            is_accepted: false,
            pid: self.owner,
            process_name: self.name.clone(),
            peer_pid: self.peer,
            open: self.look == looks,
            rtt_us: last.rtt_us,
            // What the kernel says before it has measured one.
            min_rtt_us: if last.min_rtt_us == u32::MAX { 0 } else { last.min_rtt_us },
            congestion_window: last.congestion_window,
            bytes_sent: since(|told| told.bytes_sent),
            bytes_received: since(|told| told.bytes_received),
            retransmits: since(|told| u64::from(told.retransmits)),
            busy_ns: ns(since(|told| told.busy_us)),
            receiver_limited_ns: ns(since(|told| told.receiver_limited_us)),
            buffer_limited_ns: ns(since(|told| told.buffer_limited_us)),
        }
    }
}

/// Tells the process of every socket that one of them has open.
fn find_owners(tgids: &[u32], mut found: impl FnMut(u64, u32)) {
    let mut left = MAX_FILES;
    for tgid in tgids {
        if left == 0 {
            return;
        }
        for inode in sockets_of(*tgid, &mut left) {
            found(inode, *tgid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_has_the_process_at_its_other_end() {
        if Diag::open().and_then(|diag| diag.ask(1, |_| {})).is_err() {
            return eprintln!("skipped: this kernel has no tcp_diag");
        }
        // A child that keeps its end open, and the listening socket.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let connection = TcpStream::connect(to).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let mut command = std::process::Command::new("sleep");
        command
            .arg("60")
            .stdin(std::os::fd::OwnedFd::from(accepted))
            .stdout(std::os::fd::OwnedFd::from(listener));
        let mut child = command.spawn().unwrap();
        // It has this process's copies of both.
        drop(command);
        let own = std::process::id();
        let mut sockets = Sockets::default();
        sockets.look(false, |tgid| tgid == own);
        let seen = sockets.finish();
        child.kill().unwrap();
        child.wait().unwrap();
        let local = connection.local_addr().unwrap();
        let of_own = seen.connections.iter().find(|one| one.local == local && one.remote == to).unwrap();
        assert_eq!((of_own.pid, of_own.peer_pid), (Some(own), Some(child.id())));
    }

    #[test]
    fn a_short_connection_has_the_process_that_listens_there() {
        let told = |local: &str, remote: &str, inode, listens| Told {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            inode,
            listens,
            cookie: 0,
            rtt_us: 0,
            min_rtt_us: 0,
            congestion_window: 0,
            retransmits: 0,
            bytes_sent: 0,
            bytes_received: 0,
            busy_us: 0,
            receiver_limited_us: 0,
            buffer_limited_us: 0,
        };
        let mut ends = OtherEnds::default();
        ends.add(1, &told("0.0.0.0:80", "0.0.0.0:0", 7, true));
        ends.add(1, &told("10.0.0.1:81", "0.0.0.0:0", 8, true));
        ends.add(1, &told("127.0.0.1:80", "127.0.0.1:5000", 9, false));
        let opposite = |namespace, local, remote| ends.opposite(namespace, &told(local, remote, 1, false));
        assert_eq!(opposite(1, "127.0.0.1:5000", "127.0.0.1:80"), Some(9));
        assert_eq!(opposite(1, "127.0.0.1:5001", "127.0.0.1:80"), Some(7));
        assert_eq!(opposite(1, "10.0.0.1:5001", "10.0.0.1:81"), Some(8));
        // Another host's, another namespace's.
        assert_eq!(opposite(1, "10.0.0.1:5001", "10.0.0.9:80"), None);
        assert_eq!(opposite(2, "127.0.0.1:5000", "127.0.0.1:80"), None);
    }

    #[test]
    fn a_connection_counts_from_the_first_look_and_has_its_process() {
        if Diag::open().and_then(|diag| diag.ask(1, |_| {})).is_err() {
            return eprintln!("skipped: this kernel has no tcp_diag");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let mut old = TcpStream::connect(to).unwrap();
        let _accepted = listener.accept().unwrap();
        old.write_all(&[1; 1_000]).unwrap();
        let mut sockets = Sockets::default();
        let own = std::process::id();
        let is_own = |tgid| tgid == own;
        sockets.look(false, is_own);
        let mut new = TcpStream::connect(to).unwrap();
        old.write_all(&[1; 20]).unwrap();
        new.write_all(&[1; 300]).unwrap();
        sockets.look(false, is_own);
        let new_address = new.local_addr().unwrap();
        drop(new);
        drop(listener);
        sockets.look(false, is_own);
        let seen = sockets.finish();
        let of = |local| seen.connections.iter().find(|one| one.local == local && one.remote == to).unwrap();
        let old_address = old.local_addr().unwrap();
        let (of_old, of_new) = (of(old_address), of(new_address));
        assert_eq!((of_old.bytes_sent, of_new.bytes_sent), (20, 300));
        assert_eq!((of_old.pid, of_new.pid), (Some(own), Some(own)));
        assert!(!of_new.process_name.is_empty() && seen.notes.is_empty(), "{seen:?}");

        assert_eq!(sockets.close_window().connections, seen.connections);
        old.write_all(&[1; 7]).unwrap();
        sockets.look(false, is_own);
        let next = sockets.close_window().connections;
        let of = |local| next.iter().find(|one| one.local == local && one.remote == to);
        assert_eq!(of(old_address).map(|old| old.bytes_sent), Some(7));
        assert!(of(new_address).is_none(), "it ended in the window before");
    }
}
