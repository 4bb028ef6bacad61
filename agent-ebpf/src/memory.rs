//! Memory: page faults, direct reclaim, and processes that were killed for want of memory.

use crate::{COMM_LEN, sample::SampleHeader, sched::WaitFacts};

/// A kind of page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Fault {
    /// The page was in memory already, or is a new one.
    Minor = 1,
    /// It had to be read from a device.
    Major = 2,
}

impl Fault {
    /// The kind with this number; `None` for an unknown one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Minor),
            2 => Some(Self::Major),
            _ => None,
        }
    }
}

/// What ran out of memory, so that a thread was made to reclaim some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Scope {
    /// The host.
    Host = 1,
    /// The thread's group, by its limit.
    Group = 2,
}

impl Scope {
    /// The scope with this number; `None` for an unknown one.
    #[must_use]
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            1 => Some(Self::Host),
            2 => Some(Self::Group),
            _ => None,
        }
    }
}

/// Processes that are accounted for; what one of more does counts [`crate::counters::Counter::MemoryProcessesFull`]. 140 bytes
/// each, 4.5 MB.
pub const MAX_PROCESSES: u32 = 32_768;
/// Threads that reclaim at a time; one of more counts [`crate::counters::Counter::ReclaimTableFull`]. 80 bytes each.
pub const MAX_RECLAIMING: u32 = 8_192;

/// Names a process for good: the key of the map of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct ProcessKey {
    /// As in [`SampleHeader::process_start_ns`].
    pub start_ns: u64,
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
}

/// Everything that a process did, whether samples were taken of it or not: the value of the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessTotals {
    /// Minor faults.
    pub minor_faults: u64,
    /// Major faults.
    pub major_faults: u64,
    /// Times that its threads were made to reclaim memory, and had finished.
    pub reclaims: u64,
    /// Time that took, nanoseconds.
    pub reclaim_ns: u64,
    /// Pages that it gave.
    pub reclaimed_pages: u64,
    /// Times that its threads were made to compact memory.
    pub compactions: u64,
    /// Id of the memory controller's group that the process was in when it was seen first; 0 where it could not be read.
    pub cgroup_id: u64,
    /// Its name then, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// A page fault; a whole sample follows, whose `weight` is the number of faults that it stands for.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FaultFacts {
    /// [`crate::record::Kind::Fault`].
    pub kind: u32,
    /// A [`Fault`].
    pub fault: u32,
}

/// A direct reclaim that is over. Where its kind says so a whole sample follows, whose `weight` is the time that it stands for:
/// stacks are chosen as those of waits are, see [`WaitFacts`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ReclaimFacts {
    /// [`crate::record::Kind::Reclaim`] or [`crate::record::Kind::ReclaimStack`].
    pub kind: u32,
    /// A [`Scope`].
    pub scope: u32,
    /// Time it took, nanoseconds.
    pub length_ns: u64,
    /// Pages that it gave.
    pub pages: u64,
    /// The process.
    pub process: ProcessKey,
}

/// [`KillRecord`]'s pages where the kernel does not tell.
pub const UNKNOWN_PAGES: u64 = u64::MAX;

/// A process that is to be killed since memory ran out.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KillRecord {
    /// [`crate::record::Kind::Kill`].
    pub kind: u32,
    /// Process id of the victim in the initial PID namespace; 0 where the kernel tells its thread only (before 6.8).
    pub tgid: u32,
    /// The thread that the kernel marks.
    pub tid: u32,
    /// Process id of who asked for memory in vain.
    pub by_tgid: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Id of the victim's memory controller's group; 0 where it is not known.
    pub cgroup_id: u64,
    /// Pages of its address space.
    pub total_pages: u64,
    /// Pages of it in memory: of files,
    pub file_pages: u64,
    /// of no file,
    pub anonymous_pages: u64,
    /// and shared ones of no file.
    pub shared_pages: u64,
    /// Name of the victim, zero-terminated; empty where it is not known.
    pub comm: [u8; COMM_LEN],
    /// Name of who asked, zero-terminated.
    pub by_comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<ProcessKey>() == 16 && size_of::<ProcessTotals>() == 72, "no holes");
const _: () = assert!(size_of::<ReclaimFacts>() == 40 && size_of::<KillRecord>() == 96, "no holes");
const _: () = assert!(size_of::<ReclaimFacts>() <= size_of::<WaitFacts>(), "both lie before the same sample");
const _: () = assert!(size_of::<FaultFacts>().is_multiple_of(align_of::<SampleHeader>()));
