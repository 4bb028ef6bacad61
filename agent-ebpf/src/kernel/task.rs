//! Fields of the kernel's `task_struct`, read at the offsets the agent found in BTF.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, bpf_probe_read_kernel},
};
use chokepoint_ebpf::COMM_LEN;

use super::config::{
    TASK_COMM, TASK_GROUP_LEADER, TASK_MM, TASK_SELF_EXEC_ID, TASK_START_BOOTTIME, TASK_TGID,
};

/// Address of a kernel structure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KernelPointer(u64);

impl KernelPointer {
    /// A pointer that came from the kernel.
    #[inline(always)]
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The field `offset` bytes into the structure; `None` where that memory cannot be read.
    #[inline(always)]
    pub fn read<T>(self, offset: u64) -> Option<T> {
        // SAFETY: bpf_probe_read_kernel checks the address and fails instead of faulting.
        unsafe { bpf_probe_read_kernel((self.0 + offset) as *const T) }.ok()
    }

    /// The field at the offset that a global holds.
    #[inline(always)]
    pub fn field<T>(self, offset: &Global<u32>) -> Option<T> {
        self.read(u64::from(offset.load()))
    }

    /// The pointer at the offset that a global holds; `None` where it is null or cannot be read.
    #[inline(always)]
    pub fn follow(self, offset: &Global<u32>) -> Option<Self> {
        self.field::<u64>(offset).filter(|address| *address != 0).map(Self)
    }

    /// The structure that begins `offset` bytes into this one.
    #[inline(always)]
    pub fn embedded(self, offset: &Global<u32>) -> Self {
        Self(self.0 + u64::from(offset.load()))
    }
}

/// The thread that runs on this CPU.
#[inline(always)]
pub fn current() -> KernelPointer {
    // SAFETY: the helper has no preconditions.
    KernelPointer(unsafe { bpf_get_current_task() })
}

/// The first thread of `task`'s process.
#[inline(always)]
pub fn group_leader(task: KernelPointer) -> Option<KernelPointer> {
    task.follow(&TASK_GROUP_LEADER)
}

/// Name of a thread; all zeros where it cannot be read.
#[inline(always)]
pub fn comm(task: KernelPointer) -> [u8; COMM_LEN] {
    task.field(&TASK_COMM).unwrap_or_default()
}

/// Process id in the initial PID namespace.
#[inline(always)]
pub fn tgid(task: KernelPointer) -> Option<u32> {
    task.field(&TASK_TGID)
}

/// Whether the thread has an address space of its own; kernel threads have none.
#[inline(always)]
pub fn has_address_space(task: KernelPointer) -> bool {
    task.follow(&TASK_MM).is_some()
}

/// When the process of this first thread started, `CLOCK_BOOTTIME` nanoseconds; 0 where it cannot be read.
#[inline(always)]
pub fn start_ns(leader: KernelPointer) -> u64 {
    leader.field(&TASK_START_BOOTTIME).unwrap_or_default()
}

/// How many programs the process of this first thread has run, modulo 2^32.
#[inline(always)]
pub fn exec_id(leader: KernelPointer) -> u32 {
    // The field grew from 32 to 64 bits in 5.7; its low half is at the same place on little-endian machines.
    leader.field(&TASK_SELF_EXEC_ID).unwrap_or_default()
}
