//! The sums that requests and held bios are added to. The completion of one device interrupts that of another, so they are atomic.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use chokepoint_ebpf::{
    COMM_LEN,
    block::{BUCKETS, HeldBio, Histogram, Holds, Key, Position, Request, Sums},
    counters::Counter,
};

use super::super::{atomic, config::BLOCK_DEVICES_ONLY, counters::count};

/// Sums of requests that are over. The agent sets the size of this and the next ones before loading.
#[map]
static BLOCK_SUMS: HashMap<Key, Sums> = HashMap::with_max_entries(1, 0);
/// The same without processes and groups, for what finds no room there, or all of it where that is not wanted.
#[map]
static BLOCK_DEVICES: HashMap<Key, Sums> = HashMap::with_max_entries(1, 0);
/// Sums of bios that were held back.
#[map]
static BLOCK_HOLDS: HashMap<Key, Holds> = HashMap::with_max_entries(1, 0);
/// Sums of nothing, which new ones begin as: they are larger than a program's stack.
#[map]
static BLOCK_NO_SUMS: Array<Sums> = Array::with_max_entries(1, 0);
/// The same of held bios.
#[map]
static BLOCK_NO_HOLDS: Array<Holds> = Array::with_max_entries(1, 0);

/// Adds a request that completed.
#[inline(always)]
pub fn add_request(known: &Request, queue_ns: u64, device_ns: u64) {
    let Some(sums) = sums_of(&known.key, &known.comm) else {
        return;
    };
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

/// Adds a request that became part of another.
#[inline(always)]
pub fn add_merged(known: &Request) {
    if let Some(sums) = sums_of(&known.key, &known.comm) {
        add(&mut sums.merged, 1);
    }
}

/// Adds so many bytes of a request of which a beginning or an end was not seen. `is_over` with the last of them.
#[inline(always)]
pub fn add_untimed(key: &Key, comm: &[u8; COMM_LEN], bytes: u32, is_over: bool) {
    if let Some(sums) = sums_of(key, comm) {
        add(&mut sums.bytes, u64::from(bytes));
        if is_over {
            add(&mut sums.requests, 1);
            add(&mut sums.untimed, 1);
        }
    }
}

/// Adds a bio that was held back for so long.
#[inline(always)]
pub fn add_held(known: &HeldBio, held_ns: u64) {
    let Some(holds) = entry(&BLOCK_HOLDS, &BLOCK_NO_HOLDS, &known.key, &known.comm) else {
        return count(Counter::BlockHoldsFull);
    };
    add(&mut holds.bios, 1);
    add(&mut holds.bytes, u64::from(known.bytes));
    add(&mut holds.held_ns, held_ns);
    raise(&mut holds.held_max_ns, held_ns);
    add_time(&mut holds.held, held_ns);
}

/// The sums that a request is to be added to.
#[inline(always)]
fn sums_of<'a>(key: &Key, comm: &[u8; COMM_LEN]) -> Option<&'a mut Sums> {
    if BLOCK_DEVICES_ONLY.load() == 0 {
        if let Some(sums) = entry(&BLOCK_SUMS, &BLOCK_NO_SUMS, key, comm) {
            return Some(sums);
        }
        count(Counter::BlockOwnersFull);
    }
    let mut key = *key;
    key.tgid = 0;
    key.cgroup_id = 0;
    let sums = entry(&BLOCK_DEVICES, &BLOCK_NO_SUMS, &key, &[0; COMM_LEN]);
    if sums.is_none() {
        count(Counter::BlockDevicesFull);
    }
    sums
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
    if let Some(known) = map.get_ptr_mut(key) {
        // SAFETY: entries stay as long as the agent runs; all that is written after the name is written atomically.
        return Some(unsafe { &mut *known });
    }
    // SAFETY: nobody writes it.
    let nothing = unsafe { &*nothing.get_ptr(0)? };
    // Where another CPU was faster its entry stays.
    let _ = map.insert(key, nothing, u64::from(BPF_NOEXIST));
    // SAFETY: as above.
    let begun = unsafe { &mut *map.get_ptr_mut(key)? };
    *begun.comm() = *comm;
    Some(begun)
}

#[inline(always)]
fn add_time(histogram: &mut Histogram, ns: u64) {
    // The mask is for the verifier.
    add(&mut histogram.0[Histogram::bucket(ns) & (BUCKETS - 1)], 1);
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
