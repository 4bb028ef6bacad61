//! What happened to every event, by cause. Kept in one per-CPU array whose indices are [`Counter`]s.

/// One cause each; the agent shows every one that is not zero.
///
/// For the on-CPU source, `Fired = Idle + OutsideTarget + OtherMode + Attempted` and `Attempted = Captured + RingFull +
/// ScratchMissing`. For waits, `Attempted = Captured + RingFull + NoInterrupt + InterruptsFull + ScratchMissing`. For faults and
/// reclaims `Attempted` is of stacks, and the numbers themselves are in the map of processes.
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
    /// A switch or wake-up was not accounted for: the table of threads was full.
    SchedTableFull = 10,
    /// A thread ran that no wake-up had been seen of; the time since it slept counts as blocked.
    SchedWakeUpMissed = 11,
    /// The times of a thread that ended were lost: the ring buffer was full.
    SchedThreadLost = 12,
    /// A wait was chosen for its stack.
    WaitAttempted = 13,
    /// Its stack is in the ring buffer.
    WaitCaptured = 14,
    /// Its stack was lost: the ring buffer was full.
    WaitRingFull = 15,
    /// Its stack was lost: the interrupt that was to take it came too late or not at all.
    WaitNoInterrupt = 16,
    /// Its stack was lost: no interrupt could be asked for.
    WaitInterruptsFull = 17,
    /// Its stack was lost: the CPU's scratch space was not there. Cannot happen; counted so that it shows.
    WaitScratchMissing = 18,
    /// A wake-up was chosen for the waker's stack.
    WakeAttempted = 19,
    /// The waker's stack is in the ring buffer.
    WakeCaptured = 20,
    /// The waker's stack was lost: the ring buffer was full.
    WakeRingFull = 21,
    /// The waker's stack was lost, as for waits.
    WakeScratchMissing = 22,
    /// A thread left the CPU without an event; what it did not run since it had come counts as blocked.
    SchedLeaveMissed = 23,
    /// A thread came to a CPU without an event; it counts as there since the CPU's last switch that was seen.
    SchedArrivalMissed = 24,
    /// A retransmit or reset of a TCP connection was lost: the ring buffer was full.
    TcpRingFull = 25,
    /// A retransmit or reset was of a connection outside the target.
    TcpOutsideTarget = 26,
    /// A connection has no owner and no stack: the table of sockets was full.
    TcpSocketsFull = 27,
    /// The stack that opened a connection or sent on it was lost: the ring buffer was full, or there was no scratch space.
    TcpStackLost = 28,
    /// Queued time is not told by who ran meanwhile: the table of pairs of processes was full.
    QueuePairsFull = 29,
    /// The stack of a page fault was to be taken.
    FaultAttempted = 30,
    /// It is in the ring buffer.
    FaultCaptured = 31,
    /// It was lost: the ring buffer was full.
    FaultRingFull = 32,
    /// It was lost, as for the on-CPU source.
    FaultScratchMissing = 33,
    /// The stack of a direct reclaim was to be taken.
    ReclaimAttempted = 34,
    /// It is in the ring buffer.
    ReclaimCaptured = 35,
    /// It was lost, with the reclaim's length: the ring buffer was full.
    ReclaimStackRingFull = 36,
    /// It was lost, as for the on-CPU source.
    ReclaimScratchMissing = 37,
    /// The length of a reclaim without a stack was lost: the ring buffer was full.
    ReclaimRingFull = 38,
    /// A reclaim was not seen: too many threads reclaimed at a time.
    ReclaimTableFull = 39,
    /// A fault, reclaim or compaction was not accounted for: the table of processes was full.
    MemoryProcessesFull = 40,
    /// The kernel's own reclaim has begun.
    KswapdRuns = 41,
    /// A kill for want of memory is not told: the ring buffer was full.
    KillLost = 42,
    /// A request of a block device was not followed: the table of requests was full.
    BlockRequestsFull = 43,
    /// A request was summed without its process and group: the table of sums was full.
    BlockOwnersFull = 44,
    /// A request was not summed at all: the table of devices was full, too.
    BlockDevicesFull = 45,
    /// A request, or a part of one, completed whose beginning was not seen; it is counted without its times.
    BlockBeganUnseen = 46,
    /// A request's completion was not seen: its place was taken by another one. It is counted without its times.
    BlockEndedUnseen = 47,
    /// A bio that may have been held back was not followed: the table of held bios was full.
    BlockHeldFull = 48,
    /// A bio that was held back was not summed: the table was full.
    BlockHoldsFull = 49,
    /// A call that failed for want of something limited is not told: the table of calls was full.
    FailedCallsFull = 50,
}

impl Counter {
    /// Number of counters, the size of the map.
    pub const COUNT: u32 = 51;
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
        Self::SchedTableFull,
        Self::SchedWakeUpMissed,
        Self::SchedThreadLost,
        Self::WaitAttempted,
        Self::WaitCaptured,
        Self::WaitRingFull,
        Self::WaitNoInterrupt,
        Self::WaitInterruptsFull,
        Self::WaitScratchMissing,
        Self::WakeAttempted,
        Self::WakeCaptured,
        Self::WakeRingFull,
        Self::WakeScratchMissing,
        Self::SchedLeaveMissed,
        Self::SchedArrivalMissed,
        Self::TcpRingFull,
        Self::TcpOutsideTarget,
        Self::TcpSocketsFull,
        Self::TcpStackLost,
        Self::QueuePairsFull,
        Self::FaultAttempted,
        Self::FaultCaptured,
        Self::FaultRingFull,
        Self::FaultScratchMissing,
        Self::ReclaimAttempted,
        Self::ReclaimCaptured,
        Self::ReclaimStackRingFull,
        Self::ReclaimScratchMissing,
        Self::ReclaimRingFull,
        Self::ReclaimTableFull,
        Self::MemoryProcessesFull,
        Self::KswapdRuns,
        Self::KillLost,
        Self::BlockRequestsFull,
        Self::BlockOwnersFull,
        Self::BlockDevicesFull,
        Self::BlockBeganUnseen,
        Self::BlockEndedUnseen,
        Self::BlockHeldFull,
        Self::BlockHoldsFull,
        Self::FailedCallsFull,
    ];
}
