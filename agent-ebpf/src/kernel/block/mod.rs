//! The block source: how long requests wait for their device, and how long it takes, summed where they complete.
//!
//! A request is met where it is inserted into its device's queue or, where that has none, where it is issued: there the current
//! thread is mostly the one that submitted it. It is charged to the group of its first bio, which for writeback is the one that
//! dirtied.
//!
//! Kernels since 6.1 leave a program out that would interrupt itself, and some hosts hide what happens while certain threads run. Such
//! a request is counted without its times: where it ends when only its beginning was missed, and where its place is taken when its end
//! was.
//!
//! What a request costs here is mostly operations on maps: the kernel uses the same memory for one request after the other, so the entry
//! of one that is over stays for the next, and nothing is inserted or removed as long as there are not very many.

pub mod holds;
mod owner;
mod sums;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
    programs::BtfTracePointContext,
};
use chokepoint_ebpf::{
    block::{ErrorKind, MAX_KEPT_REQUESTS, Operation, Position, Request, Stage},
    counters::Counter,
};

use super::{
    atomic, clock,
    config::{BLOCK_DEVICES_ONLY, HAS_QUEUE_ARGUMENT, REQUEST_BYTES, REQUEST_SECTOR, REQUEST_START},
    counters::count,
    trusted::Trusted,
};

/// Requests under way, by their addresses, and some that are over. The agent sets the size of this and the next one before loading.
#[map]
static BLOCK_REQUESTS: HashMap<u64, Request> = HashMap::with_max_entries(1, 0);
/// Where the last request of a process on a device ended.
#[map]
static BLOCK_POSITIONS: LruHashMap<Place, u64> = LruHashMap::with_max_entries(1, 0);

/// Number of entries of requests.
#[map]
static BLOCK_KEPT: Array<u64> = Array::with_max_entries(1, 0);

/// What a position is remembered by.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    device: u32,
    tgid: u32,
}

/// Bytes of a sector, as the kernel counts them on every device.
const SECTOR_BYTES: u64 = 512;

/// A request is inserted into its device's queue.
#[inline(always)]
pub fn inserted(ctx: &BtfTracePointContext) {
    let request = request_of(ctx);
    let known = entry(request);
    // One that was given back to the queue before, and is inserted anew, is known.
    if !known.as_deref().is_some_and(|known| is_waiting(known, request)) {
        begin(known, request, begun(request, clock::now_ns()));
    }
}

/// A request is given to its device.
#[inline(always)]
pub fn issued(ctx: &BtfTracePointContext) {
    let request = request_of(ctx);
    let now = clock::now_ns();
    match entry(request) {
        Some(known) if is_waiting(known, request) => issue(request, known, now),
        known => {
            let mut begun = begun(request, now);
            issue(request, &mut begun, now);
            begin(known, request, begun);
        }
    }
}

/// A device, or its driver, gives a request back to the queue: the time counts as in the queue.
#[inline(always)]
pub fn requeued(ctx: &BtfTracePointContext) {
    if let Some(known) = under_way(request_of(ctx)) {
        let now = clock::now_ns();
        known.queue_ns += now - known.since_ns;
        known.since_ns = now;
        known.stage = Stage::Queued as u32;
        known.requeues += 1;
    }
}

/// A request becomes part of another.
#[inline(always)]
pub fn merged(ctx: &BtfTracePointContext) {
    let request = request_of(ctx);
    if let Some(known) = under_way(request) {
        sums::add_merged(known);
        end(known, request);
    }
}

/// A request, or a part of it, is done.
#[inline(always)]
pub fn completed(ctx: &BtfTracePointContext) {
    let request = Trusted::new(ctx.arg(0));
    let status = ctx.arg::<u64>(1) as i32;
    let done_bytes = ctx.arg::<u64>(2) as u32;
    let is_over = done_bytes >= request.field::<u32>(&REQUEST_BYTES);
    let Some(known) = under_way(request) else {
        // One without data is the frame around a flush, which the device never sees.
        if done_bytes > 0 {
            count(Counter::BlockBeganUnseen);
            sums::add_untimed(&owner::of_unseen(request), &Default::default(), done_bytes, is_over);
        }
        return;
    };
    if let Some(kind) = ErrorKind::from_kernel(status) {
        known.failed = kind as u32 + 1;
    }
    if !is_over {
        return;
    }
    let since_ns = clock::now_ns() - known.since_ns;
    if known.stage == Stage::Issued as u32 {
        sums::add_request(known, known.queue_ns, since_ns);
    } else if done_bytes > 0 || known.failed != 0 {
        sums::add_request(known, known.queue_ns + since_ns, 0);
    }
    end(known, request);
}

/// The request that a tracepoint is about.
#[inline(always)]
fn request_of(ctx: &BtfTracePointContext) -> Trusted {
    if HAS_QUEUE_ARGUMENT.load() != 0 { Trusted::new(ctx.arg(1)) } else { Trusted::new(ctx.arg(0)) }
}

/// The entry at a request's address, which may be of one that is over.
#[inline(always)]
fn entry<'a>(request: Trusted) -> Option<&'a mut Request> {
    // SAFETY: the entry stays as long as the program runs, and a request is in the hands of one CPU at a time.
    BLOCK_REQUESTS.get_ptr_mut(request.address()).map(|known| unsafe { &mut *known })
}

#[inline(always)]
fn under_way<'a>(request: Trusted) -> Option<&'a mut Request> {
    entry(request).filter(|known| known.stage != Stage::Over as u32)
}

/// Whether what is known waits in a queue and is this request, and not an earlier one at the same address. One that takes in another
/// takes the earlier beginning of both.
#[inline(always)]
fn is_waiting(known: &Request, request: Trusted) -> bool {
    known.stage == Stage::Queued as u32 && request.field::<u64>(&REQUEST_START) <= known.kernel_start_ns
}

/// Follows a request from now on, in place of what is known of an earlier one.
#[inline(always)]
fn begin(known: Option<&mut Request>, request: Trusted, begun: Request) {
    if let Some(known) = known {
        if known.stage != Stage::Over as u32 {
            // Its end was not seen: how long it took is not known.
            count(Counter::BlockEndedUnseen);
            sums::add_untimed(&known.key, &known.comm, known.bytes, true);
        }
        *known = begun;
    } else if BLOCK_REQUESTS.insert(request.address(), begun, u64::from(BPF_NOEXIST)).is_ok() {
        add_to_kept(1);
    } else {
        count(Counter::BlockRequestsFull);
    }
}

/// Follows a request no more. Its entry stays for the next at its address, unless others need the room.
#[inline(always)]
fn end(known: &mut Request, request: Trusted) {
    known.stage = Stage::Over as u32;
    let kept = BLOCK_KEPT.get(0).copied().unwrap_or_default();
    if kept > u64::from(MAX_KEPT_REQUESTS) && BLOCK_REQUESTS.remove(request.address()).is_ok() {
        add_to_kept(u64::MAX);
    }
}

/// Adds to the number of entries; the largest number takes one away.
#[inline(always)]
fn add_to_kept(number: u64) {
    if let Some(kept) = BLOCK_KEPT.get_ptr_mut(0) {
        // SAFETY: the pointer is into a map.
        unsafe { atomic::add(kept, number) };
    }
}

/// What is known of a request that is met for the first time.
#[inline(always)]
fn begun(request: Trusted, now: u64) -> Request {
    let (key, submitter) = owner::of_request(request);
    Request {
        key,
        since_ns: now,
        queue_ns: 0,
        kernel_start_ns: request.field(&REQUEST_START),
        bytes: request.field(&REQUEST_BYTES),
        stage: Stage::Queued as u32,
        was_issued: 0,
        position: Position::Unknown as u32,
        requeues: 0,
        failed: 0,
        comm: submitter.comm,
    }
}

/// Has a request go from its queue to its device.
#[inline(always)]
fn issue(request: Trusted, known: &mut Request, now: u64) {
    known.queue_ns += now - known.since_ns;
    known.since_ns = now;
    known.stage = Stage::Issued as u32;
    known.bytes = request.field(&REQUEST_BYTES);
    if known.was_issued == 0 {
        known.was_issued = 1;
        known.position = place(request, known) as u32;
    }
}

/// Whether a request begins where the last one of its process on its device ended; remembers where it ends.
#[inline(always)]
fn place(request: Trusted, known: &Request) -> Position {
    let operation = known.key.operation;
    let has_position = operation == Operation::Read as u32 || operation == Operation::Write as u32;
    if !has_position || BLOCK_DEVICES_ONLY.load() != 0 {
        return Position::Unknown;
    }
    let sector: u64 = request.field(&REQUEST_SECTOR);
    let end = sector + u64::from(known.bytes) / SECTOR_BYTES;
    let place = Place { device: known.key.device, tgid: known.key.tgid };
    match BLOCK_POSITIONS.get_ptr_mut(place) {
        Some(last) => {
            // SAFETY: whoever writes it last writes where a request of this process ends.
            let last = unsafe { core::mem::replace(&mut *last, end) };
            if last == sector { Position::Sequential } else { Position::Random }
        }
        None => {
            // The ones used least make room; where that fails, the next one is the first again.
            let _ = BLOCK_POSITIONS.insert(place, end, 0);
            Position::Unknown
        }
    }
}
