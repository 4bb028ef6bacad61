//! The on-CPU source: what the thread that a CPU's timer or cycle counter interrupts is executing.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, programs::PerfEventContext};
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
    stack::{self, Scratch},
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
    let nothing_wanted = if user_mode {
        WANT_USER.load() == 0
    } else {
        WANT_KERNEL.load() == 0 && task::address_space(task).is_none()
    };
    if nothing_wanted {
        return count(Counter::OnCpuOtherMode);
    }
    count(Counter::OnCpuAttempted);
    let Some(scratch) = stack::scratch(Source::OnCpu) else {
        return count(Counter::OnCpuScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and this program does not interrupt itself.
    match unsafe { capture(ctx, scratch, task, pid_tgid, user_mode) } {
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
) -> Result<(), ring::RingFull> {
    // SAFETY: the scratch space is this CPU's alone.
    let leader = sample::identify(unsafe { &mut (*scratch).header }, task);
    // SAFETY: the scratch space is this program's.
    let (user, kernel) = unsafe { stack::capture_interrupted(ctx, scratch, Source::OnCpu, task, user_mode) };
    if user.outcome == StackOutcome::TableMissing as u8 {
        debug!(ctx, "no unwind table yet for process {}", (pid_tgid >> 32) as u32);
    }
    // SAFETY: the scratch space is this CPU's alone.
    let header = unsafe { &mut (*scratch).header };
    let ids = Ids::from_pid_tgid(pid_tgid);
    sample::describe(header, Source::OnCpu, task, leader, ids, ON_CPU_PERIOD_NS.load(), user, kernel);

    // SAFETY: as above.
    unsafe { sample::emit(scratch, 0, user.bytes + kernel.bytes) }
}
