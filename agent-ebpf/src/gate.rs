//! The gate: which threads are the target. Decided in the kernel, before anything else is paid for.

/// How the gate decides; the value of the global `GATE_RULE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Rule {
    /// Every thread of the host.
    Everything = 0,
    /// Threads of the processes in the table of target processes.
    Processes = 1,
    /// Threads of one cgroup and the groups below it.
    Cgroup = 2,
    /// Threads whose own name, or whose process's name, is the given one.
    Comm = 3,
}

/// Processes the target table holds; a full table counts [`crate::counters::Counter::TargetTableFull`].
pub const MAX_TARGET_PROCESSES: u32 = 16_384;
/// Levels of the cgroup tree that are climbed to find the target group. systemd and Kubernetes together stay below 12.
pub const MAX_CGROUP_DEPTH: u32 = 24;
/// `GATE_CGROUP_CONTROLLER` of a group in the version 2 hierarchy.
pub const CGROUP_V2: u32 = u32::MAX;
