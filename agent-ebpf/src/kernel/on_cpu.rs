//! The on-CPU source: what the thread that a CPU's timer or cycle counter interrupts is executing.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    programs::PerfEventContext,
};
use aya_log_ebpf::debug;
use chokepoint_ebpf::{
    counters::Counter,
    record::Kind,
    sample::{MAX_FRAMES, SampleHeader, Source, StackOutcome},
};

use super::{
    arch,
    config::{ON_CPU_PERIOD_NS, WANT_KERNEL, WANT_USER},
    counters::count,
    gate,
    ring::{self, Urgency},
    stack::{self, Captured, Scratch},
    task::{self, KernelPointer},
};

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
    let user_mode = arch::interrupted_user_mode(ctx);
    let mm = task::address_space(task);
    let nothing_wanted =
        if user_mode { WANT_USER.load() == 0 } else { WANT_KERNEL.load() == 0 && mm.is_none() };
    if nothing_wanted {
        return count(Counter::OnCpuOtherMode);
    }
    count(Counter::OnCpuAttempted);
    let Some(scratch) = stack::scratch(Source::OnCpu) else {
        return count(Counter::OnCpuScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and this program does not interrupt itself.
    match unsafe { capture(ctx, scratch, task, pid_tgid, user_mode, mm) } {
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
    mm: Option<KernelPointer>,
) -> Result<(), ring::RingFull> {
    let leader = task::group_leader(task).unwrap_or(task);
    // Written in place: the stack of a program and what it calls has 512 bytes.
    // SAFETY: the scratch space is this CPU's alone.
    let header = unsafe { &mut (*scratch).header };
    header.process_start_ns = task::start_ns(leader);
    header.exec_id = task::exec_id(leader);
    let user = match mm {
        _ if WANT_USER.load() == 0 => Captured::nothing(StackOutcome::NotWanted),
        None => Captured::nothing(StackOutcome::Absent),
        // SAFETY: the scratch space is this program's.
        Some(mm) => unsafe { capture_user(ctx, scratch, task, mm, user_mode) },
    };
    if user.outcome == StackOutcome::TableMissing as u8 {
        debug!(ctx, "no unwind table yet for process {}", (pid_tgid >> 32) as u32);
    }
    let kernel = if WANT_KERNEL.load() == 0 {
        Captured::nothing(StackOutcome::NotWanted)
    } else if user_mode {
        Captured::nothing(StackOutcome::Absent)
    } else {
        // SAFETY: as above.
        unsafe { stack::capture_kernel(ctx.as_ptr(), scratch, user) }
    };

    // SAFETY: as above.
    let header = unsafe { &mut (*scratch).header };
    header.kind = Kind::Sample as u32;
    // SAFETY: the helper has no preconditions.
    header.cpu = unsafe { bpf_get_smp_processor_id() };
    // SAFETY: the helper has no preconditions.
    header.time_ns = unsafe { bpf_ktime_get_ns() };
    header.weight = ON_CPU_PERIOD_NS.load();
    header.tgid = (pid_tgid >> 32) as u32;
    header.tid = pid_tgid as u32;
    header.reserved = 0;
    task::read_comm(leader, &mut header.process_comm);
    if leader == task {
        header.thread_comm = header.process_comm;
    } else {
        task::read_comm(task, &mut header.thread_comm);
    }
    header.user_frames = user.frames();
    header.kernel_frames = kernel.frames();
    header.source = Source::OnCpu as u8;
    header.user_outcome = user.outcome;
    header.kernel_outcome = kernel.outcome;
    header.reserved_tail = 0;

    let frame_bytes = user.bytes + kernel.bytes;
    if frame_bytes > (MAX_FRAMES * size_of::<u64>()) as u64 {
        return Err(ring::RingFull);
    }
    // SAFETY: header and frames lie within the scratch space.
    unsafe { ring::emit(scratch.cast(), size_of::<SampleHeader>() as u64 + frame_bytes, Urgency::Timer) }
}

/// The user stack, from the registers that were interrupted or that the kernel keeps.
///
/// # Safety
/// `scratch` must be this program's.
#[inline(always)]
unsafe fn capture_user(
    ctx: &PerfEventContext,
    scratch: *mut Scratch,
    task: KernelPointer,
    mm: KernelPointer,
    user_mode: bool,
) -> Captured {
    // SAFETY: the scratch space is this program's alone.
    let registers = unsafe { &mut (*scratch).registers };
    if user_mode {
        arch::copy_interrupted(ctx, registers);
    } else if !task::user_registers(task).is_some_and(|kept| kept.read_into(registers)) {
        return Captured::nothing(StackOutcome::NoRegisters);
    }
    // SAFETY: as above.
    unsafe { stack::capture_user(scratch, Source::OnCpu, mm, user_mode) }
}
