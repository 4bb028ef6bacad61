//! Fields of the kernel's `task_struct`, read at the offsets the agent found in BTF.

use core::hint::black_box;

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs, generated,
    },
};
use chokepoint_ebpf::{
    COMM_LEN,
    unwind::file::{FILE_PATH_LEN, PATH_COMPONENT_LEN},
};

use super::{
    arch,
    config::{
        CGROUP_KN, CSS_SET_DFL_CGRP, HAS_TASK_PT_REGS, KERNFS_NODE_ID, TASK_CGROUPS, TASK_COMM,
        TASK_GROUP_LEADER, TASK_MM, TASK_SELF_EXEC_ID, TASK_STACK, TASK_START_BOOTTIME, TASK_TGID,
    },
    trusted::Trusted,
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

    /// A pointer that was read as a number; `None` where it is null.
    #[inline(always)]
    pub fn from_field(address: u64) -> Option<Self> {
        (address != 0).then_some(Self(address))
    }

    /// The address itself.
    #[inline(always)]
    pub const fn address(self) -> u64 {
        self.0
    }

    /// Copies what it points to into memory that is already there. Whether that could be read.
    #[inline(always)]
    pub fn read_into<T>(self, target: &mut T) -> bool {
        // SAFETY: the target has room for a T; the helper checks the address.
        let result = unsafe {
            generated::bpf_probe_read_kernel(
                (&raw mut *target).cast(),
                size_of::<T>() as u32,
                self.0 as *const core::ffi::c_void,
            )
        };
        result == 0
    }

    /// Copies the zero-terminated string it points to into a path, from `start` on, cut to a component's length. The bytes
    /// written, the terminating zero included; 0 where it cannot be read or there is no room.
    #[inline(always)]
    pub fn read_component(self, path: &mut [u8; FILE_PATH_LEN], start: usize) -> usize {
        // The verifier is to see the bound, whatever the compiler knows.
        let start = black_box(start);
        if start > FILE_PATH_LEN - PATH_COMPONENT_LEN {
            return 0;
        }
        // SAFETY: a component's length from `start` on lies within the path; the helper checks the address.
        let length = unsafe {
            generated::bpf_probe_read_kernel_str(
                (&raw mut *path).cast::<u8>().add(start).cast(),
                PATH_COMPONENT_LEN as u32,
                self.0 as *const core::ffi::c_void,
            )
        };
        if length < 0 { 0 } else { length as usize }
    }

    /// The structure that this one is embedded in.
    #[inline(always)]
    pub fn container(self, offset: &Global<u32>) -> Self {
        Self(self.0.wrapping_sub(u64::from(offset.load())))
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

/// Copies the name of a thread; all zeros where it cannot be read.
#[inline(always)]
pub fn read_comm(task: KernelPointer, name: &mut [u8; COMM_LEN]) {
    // The kernel clears what it cannot fill.
    task.embedded(&TASK_COMM).read_into(name);
}

/// Process id in the initial PID namespace.
#[inline(always)]
pub fn tgid(task: KernelPointer) -> Option<u32> {
    task.field(&TASK_TGID)
}

/// The thread's address space, its `mm_struct`; kernel threads have none.
#[inline(always)]
pub fn address_space(task: KernelPointer) -> Option<KernelPointer> {
    task.follow(&TASK_MM)
}

/// Where the kernel keeps the user registers of the current thread while it is in the kernel.
#[inline(always)]
pub fn user_registers(task: KernelPointer) -> Option<KernelPointer> {
    if HAS_TASK_PT_REGS.load() != 0 {
        // SAFETY: the helpers have no preconditions but the type, which is right.
        let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) };
        KernelPointer::from_field(registers as u64)
    } else {
        registers_on_stack(task)
    }
}

/// The same of a thread that does not run.
#[inline(always)]
pub fn registers_of(task: Trusted) -> Option<KernelPointer> {
    if HAS_TASK_PT_REGS.load() != 0 {
        // SAFETY: the verifier knows the pointer's type.
        KernelPointer::from_field(unsafe { bpf_task_pt_regs(task.as_ptr()) } as u64)
    } else {
        registers_on_stack(task.untrusted())
    }
}

/// Kernels without the helper have stacks of this size, with the registers at the end.
#[inline(always)]
fn registers_on_stack(task: KernelPointer) -> Option<KernelPointer> {
    let stack: u64 = task.field(&TASK_STACK)?;
    KernelPointer::from_field(stack + arch::KERNEL_STACK_BYTES - size_of::<arch::UserRegisters>() as u64)
}

/// Id of the thread's group in the version 2 hierarchy; 0 where it cannot be read.
#[inline(always)]
pub fn cgroup_id(task: KernelPointer) -> u64 {
    task.follow(&TASK_CGROUPS)
        .and_then(|css_set| css_set.follow(&CSS_SET_DFL_CGRP)?.follow(&CGROUP_KN)?.field(&KERNFS_NODE_ID))
        .unwrap_or_default()
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
