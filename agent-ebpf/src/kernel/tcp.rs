//! The tcp source: what connections send again, and who they belong to.
//!
//! What is sent again is sent by timers and acknowledgements, in interrupts: the current thread has nothing to do with it. So a
//! socket's owner is remembered when a thread opens it, which is in its own context, and from then on its address tells the
//! owner. A socket that was opened before, or came by `accept`, has none at first: once it loses something, the next thread
//! that sends on it is its owner; until then the agent finds it by the inode number.
//!
//! A connection that loses nothing costs one stack when it is opened, and a look at one number with each send; where stacks of who opens
//! are not wanted, and sends are seen only after losses, it costs an entry in a map.

use core::hint::black_box;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_jiffies64,
    macros::map,
    maps::{Array, HashMap},
    programs::BtfTracePointContext,
};
use chokepoint_ebpf::{
    COMM_LEN,
    counters::Counter,
    record::Kind,
    sample::Source,
    tcp::{Call, Event, IPV4, IPV6, LIMITS, OpenerFacts, TcpRecord},
};

use super::{
    clock,
    config::{
        HAS_RETRANSMIT_RESULT, INODE_NUMBER, NET_INUM, SKB_CB, SKB_HEAD, SKB_NETWORK, SKB_TRANSPORT,
        SOCK_FAMILY, SOCK_LOCAL_4, SOCK_LOCAL_6, SOCK_LOCAL_PORT, SOCK_NET, SOCK_PROTOCOL, SOCK_REMOTE_4,
        SOCK_REMOTE_6, SOCK_REMOTE_PORT, SOCK_SOCKET, SOCK_STATE, SOCKET_INODE, TCP_BYTES_SENT, TCP_CB_FLAGS,
        TCP_CB_SEGMENTS, TCP_CHRONO_START, TCP_CHRONO_STAT, TCP_CHRONO_TYPE, TCP_CWND, TCP_SRTT,
        TCP_TOTAL_RETRANS, WANT_OPENERS,
    },
    counters::count,
    gate,
    ring::{self, Urgency},
    sample::{self, Ids},
    stack::{self, Scratch},
    task::{self, KernelPointer},
};

/// Who owns a socket, as far as it is known.
#[derive(Clone, Copy)]
#[repr(C)]
struct Socket {
    /// An [`Owner`].
    owner: u32,
    /// 1 where the next send is to tell its stack.
    wanted: u32,
    tgid: u32,
    /// 1 where `total` is known.
    counted: u32,
    /// What the kernel had counted as sent again when it was looked at last.
    total: u32,
    reserved: u32,
    cgroup_id: u64,
    taken_ns: u64,
    comm: [u8; COMM_LEN],
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Owner {
    Unknown = 0,
    OfTarget = 1,
    OutsideTarget = 2,
}

/// Sockets by their addresses. The agent sets the size before loading.
#[map]
static TCP_SOCKETS: HashMap<u64, Socket> = HashMap::with_max_entries(1, 0);
/// Until when sends are to be looked at; 0 until something is lost.
#[map]
static TCP_SENDS_UNTIL: Array<u64> = Array::with_max_entries(1, 0);

/// How long after a loss a send tells its stack, nanoseconds.
const SENDS_WANTED_NS: u64 = 10_000_000_000;
/// Between two stacks of the same socket, nanoseconds: what keeps losing is not to pay with each send.
const STACK_INTERVAL_NS: u64 = 1_000_000_000;

/// `IPPROTO_TCP`.
const TCP: u16 = 6;
const SYN_SENT: u8 = 2;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;
const NEW_SYN_RECV: u8 = 12;
/// The flag of the first segment.
const SYN: u8 = 2;

/// The state of a socket changes.
#[inline(always)]
pub fn changed(ctx: &BtfTracePointContext) {
    let sock = KernelPointer::new(ctx.arg::<u64>(0));
    let state = ctx.arg::<u32>(2) as u8;
    if state == CLOSE {
        let _ = TCP_SOCKETS.remove(sock.address());
        return;
    }
    // Of all states a socket comes into these alone by a call of its owner.
    if (state != SYN_SENT && state != LISTEN) || sock.field::<u16>(&SOCK_PROTOCOL) != Some(TCP) {
        return;
    }
    let current = task::current();
    let ids = Ids::current();
    if !gate::admits(current, ids.tgid) {
        return;
    }
    let socket = Socket {
        owner: Owner::OfTarget as u32,
        wanted: 0,
        tgid: ids.tgid,
        counted: 1,
        total: sock.field(&TCP_TOTAL_RETRANS).unwrap_or_default(),
        reserved: 0,
        cgroup_id: task::cgroup_id(current),
        taken_ns: if WANT_OPENERS.load() != 0 {
            tell_stack(ctx, Source::Connect, Call::Open, sock, current)
        } else {
            0
        },
        comm: task::comm(task::group_leader(current).unwrap_or(current)),
    };
    if TCP_SOCKETS.insert(sock.address(), socket, 0).is_err() {
        count(Counter::TcpSocketsFull);
    }
}

/// A thread sends on a socket of whatever kind.
#[inline(always)]
pub fn sends(ctx: &impl EbpfContext, sock: u64) {
    let until = TCP_SENDS_UNTIL.get(0).copied().unwrap_or_default();
    if until == 0 || clock::now_ns() > until {
        return;
    }
    let sock = KernelPointer::new(sock);
    let Some(socket) = TCP_SOCKETS.get_ptr_mut(sock.address()) else {
        return;
    };
    // SAFETY: the entry stays as long as the program runs; that two CPUs write a fact at once does no harm.
    let socket = unsafe { &mut *socket };
    if socket.wanted == 0 {
        return;
    }
    socket.wanted = 0;
    let current = task::current();
    let ids = Ids::current();
    if !gate::admits(current, ids.tgid) {
        if socket.owner == Owner::Unknown as u32 {
            socket.owner = Owner::OutsideTarget as u32;
        }
        return;
    }
    socket.owner = Owner::OfTarget as u32;
    socket.tgid = ids.tgid;
    socket.cgroup_id = task::cgroup_id(current);
    task::read_comm(task::group_leader(current).unwrap_or(current), &mut socket.comm);
    socket.taken_ns = tell_stack(ctx, Source::Send, Call::Send, sock, current);
}

/// Segments are sent again, or, where the kernel tells that too, could not be.
#[inline(always)]
pub fn retransmits(ctx: &BtfTracePointContext) {
    let sock = KernelPointer::new(ctx.arg::<u64>(0));
    let cb = KernelPointer::new(ctx.arg::<u64>(1)).embedded(&SKB_CB);
    let failed = HAS_RETRANSMIT_RESULT.load() != 0 && ctx.arg::<u64>(2) as i32 != 0;
    let segments = if failed { 0 } else { u32::from(cb.field::<u16>(&TCP_CB_SEGMENTS).unwrap_or(1)) };
    let is_syn = cb.field::<u8>(&TCP_CB_FLAGS).unwrap_or_default() & SYN != 0;
    let event = if is_syn { Event::Syn } else { Event::Retransmit };
    tell(event, Some(sock), segments, |record| read_ends(record, sock));
}

/// The answer to a SYN is sent again: of a connection that is none yet, by the socket that listens.
#[inline(always)]
pub fn retransmits_synack(ctx: &BtfTracePointContext) {
    let listener = KernelPointer::new(ctx.arg::<u64>(0));
    let request = KernelPointer::new(ctx.arg::<u64>(1));
    tell(Event::SynAck, Some(listener), 1, |record| read_ends(record, request));
}

/// A reset is sent: of a connection, or in answer to a packet that belongs to none.
#[inline(always)]
pub fn sends_reset(ctx: &BtfTracePointContext) {
    match not_null(ctx.arg(0)) {
        Some(sock) if sock.field::<u8>(&SOCK_STATE) != Some(LISTEN) => {
            tell(Event::ResetSent, Some(sock), 0, |record| read_ends(record, sock));
        }
        Some(listener) => {
            tell(Event::ResetSent, Some(listener), 0, |record| {
                read_ends_of_packet(record, not_null(ctx.arg(1))?)
            });
        }
        None => tell(Event::ResetSent, None, 0, |record| read_ends_of_packet(record, not_null(ctx.arg(1))?)),
    }
}

/// An argument that may be null. What is computed from it must come after the test, or newer verifiers refuse it.
#[inline(always)]
fn not_null(address: u64) -> Option<KernelPointer> {
    if address == 0 { None } else { KernelPointer::from_field(black_box(address)) }
}

/// A reset has come.
#[inline(always)]
pub fn receives_reset(ctx: &BtfTracePointContext) {
    let sock = KernelPointer::new(ctx.arg::<u64>(0));
    tell(Event::ResetReceived, Some(sock), 0, |record| read_ends(record, sock));
}

/// Tells of an event, unless its socket is outside the target. `ends` fills in the addresses.
#[inline(always)]
fn tell(
    event: Event,
    sock: Option<KernelPointer>,
    segments: u32,
    ends: impl FnOnce(&mut TcpRecord) -> Option<()>,
) {
    let state = sock.and_then(|sock| sock.field::<u8>(&SOCK_STATE)).unwrap_or(CLOSE);
    // The others are abbreviations of a socket, without an owner.
    let whole = sock.filter(|_| state != TIME_WAIT && state != NEW_SYN_RECV);
    let time_ns = clock::now_ns();
    let mut socket = whole.and_then(|sock| socket_of(sock, state, time_ns));
    let total =
        whole.filter(|_| state != LISTEN).and_then(|sock| sock.field(&TCP_TOTAL_RETRANS)).unwrap_or(0u32);
    let segments = match event {
        Event::Retransmit | Event::Syn => {
            let segments = counted(socket.as_deref(), total, segments);
            if segments == 0 {
                return;
            }
            segments
        }
        Event::SynAck | Event::ResetSent | Event::ResetReceived => segments,
    };
    if let Some(socket) = &mut socket {
        socket.counted = 1;
        socket.total = total;
        if socket.owner == Owner::OutsideTarget as u32 {
            return count(Counter::TcpOutsideTarget);
        }
    }
    let told = ring::emit_in_place(Urgency::Timer, |record: &mut TcpRecord| {
        record.kind = Kind::Tcp as u32;
        record.event = event as u32;
        record.time_ns = time_ns;
        record.socket = sock.map_or(0, KernelPointer::address);
        record.state = u16::from(state);
        record.segments = segments;
        if ends(record).is_none() {
            record.family = 0;
        }
        record.total_segments = total;
        match whole {
            Some(sock) if state != LISTEN => read_statistics(record, sock),
            _ => forget_statistics(record),
        }
        record.inode = whole.and_then(inode).unwrap_or_default();
        match socket {
            Some(socket) => {
                record.taken_ns = socket.taken_ns;
                record.tgid = socket.tgid;
                record.cgroup_id = socket.cgroup_id;
                record.comm = socket.comm;
            }
            None => {
                record.taken_ns = 0;
                record.tgid = 0;
                record.cgroup_id = 0;
                record.comm = [0; COMM_LEN];
            }
        }
    });
    if told.is_err() {
        count(Counter::TcpRingFull);
    }
}

/// How many segments the kernel has counted as sent again, by its own count where the last one is known: it counts some whose
/// sending then fails, and tells of some that it does not count.
#[inline(always)]
fn counted(socket: Option<&Socket>, total: u32, segments: u32) -> u32 {
    match socket {
        Some(socket) if socket.counted != 0 => total.wrapping_sub(socket.total),
        _ => segments,
    }
}

/// What is known of a socket that has just lost something; from now on its next send tells more.
#[inline(always)]
fn socket_of<'a>(sock: KernelPointer, state: u8, now: u64) -> Option<&'a mut Socket> {
    let key = sock.address();
    if TCP_SOCKETS.get_ptr(key).is_none() && state != CLOSE {
        let unknown = Socket {
            owner: Owner::Unknown as u32,
            wanted: 0,
            tgid: 0,
            counted: 0,
            total: 0,
            reserved: 0,
            cgroup_id: 0,
            taken_ns: 0,
            comm: [0; COMM_LEN],
        };
        if TCP_SOCKETS.insert(key, unknown, 0).is_err() {
            count(Counter::TcpSocketsFull);
        }
    }
    // SAFETY: as for sends.
    let socket = unsafe { &mut *TCP_SOCKETS.get_ptr_mut(key)? };
    if socket.owner != Owner::OutsideTarget as u32 && now - socket.taken_ns >= STACK_INTERVAL_NS {
        socket.wanted = 1;
        if let Some(until) = TCP_SENDS_UNTIL.get_ptr_mut(0) {
            // SAFETY: whoever writes it last writes about the same.
            unsafe { *until = now + SENDS_WANTED_NS };
        }
    }
    Some(socket)
}

/// Takes the stack of the current thread and tells it. When that was; 0 where it was lost.
#[inline(always)]
fn tell_stack(
    ctx: &impl EbpfContext,
    source: Source,
    call: Call,
    sock: KernelPointer,
    current: KernelPointer,
) -> u64 {
    let taken_ns = clock::now_ns();
    let told = match stack::scratch(source) {
        // SAFETY: the scratch space is this CPU's and this program's, which is not entered twice on one CPU.
        Some(scratch) => unsafe { capture(ctx, scratch, source, call, sock, current, taken_ns) }.is_ok(),
        None => false,
    };
    if told {
        taken_ns
    } else {
        count(Counter::TcpStackLost);
        0
    }
}

#[inline(always)]
unsafe fn capture(
    ctx: &impl EbpfContext,
    scratch: *mut Scratch,
    source: Source,
    call: Call,
    sock: KernelPointer,
    current: KernelPointer,
    taken_ns: u64,
) -> Result<(), ring::RingFull> {
    // SAFETY: as the caller's.
    unsafe {
        let leader = sample::identify(&mut (*scratch).header, current);
        let (user, kernel) = stack::capture_current(ctx, scratch, source, current);
        sample::describe(&mut (*scratch).header, source, current, leader, Ids::current(), 0, user, kernel);
        let facts = sample::facts::<OpenerFacts>(scratch);
        (*facts).kind = Kind::TcpOpener as u32;
        (*facts).call = call as u32;
        (*facts).socket = sock.address();
        (*facts).taken_ns = taken_ns;
        (*facts).cgroup_id = task::cgroup_id(current);
        sample::emit(scratch, size_of::<OpenerFacts>(), user.bytes + kernel.bytes)
    }
}

/// Both ends of a socket, or of an abbreviation of one: what they have in common.
#[inline(always)]
fn read_ends(record: &mut TcpRecord, sock: KernelPointer) -> Option<()> {
    record.family = sock.field(&SOCK_FAMILY)?;
    record.local_port = sock.field(&SOCK_LOCAL_PORT)?;
    record.remote_port = sock.field::<u16>(&SOCK_REMOTE_PORT)?.swap_bytes();
    record.namespace = sock.follow(&SOCK_NET)?.field(&NET_INUM)?;
    if record.family == IPV6 {
        record.local = sock.field(&SOCK_LOCAL_6)?;
        record.remote = sock.field(&SOCK_REMOTE_6)?;
    } else {
        record.local = from_v4(sock.field(&SOCK_LOCAL_4)?);
        record.remote = from_v4(sock.field(&SOCK_REMOTE_4)?);
    }
    Some(())
}

/// Both ends of a packet that came: its source is the peer.
#[inline(always)]
fn read_ends_of_packet(record: &mut TcpRecord, packet: KernelPointer) -> Option<()> {
    let head = KernelPointer::from_field(packet.field(&SKB_HEAD)?)?;
    let network = u64::from(packet.field::<u16>(&SKB_NETWORK)?);
    let transport = u64::from(packet.field::<u16>(&SKB_TRANSPORT)?);
    record.remote_port = head.read::<u16>(transport)?.swap_bytes();
    record.local_port = head.read::<u16>(transport + 2)?.swap_bytes();
    // Where the packet belongs to no socket, nothing tells the namespace but its device, which may be gone.
    record.namespace = 0;
    if head.read::<u8>(network)? >> 4 == 6 {
        record.family = IPV6;
        record.remote = head.read(network + 8)?;
        record.local = head.read(network + 24)?;
    } else {
        record.family = IPV4;
        record.remote = from_v4(head.read(network + 12)?);
        record.local = from_v4(head.read(network + 16)?);
    }
    Some(())
}

#[inline(always)]
fn from_v4(address: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = address[0];
    bytes[1] = address[1];
    bytes[2] = address[2];
    bytes[3] = address[3];
    bytes
}

#[inline(always)]
fn read_statistics(record: &mut TcpRecord, sock: KernelPointer) {
    record.srtt_8us = sock.field(&TCP_SRTT).unwrap_or_default();
    record.congestion_window = sock.field(&TCP_CWND).unwrap_or_default();
    record.limit = u32::from(sock.field::<u8>(&TCP_CHRONO_TYPE).unwrap_or_default() & LIMITS as u8);
    record.limit_since = sock.field(&TCP_CHRONO_START).unwrap_or_default();
    record.limited = sock.field(&TCP_CHRONO_STAT).unwrap_or_default();
    record.bytes_sent = sock.field(&TCP_BYTES_SENT).unwrap_or_default();
    // SAFETY: the helper has no preconditions.
    record.ticks = unsafe { bpf_jiffies64() } as u32;
}

#[inline(always)]
fn forget_statistics(record: &mut TcpRecord) {
    record.srtt_8us = 0;
    record.congestion_window = 0;
    record.limit = 0;
    record.limit_since = 0;
    record.limited = [0; LIMITS];
    record.bytes_sent = 0;
    record.ticks = 0;
}

/// The number by which `/proc/PID/fd` names the socket.
#[inline(always)]
fn inode(sock: KernelPointer) -> Option<u64> {
    // The inode lies behind the socket, in the same piece of memory.
    sock.follow(&SOCK_SOCKET)?.embedded(&SOCKET_INODE).field(&INODE_NUMBER)
}
