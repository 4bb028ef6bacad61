//! The block source: how long requests wait for their device, and how long it takes, summed where they complete.
//!
//! A request is met where it is inserted into its device's queue or, where that has none, where it is issued: there the current
//! thread is mostly the one that submitted it. It is charged to the group of its first bio, which for writeback is the one that
//! dirtied. What of a group is over its limit is held back as a bio, before there is a request: nothing at the device tells.
//! So the function that decides on it is watched, and the bio counts from there until it is queued after all.
//!
//! The completion of one device interrupts that of another, so sums are atomic. Kernels since 6.1 leave a program out that would
//! interrupt itself, and some hosts hide what happens while certain threads run. Such a request is counted without its times: where
//! it ends when only its beginning was missed, and where its place is taken when its end was.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};
use chokepoint_ebpf::{
    COMM_LEN,
    block::{
        BUCKETS, ErrorKind, HeldBio, Histogram, Holds, Key, MINOR_BITS, Operation, Peek, Position, Request,
        Stage, Sums,
    },
    counters::Counter,
};

use super::{
    atomic, clock,
    config::{
        BIO_BYTES, BIO_DEVICE, BIO_DISK, BIO_FLAGS, BIO_GROUP, BIO_SECTOR, BLKCG_CGROUP, BLOCK_DEVICES_ONLY,
        BLOCK_GATE_BY_GROUP, CGROUP_KN, DEVICE_DISK, DEVICE_NUMBER, DISK_FIRST_MINOR, DISK_MAJOR,
        GROUP_BLKCG, HAS_BIO_DEVICE, HAS_BIO_GROUP, HAS_QUEUE_ARGUMENT, HAS_QUEUE_DISK, KERNFS_NODE_ID,
        PARTITION_DEVICE, QUEUE_DISK, REQUEST_BIO, REQUEST_BYTES, REQUEST_DISK, REQUEST_FLAGS,
        REQUEST_PARTITION, REQUEST_QUEUE, REQUEST_SECTOR, REQUEST_START,
    },
    counters::count,
    gate,
    sample::Ids,
    task::{self, KernelPointer},
};

/// Requests under way, by their addresses. The agent sets the size of this and the next ones before loading.
#[map]
static BLOCK_REQUESTS: HashMap<u64, Request> = HashMap::with_max_entries(1, 0);
/// Sums of requests that are over.
#[map]
static BLOCK_SUMS: HashMap<Key, Sums> = HashMap::with_max_entries(1, 0);
/// The same without processes and groups, for what finds no room there, or all of it where that is not wanted.
#[map]
static BLOCK_DEVICES: HashMap<Key, Sums> = HashMap::with_max_entries(1, 0);
/// Where the last request of a process on a device ended.
#[map]
static BLOCK_POSITIONS: LruHashMap<Place, u64> = LruHashMap::with_max_entries(1, 0);
/// Bios that are at the limit of their group or held back by it, by their addresses.
#[map]
static BLOCK_HELD: HashMap<u64, HeldBio> = HashMap::with_max_entries(1, 0);
/// Sums of bios that were held back.
#[map]
static BLOCK_HOLDS: HashMap<Key, Holds> = HashMap::with_max_entries(1, 0);
/// Who submitted bios that were held back: a kernel thread releases them.
#[map]
static BLOCK_RELEASED: LruHashMap<u64, Submitter> = LruHashMap::with_max_entries(1, 0);
/// Sums of nothing, which new ones begin as: they are larger than a program's stack.
#[map]
static BLOCK_NO_SUMS: Array<Sums> = Array::with_max_entries(1, 0);
/// The same of held bios.
#[map]
static BLOCK_NO_HOLDS: Array<Holds> = Array::with_max_entries(1, 0);

/// What the agent asked to see.
#[map]
static BLOCK_PEEK: Array<Peek> = Array::with_max_entries(1, 0);

/// What a position is remembered by.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    device: u32,
    tgid: u32,
}

/// Who a request comes from.
#[derive(Clone, Copy)]
#[repr(C)]
struct Submitter {
    tgid: u32,
    of_target: u32,
    comm: [u8; COMM_LEN],
}

/// Bytes of a sector, as the kernel counts them on every device.
const SECTOR_BYTES: u64 = 512;

/// A request is inserted into its device's queue.
#[inline(always)]
pub fn inserted(ctx: &BtfTracePointContext) {
    let request = request_of(ctx);
    let start_ns = request.field(&REQUEST_START).unwrap_or_default();
    if let Some(known) = under_way(request) {
        // Given back to the queue before, and inserted anew.
        if is_waiting(known, start_ns) {
            return;
        }
        ended_unseen(known);
    }
    let _ = begin(request, start_ns, clock::now_ns());
}

/// A request is given to its device.
#[inline(always)]
pub fn issued(ctx: &BtfTracePointContext) {
    let request = request_of(ctx);
    let now = clock::now_ns();
    let start_ns = request.field(&REQUEST_START).unwrap_or_default();
    let known = match under_way(request) {
        Some(known) if is_waiting(known, start_ns) => known,
        other => {
            if let Some(known) = other {
                ended_unseen(known);
            }
            match begin(request, start_ns, now) {
                Some(begun) => begun,
                None => return,
            }
        }
    };
    known.queue_ns += now - known.since_ns;
    known.since_ns = now;
    known.stage = Stage::Issued as u32;
    known.bytes = request.field(&REQUEST_BYTES).unwrap_or_default();
    if known.was_issued == 0 {
        known.was_issued = 1;
        known.position = place(request, known) as u32;
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
        let known = *known;
        let _ = BLOCK_REQUESTS.remove(request.address());
        if let Some(sums) = sums_of(&known.key, &known.comm) {
            add(&mut sums.merged, 1);
        }
    }
}

/// A request, or a part of it, is done.
#[inline(always)]
pub fn completed(ctx: &BtfTracePointContext) {
    let request = KernelPointer::new(ctx.arg::<u64>(0));
    let status = ctx.arg::<u64>(1) as i32;
    let done_bytes = ctx.arg::<u64>(2) as u32;
    let Some(known) = under_way(request) else {
        // One without data is the frame around a flush, which the device never sees.
        if done_bytes > 0 {
            count(Counter::BlockBeganUnseen);
            count_unseen(request, done_bytes);
        }
        return;
    };
    if let Some(kind) = ErrorKind::from_kernel(status) {
        known.failed = kind as u32 + 1;
    }
    if done_bytes < request.field::<u32>(&REQUEST_BYTES).unwrap_or_default() {
        return;
    }
    let known = *known;
    let _ = BLOCK_REQUESTS.remove(request.address());
    let since_ns = clock::now_ns() - known.since_ns;
    let (queue_ns, device_ns) = if known.stage == Stage::Issued as u32 {
        (known.queue_ns, since_ns)
    } else if done_bytes > 0 || known.failed != 0 {
        (known.queue_ns + since_ns, 0)
    } else {
        return;
    };
    if let Some(sums) = sums_of(&known.key, &known.comm) {
        sum_up(sums, &known, queue_ns, device_ns);
    }
}

/// A bio comes to the limit of its group, in the thread that submits it. Some kernels have it come by again when it is released.
#[inline(always)]
pub fn meets_limit(ctx: &FEntryContext) {
    let bio = KernelPointer::new(ctx.arg::<u64>(0));
    let sector = bio.field(&BIO_SECTOR).unwrap_or_default();
    if let Some(known) = BLOCK_HELD.get_ptr_mut(bio.address()) {
        // SAFETY: the entry stays as long as the program runs.
        let known = unsafe { &mut *known };
        if known.sector == sector {
            known.returned = 1;
            return;
        }
        // It ended without being released, as with its device.
        let _ = BLOCK_HELD.remove(bio.address());
    }
    let (device, partition) = device_of_bio(bio);
    let operation = Operation::from_kernel(bio.field::<u8>(&BIO_FLAGS).unwrap_or(u8::MAX));
    let (cgroup, cgroup_id) = group_of(bio);
    let submitter = submitter(cgroup);
    let held = HeldBio {
        key: Key {
            device,
            partition,
            operation: operation as u32,
            tgid: submitter.tgid,
            cgroup_id,
            of_target: submitter.of_target,
            reserved: 0,
        },
        since_ns: clock::now_ns(),
        sector,
        bytes: bio.field(&BIO_BYTES).unwrap_or_default(),
        returned: 0,
        comm: submitter.comm,
    };
    if BLOCK_HELD.insert(bio.address(), held, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::BlockHeldFull);
    }
}

/// The limit has been looked at.
#[inline(always)]
pub fn passes_limit(ctx: &FExitContext) {
    // The function returns a `bool`, which is the register's low byte.
    if ctx.arg::<u64>(1) as u8 != 0 {
        return;
    }
    let bio = ctx.arg::<u64>(0);
    // SAFETY: the entry stays as long as the program runs.
    if BLOCK_HELD.get_ptr(bio).is_some_and(|known| unsafe { (*known).returned } == 0) {
        let _ = BLOCK_HELD.remove(bio);
    }
}

/// A bio goes on to its device's queue: one that is still known was held until now.
#[inline(always)]
pub fn released(ctx: &BtfTracePointContext) {
    let bio: u64 = if HAS_QUEUE_ARGUMENT.load() != 0 { ctx.arg(1) } else { ctx.arg(0) };
    let Some(known) = BLOCK_HELD.get_ptr(bio) else {
        return;
    };
    // SAFETY: the entry stays as long as the program runs.
    let known = unsafe { *known };
    let _ = BLOCK_HELD.remove(bio);
    let submitter = Submitter { tgid: known.key.tgid, of_target: known.key.of_target, comm: known.comm };
    // One that finds no room counts as the kernel thread's that releases it.
    let _ = BLOCK_RELEASED.insert(bio, submitter, 0);
    let Some(holds) = holds_of(&known) else {
        return count(Counter::BlockHoldsFull);
    };
    let held_ns = clock::now_ns() - known.since_ns;
    add(&mut holds.bios, 1);
    add(&mut holds.bytes, u64::from(known.bytes));
    add(&mut holds.held_ns, held_ns);
    raise(&mut holds.held_max_ns, held_ns);
    add_time(&mut holds.held, held_ns);
}

/// Copies what the kernel has at an address for the agent; of 0, where the current thread's structure is.
#[inline(always)]
pub fn peek(address: u64) {
    let Some(peek) = BLOCK_PEEK.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the agent runs one at a time.
    let peek = unsafe { &mut *peek };
    if address == 0 {
        peek.words[0] = task::current().address();
        peek.is_read = 1;
    } else {
        peek.is_read = u64::from(KernelPointer::new(address).read_into(&mut peek.words));
    }
}

/// The request that a tracepoint is about.
#[inline(always)]
fn request_of(ctx: &BtfTracePointContext) -> KernelPointer {
    KernelPointer::new(if HAS_QUEUE_ARGUMENT.load() != 0 { ctx.arg(1) } else { ctx.arg(0) })
}

/// Whether a request that waits is the one that was met, and not a later one at the same address. One that takes in another takes
/// the earlier beginning of both.
#[inline(always)]
fn is_waiting(known: &Request, start_ns: u64) -> bool {
    known.stage == Stage::Queued as u32 && start_ns <= known.kernel_start_ns
}

#[inline(always)]
fn under_way<'a>(request: KernelPointer) -> Option<&'a mut Request> {
    // SAFETY: the entry stays as long as the program runs, and a request is in the hands of one CPU at a time.
    BLOCK_REQUESTS.get_ptr_mut(request.address()).map(|known| unsafe { &mut *known })
}

/// Follows a request from now on.
#[inline(always)]
fn begin<'a>(request: KernelPointer, kernel_start_ns: u64, now: u64) -> Option<&'a mut Request> {
    let operation = Operation::from_kernel(request.field::<u8>(&REQUEST_FLAGS).unwrap_or(u8::MAX));
    let (device, partition) = device_of(request);
    let bio = request.follow(&REQUEST_BIO);
    let (cgroup, cgroup_id) = bio.map_or((None, 0), group_of);
    let submitter = match bio.and_then(submitter_of_released) {
        Some(submitter) => submitter,
        // The kernel makes one flush of many, in whatever thread or interrupt.
        None if operation == Operation::Flush => {
            Submitter { tgid: 0, of_target: u32::from(gate::admits_everything()), comm: [0; COMM_LEN] }
        }
        None => submitter(cgroup),
    };
    let begun = Request {
        key: Key {
            device,
            partition,
            operation: operation as u32,
            tgid: submitter.tgid,
            cgroup_id,
            of_target: submitter.of_target,
            reserved: 0,
        },
        since_ns: now,
        queue_ns: 0,
        kernel_start_ns,
        bytes: request.field(&REQUEST_BYTES).unwrap_or_default(),
        stage: Stage::Queued as u32,
        was_issued: 0,
        position: Position::Unknown as u32,
        requeues: 0,
        failed: 0,
        comm: submitter.comm,
    };
    if BLOCK_REQUESTS.insert(request.address(), begun, 0).is_err() {
        count(Counter::BlockRequestsFull);
        return None;
    }
    under_way(request)
}

/// The current thread's process, and whether it or the group that is charged belongs to the target.
#[inline(always)]
fn submitter(charged: Option<KernelPointer>) -> Submitter {
    let current = task::current();
    let ids = Ids::current();
    let by_group = BLOCK_GATE_BY_GROUP.load() != 0 && charged.and_then(gate::is_in_target).unwrap_or(false);
    Submitter {
        tgid: ids.tgid,
        of_target: u32::from(by_group || gate::admits(current, ids.tgid)),
        comm: task::comm(task::group_leader(current).unwrap_or(current)),
    }
}

/// Who submitted a bio that was held back and that a kernel thread has released now.
#[inline(always)]
fn submitter_of_released(bio: KernelPointer) -> Option<Submitter> {
    if task::address_space(task::current()).is_some() {
        return None;
    }
    // SAFETY: what another bio at the same address may write is an integer like the one there was.
    let submitter = unsafe { *BLOCK_RELEASED.get_ptr(bio.address())? };
    let _ = BLOCK_RELEASED.remove(bio.address());
    Some(submitter)
}

/// The whole device of a request, and its partition.
#[inline(always)]
fn device_of(request: KernelPointer) -> (u32, u32) {
    let disk = if HAS_QUEUE_DISK.load() != 0 {
        request.follow(&REQUEST_QUEUE).and_then(|queue| queue.follow(&QUEUE_DISK))
    } else {
        request.follow(&REQUEST_DISK)
    };
    let device = disk.map(device_of_disk).unwrap_or_default();
    let partition =
        request.follow(&REQUEST_PARTITION).and_then(|partition| partition.field(&PARTITION_DEVICE));
    (device, partition.unwrap_or(device))
}

#[inline(always)]
fn device_of_bio(bio: KernelPointer) -> (u32, u32) {
    if HAS_BIO_DEVICE.load() != 0 {
        let Some(device) = bio.follow(&BIO_DEVICE) else {
            return (0, 0);
        };
        let disk = device.follow(&DEVICE_DISK).map(device_of_disk).unwrap_or_default();
        (disk, device.field(&DEVICE_NUMBER).unwrap_or(disk))
    } else {
        // By now it is one of the whole disk.
        let disk = bio.follow(&BIO_DISK).map(device_of_disk).unwrap_or_default();
        (disk, disk)
    }
}

#[inline(always)]
fn device_of_disk(disk: KernelPointer) -> u32 {
    let major: u32 = disk.field(&DISK_MAJOR).unwrap_or_default();
    let minor: u32 = disk.field(&DISK_FIRST_MINOR).unwrap_or_default();
    major << MINOR_BITS | minor
}

/// The group that a bio is charged to, and its id.
#[inline(always)]
fn group_of(bio: KernelPointer) -> (Option<KernelPointer>, u64) {
    if HAS_BIO_GROUP.load() == 0 {
        return (None, 0);
    }
    let cgroup = bio
        .follow(&BIO_GROUP)
        .and_then(|group| group.follow(&GROUP_BLKCG))
        .and_then(|blkcg| blkcg.follow(&BLKCG_CGROUP));
    let id = cgroup.and_then(|cgroup| cgroup.follow(&CGROUP_KN)?.field(&KERNFS_NODE_ID));
    (cgroup, id.unwrap_or_default())
}

/// Whether a request begins where the last one of its process on its device ended; remembers where it ends.
#[inline(always)]
fn place(request: KernelPointer, known: &Request) -> Position {
    let operation = known.key.operation;
    let has_position = operation == Operation::Read as u32 || operation == Operation::Write as u32;
    if !has_position || BLOCK_DEVICES_ONLY.load() != 0 {
        return Position::Unknown;
    }
    let sector: u64 = request.field(&REQUEST_SECTOR).unwrap_or_default();
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

/// The sums that a request is to be added to.
#[inline(always)]
fn sums_of<'a>(key: &Key, comm: &[u8; COMM_LEN]) -> Option<&'a mut Sums> {
    let mut key = *key;
    if BLOCK_DEVICES_ONLY.load() == 0 {
        if let Some(sums) = entry(&BLOCK_SUMS, &BLOCK_NO_SUMS, &key, comm) {
            return Some(sums);
        }
        count(Counter::BlockOwnersFull);
    }
    key.tgid = 0;
    key.cgroup_id = 0;
    let sums = entry(&BLOCK_DEVICES, &BLOCK_NO_SUMS, &key, &[0; COMM_LEN]);
    if sums.is_none() {
        count(Counter::BlockDevicesFull);
    }
    sums
}

/// The sums that a bio that was held is to be added to.
#[inline(always)]
fn holds_of<'a>(known: &HeldBio) -> Option<&'a mut Holds> {
    entry(&BLOCK_HOLDS, &BLOCK_NO_HOLDS, &known.key, &known.comm)
}

/// Sums that know the name of the process.
trait Named {
    fn comm(&mut self) -> &mut [u8; COMM_LEN];
}

impl Named for Sums {
    #[inline(always)]
    fn comm(&mut self) -> &mut [u8; COMM_LEN] {
        &mut self.comm
    }
}

impl Named for Holds {
    #[inline(always)]
    fn comm(&mut self) -> &mut [u8; COMM_LEN] {
        &mut self.comm
    }
}

/// The entry of a map of sums; a new one begins as a copy of `nothing`.
#[inline(always)]
fn entry<'a, V: Named + 'a>(
    map: &HashMap<Key, V>,
    nothing: &Array<V>,
    key: &Key,
    comm: &[u8; COMM_LEN],
) -> Option<&'a mut V> {
    if map.get_ptr(key).is_none() {
        // SAFETY: nobody writes it.
        let nothing = unsafe { &*nothing.get_ptr(0)? };
        // Where another CPU was faster its entry stays.
        let _ = map.insert(key, nothing, u64::from(BPF_NOEXIST));
        // SAFETY: as below.
        *unsafe { &mut *map.get_ptr_mut(key)? }.comm() = *comm;
    }
    // SAFETY: entries stay as long as the agent runs; all that is written after the name is written atomically.
    Some(unsafe { &mut *map.get_ptr_mut(key)? })
}

#[inline(always)]
fn sum_up(sums: &mut Sums, known: &Request, queue_ns: u64, device_ns: u64) {
    add(&mut sums.requests, 1);
    add(&mut sums.bytes, u64::from(known.bytes));
    add(&mut sums.queue_ns, queue_ns);
    add(&mut sums.device_ns, device_ns);
    raise(&mut sums.queue_max_ns, queue_ns);
    raise(&mut sums.device_max_ns, device_ns);
    if known.position == Position::Sequential as u32 {
        add(&mut sums.sequential, 1);
    } else if known.position == Position::Random as u32 {
        add(&mut sums.random, 1);
    }
    if known.requeues > 0 {
        add(&mut sums.requeues, u64::from(known.requeues));
    }
    if known.failed > 0
        && let Some(errors) = sums.errors.get_mut(known.failed as usize - 1)
    {
        add(errors, 1);
    }
    add_time(&mut sums.queue, queue_ns);
    add_time(&mut sums.device, device_ns);
}

#[inline(always)]
fn add_time(histogram: &mut Histogram, ns: u64) {
    // The mask is for the verifier.
    add(&mut histogram.0[Histogram::bucket(ns) & (BUCKETS - 1)], 1);
}

/// Counts a request whose place another one takes now: its end was not seen, so its time is not known.
#[inline(always)]
fn ended_unseen(known: &Request) {
    count(Counter::BlockEndedUnseen);
    if let Some(sums) = sums_of(&known.key, &known.comm) {
        add(&mut sums.requests, 1);
        add(&mut sums.untimed, 1);
        add(&mut sums.bytes, u64::from(known.bytes));
    }
}

/// Counts a request, or a part of one, whose beginning was not seen: whose it is is not known either, but for the group.
#[inline(always)]
fn count_unseen(request: KernelPointer, done_bytes: u32) {
    let (device, partition) = device_of(request);
    let (_, cgroup_id) = request.follow(&REQUEST_BIO).map_or((None, 0), group_of);
    let key = Key {
        device,
        partition,
        operation: Operation::from_kernel(request.field::<u8>(&REQUEST_FLAGS).unwrap_or(u8::MAX)) as u32,
        tgid: 0,
        cgroup_id,
        of_target: u32::from(gate::admits_everything()),
        reserved: 0,
    };
    if let Some(sums) = sums_of(&key, &[0; COMM_LEN]) {
        add(&mut sums.bytes, u64::from(done_bytes));
        if done_bytes >= request.field::<u32>(&REQUEST_BYTES).unwrap_or_default() {
            add(&mut sums.requests, 1);
            add(&mut sums.untimed, 1);
        }
    }
}

/// Adds, whatever else adds at the same time.
#[inline(always)]
fn add(sum: &mut u64, number: u64) {
    // SAFETY: the reference is valid and aligned.
    unsafe { atomic::add(sum, number) };
}

/// Raises a maximum. Kernels before 5.12 have nothing to do it atomically: of two at the same moment the higher may be lost, not
/// its place in the histogram.
#[inline(always)]
fn raise(maximum: &mut u64, number: u64) {
    if number > *maximum {
        *maximum = number;
    }
}
