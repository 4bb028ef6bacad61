//! Where the fields of kernel structures are, read from the running kernel's BTF.
//!
//! The Rust compiler emits no relocations for BPF, so the programs take field offsets from read-only globals, which are
//! filled from here. The format is described in the kernel's `Documentation/bpf/btf.rst`.

use std::collections::HashMap;

use thiserror::Error;

/// Where the kernel publishes its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why field offsets could not be had.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The bytes are no BTF, or are damaged.
    #[error("kernel type information is malformed: {0}")]
    Malformed(&'static str),
    /// A structure or field that the programs need is not in this kernel.
    #[error("this kernel has no field {structure}.{field}")]
    MissingField {
        /// Name of the structure.
        structure: &'static str,
        /// Name of the field.
        field: &'static str,
    },
}

/// A field whose offset a global of the kernel programs holds. A dot leads into a structure within the structure.
struct Wanted {
    global: &'static str,
    structure: &'static str,
    field: &'static str,
    need: Need,
}

/// Which kernels have a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
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

const WANTED: &[Wanted] = &[
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

/// Fields that the agent itself follows where it has to look for held bios: structure and field.
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

/// The global of the field that only kernels from 6.18 on have.
const THROTTLED: &str = "TASK_THROTTLED";
/// The global of what a counter of resident pages has in it.
const RSS_COUNT: &str = "RSS_COUNT";
/// What such a counter is since 6.2,
const RSS_COUNTER: &str = "percpu_counter";
/// and the structure that holds plain numbers before.
const PLAIN_RSS: &str = "mm_rss_stat";
/// The global of the one field that is a bit.
const IOWAIT: &str = "TASK_IOWAIT";

/// The disk of a request: its queue's since 5.15, before its own.
const QUEUE_DISK: &str = "QUEUE_DISK";
const REQUEST_DISK: &str = "REQUEST_DISK";
/// The block device of a bio, since 5.12; before, it has a disk.
const BIO_DEVICE: &str = "BIO_DEVICE";
/// The group that a bio is charged to, where the kernel has groups for block devices.
const BIO_GROUP: &str = "BIO_GROUP";
/// What the block source cannot do without, besides a disk.
const BLOCK: [&str; 12] = [
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

/// Whether another name for the same global comes after this one.
fn follows(global: &str, field: &str) -> bool {
    WANTED.iter().rfind(|wanted| wanted.global == global).is_some_and(|last| last.field != field)
}

/// The structure that only kernels with a maple tree have.
const MAPLE_TREE: &str = "maple_tree";
/// The enumeration of the helpers that programs may call.
const HELPERS: &str = "bpf_func_id";
/// Its value for the helper that tells where a task's user registers are (5.15 and later).
const TASK_PT_REGS: &str = "BPF_FUNC_task_pt_regs";
/// The type of what is called at the tracepoint `tcp_retransmit_skb`,
const RETRANSMIT: &str = "btf_trace_tcp_retransmit_skb";
/// and its number of parameters where the last is the result (6.16 and later). The first is the caller's own.
const RETRANSMIT_PARAMETERS: usize = 4;
/// The same of the tracepoint `mark_victim`, and its number where it tells the task (6.8 and later).
const VICTIM: &str = "btf_trace_mark_victim";
const VICTIM_PARAMETERS: usize = 3;
/// The type of what is called at the tracepoint `block_rq_issue`,
const BLOCK_ISSUE: &str = "btf_trace_block_rq_issue";
/// and its number of parameters where the queue is the first (before 5.11).
const BLOCK_ISSUE_PARAMETERS: usize = 3;
/// The enumeration that numbers the version 1 cgroup controllers.
const CONTROLLERS: &str = "cgroup_subsys_id";
/// What its values' names end in: `memory_cgrp_id`.
const CONTROLLER_SUFFIX: &str = "_cgrp_id";

/// Field offsets of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Name of the global, and the offset in bytes that goes into it.
    pub offsets: Vec<(&'static str, u32)>,
    /// Bit of `task_struct.in_iowait` within the byte at its offset.
    pub iowait_mask: u8,
    followed: HashMap<(&'static str, &'static str), u32>,
    /// Whether mappings are kept in a maple tree; else in a red-black tree.
    pub has_maple_tree: bool,
    /// Whether programs may call `bpf_task_pt_regs`.
    pub has_task_pt_regs: bool,
    /// Whether the tracepoint `tcp_retransmit_skb` tells how sending came out.
    pub has_retransmit_result: bool,
    /// Whether the tracepoint `mark_victim` tells the task; else it tells its id.
    pub has_victim_task: bool,
    /// Size of each of a process's counters of resident pages.
    pub rss_counter_bytes: u32,
    /// Whether tracepoints of block devices have the queue as their first argument.
    pub has_queue_argument: bool,
    controllers: HashMap<String, u32>,
}

impl KernelLayout {
    /// Finds the offsets in the contents of [`KERNEL_BTF`].
    ///
    /// # Errors
    /// [`LayoutError`] where the bytes are damaged or a field is missing.
    pub fn from_btf(bytes: &[u8]) -> Result<Self, LayoutError> {
        let btf = Btf::parse(bytes)?;
        let mut structures = HashMap::new();
        let mut controllers = HashMap::new();
        let mut has_task_pt_regs = false;
        let mut has_retransmit_result = false;
        let mut has_victim_task = false;
        let mut has_queue_argument = false;
        let is_wanted = |name: &[u8]| {
            [MAPLE_TREE, PLAIN_RSS].map(str::as_bytes).contains(&name)
                || WANTED.iter().any(|wanted| wanted.structure.as_bytes() == name)
                || FOLLOWED.iter().any(|(structure, _)| structure.as_bytes() == name)
        };
        for (id, entry) in btf.types.iter().enumerate() {
            let name = btf.name(entry.name);
            match entry.kind {
                KIND_STRUCT if entry.count > 0 && is_wanted(name) => {
                    structures.entry(name).or_insert(id);
                }
                KIND_TYPEDEF if name == RETRANSMIT.as_bytes() => {
                    has_retransmit_result = btf.parameters(entry) == Some(RETRANSMIT_PARAMETERS);
                }
                KIND_TYPEDEF if name == VICTIM.as_bytes() => {
                    has_victim_task = btf.parameters(entry) == Some(VICTIM_PARAMETERS);
                }
                KIND_TYPEDEF if name == BLOCK_ISSUE.as_bytes() => {
                    has_queue_argument = btf.parameters(entry) == Some(BLOCK_ISSUE_PARAMETERS);
                }
                KIND_ENUM if name == CONTROLLERS.as_bytes() => controllers = btf.controllers(entry),
                KIND_ENUM => {
                    has_task_pt_regs |= name == HELPERS.as_bytes() && btf.has_value(entry, TASK_PT_REGS);
                }
                _ => {}
            }
        }
        let has_maple_tree = structures.contains_key(MAPLE_TREE.as_bytes());
        let mut offsets: Vec<(&'static str, u32)> = Vec::with_capacity(WANTED.len());
        let mut iowait_mask = 0;
        for Wanted { global, structure, field, need } in WANTED {
            let bits = structures.get(structure.as_bytes()).and_then(|id| btf.path_bits(*id, field));
            let known = |name: &str| offsets.iter().any(|(other, _)| *other == name);
            match (need, bits) {
                (Need::MapleTree, _) if !has_maple_tree => {}
                (Need::RedBlackTree, _) if has_maple_tree => {}
                (_, Some(bits)) => {
                    if *global == IOWAIT {
                        iowait_mask = 1 << (bits % 8);
                    }
                    offsets.push((global, bits / 8));
                }
                (Need::IfThere, None) => {}
                // The others of its name come before or after it.
                (Need::OneOf, None) if known(global) || follows(global, field) => {}
                (_, None) => return Err(LayoutError::MissingField { structure, field }),
            }
        }
        let rss_counter_bytes = match structures.get(RSS_COUNTER.as_bytes()) {
            Some(counter) if !structures.contains_key(PLAIN_RSS.as_bytes()) => btf.types[*counter].target,
            _ => {
                offsets.retain(|(global, _)| *global != RSS_COUNT);
                size_of::<u64>() as u32
            }
        };
        let followed = FOLLOWED.iter().filter_map(|(structure, field)| {
            let bits = btf.path_bits(*structures.get(structure.as_bytes())?, field)?;
            Some(((*structure, *field), bits / 8))
        });
        Ok(Self {
            offsets,
            followed: followed.collect(),
            iowait_mask,
            has_maple_tree,
            has_task_pt_regs,
            has_retransmit_result,
            has_victim_task,
            rss_counter_bytes,
            has_queue_argument,
            controllers,
        })
    }

    /// Whether the kernel tells which threads are held back by their group's CPU quota.
    #[must_use]
    pub fn tells_throttled(&self) -> bool {
        self.has(THROTTLED)
    }

    /// What this kernel lacks of what the block source needs, as the global's name; `None` where nothing is missing.
    #[must_use]
    pub fn missing_for_block(&self) -> Option<&'static str> {
        if !self.has_queue_disk() && !self.has(REQUEST_DISK) {
            return Some(REQUEST_DISK);
        }
        BLOCK.into_iter().find(|global| !self.has(global))
    }

    /// Whether the queue of a block device knows its disk; else requests do.
    #[must_use]
    pub fn has_queue_disk(&self) -> bool {
        self.has(QUEUE_DISK)
    }

    /// Whether a bio knows its block device; else it knows its disk.
    #[must_use]
    pub fn has_bio_device(&self) -> bool {
        self.has(BIO_DEVICE)
    }

    /// Whether bios are charged to groups.
    #[must_use]
    pub fn has_bio_group(&self) -> bool {
        self.has(BIO_GROUP)
    }

    /// Offset of a field that the agent itself follows, bytes; `None` where this kernel has no such field.
    #[must_use]
    pub fn followed(&self, structure: &'static str, field: &'static str) -> Option<u64> {
        self.followed.get(&(structure, field)).map(|offset| u64::from(*offset))
    }

    fn has(&self, global: &str) -> bool {
        self.offsets.iter().any(|(known, _)| *known == global)
    }

    /// The index of a version 1 cgroup controller, by the name it has in `/proc/PID/cgroup`; `None` where the kernel has no
    /// such controller.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<u32> {
        // The names differ in one place: the io controller of version 2 is `blkio` in version 1.
        let name = if name == "blkio" { "io" } else { name };
        self.controllers.get(name).copied()
    }
}

const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
const KIND_TYPEDEF: u8 = 8;
/// Anonymous structures within structures; real ones nest below five.
const MAX_NESTING: u32 = 16;

/// One entry of the type section.
struct Type {
    name: u32,
    kind: u8,
    /// Members, values or parameters.
    count: usize,
    /// The type that a typedef or qualifier stands before; a size for others.
    target: u32,
    /// Whether member offsets share their word with a bit-field size.
    packed_offsets: bool,
    /// Position in the type section of what follows the entry.
    body: usize,
}

struct Btf<'a> {
    types: Vec<Type>,
    section: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, LayoutError> {
        let header = |at: usize| u32_at(bytes, at).ok_or(LayoutError::Malformed("header is cut short"));
        if header(0)? as u16 != MAGIC {
            return Err(LayoutError::Malformed("wrong magic number"));
        }
        let header_bytes = header(4)? as usize;
        let part = |offset: u32, length: u32| {
            let start = header_bytes.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let section = part(header(8)?, header(12)?).ok_or(LayoutError::Malformed("types are cut short"))?;
        let strings =
            part(header(16)?, header(20)?).ok_or(LayoutError::Malformed("strings are cut short"))?;

        // Type ids begin at 1; 0 is void.
        let mut types = vec![Type { name: 0, kind: 0, count: 0, target: 0, packed_offsets: false, body: 0 }];
        let mut at = 0;
        while at < section.len() {
            let word = |index: usize| {
                u32_at(section, at + 4 * index).ok_or(LayoutError::Malformed("a type is cut short"))
            };
            let (name, facts, target) = (word(0)?, word(1)?, word(2)?);
            let count = (facts & 0xffff) as usize;
            let kind = (facts >> 24 & 0x1f) as u8;
            let body = at + TYPE_BYTES;
            let body_bytes = match kind {
                // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
                2 | 7..=12 | 16 | 18 => 0,
                // Integer, variable, declaration tag.
                1 | 14 | 17 => 4,
                // Array.
                3 => 12,
                KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
                KIND_ENUM | 13 => 8 * count,
                _ => return Err(LayoutError::Malformed("unknown kind of type")),
            };
            types.push(Type { name, kind, count, target, packed_offsets: facts >> 31 != 0, body });
            at = body + body_bytes;
        }
        Ok(Self { types, section, strings })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        let end = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
        &tail[..end]
    }

    /// Offset of a field in bits; the path's dots lead into structures within the structure.
    fn path_bits(&self, id: usize, path: &str) -> Option<u32> {
        let (mut id, mut offset) = (id, 0);
        for field in path.split('.') {
            let (at, member_type) = self.field(self.unqualified(id), field.as_bytes(), MAX_NESTING)?;
            offset += at;
            id = member_type;
        }
        Some(offset)
    }

    /// The type behind typedefs and qualifiers.
    fn unqualified(&self, mut id: usize) -> usize {
        for _ in 0..MAX_NESTING {
            match self.types.get(id) {
                // Typedef, volatile, const, restrict, type tag.
                Some(entry) if matches!(entry.kind, 8..=11 | 18) => id = entry.target as usize,
                _ => break,
            }
        }
        id
    }

    /// Offset in bits and type of a member, looking through anonymous structures and unions.
    fn field(&self, id: usize, field: &[u8], nesting: u32) -> Option<(u32, usize)> {
        let owner = self.types.get(id).filter(|owner| matches!(owner.kind, KIND_STRUCT | KIND_UNION))?;
        (0..owner.count).find_map(|index| {
            let at = owner.body + 12 * index;
            let name = self.name(u32_at(self.section, at)?);
            let member_type = u32_at(self.section, at + 4)? as usize;
            let raw = u32_at(self.section, at + 8)?;
            let bits = if owner.packed_offsets { raw & 0xff_ffff } else { raw };
            if name == field {
                Some((bits, member_type))
            } else if name.is_empty() && nesting > 0 {
                let (offset, member_type) = self.field(self.unqualified(member_type), field, nesting - 1)?;
                Some((bits + offset, member_type))
            } else {
                None
            }
        })
    }

    /// Number of parameters of the function that a typedef of a pointer to it names.
    fn parameters(&self, typedef: &Type) -> Option<usize> {
        let pointer = self.types.get(typedef.target as usize)?;
        Some(self.types.get(pointer.target as usize)?.count)
    }

    fn has_value(&self, enumeration: &Type, wanted: &str) -> bool {
        (0..enumeration.count).any(|index| {
            u32_at(self.section, enumeration.body + 8 * index)
                .is_some_and(|name| self.name(name) == wanted.as_bytes())
        })
    }

    fn controllers(&self, enumeration: &Type) -> HashMap<String, u32> {
        (0..enumeration.count)
            .filter_map(|index| {
                let at = enumeration.body + 8 * index;
                let name = str::from_utf8(self.name(u32_at(self.section, at)?)).ok()?;
                Some((name.strip_suffix(CONTROLLER_SUFFIX)?.to_owned(), u32_at(self.section, at + 4)?))
            })
            .collect()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF image with one structure for every wanted one; every member is 8 bytes, in the order of [`WANTED`], the last
    /// of `task_struct` inside an anonymous union.
    struct Image {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Image {
        fn new() -> Self {
            Self { types: Vec::new(), strings: vec![0] }
        }

        fn string(&mut self, text: &str) -> u32 {
            let at = self.strings.len() as u32;
            self.strings.extend(text.bytes().chain([0]));
            at
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }

        fn structure(&mut self, kind: u8, name: &str, members: &[(&str, u32, u32)]) {
            let name = if name.is_empty() { 0 } else { self.string(name) };
            self.words(&[name, u32::from(kind) << 24 | members.len() as u32, 0]);
            for (member, member_type, offset_bytes) in members {
                let member = if member.is_empty() { 0 } else { self.string(member) };
                self.words(&[member, *member_type, offset_bytes * 8]);
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let header = [
                u32::from(MAGIC) | 1 << 16,
                24,
                0,
                self.types.len() as u32,
                self.types.len() as u32,
                self.strings.len() as u32,
            ];
            let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }

        /// Of a kernel with a maple tree.
        fn complete() -> Self {
            let mut image = Self::new();
            // Type 1: the anonymous union that holds task_struct.cgroups at 4.
            image.structure(KIND_UNION, "", &[("cgroups", 0, 4)]);
            let mut ids = 2;
            let present = || {
                WANTED.iter().filter(|wanted| {
                    wanted.need != Need::RedBlackTree && !matches!(wanted.field, "state" | "cpu")
                })
            };
            let mut names: Vec<_> = present().map(|wanted| wanted.structure).chain([MAPLE_TREE]).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let mut members: Vec<(&str, u32, u32)> = Vec::new();
                for wanted in present().filter(|wanted| wanted.structure == name) {
                    let at = 8 * members.len() as u32;
                    let (outer, inner) = wanted.field.split_once('.').unwrap_or((wanted.field, ""));
                    if members.iter().any(|(member, ..)| *member == outer) {
                        continue;
                    }
                    // The structure within, behind a typedef: its fields are at 16 and on.
                    if !inner.is_empty() {
                        let fields: Vec<_> = present()
                            .filter(|other| other.structure == name)
                            .filter_map(|other| {
                                other.field.split_once('.').filter(|(first, _)| *first == outer)
                            })
                            .zip(2..)
                            .map(|((_, field), at)| (field, 0, 8 * at))
                            .collect();
                        image.structure(KIND_STRUCT, "", &fields);
                        image.words(&[0, 8 << 24, ids]);
                        members.push((outer, ids + 1, at));
                        ids += 2;
                    } else if outer == "cgroups" {
                        members.push(("", 1, at));
                    } else {
                        members.push((outer, 0, at));
                    }
                }
                if members.is_empty() {
                    members.push(("ma_root", 0, 0));
                }
                image.structure(KIND_STRUCT, name, &members);
                ids += 1;
            }
            image
        }
    }

    #[test]
    fn offsets_are_found_also_inside_anonymous_unions() {
        let layout = KernelLayout::from_btf(&Image::complete().bytes()).unwrap();
        let offset = |name| layout.offsets.iter().find(|(global, _)| *global == name).unwrap().1;
        assert_eq!(offset("TASK_COMM"), 8);
        assert_eq!(offset("TASK_CGROUPS"), 17 * 8 + 4);
        assert_eq!(offset("CGROUP_KN"), 8);
        assert_eq!(offset("MM_VDSO"), 16);
        assert_eq!(offset("MM_MAPLE_ROOT"), 16 + 16);
        assert!(layout.has_maple_tree);
        assert!(!layout.has_task_pt_regs);
    }

    #[test]
    fn controllers_are_found_by_the_names_of_version_one() {
        let mut image = Image::complete();
        let name = image.string(CONTROLLERS);
        let io = image.string("io_cgrp_id");
        image.words(&[name, u32::from(KIND_ENUM) << 24 | 1, 4, io, 3]);
        let layout = KernelLayout::from_btf(&image.bytes()).unwrap();
        assert_eq!(layout.controller("blkio"), Some(3));
        assert_eq!(layout.controller("memory"), None);
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut image = Image::new();
        image.structure(KIND_STRUCT, "task_struct", &[("comm", 0, 0)]);
        let error = KernelLayout::from_btf(&image.bytes()).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no field task_struct.group_leader");
    }

    #[test]
    fn damaged_bytes_are_refused_at_every_length() {
        let bytes = Image::complete().bytes();
        for length in 0..bytes.len() {
            assert!(KernelLayout::from_btf(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn the_running_kernel_has_every_field() {
        let Ok(bytes) = std::fs::read(KERNEL_BTF) else {
            eprintln!("skipped: {KERNEL_BTF} cannot be read");
            return;
        };
        let layout = KernelLayout::from_btf(&bytes).unwrap();
        let absent = if layout.has_maple_tree { Need::RedBlackTree } else { Need::MapleTree };
        for wanted in WANTED.iter().filter(|wanted| wanted.need != absent && wanted.need != Need::IfThere) {
            let found = layout.offsets.iter().filter(|(global, _)| *global == wanted.global).count();
            assert_eq!(found, 1, "{}", wanted.global);
        }
        assert!(layout.iowait_mask.is_power_of_two());
        assert!(layout.controller("memory").is_some());
    }
}
