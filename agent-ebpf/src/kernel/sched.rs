//! The sched source: what every thread does with its time, from the scheduler's own events.
//!
//! Each thread is always in one state, and each event that changes it adds the time since the last one to that state. So the
//! times add up by construction, and nothing needs to be known of the past but one time and one state for each thread. The
//! programs run with the run queue's lock held, which orders the events of a thread; no entry is written by two CPUs at once.
//!
//! What is read, and why it is right:
//! - Whether a thread that leaves the CPU sleeps is told by its state field *at that moment*, not by the tracepoint's argument:
//!   a signal that arrives in between keeps it runnable, and only some kernels tell that in the argument. A thread that another
//!   CPU begins to wake has a state other than "running" until its new CPU takes it, so the field never lies the other way.
//! - A thread that is preempted on its way to sleep is still runnable, whatever its state field says.
//! - Run-queue time begins at `sched_wakeup`, which comes when the thread is on a queue, as the kernel's own schedstat has it;
//!   not at `sched_waking`, which may be an interrupt between processors earlier.
//! - What of a thread's time on a CPU the hypervisor or interrupts took is not in the kernel's count of the time it ran, which is
//!   brought up to date for a thread that leaves the CPU just before the event.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, PerCpuArray},
    programs::BtfTracePointContext,
};
use chokepoint_ebpf::{
    counters::Counter,
    sched::{State, ThreadClock},
};

use super::{
    clock,
    config::{
        TASK_CPU, TASK_DELAYED, TASK_IOWAIT, TASK_IOWAIT_MASK, TASK_ON_CPU, TASK_ON_RQ, TASK_PID, TASK_RAN,
        TASK_STATE, TASK_STIME, TASK_TGID, TASK_THROTTLED, TASK_UTIME,
    },
    counters::count,
    gate, quota, run_queue, task, threads,
    trusted::Trusted,
    waits,
};

/// The threads of the target, by the address of their `task_struct`. The agent sets the size before loading.
#[map]
static SCHED_THREADS: HashMap<u64, ThreadClock> = HashMap::with_max_entries(1, 0);

/// Room to make an entry: one for the events, one for the look at all threads, which those interrupt. What nobody writes is 0.
#[map]
static NEW_CLOCKS: PerCpuArray<ThreadClock> = PerCpuArray::with_max_entries(2, 0);

/// Who begins to account for a thread.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Beginner {
    /// An event.
    Event = 0,
    /// The look at all threads.
    Look = 1,
}

/// `TASK_UNINTERRUPTIBLE`.
const UNINTERRUPTIBLE: u32 = 2;
/// `TASK_NOLOAD`: not counted as work, as idle threads of the kernel's own.
const NO_LOAD: u32 = 0x400;
/// `TASK_DEAD`: never runs again.
const DEAD: u32 = 0x80;
/// `TASK_THROTTLED` of kernels whose threads have no such field.
const NO_FIELD: u32 = u32::MAX;

/// One thread gives its CPU to another.
#[inline(always)]
pub fn switched(ctx: &BtfTracePointContext) {
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    let previous = Trusted::new(ctx.arg(1));
    let next = Trusted::new(ctx.arg(2));
    let now = clock::now_ns();
    let before = run_queue::last_switch(now);
    // The idle threads all have the id 0.
    if previous.field::<u32>(&TASK_PID) != 0 {
        left(previous, preempted, before, now);
    }
    if next.field::<u32>(&TASK_PID) != 0 {
        arrived(next, now);
    }
    run_queue::begin_turn(next, now);
}

/// A thread is on a run queue again.
#[inline(always)]
pub fn woken(ctx: &BtfTracePointContext) {
    let task = Trusted::new(ctx.arg(0));
    let now = clock::now_ns();
    let Some(clock) = clock(task, State::Blocked, now) else {
        return;
    };
    if clock.state == State::OnCpu as u32 {
        // Of a thread that has not fallen asleep yet, the event changes nothing.
        if task.field::<u32>(&TASK_ON_CPU) != 0 {
            return;
        }
        left_unseen(task, clock, now);
    }
    if clock.state >= State::Blocked as u32 {
        spend(clock, now);
        clock.state = State::Woken as u32;
        clock.queue_cpu = task.field(&TASK_CPU);
        quota::queued(task, clock);
    }
}

/// A new thread is on a run queue for the first time. An entry that is there already is of a thread that ended unseen, as where the host
/// hides it, or while the look at all threads had found it: the new one has its memory and must not have its times.
#[inline(always)]
pub fn born(ctx: &BtfTracePointContext) {
    let task = Trusted::new(ctx.arg(0));
    let key = task.address();
    if let Some(clock) = SCHED_THREADS.get_ptr(key) {
        // SAFETY: no other event of a thread comes before this one, nor after its last.
        let clock = unsafe { &*clock };
        // The look at all threads was quicker.
        if clock.tid == task.field::<u32>(&TASK_PID) {
            return;
        }
        threads::ended_unseen(key, clock);
        let _ = SCHED_THREADS.remove(key);
    }
    let _ = clock(task, State::Woken, clock::now_ns());
}

#[inline(always)]
fn left(task: Trusted, preempted: bool, before: u64, now: u64) {
    let Some(clock) = clock(task, State::OnCpu, now) else {
        return;
    };
    if clock.state != State::OnCpu as u32 {
        // It came from a thread whose leaving nobody may trace: see `left_unseen`.
        count(Counter::SchedArrivalMissed);
        if before > clock.since_ns {
            spend(clock, before);
        }
        clock.state = State::OnCpu as u32;
    }
    spend(clock, now);
    clock.ran_ns = task.field(&TASK_RAN);
    clock.switches += 1;
    clock.left_ns = now;
    let task_state = task.field::<u32>(&TASK_STATE);
    let state = if preempted || task_state == 0 {
        if TASK_THROTTLED.load() != NO_FIELD && task.field::<u8>(&TASK_THROTTLED) & 1 != 0 {
            State::Throttled
        } else {
            quota::queued(task, clock);
            State::Preempted
        }
    } else if task_state & DEAD != 0 {
        threads::ended(task, clock);
        let _ = SCHED_THREADS.remove(task.address());
        return;
    } else {
        blocked(task, task_state)
    };
    clock.state = state as u32;
    clock.left_state = state as u32;
    clock.queue_cpu = run_queue::this_cpu();
}

#[inline(always)]
fn arrived(task: Trusted, now: u64) {
    let Some(clock) = clock(task, State::Woken, now) else {
        return;
    };
    if clock.state == State::OnCpu as u32 {
        left_unseen(task, clock, now);
    }
    let state = clock.state;
    let since = clock.since_ns;
    spend(clock, now);
    clock.state = State::OnCpu as u32;
    if state >= State::Blocked as u32 {
        count(Counter::SchedWakeUpMissed);
    }
    let held_ns = held(clock, state, now - since);
    run_queue::over(task, clock, state, since, held_ns, now);
    waits::over(task, clock, state, since, held_ns, now);
}

/// How long of the time in this state that is over now a thread was held back by its group's quota; tells it from queueing.
#[inline(always)]
fn held(clock: &mut ThreadClock, state: u32, length_ns: u64) -> u64 {
    if state == State::Throttled as u32 {
        return length_ns;
    }
    if !(state == State::Woken as u32 || state == State::Preempted as u32) {
        return 0;
    }
    let held_ns = quota::held_ns(clock, length_ns);
    clock.spent_ns[state as usize & (State::SLOTS - 1)] -= held_ns;
    clock.spent_ns[State::Throttled as usize] += held_ns;
    held_ns
}

/// A thread is somewhere else than on a CPU, though no event has told that it left: some hosts let nobody trace some threads.
/// How long it has run until then is the kernel's own count.
#[inline(always)]
fn left_unseen(task: Trusted, clock: &mut ThreadClock, now: u64) {
    count(Counter::SchedLeaveMissed);
    let ran_ns = task.field::<u64>(&TASK_RAN);
    let turn_ns = ran_ns.saturating_sub(clock.ran_ns).min(now.saturating_sub(clock.since_ns));
    spend(clock, clock.since_ns + turn_ns);
    clock.ran_ns = ran_ns;
    clock.left_ns = clock.since_ns;
    clock.state = State::Blocked as u32;
    clock.left_state = State::Blocked as u32;
}

/// How a thread sleeps.
#[inline(always)]
fn blocked(task: Trusted, task_state: u32) -> State {
    if task_state & (UNINTERRUPTIBLE | NO_LOAD) != UNINTERRUPTIBLE {
        State::Blocked
    } else if task.field::<u8>(&TASK_IOWAIT) & TASK_IOWAIT_MASK.load() != 0 {
        State::Io
    } else {
        State::Uninterruptible
    }
}

/// Adds the time in the present state to that state.
#[inline(always)]
fn spend(clock: &mut ThreadClock, now: u64) {
    let state = clock.state as usize & (State::SLOTS - 1);
    clock.spent_ns[state] += now - clock.since_ns;
    clock.since_ns = now;
}

/// The thread's times, which begin now where it is new to the target: `state` is what it has been in. `None` where it is not
/// of the target.
#[inline(always)]
fn clock<'a>(task: Trusted, state: State, now: u64) -> Option<&'a mut ThreadClock> {
    let key = task.address();
    if let Some(clock) = SCHED_THREADS.get_ptr_mut(key) {
        // SAFETY: the run queue's lock keeps the events of one thread apart.
        return Some(unsafe { &mut *clock });
    }
    if !gate::admits(task.untrusted(), task.field(&TASK_TGID)) {
        return None;
    }
    begin(task, state, now, Beginner::Event);
    // Where the agent's own look at all threads came in between, its entry stands.
    match SCHED_THREADS.get_ptr_mut(key) {
        // SAFETY: as above.
        Some(clock) => Some(unsafe { &mut *clock }),
        None => {
            count(Counter::SchedTableFull);
            None
        }
    }
}

/// Begins to account for a thread that is in this state.
#[inline(always)]
pub fn begin(task: Trusted, state: State, now: u64, beginner: Beginner) {
    let Some(clock) = NEW_CLOCKS.get_ptr_mut(beginner as u32) else {
        return;
    };
    // SAFETY: this CPU's and the beginner's.
    let clock = unsafe { &mut *clock };
    clock.since_ns = now;
    clock.left_ns = now;
    clock.state = state as u32;
    clock.left_state = state as u32;
    clock.begin_ns = now;
    clock.begin_user_ns = task.field(&TASK_UTIME);
    clock.begin_system_ns = task.field(&TASK_STIME);
    clock.ran_ns = task.field(&TASK_RAN);
    clock.begin_ran_ns = clock.ran_ns;
    clock.tgid = task.field(&TASK_TGID);
    clock.tid = task.field(&TASK_PID);
    let pointer = task.untrusted();
    clock.process_start_ns = task::start_ns(task::group_leader(pointer).unwrap_or(pointer));
    clock.queue_cpu = task.field(&TASK_CPU);
    quota::queued(task, clock);
    // By reference: a copy has no room on the stack.
    let clock: &ThreadClock = clock;
    let _ = SCHED_THREADS.insert(task.address(), clock, u64::from(BPF_NOEXIST));
}

/// The times of a thread, if it is accounted for.
#[inline(always)]
pub fn find<'a>(task: Trusted) -> Option<&'a ThreadClock> {
    // SAFETY: what reads it runs before or after the events, or tolerates one in between.
    SCHED_THREADS.get_ptr(task.address()).map(|clock| unsafe { &*clock })
}

/// The state that a thread seems to be in, for the look at all threads before any event.
#[inline(always)]
pub fn apparent_state(task: Trusted) -> State {
    let task_state = task.field::<u32>(&TASK_STATE);
    let is_queued = task.field::<u32>(&TASK_ON_RQ) != 0
        && !(TASK_DELAYED.load() != NO_FIELD && task.field::<u8>(&TASK_DELAYED) != 0);
    if task.field::<u32>(&TASK_ON_CPU) != 0 {
        State::OnCpu
    } else if task_state == 0 || is_queued {
        State::Preempted
    } else {
        blocked(task, task_state)
    }
}
