//! What the kernel says of the host's resources at one moment: counters since boot and gauges, as read.
//!
//! Nothing here is derived. What could not be read is absent: an `Option`, or an entry that is missing from a list.

use std::collections::BTreeMap;

/// Everything that was read at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When, by the monotonic clock, nanoseconds.
    pub time_ns: u64,
    /// CPUs and their queue.
    pub cpu: Option<Cpu>,
    /// Pressure of the host.
    pub pressure: Pressure,
    /// `/proc/meminfo`, bytes by name.
    pub memory: BTreeMap<String, u64>,
    /// `/proc/vmstat`, counters by name.
    pub vm: BTreeMap<String, u64>,
    /// Whole block devices, by name.
    pub disks: BTreeMap<String, Disk>,
    /// Local file systems, by where they are mounted.
    pub filesystems: BTreeMap<String, FileSystem>,
    /// Network interfaces, by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// `/proc/net/snmp` and `/proc/net/netstat`, counters by `Protocol.Name`.
    pub protocols: BTreeMap<String, u64>,
    /// Sockets and their limits.
    pub sockets: Sockets,
    /// Packets that CPUs gave up on before any protocol saw them.
    pub backlog: Option<Backlog>,
    /// Uses of limited tables, with their limits.
    pub limits: Limits,
    /// Control groups, by path below their hierarchy's root.
    pub groups: BTreeMap<String, Group>,
    /// What could not be read, in words.
    pub missing: Vec<String>,
}

/// What `/proc/stat` and `/proc/loadavg` say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Time of all CPUs together.
    pub all: CpuTimes,
    /// Time of each CPU that is online, by number.
    pub each: BTreeMap<u32, CpuTimes>,
    /// Threads that run or could run, at this moment.
    pub runnable: u64,
    /// Switches from thread to thread.
    pub context_switches: u64,
    /// Processes and threads that were started.
    pub forks: u64,
    /// Load average of one minute.
    pub load_1m: f64,
}

/// Times of a CPU, in ticks of `USER_HZ`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In user code, with and without lowered priority; guests included.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// In interrupts, hard and soft.
    pub interrupts: u64,
    /// Idle while a thread waited for a device.
    pub iowait: u64,
    /// Idle.
    pub idle: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
}

impl CpuTimes {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.user + self.system + self.interrupts + self.iowait + self.idle + self.steal
    }

    /// That in which the CPU executed something.
    #[must_use]
    pub const fn busy(&self) -> u64 {
        self.user + self.system + self.interrupts
    }
}

/// Time in which some or all threads that had work stalled for a resource (PSI), microseconds since boot. `None` where the
/// kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some waited for a CPU.
    pub cpu_some: Option<u64>,
    /// All waited for a CPU; of a group: it was held back by its quota.
    pub cpu_full: Option<u64>,
    /// Some waited for memory.
    pub memory_some: Option<u64>,
    /// All waited for memory.
    pub memory_full: Option<u64>,
    /// Some waited for devices.
    pub io_some: Option<u64>,
    /// All waited for devices.
    pub io_full: Option<u64>,
}

/// Counters of a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Reads completed.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Time reads took, all added up, milliseconds.
    pub read_ms: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Time writes took, all added up, milliseconds.
    pub write_ms: u64,
    /// Time in which the device had something to do, milliseconds.
    pub busy_ms: u64,
    /// Time all requests took, those under way included, milliseconds.
    pub weighted_ms: u64,
}

/// Room of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes that files may take, those only root may take left out.
    pub bytes: u64,
    /// Of those, bytes that are free.
    pub free_bytes: u64,
    /// Files that it may hold; 0 where that is not limited.
    pub files: u64,
    /// Of those, how many more it may hold.
    pub free_files: u64,
    /// Errors that it has recorded since it was checked last.
    pub errors: Option<u64>,
}

/// Counters of a network interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets that were damaged, in either direction.
    pub errors: u64,
    /// Packets dropped, in either direction.
    pub drops: u64,
    /// What the link carries, bits a second; `None` where it has no speed of its own.
    pub speed_bits_per_s: Option<u64>,
}

/// Use of sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Pages of memory that TCP holds.
    pub tcp_pages: Option<u64>,
    /// Pages above which TCP refuses memory.
    pub tcp_pages_max: Option<u64>,
    /// TCP sockets that belong to no process any more.
    pub orphans: Option<u64>,
    /// Orphans above which connections are cut off.
    pub orphans_max: Option<u64>,
    /// TCP sockets in the state TIME-WAIT.
    pub time_wait: Option<u64>,
    /// Ports from which connections may be opened.
    pub ephemeral_ports: Option<u64>,
    /// Most of those in use towards one remote address and port.
    pub ephemeral_ports_used: Option<u64>,
    /// Connections in the kernel's tracking table.
    pub conntrack: Option<u64>,
    /// Room in that table.
    pub conntrack_max: Option<u64>,
}

/// What `/proc/net/softnet_stat` says of all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Packets dropped: a CPU's queue was full.
    pub dropped: u64,
    /// Times a CPU stopped with packets left, its time or budget used up.
    pub squeezed: u64,
}

/// Uses of limited tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files of the host.
    pub files: Option<Use>,
    /// Threads of the host.
    pub threads: Option<Use>,
    /// Open files of the processes that are nearest to their limit: name, process id, use.
    pub process_files: Vec<(String, u32, Use)>,
}

/// How much of something is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// How much is.
    pub used: u64,
    /// How much may be.
    pub max: u64,
}

/// What a control group's files say. `None` where its controller is not there or sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// CPU time its threads have had, microseconds.
    pub cpu_us: Option<u64>,
    /// CPU time that it may have in a second, microseconds.
    pub cpu_quota_us_per_s: Option<u64>,
    /// Periods in which it had something to run under its quota.
    pub periods: Option<u64>,
    /// Of those, periods in which the quota was used up.
    pub throttled_periods: Option<u64>,
    /// Time its queues were held back, all CPUs added up, microseconds.
    pub throttled_us: Option<u64>,
    /// Memory that cannot be freed at once: without the file cache that was not used lately. Bytes.
    pub memory_bytes: Option<u64>,
    /// Memory that it may have, bytes.
    pub memory_max_bytes: Option<u64>,
    /// Times that its memory was at the limit and had to be reclaimed.
    pub memory_limit_hits: Option<u64>,
    /// Processes killed for its lack of memory.
    pub oom_kills: Option<u64>,
    /// Pages of its files that were read again soon after they had been dropped.
    pub refaults: Option<u64>,
    /// Threads in it.
    pub threads: Option<u64>,
    /// Threads that it may have.
    pub threads_max: Option<u64>,
    /// Forks refused at that limit.
    pub fork_failures: Option<u64>,
    /// Its pressure.
    pub pressure: Pressure,
}
