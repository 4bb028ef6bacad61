//! Connections that lost something, summed by peer and process.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::SocketAddr;

use super::{Connection, Counts, Ends, Owner, Statistics};

/// What was lost between a process and an address.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// The process; `None` where it could not be found.
    pub owner: Option<Owner>,
    /// Connections that lost something.
    pub connections: u64,
    /// What happened on them.
    pub counts: Counts,
    /// What the kernel knew of the one that lost most.
    pub statistics: Option<Statistics>,
}

/// Sums connections by peer and process. The worst are those that sent most again; then those that were reset most.
#[must_use]
pub fn peers(lost: &[(&Ends, &Connection)]) -> Vec<Peer> {
    let mut lost = lost.to_vec();
    lost.sort_by_key(|(ends, connection)| (Reverse(connection.counts.retransmits()), **ends));
    let mut peers: HashMap<(SocketAddr, Option<&Owner>), Peer> = HashMap::new();
    for (ends, connection) in lost {
        let owner = connection.owner.as_ref();
        let peer = peers.entry((ends.remote, owner)).or_insert_with(|| Peer {
            remote: ends.remote,
            owner: owner.cloned(),
            connections: 0,
            counts: Counts::default(),
            statistics: connection.statistics,
        });
        peer.connections += 1;
        peer.counts.add(&connection.counts);
    }
    let mut peers: Vec<Peer> = peers.into_values().collect();
    peers.sort_by_key(|peer| {
        let resets = peer.counts.resets_sent + peer.counts.resets_received;
        (Reverse(peer.counts.retransmits()), Reverse(resets), peer.remote)
    });
    peers
}
