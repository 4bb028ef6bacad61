//! Constraints of CPUs: too few of them, others on them, or work that only one of them can do.

pub(super) mod all_busy;
pub(super) mod behind;
pub(super) mod kernel;
pub(super) mod queueing;
pub(super) mod quota;
pub(super) mod single_thread;
pub(super) mod steal;

/// A thread that queues for less of its time than this is not short of CPUs.
const QUEUED: f64 = 0.2;
/// Up to a twentieth, losses are those of any host.
const TAKEN: f64 = 0.05;
