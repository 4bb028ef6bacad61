//! How long threads were held back by the CPU quotas of their groups, on kernels whose threads do not tell it themselves.
//!
//! Before 6.18 a group that has used up its quota on a CPU leaves that CPU's queue as a whole, with all groups below it and all of
//! their threads, and comes back as a whole. The queue of a group's threads on a CPU (`cfs_rq`) counts how long it was away. What
//! that count grows by from the moment when a thread comes onto such a queue until it runs, is what the thread was held back:
//! whether it was running when the quota was used up, was queued by then, or was woken later.
//!
//! The queue is that which the thread came onto. One that was let go and then ran on another CPU is told right, too, since threads are
//! not taken off a queue that is away.

use chokepoint_ebpf::sched::ThreadClock;

use super::{
    config::{
        CFS_RQ_AWAY, CFS_RQ_AWAY_NS, CFS_RQ_AWAY_SINCE, CFS_RQ_RQ, RQ_CLOCK, RQ_LOST_IDLE, TASK_CFS_RQ,
        TASK_PRIO,
    },
    task::KernelPointer,
    trusted::Trusted,
};

/// Of a field that is not there or not needed.
const NO_FIELD: u32 = u32::MAX;
/// `MAX_RT_PRIO`: lower numbers are of real-time classes, which these quotas do not hold back.
const FIRST_FAIR_PRIO: i32 = 100;

/// A thread is on a queue from now on.
#[inline(always)]
pub fn queued(task: Trusted, clock: &mut ThreadClock) {
    if TASK_CFS_RQ.load() == NO_FIELD {
        return;
    }
    if task.field::<i32>(&TASK_PRIO) < FIRST_FAIR_PRIO {
        clock.group_queue = 0;
        return;
    }
    let Some(queue) = task.follow(&TASK_CFS_RQ) else {
        clock.group_queue = 0;
        return;
    };
    clock.group_queue = queue.address();
    clock.group_queue_away_ns = queue.field(&CFS_RQ_AWAY_NS);
    if is_away(queue)
        && let Some(rq) = queue.follow(&CFS_RQ_RQ)
    {
        let since: u64 = queue.field(&CFS_RQ_AWAY_SINCE);
        let mut now: u64 = rq.field(&RQ_CLOCK);
        if RQ_LOST_IDLE.load() != NO_FIELD {
            now -= rq.field::<u64>(&RQ_LOST_IDLE);
        }
        // Its threads are all that it counts for: without any before, it begins with this one.
        if since != 0 && now > since {
            clock.group_queue_away_ns += now - since;
        }
    }
}

/// How long a thread that runs now was held back, of the time since it was queued.
#[inline(always)]
pub fn held_ns(clock: &ThreadClock, queued_ns: u64) -> u64 {
    if TASK_CFS_RQ.load() == NO_FIELD || clock.group_queue == 0 {
        return 0;
    }
    // The thread may have left that queue's group since, and the group may be gone.
    let away_ns: u64 = KernelPointer::new(clock.group_queue).field(&CFS_RQ_AWAY_NS).unwrap_or_default();
    let held_ns = away_ns.saturating_sub(clock.group_queue_away_ns);
    if held_ns < queued_ns { held_ns } else { queued_ns }
}

/// Whether a thread that is queued is held back at this moment.
#[inline(always)]
pub fn holds(task: Trusted, clock: &ThreadClock) -> bool {
    TASK_CFS_RQ.load() != NO_FIELD && clock.group_queue != 0 && task.follow(&TASK_CFS_RQ).is_some_and(is_away)
}

#[inline(always)]
fn is_away(queue: Trusted) -> bool {
    queue.field::<u32>(&CFS_RQ_AWAY) != 0
}
