//! Bios that a group's limit holds back. There is no request of them yet, and nothing at the device tells; so the function that decides
//! on the limit is watched, and a bio counts from there until it is queued after all. Where that cannot be, the agent looks itself, by
//! what a program shows it of the kernel's memory.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
    programs::{BtfTracePointContext, FEntryContext, FExitContext},
};
use chokepoint_ebpf::{
    block::{HeldBio, Peek},
    counters::Counter,
};

use super::{
    super::{
        clock,
        config::{BIO_BYTES, BIO_SECTOR, HAS_QUEUE_ARGUMENT},
        counters::count,
        task::{self, KernelPointer},
        trusted::Trusted,
    },
    owner::{self, Submitter},
    sums,
};

/// Bios that are at the limit of their group or held back by it, by their addresses. The agent sets the size of this and the next one
/// before loading.
#[map]
static BLOCK_HELD: HashMap<u64, HeldBio> = HashMap::with_max_entries(1, 0);
/// Who submitted bios that were held back: a kernel thread releases them.
#[map]
static BLOCK_RELEASED: LruHashMap<u64, Submitter> = LruHashMap::with_max_entries(1, 0);
/// What the agent asked to see.
#[map]
static BLOCK_PEEK: Array<Peek> = Array::with_max_entries(1, 0);

/// A bio comes to the limit of its group, in the thread that submits it. Some kernels have it come by again when it is released.
#[inline(always)]
pub fn meets_limit(ctx: &FEntryContext) {
    let bio = Trusted::new(ctx.arg(0));
    let sector = bio.field(&BIO_SECTOR);
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
    let (key, submitter) = owner::of_bio(bio);
    let held = HeldBio {
        key,
        since_ns: clock::now_ns(),
        sector,
        bytes: bio.field(&BIO_BYTES),
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
    sums::add_held(&known, clock::now_ns() - known.since_ns);
}

/// Who submitted a bio that was held back and that a kernel thread has released now.
#[inline(always)]
pub fn submitter_of_released(bio: Trusted) -> Option<Submitter> {
    if task::address_space(task::current()).is_some() {
        return None;
    }
    // SAFETY: what another bio at the same address may write is an integer like the one there was.
    let submitter = unsafe { *BLOCK_RELEASED.get_ptr(bio.address())? };
    let _ = BLOCK_RELEASED.remove(bio.address());
    Some(submitter)
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
