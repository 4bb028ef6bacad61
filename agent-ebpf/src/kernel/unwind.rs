//! The unwinder's host in the kernel: memory of the current process, its mappings, and the tables the agent loaded.

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    btf_maps::{Array, ArrayOfMaps, LruHashMap, PerCpuArray},
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_probe_read_user, generated},
    macros::btf_map,
};
use chokepoint_ebpf::{
    counters::Counter,
    record::Kind,
    unwind::{
        file::{FileEntry, FileKey, MAX_FILES, NewFile, VDSO_KEY},
        frame::{MAX_FILE_ID, MAX_FILE_OFFSET, VDSO_ID},
        table::{CHUNK_ROWS, MAX_CHUNKS, MAX_PAGES, MAX_RULES, PAGE_BITS, PAGE_BYTES, PackedRow, Page, Rule},
        walk::{BLOCK_BYTES, Host, Mapping, WALK_MAPPINGS, Walk},
    },
};

use super::{
    config::CPUS,
    counters::count,
    path::{self, PathWalk},
    ring::{self, Urgency},
    stack::Scratch,
    task::KernelPointer,
    vma::{self, Backing, Node},
};

/// Rows of one chunk, as one value: a search is then loads from memory, not a lookup for each step.
///
/// An array, not a structure: kernels of the 6.1 series take no inner map without type information where the template's
/// value is a structure.
type Chunk = [PackedRow; CHUNK_ROWS];

// The agent makes the inner maps as it needs them. It writes all three through mappings.
#[btf_map]
static UNWIND_CHUNKS: ArrayOfMaps<Array<Chunk, 1, { BPF_F_MMAPABLE as usize }>, MAX_CHUNKS> =
    ArrayOfMaps::new();
#[btf_map]
static UNWIND_PAGES: Array<Page, MAX_PAGES, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static UNWIND_RULES: Array<Rule, MAX_RULES, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Files met so far.
#[btf_map]
static FILES: LruHashMap<FileKey, FileEntry, MAX_FILES> = LruHashMap::new();
/// Ids given out on each CPU.
#[btf_map]
static FILE_IDS: PerCpuArray<u32, 1> = PerCpuArray::new();

const NO_TABLE: FileEntry =
    FileEntry { id: 0, first_page: 0, pages: 0, known: 0, first_rule: 0, reserved: 0 };

/// The kernel's side of a walk. Its scratch space holds the walk itself and room for what it reads.
pub struct KernelHost {
    source: u64,
    node: *mut Node,
    path: *mut PathWalk,
    new_file: *mut NewFile,
}

impl KernelHost {
    /// A host that reads into this scratch space, which must be this CPU's and `source`'s.
    #[inline(always)]
    pub fn new(scratch: *mut Scratch, source: u64) -> Self {
        // SAFETY: only the fields' addresses are taken.
        unsafe {
            Self {
                source,
                node: &raw mut (*scratch).node,
                path: &raw mut (*scratch).path,
                new_file: &raw mut (*scratch).new_file,
            }
        }
    }
}

impl Host for KernelHost {
    #[inline(always)]
    fn read_block(&self, walk: &mut Walk, address: u64) -> bool {
        // SAFETY: the block has room for BLOCK_BYTES; the helper checks the address.
        let result = unsafe {
            generated::bpf_probe_read_user(
                (&raw mut walk.block).cast(),
                BLOCK_BYTES as u32,
                address as *const core::ffi::c_void,
            )
        };
        result == 0
    }

    #[inline(always)]
    fn read_word(&self, address: u64) -> Option<u64> {
        // SAFETY: the helper checks the address and fails instead of faulting.
        unsafe { bpf_probe_read_user(address as *const u64) }.ok()
    }

    #[inline(always)]
    fn map(&self, walk: &mut Walk, slot: usize, address: u64) -> bool {
        // SAFETY: the node is this CPU's and program's scratch space.
        let node = unsafe { &mut *self.node };
        let Some(vma) = vma::find(KernelPointer::new(walk.space), address, node) else {
            return false;
        };
        let entry = match &vma.backing {
            Backing::Anonymous => None,
            Backing::Vdso => Some(vdso()),
            Backing::File(..) if vma.file_offset > MAX_FILE_OFFSET - (vma.end - vma.start) => None,
            Backing::File(key, file) => self.identify(key, *file, vma.start, vma.end),
        };
        let mapping = &mut walk.mappings[slot & (WALK_MAPPINGS - 1)];
        mapping.start = vma.start;
        mapping.end = vma.end;
        mapping.file_offset = vma.file_offset;
        match entry {
            None => mapping.file = Mapping::NO_FILE,
            Some(entry) => {
                mapping.file = entry.id;
                mapping.first_page = entry.first_page;
                mapping.pages = entry.pages;
                mapping.known = entry.known;
                mapping.first_rule = entry.first_rule;
            }
        }
        true
    }

    #[inline(always)]
    fn rule(&self, mapping: &Mapping, offset: u64) -> Rule {
        look_up(mapping, offset).unwrap_or(Rule::NONE)
    }
}

impl KernelHost {
    /// What is known of a file; announces it to the agent when it is new.
    #[inline(always)]
    fn identify(&self, key: &FileKey, file: KernelPointer, start: u64, end: u64) -> Option<FileEntry> {
        // SAFETY: the value is copied; an update by the agent meanwhile changes whole fields.
        if let Some(entry) = unsafe { FILES.get(key) } {
            return Some(*entry);
        }
        let Some(id) = next_id() else {
            count(Counter::FileNotAnnounced);
            return None;
        };
        let entry = FileEntry { id, ..NO_TABLE };
        if FILES.insert(key, entry, u64::from(BPF_NOEXIST)).is_err() {
            // Another CPU may have been first.
            // SAFETY: as above.
            let other = unsafe { FILES.get(key) }.copied();
            if other.is_none() {
                count(Counter::FileNotAnnounced);
            }
            return other;
        }
        // SAFETY: the record is this CPU's and program's scratch space.
        let announced = unsafe { self.announce(id, key, file, start, end) };
        if announced.is_err() {
            count(Counter::FileNotAnnounced);
            let _ = FILES.remove(key);
        }
        Some(entry)
    }

    #[inline(always)]
    unsafe fn announce(
        &self,
        id: u32,
        key: &FileKey,
        file: KernelPointer,
        start: u64,
        end: u64,
    ) -> Result<(), ring::RingFull> {
        // SAFETY: the record is this CPU's and program's.
        let record = unsafe { &mut *self.new_file };
        record.kind = Kind::NewFile as u32;
        record.id = id;
        record.key = *key;
        record.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        record.start = start;
        record.end = end;
        // SAFETY: as above.
        path::write(self.source, file, unsafe { &mut *self.path }, record);
        // SAFETY: a whole record.
        unsafe { ring::emit(self.new_file.cast(), size_of::<NewFile>() as u64, Urgency::Now) }
    }
}

/// An id that no other CPU gives out.
#[inline(always)]
fn next_id() -> Option<u32> {
    let counter = FILE_IDS.get_ptr_mut(0)?;
    // SAFETY: this CPU's alone, and the programs that unwind do not interrupt each other.
    let (number, cpu) = unsafe {
        let number = *counter;
        *counter = number.wrapping_add(1);
        (number, bpf_get_smp_processor_id())
    };
    let id = 1 + u64::from(number) * u64::from(CPUS.load()) + u64::from(cpu);
    (id <= u64::from(MAX_FILE_ID)).then_some(id as u32)
}

#[inline(always)]
fn vdso() -> FileEntry {
    let unknown = FileEntry { id: VDSO_ID, ..NO_TABLE };
    // SAFETY: the agent writes it once.
    unsafe { FILES.get(VDSO_KEY) }.copied().unwrap_or(unknown)
}

/// The last row at or before the offset, and its rule.
#[inline(always)]
fn look_up(mapping: &Mapping, offset: u64) -> Option<Rule> {
    let number = offset >> PAGE_BITS;
    if number >= u64::from(mapping.pages) {
        return None;
    }
    let page = UNWIND_PAGES.get(mapping.first_page.wrapping_add(number as u32))?;
    let wanted = offset & (PAGE_BYTES - 1);
    // A constant would be merged with a global of the same initial value, which the agent then changes.
    let only = black_box(0);
    let chunk = UNWIND_CHUNKS.get_value(u32::from(page.chunk), &only)?;
    let mut base = page.first as usize;
    let mut rows = usize::from(page.count);
    if rows == 0 {
        return None;
    }
    // A page has at most as many rows as bytes.
    for _ in 0..PAGE_BITS {
        let half = rows / 2;
        let middle = (base + half) & (CHUNK_ROWS - 1);
        if chunk[middle].offset() <= wanted {
            base = middle;
        }
        rows -= half;
    }
    let row = chunk[base & (CHUNK_ROWS - 1)];
    UNWIND_RULES.get(mapping.first_rule.wrapping_add(row.rule())).copied()
}
