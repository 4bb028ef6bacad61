//! The on-CPU source: what the thread that a CPU's timer or cycle counter interrupts is executing.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::PerfEventContext,
};
use aya_log_ebpf::debug;
use chokepoint_ebpf::{
    counters::Counter,
    record::Kind,
    sample::{MAX_FRAMES, SampleHeader, Source, StackOutcome},
};

use super::{
    arch::interrupted_user_mode,
    config::{ON_CPU_PERIOD_NS, WANT_KERNEL, WANT_USER},
    counters::count,
    gate,
    ring::{self, Urgency},
    stack::{self, Captured, Scratch},
    task::{self, KernelPointer},
};

#[map]
static ON_CPU_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// One running program of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Image {
    start_ns: u64,
    exec_id: u64,
}

/// Processes that sampled lately remain here, by process id. The first sample of a new one wakes the agent, which reads
/// its mappings before it can end.
const MAX_SEEN_PROCESSES: u32 = 16_384;
#[map]
static SEEN_PROCESSES: LruHashMap<u32, Image> = LruHashMap::with_max_entries(MAX_SEEN_PROCESSES, 0);

/// Takes a sample of the current thread, or counts why not.
#[inline(always)]
pub fn sample(ctx: &PerfEventContext) {
    count(Counter::OnCpuFired);
    let pid_tgid = bpf_get_current_pid_tgid();
    // Only the idle threads have the thread id 0.
    if pid_tgid as u32 == 0 {
        return count(Counter::OnCpuIdle);
    }
    let task = task::current();
    if !gate::admits(task) {
        return count(Counter::OnCpuOutsideTarget);
    }
    let user_mode = interrupted_user_mode(ctx);
    let has_user = task::has_address_space(task);
    let nothing_wanted = if user_mode { WANT_USER.load() == 0 } else { WANT_KERNEL.load() == 0 && !has_user };
    if nothing_wanted {
        return count(Counter::OnCpuOtherMode);
    }
    count(Counter::OnCpuAttempted);
    let Some(scratch) = ON_CPU_SCRATCH.get_ptr_mut(0) else {
        return count(Counter::OnCpuScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and this program does not interrupt itself.
    match unsafe { capture(ctx, scratch, task, pid_tgid, user_mode, has_user) } {
        Ok(()) => count(Counter::OnCpuCaptured),
        Err(ring::RingFull) => {
            count(Counter::OnCpuRingFull);
            debug!(ctx, "ring buffer full, sample of process {} lost", (pid_tgid >> 32) as u32);
        }
    }
}

#[inline(always)]
unsafe fn capture(
    ctx: &PerfEventContext,
    scratch: *mut Scratch,
    task: KernelPointer,
    pid_tgid: u64,
    user_mode: bool,
    has_user: bool,
) -> Result<(), ring::RingFull> {
    let user = if WANT_USER.load() == 0 {
        Captured::nothing(StackOutcome::NotWanted)
    } else if has_user {
        // SAFETY: context and scratch are this program's.
        unsafe { stack::capture_user(ctx.as_ptr(), scratch) }
    } else {
        Captured::nothing(StackOutcome::Absent)
    };
    let kernel = if WANT_KERNEL.load() == 0 {
        Captured::nothing(StackOutcome::NotWanted)
    } else if user_mode {
        Captured::nothing(StackOutcome::Absent)
    } else {
        // SAFETY: as above.
        unsafe { stack::capture_kernel(ctx.as_ptr(), scratch, user) }
    };

    let leader = task::group_leader(task).unwrap_or(task);
    let tgid = (pid_tgid >> 32) as u32;
    let header = SampleHeader {
        kind: Kind::Sample as u32,
        // SAFETY: the helper has no preconditions.
        cpu: unsafe { bpf_get_smp_processor_id() },
        // SAFETY: the helper has no preconditions.
        time_ns: unsafe { bpf_ktime_get_ns() },
        weight: ON_CPU_PERIOD_NS.load(),
        tgid,
        tid: pid_tgid as u32,
        process_start_ns: task::start_ns(leader),
        exec_id: task::exec_id(leader),
        reserved: 0,
        thread_comm: task::comm(task),
        process_comm: task::comm(leader),
        user_frames: user.frames(),
        kernel_frames: kernel.frames(),
        source: Source::OnCpu as u8,
        user_outcome: user.outcome as u8,
        kernel_outcome: kernel.outcome as u8,
        reserved_tail: 0,
    };
    let urgency =
        first_sight(tgid, Image { start_ns: header.process_start_ns, exec_id: u64::from(header.exec_id) });
    if urgency == Urgency::Now {
        debug!(ctx, "first sample of process {}, program {}", tgid, header.exec_id);
    }
    // SAFETY: the scratch space is this CPU's alone.
    unsafe { (*scratch).header = header };

    let frame_bytes = user.bytes + kernel.bytes;
    if frame_bytes > (MAX_FRAMES * size_of::<u64>()) as u64 {
        return Err(ring::RingFull);
    }
    // SAFETY: header and frames lie within the scratch space.
    unsafe { ring::emit(scratch.cast(), size_of::<SampleHeader>() as u64 + frame_bytes, urgency) }
}

/// Whether the agent must hurry: it has not seen this program of this process.
#[inline(always)]
fn first_sight(tgid: u32, image: Image) -> Urgency {
    // SAFETY: the value is copied out; a concurrent update of the same process writes an equal one.
    if unsafe { SEEN_PROCESSES.get(tgid) }.is_some_and(|seen| *seen == image) {
        return Urgency::Timer;
    }
    // A failed insertion only means that the next sample wakes the agent again.
    let _ = SEEN_PROCESSES.insert(tgid, image, 0);
    Urgency::Now
}
