//! Exact time of threads, by what the scheduler says of them. It adds up: every nanosecond of a thread's life in the window is
//! in one of the parts.

use std::ops::AddAssign;

/// The parts of a thread's life in a window, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Executing.
    pub on_cpu_ns: u64,
    /// On a CPU that the hypervisor or interrupts had meanwhile.
    pub stolen_ns: u64,
    /// Able to run, since it was woken.
    pub woken_ns: u64,
    /// Able to run, since its CPU was taken from it.
    pub preempted_ns: u64,
    /// Held back by its group's CPU quota.
    pub throttled_ns: u64,
    /// Blocked, so that signals would end it.
    pub interruptible_ns: u64,
    /// Blocked, so that signals would not end it.
    pub uninterruptible_ns: u64,
    /// The same, for a device.
    pub io_ns: u64,
}

impl Parts {
    /// Able to run, and not held back.
    #[must_use]
    pub fn queued_ns(&self) -> u64 {
        self.woken_ns + self.preempted_ns
    }

    /// Not able to run.
    #[must_use]
    pub fn blocked_ns(&self) -> u64 {
        self.interruptible_ns + self.uninterruptible_ns + self.io_ns
    }

    /// All of them.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.on_cpu_ns + self.stolen_ns + self.queued_ns() + self.throttled_ns + self.blocked_ns()
    }
}

impl AddAssign for Parts {
    fn add_assign(&mut self, other: Self) {
        self.on_cpu_ns += other.on_cpu_ns;
        self.stolen_ns += other.stolen_ns;
        self.woken_ns += other.woken_ns;
        self.preempted_ns += other.preempted_ns;
        self.throttled_ns += other.throttled_ns;
        self.interruptible_ns += other.interruptible_ns;
        self.uninterruptible_ns += other.uninterruptible_ns;
        self.io_ns += other.io_ns;
    }
}

/// One thread in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadTime {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the process.
    pub process_name: String,
    /// Name of the thread.
    pub thread_name: String,
    /// Id of its version 2 group; 0 where that is not known.
    pub cgroup_id: u64,
    /// Its life in the window: from the window's start or its own to the window's end or its own.
    pub elapsed_ns: u64,
    /// What that is made of.
    pub parts: Parts,
    /// Share of its time executing in user mode, by the kernel's tick-based count; `None` where no tick hit it.
    pub user_share: Option<f64>,
    /// How often it left a CPU.
    pub switches: u64,
    /// Whether it ended in the window.
    pub ended: bool,
}
