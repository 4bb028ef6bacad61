//! What can limit a system: the closed set of answers that a verdict has.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::activity::Class;

/// A constraint, or the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// One thread uses one CPU in full, and others wait for it or are not there.
    CpuSingleThread,
    /// More threads of the target want CPUs than there are.
    CpuSaturated,
    /// Threads of the target queue behind those of others.
    CpuNoisyNeighbour,
    /// A control group's CPU quota is used up.
    CpuQuota,
    /// The hypervisor, or interrupts, take the CPUs.
    CpuSteal,
    /// Most CPU time goes into the kernel, for system calls.
    CpuKernel,
    /// CPU time goes into starting and ending processes.
    ProcChurn,
    /// Reads from a device.
    IoRead,
    /// Writes to a device.
    IoWrite,
    /// Waiting until data is safe on a device.
    IoSyncWrite,
    /// A control group's limit on a device.
    IoThrottle,
    /// Too much that was written is not on its device yet.
    IoDirtyThrottle,
    /// Memory is reclaimed, or read again after it was.
    MemReclaim,
    /// Memory is swapped in and out.
    MemSwap,
    /// CPU time goes into page faults that find their page in memory.
    MemFault,
    /// CPU time goes into a runtime's collector of garbage, or threads wait for it.
    MemGc,
    /// A lock of the program.
    LockMutex,
    /// A lock of a runtime that lets one thread run at a time.
    LockRuntime,
    /// A monitor of a Java program.
    LockMonitor,
    /// A lock that is waited for on the CPU.
    LockSpin,
    /// A lock inside the kernel.
    LockKernel,
    /// A lock on a file.
    LockFile,
    /// A lock that processes of one program, such as a database's, have among themselves.
    LockDb,
    /// A number of threads that is too small.
    PoolThreads,
    /// A number of connections that is too small.
    PoolConnections,
    /// A service that is waited for.
    NetDownstream,
    /// Packets that are lost.
    NetLoss,
    /// Connections that are tried again and again.
    NetRetryStorm,
    /// A queue of connections to be accepted that is full.
    NetListenOverflow,
    /// The limit of open files.
    LimitFd,
    /// The limit of processes and threads.
    LimitPids,
    /// Another process that is waited for through a pipe, a queue or a semaphore.
    WaitIpc,
    /// Pauses of the program's own.
    WaitTimer,
    /// A child process that is waited for.
    WaitChild,
    /// There is next to nothing to do.
    NoneIdle,
    /// There is work, and nothing limits it.
    NoneHealthy,
    /// Nothing stands out, or not enough is known.
    Unknown,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 37] = [
        Self::CpuSingleThread,
        Self::CpuSaturated,
        Self::CpuNoisyNeighbour,
        Self::CpuQuota,
        Self::CpuSteal,
        Self::CpuKernel,
        Self::ProcChurn,
        Self::IoRead,
        Self::IoWrite,
        Self::IoSyncWrite,
        Self::IoThrottle,
        Self::IoDirtyThrottle,
        Self::MemReclaim,
        Self::MemSwap,
        Self::MemFault,
        Self::MemGc,
        Self::LockMutex,
        Self::LockRuntime,
        Self::LockMonitor,
        Self::LockSpin,
        Self::LockKernel,
        Self::LockFile,
        Self::LockDb,
        Self::PoolThreads,
        Self::PoolConnections,
        Self::NetDownstream,
        Self::NetLoss,
        Self::NetRetryStorm,
        Self::NetListenOverflow,
        Self::LimitFd,
        Self::LimitPids,
        Self::WaitIpc,
        Self::WaitTimer,
        Self::WaitChild,
        Self::NoneIdle,
        Self::NoneHealthy,
        Self::Unknown,
    ];

    /// The name that users and machines know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuSingleThread => "cpu.single-thread",
            Self::CpuSaturated => "cpu.saturated",
            Self::CpuNoisyNeighbour => "cpu.noisy-neighbour",
            Self::CpuQuota => "cpu.quota",
            Self::CpuSteal => "cpu.steal",
            Self::CpuKernel => "cpu.kernel",
            Self::ProcChurn => "proc.churn",
            Self::IoRead => "io.read",
            Self::IoWrite => "io.write",
            Self::IoSyncWrite => "io.sync-write",
            Self::IoThrottle => "io.throttle",
            Self::IoDirtyThrottle => "io.dirty-throttle",
            Self::MemReclaim => "mem.reclaim",
            Self::MemSwap => "mem.swap",
            Self::MemFault => "mem.fault",
            Self::MemGc => "mem.gc",
            Self::LockMutex => "lock.mutex",
            Self::LockRuntime => "lock.runtime",
            Self::LockMonitor => "lock.monitor",
            Self::LockSpin => "lock.spin",
            Self::LockKernel => "lock.kernel",
            Self::LockFile => "lock.file",
            Self::LockDb => "lock.db",
            Self::PoolThreads => "pool.threads",
            Self::PoolConnections => "pool.connections",
            Self::NetDownstream => "net.downstream",
            Self::NetLoss => "net.loss",
            Self::NetRetryStorm => "net.retry-storm",
            Self::NetListenOverflow => "net.listen-overflow",
            Self::LimitFd => "limit.fd",
            Self::LimitPids => "limit.pids",
            Self::WaitIpc => "wait.ipc",
            Self::WaitTimer => "wait.timer",
            Self::WaitChild => "wait.child",
            Self::NoneIdle => "none.idle",
            Self::NoneHealthy => "none.healthy",
            Self::Unknown => "unknown",
        }
    }

    /// The code of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Which of two that weigh about the same comes first: limits before devices before locks, since a limit is the cheapest to
    /// test.
    #[must_use]
    pub const fn precedence(self) -> u8 {
        match self {
            Self::CpuQuota | Self::IoThrottle | Self::LimitFd | Self::LimitPids | Self::NetListenOverflow => {
                0
            }
            Self::IoRead
            | Self::IoWrite
            | Self::IoSyncWrite
            | Self::IoDirtyThrottle
            | Self::MemReclaim
            | Self::MemSwap => 1,
            _ => 2,
        }
    }

    /// Whether it says why the other is so: what CPU time is for says more than that there is none left, a pool's size more than what
    /// its members wait for, a limit more than what is done over and over since it is met.
    #[must_use]
    pub const fn explains(self, other: Self) -> bool {
        match self {
            Self::MemFault
            | Self::MemGc
            | Self::CpuKernel
            | Self::LockSpin
            | Self::LockKernel
            | Self::ProcChurn
            | Self::NetRetryStorm => {
                matches!(other, Self::CpuSingleThread | Self::CpuSaturated)
            }
            Self::PoolThreads | Self::PoolConnections | Self::NetLoss => matches!(other, Self::NetDownstream),
            Self::LimitPids | Self::LimitFd => {
                matches!(other, Self::ProcChurn | Self::CpuKernel | Self::CpuSingleThread | Self::WaitChild)
            }
            _ => false,
        }
    }

    /// The classes of thread time in which it shows: what a flame graph of it is of. None where it takes no time.
    #[must_use]
    pub const fn shows_in(self) -> &'static [Class] {
        use Class::{
            Child, CpuKernel, CpuStolen, CpuUser, Event, Futex, IoDirtyThrottled, IoRead, IoSync, IoWrite,
            Ipc, LockFile, LockKernel, MemoryReclaim, NetAccept, NetConnect, NetReceive, NetSend, RunQueue,
            Throttled, Timer,
        };
        match self {
            Self::CpuSingleThread | Self::MemFault | Self::LockSpin => &[CpuUser, CpuKernel],
            Self::CpuSaturated | Self::CpuNoisyNeighbour => &[CpuUser, CpuKernel, RunQueue],
            Self::CpuQuota => &[CpuUser, CpuKernel, Throttled],
            Self::CpuSteal => &[CpuUser, CpuKernel, CpuStolen],
            Self::CpuKernel => &[CpuKernel],
            Self::ProcChurn => &[CpuUser, CpuKernel, Child],
            Self::IoRead => &[IoRead],
            Self::IoWrite => &[IoWrite],
            Self::IoSyncWrite => &[IoSync],
            Self::IoThrottle => &[IoRead, IoWrite, IoSync],
            Self::IoDirtyThrottle => &[IoDirtyThrottled],
            Self::MemReclaim | Self::MemSwap => &[MemoryReclaim, IoRead],
            Self::MemGc => &[CpuUser, CpuKernel, Futex],
            Self::LockMutex | Self::LockRuntime | Self::LockMonitor => &[Futex],
            Self::LockKernel => &[LockKernel],
            Self::LockFile => &[LockFile],
            Self::LockDb => &[Event, Futex, Ipc],
            Self::PoolThreads | Self::PoolConnections => &[Futex, NetReceive, Event],
            Self::NetDownstream | Self::NetLoss => &[NetSend, NetReceive, NetConnect, Event],
            Self::NetRetryStorm => &[CpuUser, CpuKernel, NetReceive, NetConnect, Event],
            Self::NetListenOverflow => &[NetAccept, Event],
            Self::WaitIpc => &[Ipc],
            Self::WaitTimer => &[Timer],
            Self::WaitChild => &[Child],
            Self::LimitFd | Self::LimitPids | Self::NoneIdle | Self::NoneHealthy | Self::Unknown => &[],
        }
    }

    /// Whether threads wait for others in it, so that what ended their waits explains it.
    #[must_use]
    pub const fn is_wait(self) -> bool {
        matches!(
            self,
            Self::LockMutex
                | Self::LockRuntime
                | Self::LockMonitor
                | Self::LockSpin
                | Self::LockKernel
                | Self::LockFile
                | Self::LockDb
                | Self::PoolThreads
                | Self::PoolConnections
                | Self::NetDownstream
                | Self::NetLoss
                | Self::WaitIpc
                | Self::WaitTimer
                | Self::WaitChild
        )
    }

    /// Whether it is found by a counter, not by the time that it takes.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::LimitFd | Self::LimitPids | Self::NetListenOverflow | Self::NetRetryStorm)
    }

    /// Whether it names a constraint.
    #[must_use]
    pub const fn is_constraint(self) -> bool {
        !matches!(self, Self::NoneIdle | Self::NoneHealthy | Self::Unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
