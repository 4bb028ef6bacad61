//! TCP connections as the kernel's socket statistics tell of them.

use std::net::SocketAddr;

/// A connection in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Inode number of its network namespace.
    pub namespace: u32,
    /// This side.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
    /// Whether it came to a port that is listened on, and was not opened by this side.
    pub is_accepted: bool,
    /// The process that has it open; `None` where that was not found.
    pub pid: Option<u32>,
    /// Its name; empty without one.
    pub process_name: String,
    /// The process at the other end, where that is another one of this host and was looked for: when the target is not the whole host.
    /// Of one that the target opened, it may be who listens there.
    pub peer_pid: Option<u32>,
    /// Whether it was still there at the window's end. If not, the rest is of the last look at it.
    pub open: bool,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// The least round-trip time of the last minutes, microseconds; 0 where none was measured.
    pub min_rtt_us: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// Bytes sent in the window, those sent again included.
    pub bytes_sent: u64,
    /// Bytes received in the window.
    pub bytes_received: u64,
    /// Segments sent again in the window.
    pub retransmits: u64,
    /// Time in the window that it had something to send, nanoseconds.
    pub busy_ns: u64,
    /// The part of it that the receiver's window held it back.
    pub receiver_limited_ns: u64,
    /// The part of it that the send buffer held it back.
    pub buffer_limited_ns: u64,
}

impl Connection {
    /// The part of the time it had something to send that nothing on either side held it back: what is left is the network, by its
    /// round-trip time and the congestion window.
    #[must_use]
    pub fn network_limited_ns(&self) -> u64 {
        self.busy_ns.saturating_sub(self.receiver_limited_ns + self.buffer_limited_ns)
    }

    /// Bytes in both directions.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_sent.saturating_add(self.bytes_received)
    }
}
