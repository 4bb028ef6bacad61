//! What processes did with memory, and what that did to them.

/// The memory of a host in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Processes that had page faults, or were made to reclaim or compact memory.
    pub processes: Vec<ProcessMemory>,
    /// Processes that were killed for want of memory, in the order of time.
    pub kills: Vec<Kill>,
    /// How often the kernel's own reclaim began, of the whole host.
    pub kswapd_runs: u64,
}

/// A control group by which memory is limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Inode number of its directory; 0 where it is not known.
    pub id: u64,
    /// Its path below the hierarchy's mount, `/` for the root; empty where it could not be found.
    pub path: String,
}

/// One process in a window. The numbers are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub process_name: String,
    /// Its group.
    pub group: Group,
    /// Page faults that found their page in memory, or got a new one.
    pub minor_faults: u64,
    /// Page faults that had to read theirs from a device.
    pub major_faults: u64,
    /// Time that its threads were blocked within faults, nanoseconds; `None` where waits were not recorded.
    pub fault_wait_ns: Option<u64>,
    /// What it was made to reclaim.
    pub reclaim: Reclaim,
    /// How often it was made to compact memory.
    pub compactions: u64,
}

/// Direct reclaim: memory that a thread must free before it gets some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaim {
    /// How often.
    pub count: u64,
    /// Time it took, waits included, nanoseconds.
    pub total_ns: u64,
    /// Pages that it gave.
    pub pages: u64,
    /// Half of them did not take longer, nanoseconds. These are at most 3 % too long.
    pub p50_ns: u64,
    /// 95 % of them did not.
    pub p95_ns: u64,
    /// 99 % of them did not.
    pub p99_ns: u64,
    /// The longest took so much.
    pub max_ns: u64,
}

/// A process that the kernel killed since memory had run out, in the host or in its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kill {
    /// Since the start of the window, nanoseconds.
    pub offset_ns: u64,
    /// Process id.
    pub pid: u32,
    /// Name of the process; empty where it could not be had.
    pub process_name: String,
    /// Its group.
    pub group: Group,
    /// Its address space, bytes; this and the next are `None` where the kernel does not tell.
    pub total_bytes: Option<u64>,
    /// Memory that it had of no file.
    pub anonymous_bytes: Option<u64>,
    /// Memory that it had of files.
    pub file_bytes: Option<u64>,
    /// Memory of no file that it shared.
    pub shared_bytes: Option<u64>,
    /// Process that asked for memory in vain: often the victim itself.
    pub by_pid: u32,
    /// Its name.
    pub by_name: String,
}
