//! Read-only globals, set by the agent before the programs are loaded. The verifier knows their values and removes the
//! branches they rule out. Offsets are in bytes and come from the running kernel's own BTF.

use aya_ebpf::Global;
use chokepoint_ebpf::COMM_LEN;

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: Global<$type> = Global::new($value);)*
    };
}

globals! {
    /// A [`chokepoint_ebpf::gate::Rule`].
    GATE_RULE: u32 = 0;
    /// Target group's id, for the cgroup rule.
    GATE_CGROUP_ID: u64 = 0;
    /// Index in `css_set.subsys` of the version 1 controller that owns the target group, or `CGROUP_V2`.
    GATE_CGROUP_CONTROLLER: u32 = 0;
    /// Name to match, zero-padded, for the comm rule.
    GATE_COMM: [u8; COMM_LEN] = [0; COMM_LEN];
    /// 1 to keep user stacks.
    WANT_USER: u8 = 1;
    /// 1 to keep kernel stacks.
    WANT_KERNEL: u8 = 1;
    /// What one tick of the on-CPU source stands for, nanoseconds.
    ON_CPU_PERIOD_NS: u64 = 0;
    /// Kernel frames at which `bpf_get_stack` stops on this host.
    DEPTH_LIMIT: u32 = 0;
    /// CPUs that the kernel may have.
    CPUS: u32 = 1;
    /// 1 where the kernel keeps mappings in a maple tree (6.1), 0 where in a red-black tree.
    HAS_MAPLE_TREE: u8 = 0;
    /// 1 where the helper `bpf_task_pt_regs` is there (5.15).
    HAS_TASK_PT_REGS: u8 = 0;
    /// Bytes waiting in the ring buffer at which the agent is woken before its timer.
    WAKE_AT_BYTES: u64 = 0;

    /// Index in `css_set.subsys` of the controller of CPUs where it is a version 1 one, or `CGROUP_V2`.
    CPU_CONTROLLER: u32 = u32::MAX;
    /// 1 to take stacks of waits.
    WANT_WAITS: u8 = 0;
    /// A `run_queue::QueueDetail`.
    RUN_QUEUE_DETAIL: u8 = 0;

    TASK_GROUP_LEADER: u32 = 0;
    TASK_COMM: u32 = 0;
    TASK_TGID: u32 = 0;
    TASK_PID: u32 = 0;
    TASK_STATE: u32 = 0;
    TASK_ON_CPU: u32 = 0;
    TASK_CPU: u32 = 0;
    TASK_ON_RQ: u32 = 0;
    /// `u32::MAX` where the kernel takes threads that sleep off their queue at once.
    TASK_DELAYED: u32 = u32::MAX;
    /// Time that the thread has really run, nanoseconds.
    TASK_RAN: u32 = 0;
    TASK_UTIME: u32 = 0;
    TASK_STIME: u32 = 0;
    /// Offset of the byte that has the bit field, and the bit in it.
    TASK_IOWAIT: u32 = 0;
    TASK_IOWAIT_MASK: u8 = 0;
    /// `u32::MAX` where the kernel has no such field.
    TASK_THROTTLED: u32 = u32::MAX;
    /// The queue of its group's threads on its CPU. `u32::MAX` where threads tell themselves whether they are held back, or where
    /// the kernel has no quotas.
    TASK_CFS_RQ: u32 = u32::MAX;
    TASK_PRIO: u32 = 0;
    CFS_RQ_RQ: u32 = 0;
    /// How many groups hold the queue back: its own and those above.
    CFS_RQ_AWAY: u32 = 0;
    /// Since when, by the clock below.
    CFS_RQ_AWAY_SINCE: u32 = 0;
    /// How long, all in all, but for the time since then.
    CFS_RQ_AWAY_NS: u32 = 0;
    RQ_CLOCK: u32 = 0;
    /// What that clock is ahead by; `u32::MAX` for nothing.
    RQ_LOST_IDLE: u32 = u32::MAX;
    TASK_MM: u32 = 0;
    TASK_START_BOOTTIME: u32 = 0;
    TASK_SELF_EXEC_ID: u32 = 0;
    TASK_STACK: u32 = 0;
    TASK_CGROUPS: u32 = 0;
    CSS_SET_SUBSYS: u32 = 0;
    CSS_SET_DFL_CGRP: u32 = 0;
    CSS_CGROUP: u32 = 0;
    CSS_PARENT: u32 = 0;
    CGROUP_SELF: u32 = 0;
    CGROUP_KN: u32 = 0;
    KERNFS_NODE_ID: u32 = 0;
    MM_MAPLE_ROOT: u32 = 0;
    MM_RB_ROOT: u32 = 0;
    MM_VDSO: u32 = 0;
    /// Counts changes of a process's mappings (6.4); 0 where the kernel does not.
    MM_LOCK_SEQ: u32 = 0;
    MM_EXE_FILE: u32 = 0;
    MAPLE_LEAF_PIVOTS: u32 = 0;
    MAPLE_LEAF_SLOTS: u32 = 0;
    MAPLE_INNER_PIVOTS: u32 = 0;
    MAPLE_INNER_SLOTS: u32 = 0;
    VMA_START: u32 = 0;
    VMA_END: u32 = 0;
    VMA_FLAGS: u32 = 0;
    VMA_PGOFF: u32 = 0;
    VMA_FILE: u32 = 0;
    VMA_RB: u32 = 0;
    FILE_INODE: u32 = 0;
    FILE_DENTRY: u32 = 0;
    FILE_MOUNT: u32 = 0;
    MOUNT_ROOT: u32 = 0;
    MOUNT_VFS: u32 = 0;
    MOUNT_PARENT: u32 = 0;
    MOUNT_POINT: u32 = 0;
    DENTRY_PARENT: u32 = 0;
    DENTRY_NAME: u32 = 0;
    INODE_NUMBER: u32 = 0;
    INODE_SIZE: u32 = 0;
    INODE_GENERATION: u32 = 0;
    INODE_SUPER: u32 = 0;
    SUPER_DEVICE: u32 = 0;
    SUPER_FLAGS: u32 = 0;
    /// 1 where `tcp_retransmit_skb` tells whether the segment could be sent (6.16).
    HAS_RETRANSMIT_RESULT: u8 = 0;
    SOCK_FAMILY: u32 = 0;
    SOCK_STATE: u32 = 0;
    SOCK_LOCAL_PORT: u32 = 0;
    SOCK_REMOTE_PORT: u32 = 0;
    SOCK_LOCAL_4: u32 = 0;
    SOCK_REMOTE_4: u32 = 0;
    SOCK_LOCAL_6: u32 = 0;
    SOCK_REMOTE_6: u32 = 0;
    SOCK_NET: u32 = 0;
    SOCK_PROTOCOL: u32 = 0;
    SOCK_SOCKET: u32 = 0;
    SOCKET_INODE: u32 = 0;
    NET_INUM: u32 = 0;
    SKB_CB: u32 = 0;
    SKB_HEAD: u32 = 0;
    SKB_NETWORK: u32 = 0;
    SKB_TRANSPORT: u32 = 0;
    TCP_CB_SEGMENTS: u32 = 0;
    TCP_CB_FLAGS: u32 = 0;
    /// 1 to take the stack of who opens a socket.
    WANT_OPENERS: u8 = 1;
    TCP_TOTAL_RETRANS: u32 = 0;
    TCP_SRTT: u32 = 0;
    TCP_CWND: u32 = 0;
    TCP_BYTES_SENT: u32 = 0;
    TCP_CHRONO_STAT: u32 = 0;
    TCP_CHRONO_START: u32 = 0;
    /// Offset of the byte whose low two bits it is.
    TCP_CHRONO_TYPE: u32 = 0;
    /// Index in `css_set.subsys` of the memory controller; `u32::MAX` where the kernel has none.
    MEMORY_CONTROLLER: u32 = u32::MAX;
    /// Minor faults to one that the program sees; 0 where it sees and counts each.
    FAULT_PERIOD: u64 = 0;
    /// 1 to take stacks of reclaims.
    WANT_RECLAIMS: u8 = 0;
    /// 1 where `mark_victim` tells the task (6.8), 0 where its thread id.
    HAS_VICTIM_TASK: u8 = 0;
    MM_TOTAL_PAGES: u32 = 0;
    MM_RSS_STAT: u32 = 0;
    /// Size of one of the counters there, and where in it the count is.
    RSS_COUNTER_BYTES: u32 = 8;
    RSS_COUNT: u32 = 0;
    /// 1 where tracepoints of block devices have the queue as their first argument (before 5.11).
    HAS_QUEUE_ARGUMENT: u8 = 0;
    /// 1 to sum requests by device and operation alone.
    BLOCK_DEVICES_ONLY: u8 = 0;
    /// 1 where the target is a group of the hierarchy that requests are charged in.
    BLOCK_GATE_BY_GROUP: u8 = 0;
    REQUEST_QUEUE: u32 = 0;
    REQUEST_FLAGS: u32 = 0;
    REQUEST_BYTES: u32 = 0;
    REQUEST_SECTOR: u32 = 0;
    REQUEST_BIO: u32 = 0;
    REQUEST_PARTITION: u32 = 0;
    REQUEST_START: u32 = 0;
    /// 1 where the queue knows its disk (5.15), 0 where the request does.
    HAS_QUEUE_DISK: u8 = 0;
    QUEUE_DISK: u32 = 0;
    REQUEST_DISK: u32 = 0;
    DISK_MAJOR: u32 = 0;
    DISK_FIRST_MINOR: u32 = 0;
    PARTITION_DEVICE: u32 = 0;
    /// 1 where a bio knows its block device (5.12), 0 where its disk.
    HAS_BIO_DEVICE: u8 = 0;
    BIO_DEVICE: u32 = 0;
    DEVICE_DISK: u32 = 0;
    DEVICE_NUMBER: u32 = 0;
    BIO_DISK: u32 = 0;
    BIO_FLAGS: u32 = 0;
    BIO_BYTES: u32 = 0;
    BIO_SECTOR: u32 = 0;
    /// 1 where bios are charged to groups.
    HAS_BIO_GROUP: u8 = 0;
    BIO_GROUP: u32 = 0;
    GROUP_BLKCG: u32 = 0;
    BLKCG_CGROUP: u32 = 0;
}
