//! The on-CPU source: what the thread that a CPU's timer or cycle counter interrupts is executing.

use aya_ebpf::{EbpfContext, helpers::bpf_get_current_pid_tgid, programs::PerfEventContext};
use aya_log_ebpf::debug;
use chokepoint_ebpf::{
    counters::Counter,
    sample::{Source, StackOutcome},
};

use super::{
    arch,
    config::{ON_CPU_PERIOD_NS, WANT_KERNEL, WANT_USER},
    counters::count,
    gate, ring,
    sample::{self, Ids},
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
    if !gate::admits(task, (pid_tgid >> 32) as u32) {
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
    // SAFETY: the scratch space is this CPU's alone.
    let leader = sample::identify(unsafe { &mut (*scratch).header }, task);
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

    // SAFETY: the scratch space is this CPU's alone.
    let header = unsafe { &mut (*scratch).header };
    let ids = Ids::from_pid_tgid(pid_tgid);
    sample::describe(header, Source::OnCpu, task, leader, ids, ON_CPU_PERIOD_NS.load(), user, kernel);

    // SAFETY: as above.
    unsafe { sample::emit(scratch, 0, user.bytes + kernel.bytes) }
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
