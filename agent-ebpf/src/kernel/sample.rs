//! What a sample says of its thread.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use chokepoint_ebpf::{
    record::Kind,
    sample::{MAX_FRAMES, SampleHeader, Source},
    sched::WaitFacts,
};

use super::{
    clock,
    ring::{self, Urgency},
    stack::{Captured, Scratch},
    task::{self, KernelPointer},
};

/// Thread and process id of a thread.
#[derive(Clone, Copy)]
pub struct Ids {
    pub tgid: u32,
    pub tid: u32,
}

impl Ids {
    /// From what `bpf_get_current_pid_tgid` returns.
    #[inline(always)]
    pub const fn from_pid_tgid(pid_tgid: u64) -> Self {
        Self { tgid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32 }
    }

    /// Those of the current thread.
    #[inline(always)]
    pub fn current() -> Self {
        Self::from_pid_tgid(bpf_get_current_pid_tgid())
    }
}

/// Writes which process a thread is of to the header, before its stack is taken: what is remembered of the last stack's process
/// depends on it. The first thread of the process.
#[inline(always)]
pub fn identify(header: &mut SampleHeader, task: KernelPointer) -> KernelPointer {
    let leader = task::group_leader(task).unwrap_or(task);
    header.process_start_ns = task::start_ns(leader);
    header.exec_id = task::exec_id(leader);
    leader
}

/// Fills in the rest of the header. In place: the stack of a program and what it calls has 512 bytes.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "they are all that a sample says")]
pub fn describe(
    header: &mut SampleHeader,
    source: Source,
    task: KernelPointer,
    leader: KernelPointer,
    ids: Ids,
    weight: u64,
    user: Captured,
    kernel: Captured,
) {
    header.kind = Kind::Sample as u32;
    // SAFETY: the helper has no preconditions.
    header.cpu = unsafe { bpf_get_smp_processor_id() };
    header.time_ns = clock::now_ns();
    header.weight = weight;
    header.tgid = ids.tgid;
    header.tid = ids.tid;
    header.reserved = 0;
    task::read_comm(leader, &mut header.process_comm);
    if leader == task {
        header.thread_comm = header.process_comm;
    } else {
        task::read_comm(task, &mut header.thread_comm);
    }
    header.user_frames = user.frames();
    header.kernel_frames = kernel.frames();
    header.source = source as u8;
    header.user_outcome = user.outcome;
    header.kernel_outcome = kernel.outcome;
    header.reserved_tail = 0;
}

/// Room for facts of this type right before the header, to be sent with it.
///
/// # Safety
/// `scratch` must be the calling program's alone.
#[inline(always)]
pub unsafe fn facts<T>(scratch: *mut Scratch) -> *mut T {
    const { assert!(size_of::<T>() <= size_of::<WaitFacts>(), "there is room for a wait's") };
    // SAFETY: the room for a wait's facts ends where the header begins.
    unsafe { (&raw mut (*scratch).header).cast::<u8>().sub(size_of::<T>()).cast() }
}

/// Sends the sample, with `facts_bytes` of facts before it.
///
/// # Safety
/// `scratch` must be the calling program's alone, with `frame_bytes` of frames; the facts must be written.
#[inline(always)]
pub unsafe fn emit(
    scratch: *mut Scratch,
    facts_bytes: usize,
    frame_bytes: u64,
) -> Result<(), ring::RingFull> {
    if frame_bytes > (MAX_FRAMES * size_of::<u64>()) as u64 {
        return Err(ring::RingFull);
    }
    let fixed = (facts_bytes + size_of::<SampleHeader>()) as u64;
    // SAFETY: facts, header and frames lie one after the other in the scratch space.
    unsafe {
        let start = (&raw const (*scratch).header).cast::<u8>().sub(facts_bytes);
        ring::emit(start, fixed + frame_bytes, Urgency::Timer)
    }
}
