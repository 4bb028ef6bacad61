//! How long threads were queued until they ran, and who ran on their CPU meanwhile.
//!
//! **How long** is counted for each thread in its own entry: exact, and without a table of its own.
//!
//! **Who ran.** Each CPU remembers its last turns, of all threads and not only the target's. When a thread comes to a CPU after it
//! was queued, the turns since then of the CPU that it was queued on are told to its process. That costs more than the switch itself,
//! so it is done for queued time chosen by its length (see [`QUEUE_PERIOD_NS`]), and what is chosen stands for the rest without bias.
//! The turns are read without a lock where the thread has moved to another CPU: one that is being overwritten has a wrong begin or
//! a wrong name, of one in thirty-two.

use super::{
    config::{
        CGROUP_KN, CPU_CONTROLLER, CSS_CGROUP, CSS_SET_DFL_CGRP, CSS_SET_SUBSYS, KERNFS_NODE_ID,
        RUN_QUEUE_DETAIL, TASK_CGROUPS, TASK_COMM, TASK_TGID,
    },
    counters::count,
    trusted::Trusted,
};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use chokepoint_ebpf::{
    COMM_LEN,
    counters::Counter,
    gate::CGROUP_V2,
    run_queue::{
        Behind, LATENCY_BUCKETS, QUEUE_PERIOD_NS, QueueDetail, QueuePair, REMEMBERED_TURNS, UNKNOWN_RUNNER,
        latency_bucket,
    },
    sched::{State, ThreadClock, is_chosen},
};

/// A thread's time on a CPU, which lasts until the next one's begins.
#[derive(Clone, Copy)]
#[repr(C)]
struct Turn {
    begin_ns: u64,
    cgroup_id: u64,
    comm: [u64; COMM_LEN / 8],
    tgid: u32,
    reserved: u32,
}

/// The last turns of a CPU; the latest is that before `next`. Where nobody asks who ran, only when that began.
#[repr(C)]
struct Turns {
    latest_ns: u64,
    next: u64,
    turns: [Turn; REMEMBERED_TURNS],
}

/// By CPU; the agent sets their number before loading.
#[map]
static CPU_TURNS: Array<Turns> = Array::with_max_entries(1, 0);
/// Who ran while others queued. The agent sets the size before loading.
#[map]
static QUEUE_PAIRS: HashMap<QueuePair, Behind> = HashMap::with_max_entries(1, 0);
/// What [`tell_turn`] goes through.
#[map]
static QUEUE_WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);
/// Room for a new entry of [`QUEUE_PAIRS`].
#[map]
static NEW_BEHIND: PerCpuArray<Behind> = PerCpuArray::with_max_entries(1, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Walk {
    /// The queued time that is not told yet.
    since_ns: u64,
    until_ns: u64,
    /// The turn before which to go on.
    next: u64,
    /// By what it is multiplied: the length it stands for, and its own.
    stands_for_ns: u64,
    length_ns: u64,
    cpu: u32,
    tgid: u32,
}

/// When this CPU's last switch was that was seen.
#[inline(always)]
pub fn last_switch(now: u64) -> u64 {
    let Some(turns) = CPU_TURNS.get_ptr(this_cpu()) else {
        return now;
    };
    // SAFETY: this CPU's, and the scheduler does not interrupt itself.
    let turns = unsafe { &*turns };
    if turns.latest_ns == 0 { now } else { turns.latest_ns }
}

/// Takes note of the thread that this CPU is given to.
#[inline(always)]
pub fn begin_turn(task: Trusted, now: u64) {
    let Some(turns) = CPU_TURNS.get_ptr_mut(this_cpu()) else {
        return;
    };
    // SAFETY: this CPU's, and the scheduler does not interrupt itself.
    let turns = unsafe { &mut *turns };
    turns.latest_ns = now;
    if RUN_QUEUE_DETAIL.load() < QueueDetail::WhoRan as u8 {
        return;
    }
    let turn = &mut turns.turns[turns.next as usize & (REMEMBERED_TURNS - 1)];
    turn.begin_ns = now;
    turn.tgid = task.field(&TASK_TGID);
    turn.cgroup_id = cpu_cgroup_id(task);
    turn.comm = [task.field(&TASK_COMM), task.field_at(&TASK_COMM, 8)];
    turns.next += 1;
}

/// Id of the thread's group in the hierarchy that controls CPUs.
#[inline(always)]
pub fn cpu_cgroup_id(task: Trusted) -> u64 {
    cpu_cgroup(task)
        .and_then(|cgroup| cgroup.follow(&CGROUP_KN))
        .map_or(0, |node| node.field(&KERNFS_NODE_ID))
}

#[inline(always)]
fn cpu_cgroup(task: Trusted) -> Option<Trusted> {
    let css_set = task.follow(&TASK_CGROUPS)?;
    let controller = CPU_CONTROLLER.load();
    if controller == CGROUP_V2 {
        css_set.follow(&CSS_SET_DFL_CGRP)
    } else {
        css_set.follow_at(&CSS_SET_SUBSYS, controller * 8)?.follow(&CSS_CGROUP)
    }
}

/// The CPU that this program runs on.
#[inline(always)]
pub fn this_cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// A thread comes to a CPU that has been in `state` since `since`, and was held back by its group's quota for some of that time.
#[inline(always)]
pub fn over(task: Trusted, clock: &mut ThreadClock, state: u32, since: u64, held_ns: u64, now: u64) {
    if RUN_QUEUE_DETAIL.load() < QueueDetail::Latencies as u8 {
        return;
    }
    // Where the accounting began in the midst of it, nobody knows how long it was. Throttled time is no run-queue latency.
    let is_whole = now > since && !(state == State::Preempted as u32 && since == clock.begin_ns);
    if !(state == State::Woken as u32 || state == State::Preempted as u32) || !is_whole {
        return;
    }
    // Whoever ran meanwhile did not keep it from the CPU.
    let since = since + held_ns;
    let latency_ns = now - since;
    // The verifier is to see the bound, whatever the compiler knows.
    let bucket = core::hint::black_box(latency_bucket(latency_ns));
    if bucket < LATENCY_BUCKETS {
        clock.latencies[bucket] = clock.latencies[bucket].saturating_add(1);
    }
    if latency_ns > clock.longest_queue_ns {
        clock.longest_queue_ns = latency_ns;
    }
    if RUN_QUEUE_DETAIL.load() >= QueueDetail::WhoRan as u8 && is_chosen(since, latency_ns, QUEUE_PERIOD_NS) {
        tell(task, clock.queue_cpu, since, now);
    }
}

/// Tells the turns since then to the thread's process.
#[inline(always)]
fn tell(task: Trusted, cpu: u32, since: u64, now: u64) {
    let (Some(walk), Some(turns)) = (QUEUE_WALK.get_ptr_mut(0), CPU_TURNS.get_ptr(cpu)) else {
        return;
    };
    // SAFETY: this CPU's, and the scheduler does not interrupt itself. The other is read as a whole word.
    let (walk, next) = unsafe { (&mut *walk, (&raw const (*turns).next).read_volatile()) };
    let length_ns = now - since;
    walk.since_ns = since;
    walk.until_ns = now;
    walk.next = next;
    walk.stands_for_ns = if length_ns > QUEUE_PERIOD_NS { length_ns } else { QUEUE_PERIOD_NS };
    walk.length_ns = length_ns;
    walk.cpu = cpu;
    walk.tgid = task.field(&TASK_TGID);
    // One more, for what is not known.
    for turn in 0..=REMEMBERED_TURNS as u64 {
        if tell_turn(turn) != 0 {
            break;
        }
    }
}

/// One turn of the walk; not 0 when it was the last.
///
/// A function of its own, as [`super::stack::unwind_frame`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_turn(turn: u64) -> u64 {
    let Some(walk) = QUEUE_WALK.get_ptr_mut(0) else {
        return 1;
    };
    // SAFETY: this CPU's, and the scheduler does not interrupt itself.
    let walk = unsafe { &mut *walk };
    let Some(turns) = CPU_TURNS.get_ptr(walk.cpu) else {
        return 1;
    };
    if turn >= REMEMBERED_TURNS as u64 || walk.next == 0 {
        add(walk, walk.until_ns - walk.since_ns, None);
        return 1;
    }
    walk.next -= 1;
    // SAFETY: the index is within the array; another CPU may write there, which the module's documentation tells of.
    let turn = unsafe { &(*turns).turns[walk.next as usize & (REMEMBERED_TURNS - 1)] };
    let begin_ns = if turn.begin_ns > walk.since_ns { turn.begin_ns } else { walk.since_ns };
    if begin_ns < walk.until_ns {
        add(walk, walk.until_ns - begin_ns, Some(turn));
        walk.until_ns = begin_ns;
    }
    u64::from(walk.until_ns <= walk.since_ns)
}

/// Adds queued time to what is known of who ran.
#[inline(always)]
fn add(walk: &Walk, length_ns: u64, turn: Option<&Turn>) {
    // Lengths are below 2^42, an hour; the quotient is 1 but for short ones.
    let ns = if walk.stands_for_ns > walk.length_ns && walk.length_ns > 0 {
        length_ns * walk.stands_for_ns / walk.length_ns
    } else {
        length_ns
    };
    let pair = QueuePair {
        queued: walk.tgid,
        runner: turn.map_or(UNKNOWN_RUNNER, |turn| turn.tgid),
        cpu: this_cpu(),
        reserved: 0,
    };
    if let Some(behind) = QUEUE_PAIRS.get_ptr_mut(pair) {
        // SAFETY: this CPU's, and the scheduler does not interrupt itself.
        unsafe { (*behind).ns += ns };
        return;
    }
    let Some(behind) = NEW_BEHIND.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as above.
    let behind = unsafe { &mut *behind };
    behind.ns = ns;
    match turn {
        Some(turn) => {
            behind.runner_cgroup = turn.cgroup_id;
            // SAFETY: both are sixteen bytes.
            behind.runner_comm =
                unsafe { core::mem::transmute::<[u64; COMM_LEN / 8], [u8; COMM_LEN]>(turn.comm) };
        }
        None => {
            behind.runner_cgroup = 0;
            behind.runner_comm = [0; COMM_LEN];
        }
    }
    let behind: &Behind = behind;
    if QUEUE_PAIRS.insert(pair, behind, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::QueuePairsFull);
    }
}
