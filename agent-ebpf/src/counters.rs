//! What happened to every event, by cause. Kept in one per-CPU array whose indices are [`Counter`]s.

/// One cause each; the agent shows every one that is not zero.
///
/// For a source, `Fired = Idle + OutsideTarget + OtherMode + Attempted` and `Attempted = Captured + RingFull +
/// ScratchMissing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Counter {
    /// The sampling timer fired.
    OnCpuFired = 0,
    /// ... on an idle CPU.
    OnCpuIdle = 1,
    /// ... in a thread outside the target.
    OnCpuOutsideTarget = 2,
    /// ... in a mode (user, kernel) that the recording leaves out.
    OnCpuOtherMode = 3,
    /// A sample was to be taken.
    OnCpuAttempted = 4,
    /// The sample is in the ring buffer.
    OnCpuCaptured = 5,
    /// The sample was lost: the ring buffer was full.
    OnCpuRingFull = 6,
    /// The sample was lost: the CPU's scratch space was not there. Cannot happen; counted so that it shows.
    OnCpuScratchMissing = 7,
    /// A child of the target was not followed: the table of target processes was full.
    TargetTableFull = 8,
    /// A file could not be announced to the agent: the ring buffer was full, or there is no id left. Its frames have no
    /// module; it is tried again with the next sample.
    FileNotAnnounced = 9,
}

impl Counter {
    /// Number of counters, the size of the map.
    pub const COUNT: u32 = 10;
    /// Every counter, in the order of its index.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::OnCpuFired,
        Self::OnCpuIdle,
        Self::OnCpuOutsideTarget,
        Self::OnCpuOtherMode,
        Self::OnCpuAttempted,
        Self::OnCpuCaptured,
        Self::OnCpuRingFull,
        Self::OnCpuScratchMissing,
        Self::TargetTableFull,
        Self::FileNotAnnounced,
    ];
}
