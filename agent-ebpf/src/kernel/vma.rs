//! Finds the mapping behind an address in the kernel's own tree of them.
//!
//! `bpf_find_vma` can be called once in a program that interrupts, a stack asks for several. So the tree is read like any
//! other memory, without its lock: a reader may see it change. What is found is checked by its own bounds, and what is not
//! found ends a stack with a cause.

use chokepoint_ebpf::unwind::file::FileKey;

use super::{
    config::{
        FILE_INODE, HAS_MAPLE_TREE, INODE_GENERATION, INODE_NUMBER, INODE_SIZE, INODE_SUPER,
        MAPLE_INNER_PIVOTS, MAPLE_INNER_SLOTS, MAPLE_LEAF_PIVOTS, MAPLE_LEAF_SLOTS, MM_EXE_FILE,
        MM_MAPLE_ROOT, MM_RB_ROOT, MM_VDSO, SUPER_DEVICE, SUPER_FLAGS, VMA_END, VMA_FILE, VMA_FLAGS,
        VMA_PGOFF, VMA_RB, VMA_START,
    },
    task::KernelPointer,
};

/// Bytes of a maple tree node.
pub const NODE_BYTES: usize = 256;
/// A node, to be read into the CPU's scratch space.
pub type Node = [u64; NODE_BYTES / 8];

/// Levels of a maple tree with the most mappings a process may have: sixteen to a leaf, ten to an inner node, and one to
/// spare.
const MAX_MAPLE_LEVELS: usize = 6;
/// Levels of a red-black tree of 65,536 mappings.
const MAX_RB_LEVELS: usize = 34;

const VM_EXEC: u64 = 4;
/// File systems that the kernel mounts for itself: memfd, shared anonymous memory, System V shared memory, huge pages.
const SB_KERNMOUNT: u64 = 1 << 22;
const PAGE_SHIFT: u32 = 12;

/// An executable mapping.
pub struct Vma {
    pub start: u64,
    pub end: u64,
    /// Position of its start in what backs it.
    pub file_offset: u64,
    pub backing: Backing,
}

/// What backs a mapping.
pub enum Backing {
    File(KernelPointer),
    Vdso,
    Anonymous,
}

/// The executable mapping of `mm` that covers `address`; where a file backs it, that file's key is in `key` then.
///
/// Node and key are room that a program's stack does not have.
#[inline(always)]
pub fn find(mm: KernelPointer, address: u64, node: &mut Node, key: &mut FileKey) -> Option<Vma> {
    let vma =
        if HAS_MAPLE_TREE.load() != 0 { in_maple_tree(mm, address, node) } else { in_rb_tree(mm, address) }?;
    let start: u64 = vma.field(&VMA_START)?;
    let end: u64 = vma.field(&VMA_END)?;
    if address < start || address >= end || vma.field::<u64>(&VMA_FLAGS)? & VM_EXEC == 0 {
        return None;
    }
    let Some(file) = vma.follow(&VMA_FILE) else {
        let is_vdso = mm.field::<u64>(&MM_VDSO) == Some(start);
        let backing = if is_vdso { Backing::Vdso } else { Backing::Anonymous };
        return Some(Vma { start, end, file_offset: 0, backing });
    };
    let file_offset = vma.field::<u64>(&VMA_PGOFF)? << PAGE_SHIFT;
    let inode = file.follow(&FILE_INODE)?;
    let super_block = inode.follow(&INODE_SUPER)?;
    // What a runtime compiled, unless it is the program itself: some container runtimes run from a sealed memfd.
    if super_block.field::<u64>(&SUPER_FLAGS)? & SB_KERNMOUNT != 0 && mm.follow(&MM_EXE_FILE) != Some(file) {
        return Some(Vma { start, end, file_offset, backing: Backing::Anonymous });
    }
    key.inode_address = inode.address();
    key.inode = inode.field(&INODE_NUMBER)?;
    key.size = inode.field(&INODE_SIZE)?;
    key.generation = inode.field(&INODE_GENERATION)?;
    key.device = super_block.field(&SUPER_DEVICE)?;
    Some(Vma { start, end, file_offset, backing: Backing::File(file) })
}

/// Linux 6.1 and later. Node addresses carry the node's type in their low byte; a slot covers what is above the pivot before
/// it and not above its own, and an unused pivot is zero.
#[inline(always)]
fn in_maple_tree(mm: KernelPointer, address: u64, node: &mut Node) -> Option<KernelPointer> {
    const TYPE_SHIFT: u32 = 3;
    const TYPE_MASK: u64 = 15;
    const NODE_MASK: u64 = !0xff;
    const LEAF: u64 = 1;
    const INNER: u64 = 3;
    const LEAF_PIVOTS: usize = 15;
    const INNER_PIVOTS: usize = 9;
    /// Pointers to nodes have this in their low bits, single entries do not.
    const IS_NODE: u64 = 2;

    let mut entry: u64 = mm.field(&MM_MAPLE_ROOT)?;
    if entry & 3 != IS_NODE || entry < 4096 {
        return KernelPointer::from_field(entry);
    }
    for _ in 0..MAX_MAPLE_LEVELS {
        let kind = entry >> TYPE_SHIFT & TYPE_MASK;
        if !KernelPointer::new(entry & NODE_MASK).read_into(node) {
            return None;
        }
        let (pivots_at, slots_at, pivots) = match kind {
            LEAF => (MAPLE_LEAF_PIVOTS.load(), MAPLE_LEAF_SLOTS.load(), LEAF_PIVOTS),
            INNER => (MAPLE_INNER_PIVOTS.load(), MAPLE_INNER_SLOTS.load(), INNER_PIVOTS),
            _ => return None,
        };
        let mut slot = 0;
        while slot < pivots {
            let pivot = node[(pivots_at as usize / 8 + slot) & (NODE_BYTES / 8 - 1)];
            if pivot >= address || (pivot == 0 && slot > 0) {
                break;
            }
            slot += 1;
        }
        entry = node[(slots_at as usize / 8 + slot) & (NODE_BYTES / 8 - 1)];
        if kind == LEAF {
            return KernelPointer::from_field(entry);
        }
    }
    None
}

/// Before Linux 6.1.
#[inline(always)]
fn in_rb_tree(mm: KernelPointer, address: u64) -> Option<KernelPointer> {
    /// `rb_node`: parent and colour, right child, left child.
    const RIGHT: u64 = 8;
    const LEFT: u64 = 16;
    let mut node: u64 = mm.field(&MM_RB_ROOT)?;
    for _ in 0..MAX_RB_LEVELS {
        if node == 0 {
            return None;
        }
        let vma = KernelPointer::new(node.wrapping_sub(u64::from(VMA_RB.load())));
        let child = if address >= vma.field::<u64>(&VMA_END)? {
            RIGHT
        } else if address < vma.field::<u64>(&VMA_START)? {
            LEFT
        } else {
            return Some(vma);
        };
        node = KernelPointer::new(node).read(child)?;
    }
    None
}
