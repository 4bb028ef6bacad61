//! TCP: what was sent again or reset, of which connection, and whose.

use crate::{COMM_LEN, sample::SampleHeader, sched::WaitFacts};

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Event {
    /// Segments were sent again.
    Retransmit = 1,
    /// The SYN was sent again.
    Syn = 2,
    /// The SYN-ACK was sent again.
    SynAck = 3,
    /// A reset was sent.
    ResetSent = 4,
    /// A reset came.
    ResetReceived = 5,
}

impl Event {
    /// The event with this number; `None` for an unknown one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Retransmit),
            2 => Some(Self::Syn),
            3 => Some(Self::SynAck),
            4 => Some(Self::ResetSent),
            5 => Some(Self::ResetReceived),
            _ => None,
        }
    }
}

/// `AF_INET`.
pub const IPV4: u16 = 2;
/// `AF_INET6`.
pub const IPV6: u16 = 10;

/// Reasons for which a connection may be limited: `enum tcp_chrono`, without the first, "not at all".
pub const LIMITS: usize = 3;

/// Sockets that an owner is remembered of: those that were opened in the window, and those that lost something. One of more
/// counts [`crate::counters::Counter::TcpSocketsFull`]. 140 bytes each, 4.5 MB.
pub const MAX_SOCKETS: u32 = 32_768;

/// An event of a connection. Integers are the machine's, addresses as they are sent; an IPv4 address is in the first four bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TcpRecord {
    /// [`crate::record::Kind::Tcp`].
    pub kind: u32,
    /// An [`Event`].
    pub event: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Address of the kernel's socket; 0 for a reset that answers a packet of no connection.
    pub socket: u64,
    /// When the last stack of its owner was taken, which [`OpenerFacts::taken_ns`] names; 0 where none was.
    pub taken_ns: u64,
    /// Inode number that the socket has in `/proc/PID/fd`; 0 for one that no process has open.
    pub inode: u64,
    /// The address on this side.
    pub local: [u8; 16],
    /// The peer's.
    pub remote: [u8; 16],
    /// Port on this side.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
    /// [`IPV4`] or [`IPV6`].
    pub family: u16,
    /// The connection's state: `TCP_ESTABLISHED` is 1, and so on.
    pub state: u16,
    /// Inode number of the network namespace.
    pub namespace: u32,
    /// Segments that this event sent again; 0 for resets.
    pub segments: u32,
    /// All segments that the connection has sent again, this event's included.
    pub total_segments: u32,
    /// Smoothed round-trip time, eighths of a microsecond.
    pub srtt_8us: u32,
    /// Congestion window, segments.
    pub congestion_window: u32,
    /// The limit the connection is at now, 1 to [`LIMITS`]; 0 for none.
    pub limit: u32,
    /// Since when, in ticks of the kernel's clock.
    pub limit_since: u32,
    /// That clock now; its low half.
    pub ticks: u32,
    /// Ticks that it was at each limit before: busy sending, the receiver's window, the send buffer.
    pub limited: [u32; LIMITS],
    /// Process id of its owner in the initial PID namespace; 0 where it is not known.
    pub tgid: u32,
    /// Bytes the connection has sent, those sent again included.
    pub bytes_sent: u64,
    /// Id of the owner's group in the version 2 hierarchy; 0 where it is not known.
    pub cgroup_id: u64,
    /// Name of the owner, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// What the thread of an [`OpenerFacts`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Call {
    /// It opened the socket, to connect or to listen.
    Open = 1,
    /// It sent on a connection that had lost something.
    Send = 2,
}

impl Call {
    /// The call with this number; `None` for an unknown one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Open),
            2 => Some(Self::Send),
            _ => None,
        }
    }
}

/// Who opened a connection or sent on it; a whole sample follows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OpenerFacts {
    /// [`crate::record::Kind::TcpOpener`].
    pub kind: u32,
    /// A [`Call`].
    pub call: u32,
    /// Address of the kernel's socket.
    pub socket: u64,
    /// When; with `socket` it names the stack.
    pub taken_ns: u64,
    /// Id of the thread's group in the version 2 hierarchy.
    pub cgroup_id: u64,
}

const _: () = assert!(size_of::<TcpRecord>() == 160, "no holes");
const _: () = assert!(size_of::<OpenerFacts>() <= size_of::<WaitFacts>(), "both lie before the same sample");
const _: () = assert!(size_of::<OpenerFacts>().is_multiple_of(align_of::<SampleHeader>()));
