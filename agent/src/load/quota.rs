//! Which fields tell how long threads are held back by CPU quotas, where the threads themselves do not tell.

use super::layout::KernelLayout;

const QUEUE: &str = "cfs_rq";
const CPU: &str = "rq";

/// Since when a queue is away, how long it was, and the clock of the CPU that this is counted by; the best first, which came with
/// 6.6. The second, of 5.18, may go slower where the CPU does, as the load of threads is reckoned by it. The third, of older kernels,
/// leaves out what interrupts and the hypervisor took.
const CLOCKS: [(&str, &str, &str); 3] = [
    ("throttled_clock_self", "throttled_clock_self_time", "clock"),
    ("throttled_clock_pelt", "throttled_clock_pelt_time", PELT),
    ("throttled_clock_task", "throttled_clock_task_time", "clock_task"),
];
const PELT: &str = "clock_pelt";

/// Offset of a field that the clock does without.
const NO_FIELD: u64 = u64::MAX;

/// Fields that are asked for here, beside those that the clocks are read from.
pub(super) const FOLLOWED: [(&str, &str); 14] = [
    ("task_struct", "se.cfs_rq"),
    ("task_struct", "prio"),
    (QUEUE, "rq"),
    (QUEUE, "throttle_count"),
    (QUEUE, CLOCKS[0].0),
    (QUEUE, CLOCKS[0].1),
    (QUEUE, CLOCKS[1].0),
    (QUEUE, CLOCKS[1].1),
    (QUEUE, CLOCKS[2].0),
    (QUEUE, CLOCKS[2].1),
    (CPU, CLOCKS[0].2),
    (CPU, CLOCKS[1].2),
    (CPU, CLOCKS[2].2),
    (CPU, "lost_idle_time"),
];

impl KernelLayout {
    /// Whether it is told which threads are held back by their group's CPU quota: by a field of their own or by their queue.
    #[must_use]
    pub fn tells_throttled(&self) -> bool {
        self.has_throttled_field() || self.quota_globals().is_some()
    }

    /// The globals by which the programs read it off the threads' queues; `None` where threads tell it themselves, or where the
    /// kernel has none of it.
    pub(super) fn quota_globals(&self) -> Option<[(&'static str, u32); 8]> {
        if self.has_throttled_field() {
            return None;
        }
        let (since, total, clock) =
            CLOCKS.into_iter().find(|(_, total, _)| self.followed(QUEUE, total).is_some())?;
        let lost_idle = if clock == PELT { self.followed(CPU, "lost_idle_time")? } else { NO_FIELD };
        let globals = [
            ("TASK_CFS_RQ", self.followed("task_struct", "se.cfs_rq")?),
            ("TASK_PRIO", self.followed("task_struct", "prio")?),
            ("CFS_RQ_RQ", self.followed(QUEUE, "rq")?),
            ("CFS_RQ_AWAY", self.followed(QUEUE, "throttle_count")?),
            ("CFS_RQ_AWAY_SINCE", self.followed(QUEUE, since)?),
            ("CFS_RQ_AWAY_NS", self.followed(QUEUE, total)?),
            ("RQ_CLOCK", self.followed(CPU, clock)?),
            ("RQ_LOST_IDLE", lost_idle),
        ];
        Some(globals.map(|(global, offset)| (global, offset as u32)))
    }
}
