//! What the kernel programs are loaded with.

use super::block::BlockOptions;
use super::memory::MemoryOptions;
use super::sched::SchedOptions;
use super::tcp::TcpOptions;

/// Which threads the kernel programs sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// All of the host.
    Everything,
    /// Those of some processes.
    Processes {
        /// Process ids.
        tgids: Vec<u32>,
        /// Whether processes they fork from now on belong to the target too.
        follow_forks: bool,
    },
    /// Those of a cgroup and the groups below it.
    Cgroup {
        /// The group's id, which is its directory's inode number.
        id: u64,
        /// Index of the version 1 controller that owns it; `None` in the version 2 hierarchy.
        controller: Option<u32>,
    },
    /// Those whose own or whose process's name this is.
    Comm(String),
}

/// Which of a thread's stacks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// User stacks. Without them, time spent in user mode is not sampled.
    pub user: bool,
    /// Kernel stacks.
    pub kernel: bool,
}

/// What the programs are loaded with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which threads are sampled.
    pub gate: Gate,
    /// Which stacks are kept.
    pub stacks: Stacks,
    /// Ticks a second of each CPU's on-CPU source; `None` leaves the source out.
    pub frequency_hz: Option<u32>,
    /// The sched source; `None` leaves it out.
    pub sched: Option<SchedOptions>,
    /// The tcp source; `None` leaves it out.
    pub tcp: Option<TcpOptions>,
    /// The memory source; `None` leaves it out.
    pub memory: Option<MemoryOptions>,
    /// The block source; `None` leaves it out.
    pub block: Option<BlockOptions>,
    /// Whether the source of failed calls is loaded.
    pub failed_calls: bool,
    /// Size of the ring buffer, a power of two that is a multiple of the page size.
    pub ring_bytes: u32,
    /// CPUs that the kernel may have: one more than the highest number.
    pub possible_cpus: u32,
    /// The sysctl `kernel.perf_event_max_stack`.
    pub perf_max_stack: u32,
    /// Whether the programs log through aya-log.
    pub kernel_log: bool,
}

impl LoadOptions {
    /// What one tick of the on-CPU source stands for, nanoseconds.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        self.frequency_hz.map_or(0, |frequency_hz| 1_000_000_000 / u64::from(frequency_hz))
    }

    pub(super) fn follows_forks(&self) -> bool {
        matches!(self.gate, Gate::Processes { follow_forks: true, .. })
    }

    /// Whether programs at tracepoints or functions are part of it.
    pub(super) fn traces(&self) -> bool {
        self.sched.is_some()
            || self.tcp.is_some()
            || self.memory.is_some()
            || self.block.is_some()
            || self.failed_calls
            || self.follows_forks()
    }
}
