//! What TCP connections sent again, and who they belong to.
//!
//! Events come with the owner where the kernel programs know it; the rest is found by the socket's inode number among the open
//! files of all processes, at most once a second and only for connections that lost something. An event's stack is the last
//! that its owner opened the socket or sent with.
//!
//! Totals are exact whatever the tables hold: what meets a limit is counted all the same. Segments whose event was lost show in
//! the connection's own count, which comes with its next event.

mod owner_search;
mod peers;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use chokepoint_ebpf::tcp::{Call, Event, IPV4, IPV6, LIMITS, OpenerFacts, TcpRecord};

use crate::drain::decode::{Sample, comm};
use crate::host::clock::tick_ns;
use owner_search::OwnerSearch;
pub(crate) use owner_search::sockets_of;
pub use peers::{Peer, peers};

/// Connections told apart; about 300 bytes each. Further ones are in the totals alone.
const MAX_CONNECTIONS: usize = 65_536;
/// Windows in which nothing happens to a connection after which it is forgotten.
const MAX_QUIET_WINDOWS: u16 = 120;
/// Stacks that are remembered for connections that lost nothing yet; about 100 bytes each. Beyond, the oldest are forgotten.
const MAX_OPENERS: usize = 65_536;

/// Both ends of a connection, in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ends {
    /// Inode number of the namespace; 0 where it is not known.
    pub namespace: u32,
    /// This side.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
}

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments sent again, but for the next two.
    pub segments: u64,
    /// SYNs sent again.
    pub syns: u64,
    /// SYN-ACKs sent again.
    pub syn_acks: u64,
    /// Resets sent.
    pub resets_sent: u64,
    /// Resets received.
    pub resets_received: u64,
}

impl Counts {
    /// All that was sent again: what the kernel counts as `TcpRetransSegs`.
    #[must_use]
    pub fn retransmits(&self) -> u64 {
        self.segments + self.syns + self.syn_acks
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.segments += other.segments;
        self.syns += other.syns;
        self.syn_acks += other.syn_acks;
        self.resets_sent += other.resets_sent;
        self.resets_received += other.resets_received;
    }

    fn of(event: Event, segments: u32) -> Self {
        let segments = u64::from(segments);
        match event {
            Event::Retransmit => Self { segments, ..Self::default() },
            Event::Syn => Self { syns: segments, ..Self::default() },
            Event::SynAck => Self { syn_acks: segments, ..Self::default() },
            Event::ResetSent => Self { resets_sent: 1, ..Self::default() },
            Event::ResetReceived => Self { resets_received: 1, ..Self::default() },
        }
    }
}

/// The process that a connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process id.
    pub tgid: u32,
    /// Its name.
    pub name: String,
    /// Id of its group in the version 2 hierarchy; `None` where it is not known.
    pub cgroup_id: Option<u64>,
}

/// What the kernel knew of a connection when it lost something the last time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Smoothed round-trip time, microseconds; 0 where none was measured.
    pub srtt_us: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Bytes sent, those sent again included.
    pub bytes_sent: u64,
    /// Time it had something to send, nanoseconds.
    pub busy_ns: u64,
    /// The part of it that the receiver's window held it back.
    pub receiver_limited_ns: u64,
    /// The part of it that the send buffer held it back.
    pub buffer_limited_ns: u64,
}

/// Positions of a thread and of its stack among the sums.
pub type Placed = (u32, u32);

/// One connection that lost something.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What happened.
    pub counts: Counts,
    /// Whose it is; `None` where it could not be found.
    pub owner: Option<Owner>,
    /// As the kernel had it; `None` for what is no whole connection.
    pub statistics: Option<Statistics>,
    /// What was sent again, by the stack that last opened or sent.
    pub stacks: Vec<(Option<Placed>, u64)>,
    outside_target: bool,
    /// Windows since something happened last.
    quiet: u16,
    socket: u64,
    total_segments: u32,
    inode: u64,
    searches: u8,
}

/// Who opened a socket or sent on it last.
#[derive(Clone, Debug)]
struct Opener {
    taken_ns: u64,
    placed: Option<Placed>,
}

/// The connections of a recording. See the module's documentation.
#[derive(Debug, Default)]
pub struct Connections {
    connections: HashMap<Ends, Connection>,
    /// The last connection seen of each of the kernel's sockets.
    sockets: HashMap<u64, Ends>,
    openers: HashMap<u64, Opener>,
    /// The openers by age, with those that have been replaced since.
    ages: VecDeque<(u64, u64)>,
    not_told_apart: Counts,
    events: u64,
    unseen: u64,
    forgotten: u64,
    search: OwnerSearch,
}

impl Connections {
    /// Adds an event.
    pub fn add(&mut self, record: &TcpRecord, event: Event) {
        self.events += 1;
        let counts = Counts::of(event, record.segments);
        let placed = self
            .openers
            .get(&record.socket)
            .filter(|opener| record.taken_ns != 0 && opener.taken_ns >= record.taken_ns)
            .and_then(|opener| opener.placed);
        let ends = ends(record);
        let Some(ends) = ends
            .filter(|ends| self.connections.len() < MAX_CONNECTIONS || self.connections.contains_key(ends))
        else {
            self.not_told_apart.add(&counts);
            return;
        };
        let connection = self.connections.entry(ends).or_insert_with(|| Connection {
            counts: Counts::default(),
            owner: None,
            statistics: None,
            stacks: Vec::new(),
            outside_target: false,
            quiet: 0,
            socket: record.socket,
            total_segments: 0,
            inode: 0,
            searches: 0,
        });
        connection.counts.add(&counts);
        connection.send_again(placed, counts.retransmits());
        if record.bytes_sent > 0 || record.total_segments > 0 {
            connection.statistics = Some(statistics(record));
        }
        if matches!(event, Event::Retransmit | Event::Syn) {
            let before = record.total_segments.saturating_sub(record.segments);
            let is_known = connection.socket == record.socket && connection.total_segments > 0;
            if is_known && before > connection.total_segments {
                let unseen = u64::from(before - connection.total_segments);
                connection.counts.segments += unseen;
                connection.send_again(placed, unseen);
                self.unseen += unseen;
            }
        }
        connection.total_segments = record.total_segments;
        connection.socket = record.socket;
        if record.inode != 0 {
            connection.inode = record.inode;
        }
        if record.tgid != 0 {
            let cgroup_id = (record.cgroup_id != 0).then_some(record.cgroup_id);
            connection.owner = Some(Owner { tgid: record.tgid, name: comm(&record.comm), cgroup_id });
        } else if connection.owner.is_none() && connection.inode != 0 {
            self.search.want(ends);
        }
        if record.socket != 0 && event != Event::SynAck {
            self.sockets.insert(record.socket, ends);
        }
    }

    /// Takes note of who opened a socket or sent on it. `placed` is where the sums have the stack, if they have room for it.
    pub fn add_opener(
        &mut self,
        facts: &OpenerFacts,
        call: Call,
        sample: &Sample<'_>,
        placed: Option<Placed>,
    ) {
        if self.ages.len() >= MAX_OPENERS
            && let Some((socket, taken_ns)) = self.ages.pop_front()
            && self.openers.get(&socket).is_some_and(|opener| opener.taken_ns == taken_ns)
        {
            self.openers.remove(&socket);
            self.forgotten += 1;
        }
        self.ages.push_back((facts.socket, facts.taken_ns));
        self.openers.insert(facts.socket, Opener { taken_ns: facts.taken_ns, placed });
        match call {
            // Another connection than the one before.
            Call::Open => _ = self.sockets.remove(&facts.socket),
            Call::Send => {
                let Some(ends) = self.sockets.get(&facts.socket) else { return };
                let Some(connection) = self.connections.get_mut(ends) else { return };
                connection.owner = Some(Owner {
                    tgid: sample.header.tgid,
                    name: comm(&sample.header.process_comm),
                    cgroup_id: (facts.cgroup_id != 0).then_some(facts.cgroup_id),
                });
                connection.outside_target = false;
                if let Some(at) = connection.stacks.iter().position(|(placed, _)| placed.is_none()) {
                    let (_, segments) = connection.stacks.swap_remove(at);
                    connection.send_again(placed, segments);
                }
            }
        }
    }

    /// Ends a window: returns what happened in it, and goes on. `carry` takes a stack over into the sums of the next.
    #[must_use]
    pub fn close_window(&mut self, mut carry: impl FnMut(Placed) -> Option<Placed>) -> Self {
        let happened = |connection: &Connection| connection.counts != Counts::default();
        let window = Self {
            connections: self
                .connections
                .iter()
                .filter(|(_, connection)| happened(connection))
                .map(|(ends, connection)| (*ends, connection.clone()))
                .collect(),
            not_told_apart: std::mem::take(&mut self.not_told_apart),
            events: std::mem::take(&mut self.events),
            unseen: std::mem::take(&mut self.unseen),
            forgotten: std::mem::take(&mut self.forgotten),
            ..Self::default()
        };
        let is_crowded = self.connections.len() > MAX_CONNECTIONS / 2;
        self.connections.retain(|_, connection| {
            connection.quiet = if happened(connection) { 0 } else { connection.quiet + 1 };
            connection.counts = Counts::default();
            connection.stacks.clear();
            connection.quiet <= if is_crowded { 0 } else { MAX_QUIET_WINDOWS }
        });
        let connections = &self.connections;
        self.sockets.retain(|_, ends| connections.contains_key(ends));
        for opener in self.openers.values_mut() {
            opener.placed = opener.placed.and_then(&mut carry);
        }
        window
    }

    /// Searches some of the open files of all processes for connections that have no owner yet. `is_target` tells whether a
    /// process is part of the target.
    pub fn find_owners(&mut self, is_target: impl Fn(u32) -> bool) {
        self.search.look(&mut self.connections, is_target);
    }

    /// Whether the search has anything left to find.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.search.goes_on()
    }

    /// The connections of the target. Where that is not the whole host, one without an owner is not of it.
    pub fn of_target(&self, is_host: bool) -> impl Iterator<Item = (&Ends, &Connection)> {
        self.connections.iter().filter(move |(_, connection)| {
            !connection.outside_target && (is_host || connection.owner.is_some())
        })
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// What happened to connections that are not told apart: there were too many, or their ends could not be read.
    #[must_use]
    pub fn not_told_apart(&self) -> &Counts {
        &self.not_told_apart
    }

    /// Segments whose events were lost, by the next event of their connection.
    #[must_use]
    pub fn unseen(&self) -> u64 {
        self.unseen
    }

    /// Sockets whose stack was forgotten: there were too many.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

impl Connection {
    /// One that nothing else is known of.
    #[cfg(test)]
    pub(crate) fn with_counts(counts: Counts) -> Self {
        Self {
            counts,
            owner: None,
            statistics: None,
            stacks: Vec::new(),
            outside_target: false,
            quiet: 0,
            socket: 0,
            total_segments: 0,
            inode: 0,
            searches: 0,
        }
    }

    fn send_again(&mut self, placed: Option<Placed>, segments: u64) {
        if segments == 0 {
            return;
        }
        match self.stacks.iter_mut().find(|(known, _)| *known == placed) {
            Some((_, sum)) => *sum += segments,
            None => self.stacks.push((placed, segments)),
        }
    }
}

/// `None` where the kernel could not tell.
fn ends(record: &TcpRecord) -> Option<Ends> {
    let address = |bytes: &[u8; 16]| match record.family {
        IPV4 => bytes.first_chunk().map(|bytes: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*bytes))),
        IPV6 => {
            let address = Ipv6Addr::from(*bytes);
            Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
        }
        _ => None,
    };
    Some(Ends {
        namespace: record.namespace,
        local: SocketAddr::new(address(&record.local)?, record.local_port),
        remote: SocketAddr::new(address(&record.remote)?, record.remote_port),
    })
}

fn statistics(record: &TcpRecord) -> Statistics {
    let mut ticks = record.limited.map(u64::from);
    let running = u64::from(record.ticks.wrapping_sub(record.limit_since));
    if let Some(now) = (record.limit as usize).checked_sub(1).filter(|now| *now < LIMITS) {
        ticks[now] += running;
    }
    let [only_busy, receiver, buffer] = ticks.map(|ticks| ticks * tick_ns());
    Statistics {
        srtt_us: record.srtt_8us / 8,
        congestion_window: record.congestion_window,
        bytes_sent: record.bytes_sent,
        busy_ns: only_busy + receiver + buffer,
        receiver_limited_ns: receiver,
        buffer_limited_ns: buffer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_ebpf::COMM_LEN;

    const SOCKET: u64 = 0xffff_8881_0000_1000;

    fn record(event: Event, segments: u32, total_segments: u32) -> TcpRecord {
        let mut addresses = [[0; 16]; 2];
        addresses[0][..4].copy_from_slice(&[10, 0, 0, 1]);
        addresses[1][..4].copy_from_slice(&[10, 0, 0, 5]);
        TcpRecord {
            kind: 0,
            event: event as u32,
            time_ns: 0,
            socket: SOCKET,
            taken_ns: 0,
            inode: 0,
            local: addresses[0],
            remote: addresses[1],
            local_port: 40_000,
            remote_port: 5_432,
            family: IPV4,
            state: 1,
            namespace: 1,
            segments,
            total_segments,
            srtt_8us: 8_000,
            congestion_window: 10,
            limit: 2,
            limit_since: 90,
            ticks: 100,
            limited: [20, 5, 0],
            tgid: 0,
            bytes_sent: 1,
            cgroup_id: 0,
            comm: [0; COMM_LEN],
        }
    }

    fn only(connections: &Connections) -> (&Ends, &Connection) {
        let all: Vec<_> = connections.of_target(true).collect();
        assert_eq!(all.len(), 1);
        all[0]
    }

    #[test]
    fn lost_events_are_made_up_for_by_the_connections_own_count() {
        let mut connections = Connections::default();
        connections.add(&record(Event::Syn, 1, 1), Event::Syn);
        // Three segments in between, of which no event came.
        connections.add(&record(Event::Retransmit, 2, 6), Event::Retransmit);
        connections.add(&record(Event::ResetReceived, 0, 6), Event::ResetReceived);
        let (ends, connection) = only(&connections);
        assert_eq!(ends.remote.to_string(), "10.0.0.5:5432");
        let expected = Counts { segments: 5, syns: 1, resets_received: 1, ..Counts::default() };
        assert_eq!((connection.counts, connections.unseen()), (expected, 3));
        assert_eq!(connection.stacks, [(None, 6)]);
    }

    #[test]
    fn another_socket_between_the_same_ends_begins_anew() {
        let mut connections = Connections::default();
        connections.add(&record(Event::Retransmit, 1, 1), Event::Retransmit);
        let other = TcpRecord { socket: SOCKET + 64, ..record(Event::Retransmit, 1, 9) };
        connections.add(&other, Event::Retransmit);
        assert_eq!((only(&connections).1.counts.segments, connections.unseen()), (2, 0));
    }

    #[test]
    fn limits_are_told_up_to_now() {
        let mut connections = Connections::default();
        connections.add(&record(Event::Retransmit, 1, 1), Event::Retransmit);
        let statistics = only(&connections).1.statistics.unwrap();
        assert_eq!((statistics.srtt_us, statistics.congestion_window), (1_000, 10));
        // The receiver's window has been the limit for ten ticks more.
        assert_eq!(statistics.receiver_limited_ns, 15 * tick_ns());
        assert_eq!(statistics.busy_ns, 35 * tick_ns());
    }

    #[test]
    fn one_that_nobody_owns_is_of_the_host_alone() {
        let mut connections = Connections::default();
        connections.add(&record(Event::Retransmit, 1, 1), Event::Retransmit);
        assert_eq!((connections.of_target(true).count(), connections.of_target(false).count()), (1, 0));
    }

    #[test]
    fn ends_that_could_not_be_read_still_count() {
        let mut connections = Connections::default();
        let unreadable = TcpRecord { family: 0, ..record(Event::Retransmit, 3, 3) };
        connections.add(&unreadable, Event::Retransmit);
        assert_eq!(connections.of_target(true).count(), 0);
        assert_eq!((connections.not_told_apart().retransmits(), connections.events()), (3, 1));
    }
}
