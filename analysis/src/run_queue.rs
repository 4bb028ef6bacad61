//! Run queues: how long threads were queued until they ran, and who ran meanwhile; by process and by group.

use crate::durations::Durations;

/// Who had a CPU while others queued for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runner {
    /// A process, or a group.
    One {
        /// Process id, or id of the group.
        id: u64,
        /// Name of the process, or path of the group; empty where that is not known.
        name: String,
    },
    /// Nobody: the CPU was on its way out of idling.
    Idle,
    /// Nobody knows.
    Unknown,
}

/// The queueing of a process's threads, or of a group's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Process id, or id of the group in the hierarchy that controls CPUs.
    pub id: u64,
    /// Name of the process, or path of the group; empty where that is not known.
    pub name: String,
    /// Time queued in the window, nanoseconds: `woken_ns` and `preempted_ns` of its threads.
    pub queued_ns: u64,
    /// How long it was each time, from being woken or preempted until running.
    pub latencies: Durations,
    /// Who ran meanwhile, and for how much of that time; the most first. They add up to `queued_ns`.
    pub behind: Vec<(Runner, u64)>,
}

/// All queueing of a window; those that queued most come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueue {
    /// By process.
    pub processes: Vec<Queue>,
    /// By group, each without those below it.
    pub cgroups: Vec<Queue>,
}
