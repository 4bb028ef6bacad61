//! Where the fields of kernel structures are, read from the running kernel's BTF.
//!
//! The Rust compiler emits no relocations for BPF, so the programs take field offsets from read-only globals, which are
//! filled from here.

mod btf;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::HashMap;

use thiserror::Error;

pub use btf::Malformed;
use btf::{Btf, KIND_ENUM, KIND_STRUCT, KIND_TYPEDEF};
use wanted::{
    BIO_DEVICE, BIO_GROUP, BLOCK, IOWAIT, Need, PLAIN_RSS, QUEUE_DISK, REQUEST_DISK, RSS_COUNT, RSS_COUNTER,
    THROTTLED, WANTED, Wanted, followed,
};

/// Where the kernel publishes its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why field offsets could not be had.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The bytes are no BTF, or are damaged.
    #[error("kernel type information is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A structure or field that the programs need is not in this kernel.
    #[error("this kernel has no field {structure}.{field}")]
    MissingField {
        /// Name of the structure.
        structure: &'static str,
        /// Name of the field.
        field: &'static str,
    },
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
                || followed().any(|(structure, _)| structure.as_bytes() == name)
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
                KIND_ENUM if name == CONTROLLERS.as_bytes() => {
                    controllers.extend(btf.values(entry).filter_map(controller));
                }
                KIND_ENUM if name == HELPERS.as_bytes() => {
                    has_task_pt_regs |= btf.values(entry).any(|(name, _)| name == TASK_PT_REGS.as_bytes());
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
        let followed = followed().filter_map(|(structure, field)| {
            let bits = btf.path_bits(*structures.get(structure.as_bytes())?, field)?;
            Some(((structure, field), bits / 8))
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

    /// Whether threads tell themselves that they are held back by their group's CPU quota (6.18).
    pub(super) fn has_throttled_field(&self) -> bool {
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

/// Whether another name for the same global comes after this one.
fn follows(global: &str, field: &str) -> bool {
    WANTED.iter().rfind(|wanted| wanted.global == global).is_some_and(|last| last.field != field)
}

/// Name and index of a controller, from a value of their enumeration.
fn controller((name, index): (&[u8], u32)) -> Option<(String, u32)> {
    Some((str::from_utf8(name).ok()?.strip_suffix(CONTROLLER_SUFFIX)?.to_owned(), index))
}
