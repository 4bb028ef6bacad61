//! Stacks of waits: which are taken, when, and of what.
//!
//! **Which.** A wait is chosen by its length alone, once that is known: see [`WaitFacts`]. The random part comes from the time
//! at which it began, so that the wait and what ended it are chosen together.
//!
//! **When.** At `sched_switch` the thread that waited does not run yet: neither its memory nor its registers are at hand. When
//! it left the CPU they were, but then nobody knew how long it would wait: taking every stack costs ten times the accounting,
//! and taking some at random misses the long waits that matter. So an interrupt is asked for, by way of a ring buffer's
//! wake-up, which comes on this CPU as soon as the switch is done. It finds the thread in its own context, before it goes on:
//! its user registers and memory are those it began to wait with, and its kernel stack still has the functions it waited in,
//! below those of the interrupt.
//!
//! **All** waits of a target are taken by a period of 0.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP,
    btf_maps::{ArrayOfMaps, RingBuf},
    helpers::{bpf_get_current_task, bpf_get_smp_processor_id},
    macros::{btf_map, map},
    maps::{Array, PerCpuArray},
    programs::BtfTracePointContext,
};
use chokepoint_ebpf::{
    counters::Counter,
    record::Kind,
    sample::{Source, StackOutcome},
    sched::{
        INTERRUPTS_BYTES, NO_DESCRIPTOR, NO_SYSCALL, State, ThreadClock, WaitFacts, WakeFacts, is_chosen,
    },
};

use super::{
    arch, clock,
    config::{TASK_PID, TASK_TGID, WANT_WAITS},
    counters::count,
    polled, ring,
    sample::{self, Ids},
    sched,
    stack::{self, Scratch},
    task::{self, KernelPointer},
    trusted::Trusted,
};

/// What waits are chosen by, nanoseconds; the agent changes it to stay within its budget.
#[map]
static WAIT_PERIOD: Array<u64> = Array::with_max_entries(1, 0);
/// A ring buffer for each CPU, whose wake-up is the interrupt: nobody reads it but to make room. A shared one would have one
/// wake-up under way at a time for all CPUs. The agent makes them, and sets their number before loading.
#[btf_map]
static WAIT_INTERRUPTS: ArrayOfMaps<RingBuf<u64, INTERRUPTS_BYTES>, 1> = ArrayOfMaps::new();
/// The wait whose stack the next interrupt on this CPU is to take.
#[map]
static WAIT_CHOSEN: PerCpuArray<Chosen> = PerCpuArray::with_max_entries(1, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Chosen {
    /// Address of the thread; 0 for none.
    task: u64,
    left_ns: u64,
    blocked_ns: u64,
    throttled_ns: u64,
    queued_ns: u64,
    period_ns: u64,
    state: u64,
}

/// A thread is about to run again, that left the CPU in `clock.left_state` and has been in `state` since `since`, of which it was
/// held back by its group's quota for some time.
#[inline(always)]
pub fn over(task: Trusted, clock: &ThreadClock, state: u32, since: u64, held_ns: u64, now: u64) {
    if WANT_WAITS.load() == 0 {
        return;
    }
    let Some(period_ns) = chosen(clock.left_ns, now - clock.left_ns) else {
        return;
    };
    count(Counter::WaitAttempted);
    let Some(slot) = WAIT_CHOSEN.get_ptr_mut(0) else {
        return count(Counter::WaitScratchMissing);
    };
    // SAFETY: this CPU's; the interrupt that reads it is held off while the scheduler switches.
    let slot = unsafe { &mut *slot };
    if slot.task != 0 {
        count(Counter::WaitNoInterrupt);
    }
    let blocked = state >= State::Blocked as u32;
    slot.task = task.address();
    slot.left_ns = clock.left_ns;
    slot.blocked_ns = if blocked { now - clock.left_ns } else { since - clock.left_ns };
    slot.throttled_ns = held_ns;
    slot.queued_ns = if blocked { 0 } else { now - since - held_ns };
    slot.period_ns = period_ns;
    slot.state = u64::from(clock.left_state);
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    match WAIT_INTERRUPTS.get(cpu).and_then(|ring| ring.reserve(0)) {
        Some(entry) => entry.discard(u64::from(BPF_RB_FORCE_WAKEUP)),
        None => {
            slot.task = 0;
            count(Counter::WaitInterruptsFull);
        }
    }
}

/// The period by which a wait of this length that began at `left_ns` is chosen; `None` where it is not.
#[inline(always)]
pub fn chosen(left_ns: u64, length_ns: u64) -> Option<u64> {
    let period_ns = *WAIT_PERIOD.get(0)?;
    is_chosen(left_ns, length_ns, period_ns).then_some(period_ns)
}

/// Takes the stack of the thread that this CPU has just been given to, if one was chosen.
#[inline(always)]
pub fn interrupted(ctx: &BtfTracePointContext) {
    let Some(slot) = WAIT_CHOSEN.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's, and interrupts of one kind do not nest.
    let slot = unsafe { &mut *slot };
    if slot.task == 0 {
        return;
    }
    let wait = *slot;
    slot.task = 0;
    // SAFETY: the helper has no preconditions.
    let current = unsafe { bpf_get_current_task() };
    if current != wait.task {
        return count(Counter::WaitNoInterrupt);
    }
    let Some(scratch) = stack::scratch(Source::OffCpu) else {
        return count(Counter::WaitScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and this program does not interrupt itself.
    match unsafe { capture(ctx, scratch, &wait) } {
        Ok(()) => count(Counter::WaitCaptured),
        Err(ring::RingFull) => count(Counter::WaitRingFull),
    }
}

#[inline(always)]
unsafe fn capture(
    ctx: &BtfTracePointContext,
    scratch: *mut Scratch,
    wait: &Chosen,
) -> Result<(), ring::RingFull> {
    let task = KernelPointer::new(wait.task);
    // SAFETY: as the caller's.
    let leader = sample::identify(unsafe { &mut (*scratch).header }, task);
    // SAFETY: as the caller's.
    let facts = unsafe { &mut (*scratch).wait };
    facts.kind = Kind::Wait as u32;
    facts.state = wait.state as u32;
    facts.left_ns = wait.left_ns;
    facts.blocked_ns = wait.blocked_ns;
    facts.throttled_ns = wait.throttled_ns;
    facts.queued_ns = wait.queued_ns;
    facts.period_ns = wait.period_ns;
    facts.open = 0;
    // SAFETY: as the caller's.
    unsafe {
        let (user, kernel) = stack::capture_current(ctx, scratch, Source::OffCpu, task);
        let facts = &mut (*scratch).wait;
        // Without registers the scratch space has those of an earlier wait.
        let is_known =
            user.outcome != StackOutcome::Absent as u8 && user.outcome != StackOutcome::NoRegisters as u8;
        let (syscall, arguments) = arch::syscall(&(*scratch).registers);
        facts.syscall = if is_known { syscall } else { NO_SYSCALL };
        facts.arguments = arguments;
        facts.descriptor = if is_known { polled::descriptor(syscall, &arguments) } else { NO_DESCRIPTOR };
        let weight = wait.blocked_ns + wait.throttled_ns + wait.queued_ns;
        let header = &mut (*scratch).header;
        sample::describe(header, Source::OffCpu, task, leader, Ids::current(), weight, user, kernel);
        sample::emit(scratch, size_of::<WaitFacts>(), user.bytes + kernel.bytes)
    }
}

/// A thread of the target is about to be woken by what runs here.
#[inline(always)]
pub fn waking(ctx: &BtfTracePointContext) {
    let task = Trusted::new(ctx.arg(0));
    let Some(clock) = sched::find(task) else {
        return;
    };
    if clock.state < State::Blocked as u32 {
        return;
    }
    let blocked_ns = clock::now_ns() - clock.left_ns;
    if chosen(clock.left_ns, blocked_ns).is_none() {
        return;
    }
    count(Counter::WakeAttempted);
    let Some(scratch) = stack::scratch(Source::Waker) else {
        return count(Counter::WakeScratchMissing);
    };
    // SAFETY: the scratch space is this CPU's, and wake-ups happen with interrupts off.
    match unsafe { capture_waker(ctx, scratch, task, clock.left_ns, blocked_ns) } {
        Ok(()) => count(Counter::WakeCaptured),
        Err(ring::RingFull) => count(Counter::WakeRingFull),
    }
}

#[inline(always)]
unsafe fn capture_waker(
    ctx: &BtfTracePointContext,
    scratch: *mut Scratch,
    woken: Trusted,
    left_ns: u64,
    blocked_ns: u64,
) -> Result<(), ring::RingFull> {
    let current = task::current();
    // SAFETY: the scratch space is this program's alone.
    unsafe {
        let leader = sample::identify(&mut (*scratch).header, current);
        let (user, kernel) = stack::capture_current(ctx, scratch, Source::Waker, current);
        let header = &mut (*scratch).header;
        sample::describe(header, Source::Waker, current, leader, Ids::current(), blocked_ns, user, kernel);
        let facts = sample::facts::<WakeFacts>(scratch);
        (*facts).kind = Kind::Wake as u32;
        (*facts).tid = woken.field(&TASK_PID);
        (*facts).tgid = woken.field(&TASK_TGID);
        (*facts).reserved = 0;
        (*facts).left_ns = left_ns;
        (*facts).blocked_ns = blocked_ns;
        sample::emit(scratch, size_of::<WakeFacts>(), user.bytes + kernel.bytes)
    }
}
