//! How much of what happened a profile saw. It travels inside every profile, so that a thin one is never taken for an
//! innocent one.

/// Attempts, successes and losses of one source over one window. Counts of events, unless the name says otherwise.
///
/// `fired = idle + outside_target + other_mode + attempted` and `attempted = captured + lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Ticks that the window should have had: CPUs x frequency x time. The rest was withheld by the kernel or the
    /// hypervisor.
    pub expected: u64,
    /// Ticks that came.
    pub fired: u64,
    /// Ticks on an idle CPU.
    pub idle: u64,
    /// Ticks in threads outside the target.
    pub outside_target: u64,
    /// Ticks in a mode (user, kernel) that was not asked for.
    pub other_mode: u64,
    /// Samples that were to be taken.
    pub attempted: u64,
    /// Samples in the profile.
    pub captured: u64,
    /// Samples lost, by cause. Causes that did not occur are left out.
    pub lost: Vec<Loss>,
    /// User stacks, by how their capture ended.
    pub user_stacks: StackOutcomes,
    /// Kernel stacks, by how their capture ended.
    pub kernel_stacks: StackOutcomes,
    /// Samples of processes that ended before their mappings could be read; their user frames have no module.
    pub unread_processes: u64,
    /// Further remarks, each a sentence that a user can act on.
    pub notes: Vec<String>,
}

/// Samples lost for one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The cause, as a short phrase: `ring buffer full`.
    pub cause: &'static str,
    /// Number of samples.
    pub samples: u64,
}

/// Captured samples by the end of one of their stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackOutcomes {
    /// The walk ended by itself.
    pub walked: u64,
    /// The outermost frames are missing: the depth limit was met.
    pub truncated: u64,
    /// There is a stack, but it could not be read.
    pub unreadable: u64,
    /// The thread has no such stack, or it was not asked for.
    pub absent: u64,
}

impl Coverage {
    /// Samples lost for whatever cause.
    #[must_use]
    pub fn total_lost(&self) -> u64 {
        self.lost.iter().map(|loss| loss.samples).sum()
    }
}
