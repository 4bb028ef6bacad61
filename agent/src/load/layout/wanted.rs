//! Which fields of kernel structures are wanted, and which kernels have them.

use super::super::quota;

/// A field whose offset a global of the kernel programs holds. A dot leads into a structure within the structure.
pub(super) struct Wanted {
    pub(super) global: &'static str,
    pub(super) structure: &'static str,
    pub(super) field: &'static str,
    pub(super) need: Need,
}

/// Which kernels have a field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Always,
    /// Those that keep mappings in a maple tree (6.1 and later).
    MapleTree,
    /// Those that keep them in a red-black tree.
    RedBlackTree,
    /// Some; there are other names for the same global, one of which is there.
    OneOf,
    /// Some; the others do without.
    IfThere,
}

const fn wanted(global: &'static str, structure: &'static str, field: &'static str) -> Wanted {
    Wanted { global, structure, field, need: Need::Always }
}

const fn wanted_with(
    need: Need,
    global: &'static str,
    structure: &'static str,
    field: &'static str,
) -> Wanted {
    Wanted { global, structure, field, need }
}

/// The fields, in the order in which they are looked for.
pub(super) const WANTED: &[Wanted] = &[
    wanted("TASK_GROUP_LEADER", "task_struct", "group_leader"),
    wanted("TASK_COMM", "task_struct", "comm"),
    wanted("TASK_TGID", "task_struct", "tgid"),
    wanted("TASK_PID", "task_struct", "pid"),
    wanted_with(Need::OneOf, "TASK_STATE", "task_struct", "__state"),
    wanted_with(Need::OneOf, "TASK_STATE", "task_struct", "state"),
    wanted("TASK_ON_CPU", "task_struct", "on_cpu"),
    wanted_with(Need::OneOf, "TASK_CPU", "task_struct", "thread_info.cpu"),
    wanted_with(Need::OneOf, "TASK_CPU", "task_struct", "cpu"),
    wanted("TASK_ON_RQ", "task_struct", "on_rq"),
    wanted_with(Need::IfThere, "TASK_DELAYED", "task_struct", "se.sched_delayed"),
    wanted("TASK_RAN", "task_struct", "se.sum_exec_runtime"),
    wanted("TASK_UTIME", "task_struct", "utime"),
    wanted("TASK_STIME", "task_struct", "stime"),
    wanted(IOWAIT, "task_struct", "in_iowait"),
    wanted_with(Need::IfThere, THROTTLED, "task_struct", "throttled"),
    wanted("TASK_MM", "task_struct", "mm"),
    wanted("TASK_START_BOOTTIME", "task_struct", "start_boottime"),
    wanted("TASK_SELF_EXEC_ID", "task_struct", "self_exec_id"),
    wanted("TASK_STACK", "task_struct", "stack"),
    wanted("TASK_CGROUPS", "task_struct", "cgroups"),
    wanted("CSS_SET_SUBSYS", "css_set", "subsys"),
    wanted("CSS_SET_DFL_CGRP", "css_set", "dfl_cgrp"),
    wanted("CSS_CGROUP", "cgroup_subsys_state", "cgroup"),
    wanted("CSS_PARENT", "cgroup_subsys_state", "parent"),
    wanted("CGROUP_SELF", "cgroup", "self"),
    wanted("CGROUP_KN", "cgroup", "kn"),
    wanted("KERNFS_NODE_ID", "kernfs_node", "id"),
    wanted("MM_VDSO", "mm_struct", "context.vdso"),
    wanted("MM_EXE_FILE", "mm_struct", "exe_file"),
    wanted_with(Need::MapleTree, "MM_MAPLE_ROOT", "mm_struct", "mm_mt.ma_root"),
    wanted_with(Need::MapleTree, "MAPLE_LEAF_PIVOTS", "maple_range_64", "pivot"),
    wanted_with(Need::MapleTree, "MAPLE_LEAF_SLOTS", "maple_range_64", "slot"),
    wanted_with(Need::MapleTree, "MAPLE_INNER_PIVOTS", "maple_arange_64", "pivot"),
    wanted_with(Need::MapleTree, "MAPLE_INNER_SLOTS", "maple_arange_64", "slot"),
    wanted_with(Need::RedBlackTree, "MM_RB_ROOT", "mm_struct", "mm_rb"),
    wanted_with(Need::IfThere, "MM_LOCK_SEQ", "mm_struct", "mm_lock_seq"),
    wanted_with(Need::RedBlackTree, "VMA_RB", "vm_area_struct", "vm_rb"),
    wanted("VMA_START", "vm_area_struct", "vm_start"),
    wanted("VMA_END", "vm_area_struct", "vm_end"),
    wanted("VMA_FLAGS", "vm_area_struct", "vm_flags"),
    wanted("VMA_PGOFF", "vm_area_struct", "vm_pgoff"),
    wanted("VMA_FILE", "vm_area_struct", "vm_file"),
    wanted("FILE_INODE", "file", "f_inode"),
    wanted("FILE_DENTRY", "file", "f_path.dentry"),
    wanted("FILE_MOUNT", "file", "f_path.mnt"),
    wanted("MOUNT_ROOT", "vfsmount", "mnt_root"),
    wanted("MOUNT_VFS", "mount", "mnt"),
    wanted("MOUNT_PARENT", "mount", "mnt_parent"),
    wanted("MOUNT_POINT", "mount", "mnt_mountpoint"),
    wanted("DENTRY_NAME", "dentry", "d_name.name"),
    wanted("DENTRY_PARENT", "dentry", "d_parent"),
    wanted("INODE_NUMBER", "inode", "i_ino"),
    wanted("INODE_SIZE", "inode", "i_size"),
    wanted("INODE_GENERATION", "inode", "i_generation"),
    wanted("INODE_SUPER", "inode", "i_sb"),
    wanted("SUPER_DEVICE", "super_block", "s_dev"),
    wanted("SUPER_FLAGS", "super_block", "s_flags"),
    wanted("SOCK_FAMILY", "sock_common", "skc_family"),
    wanted("SOCK_STATE", "sock_common", "skc_state"),
    wanted("SOCK_LOCAL_PORT", "sock_common", "skc_num"),
    wanted("SOCK_REMOTE_PORT", "sock_common", "skc_dport"),
    wanted("SOCK_LOCAL_4", "sock_common", "skc_rcv_saddr"),
    wanted("SOCK_REMOTE_4", "sock_common", "skc_daddr"),
    wanted_with(Need::IfThere, "SOCK_LOCAL_6", "sock_common", "skc_v6_rcv_saddr"),
    wanted_with(Need::IfThere, "SOCK_REMOTE_6", "sock_common", "skc_v6_daddr"),
    wanted("SOCK_NET", "sock_common", "skc_net.net"),
    wanted("NET_INUM", "net", "ns.inum"),
    wanted("SOCK_PROTOCOL", "sock", "sk_protocol"),
    wanted("SOCK_SOCKET", "sock", "sk_socket"),
    wanted("SOCKET_INODE", "socket_alloc", "vfs_inode"),
    wanted("SKB_CB", "sk_buff", "cb"),
    wanted("SKB_HEAD", "sk_buff", "head"),
    wanted("SKB_NETWORK", "sk_buff", "network_header"),
    wanted("SKB_TRANSPORT", "sk_buff", "transport_header"),
    wanted("TCP_CB_SEGMENTS", "tcp_skb_cb", "tcp_gso_segs"),
    wanted("TCP_CB_FLAGS", "tcp_skb_cb", "tcp_flags"),
    wanted("TCP_TOTAL_RETRANS", "tcp_sock", "total_retrans"),
    wanted("TCP_SRTT", "tcp_sock", "srtt_us"),
    wanted("TCP_CWND", "tcp_sock", "snd_cwnd"),
    wanted("TCP_BYTES_SENT", "tcp_sock", "bytes_sent"),
    wanted("TCP_CHRONO_STAT", "tcp_sock", "chrono_stat"),
    wanted("TCP_CHRONO_START", "tcp_sock", "chrono_start"),
    wanted("TCP_CHRONO_TYPE", "tcp_sock", "chrono_type"),
    wanted("MM_TOTAL_PAGES", "mm_struct", "total_vm"),
    wanted("MM_RSS_STAT", "mm_struct", "rss_stat"),
    wanted_with(Need::IfThere, RSS_COUNT, RSS_COUNTER, "count"),
    wanted_with(Need::IfThere, "REQUEST_QUEUE", "request", "q"),
    wanted_with(Need::IfThere, "REQUEST_FLAGS", "request", "cmd_flags"),
    wanted_with(Need::IfThere, "REQUEST_BYTES", "request", "__data_len"),
    wanted_with(Need::IfThere, "REQUEST_SECTOR", "request", "__sector"),
    wanted_with(Need::IfThere, "REQUEST_BIO", "request", "bio"),
    wanted_with(Need::IfThere, "REQUEST_PARTITION", "request", "part"),
    wanted_with(Need::IfThere, "REQUEST_START", "request", "start_time_ns"),
    wanted_with(Need::IfThere, QUEUE_DISK, "request_queue", "disk"),
    wanted_with(Need::IfThere, REQUEST_DISK, "request", "rq_disk"),
    wanted_with(Need::IfThere, "DISK_MAJOR", "gendisk", "major"),
    wanted_with(Need::IfThere, "DISK_FIRST_MINOR", "gendisk", "first_minor"),
    // A partition was a structure of its own before 5.11; where it is there, it is the one.
    wanted_with(Need::IfThere, "PARTITION_DEVICE", "block_device", "bd_dev"),
    wanted_with(Need::IfThere, "PARTITION_DEVICE", "hd_struct", "__dev.devt"),
    wanted_with(Need::IfThere, BIO_DEVICE, "bio", "bi_bdev"),
    wanted_with(Need::IfThere, "DEVICE_DISK", "block_device", "bd_disk"),
    wanted_with(Need::IfThere, "DEVICE_NUMBER", "block_device", "bd_dev"),
    wanted_with(Need::IfThere, "BIO_DISK", "bio", "bi_disk"),
    wanted_with(Need::IfThere, "BIO_FLAGS", "bio", "bi_opf"),
    wanted_with(Need::IfThere, "BIO_BYTES", "bio", "bi_iter.bi_size"),
    wanted_with(Need::IfThere, "BIO_SECTOR", "bio", "bi_iter.bi_sector"),
    wanted_with(Need::IfThere, BIO_GROUP, "bio", "bi_blkg"),
    wanted_with(Need::IfThere, "GROUP_BLKCG", "blkcg_gq", "blkcg"),
    wanted_with(Need::IfThere, "BLKCG_CGROUP", "blkcg", "css.cgroup"),
];

/// Fields that are asked for by name, structure and field: those that the agent itself follows where it has to look for held bios.
const FOLLOWED: &[(&str, &str)] = &[
    ("task_struct", "cgroups"),
    ("css_set", "subsys"),
    ("cgroup_subsys_state", "parent"),
    ("cgroup", "kn"),
    ("kernfs_node", "id"),
    ("blkcg", "css"),
    ("blkcg", "css.cgroup"),
    ("blkcg", "blkg_list"),
    ("blkcg_gq", "blkcg_node"),
    ("blkcg_gq", "blkcg"),
    ("blkcg_gq", "q"),
    ("request_queue", "td"),
    ("throtl_data", "nr_queued"),
    ("throtl_data", "service_queue.pending_tree"),
    ("throtl_grp", "rb_node"),
    ("throtl_grp", "service_queue.pending_tree"),
    ("throtl_grp", "service_queue.queued"),
    ("throtl_qnode", "node"),
    ("throtl_qnode", "bios"),
    ("throtl_qnode", "bios_bps"),
    ("throtl_qnode", "bios_iops"),
    ("request", "state"),
    ("request", "start_time_ns"),
    ("bio", "bi_next"),
    ("bio", "bi_opf"),
    ("bio", "bi_iter.bi_size"),
    ("bio", "bi_iter.bi_sector"),
    ("bio", "bi_blkg"),
    ("bio", "bi_bdev"),
    ("bio", "bi_disk"),
    ("block_device", "bd_disk"),
    ("block_device", "bd_dev"),
    ("gendisk", "major"),
    ("gendisk", "first_minor"),
];

/// The same of every source.
pub(super) fn followed() -> impl Iterator<Item = (&'static str, &'static str)> {
    FOLLOWED.iter().copied().chain(quota::FOLLOWED)
}

/// The global of the field that only kernels from 6.18 on have.
pub(super) const THROTTLED: &str = "TASK_THROTTLED";
/// The global of what a counter of resident pages has in it.
pub(super) const RSS_COUNT: &str = "RSS_COUNT";
/// What such a counter is since 6.2,
pub(super) const RSS_COUNTER: &str = "percpu_counter";
/// and the structure that holds plain numbers before.
pub(super) const PLAIN_RSS: &str = "mm_rss_stat";
/// The global of the one field that is a bit.
pub(super) const IOWAIT: &str = "TASK_IOWAIT";

/// The disk of a request: its queue's since 5.15, before its own.
pub(super) const QUEUE_DISK: &str = "QUEUE_DISK";
pub(super) const REQUEST_DISK: &str = "REQUEST_DISK";
/// The block device of a bio, since 5.12; before, it has a disk.
pub(super) const BIO_DEVICE: &str = "BIO_DEVICE";
/// The group that a bio is charged to, where the kernel has groups for block devices.
pub(super) const BIO_GROUP: &str = "BIO_GROUP";
/// What the block source cannot do without, besides a disk.
pub(super) const BLOCK: [&str; 12] = [
    "REQUEST_QUEUE",
    "REQUEST_FLAGS",
    "REQUEST_BYTES",
    "REQUEST_SECTOR",
    "REQUEST_BIO",
    "REQUEST_PARTITION",
    "REQUEST_START",
    "DISK_MAJOR",
    "DISK_FIRST_MINOR",
    "BIO_FLAGS",
    "BIO_BYTES",
    "BIO_SECTOR",
];
