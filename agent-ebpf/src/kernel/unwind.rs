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
    sample::{AGENT_SLOT, SLOTS, Source},
    unwind::{
        file::{FileEntry, FileKey, MAX_FILES, NewFile, VDSO_KEY},
        frame::{Frame, MAX_FILE_ID, MAX_FILE_OFFSET, VDSO_ID},
        memo::{MEMO_ENTRIES, Memo},
        table::{CHUNK_ROWS, MAX_CHUNKS, MAX_PAGES, MAX_RULES, PAGE_BITS, PAGE_BYTES, PackedRow, Page, Rule},
        walk::{Host, Mapping, WALK_MAPPINGS, WINDOW_BYTES, Walk},
    },
};

use super::{
    config::{CPUS, MM_LOCK_SEQ},
    counters::count,
    path,
    ring::{self, Urgency},
    stack::{self, Scratch},
    task::{self, KernelPointer},
    vma::{self, Backing},
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
/// Counts what the agent changes in [`FILES`]; it writes it through a mapping.
#[btf_map]
static UNWIND_CHANGES: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Rules that were looked up last.
#[btf_map]
static UNWIND_MEMO: Array<Memo, MEMO_ENTRIES> = Array::new();
/// Files met so far.
#[btf_map]
static FILES: LruHashMap<FileKey, FileEntry, MAX_FILES> = LruHashMap::new();
/// Ids given out on each CPU by each program that may interrupt another.
#[btf_map]
static FILE_IDS: PerCpuArray<u32, { SLOTS as usize }> = PerCpuArray::new();

const NO_TABLE: FileEntry =
    FileEntry { id: 0, first_page: 0, pages: 0, known: 0, first_rule: 0, reserved: 0 };

/// The kernel's side of a walk, with what [`find_code`] finds for it.
pub struct KernelHost {
    source: u64,
    found: *const Mapping,
}

impl KernelHost {
    /// A host that reads into this scratch space, which must be this CPU's and `source`'s.
    #[inline(always)]
    pub fn new(scratch: *mut Scratch, source: u64) -> Self {
        // SAFETY: only the field's address is taken.
        Self { source, found: unsafe { &raw const (*scratch).found } }
    }
}

impl Host for KernelHost {
    #[inline(always)]
    fn read_window(&self, walk: &mut Walk, address: u64) -> bool {
        // SAFETY: the window has room for WINDOW_BYTES; the helper checks the address.
        let result = unsafe {
            generated::bpf_probe_read_user(
                (&raw mut walk.window).cast(),
                WINDOW_BYTES as u32,
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
        if find_code(self.source, walk.space, address) == 0 {
            return false;
        }
        // SAFETY: the mapping is this CPU's and program's scratch space; the function has just written it.
        walk.mappings[slot & (WALK_MAPPINGS - 1)] = unsafe { self.found.read_volatile() };
        true
    }

    #[inline(always)]
    fn rule(&self, mapping: &Mapping, offset: u64) -> Rule {
        look_up(mapping, offset).unwrap_or(Rule::NONE)
    }
}

/// What remembered mappings are worth: as long as this is the same, so are they.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Validity {
    space: u64,
    process_start_ns: u64,
    /// What the agent has changed in the table of files.
    tables: u64,
    exec_id: u32,
    /// What the process has changed in its mappings.
    mappings: u32,
}

impl Validity {
    /// Of no process.
    pub const NEVER: Self = Self { space: 0, process_start_ns: 0, tables: 0, exec_id: 0, mappings: 0 };

    /// That of mappings found from now on in the address space `space` of a process; `None` where the kernel does not tell of
    /// changes (before 6.4), so that nothing may be remembered.
    #[inline(always)]
    pub fn now(space: KernelPointer, process_start_ns: u64, exec_id: u32) -> Option<Self> {
        if MM_LOCK_SEQ.load() == 0 {
            return None;
        }
        // Before the mappings are read: a change meanwhile is then a change.
        let mappings = space.field(&MM_LOCK_SEQ)?;
        let tables = UNWIND_CHANGES.get_ptr(0)?;
        // SAFETY: the entry is in the map; the agent adds to it.
        let tables = unsafe { tables.read_volatile() };
        Some(Self { space: space.address(), process_start_ns, tables, exec_id, mappings })
    }
}

/// Finds the executable mapping that covers an address, and writes it to the scratch space of a source; announces its file to the
/// agent if that is new. `space` is the address of the `mm_struct`. 0 where there is none.
///
/// A function of its own: most frames lie in a mapping that is known, and their code stays small.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_code(source: u64, space: u64, address: u64) -> u64 {
    let Some(scratch) = stack::scratch_at(source as u32) else {
        return 0;
    };
    // SAFETY: the scratch space is this program's alone.
    let (node, found, new_file) =
        unsafe { (&mut (*scratch).node, &mut (*scratch).found, &mut (*scratch).new_file) };
    let Some(vma) = vma::find(KernelPointer::new(space), address, node, &mut new_file.key) else {
        return 0;
    };
    found.start = vma.start;
    found.end = vma.end;
    found.file_offset = vma.file_offset;
    match vma.backing {
        Backing::File(file) if vma.file_offset <= MAX_FILE_OFFSET - (vma.end - vma.start) => {
            identify(scratch, source, file);
        }
        Backing::File(_) | Backing::Anonymous => found.file = Mapping::NO_FILE,
        Backing::Vdso => {
            new_file.key = VDSO_KEY;
            let key = &new_file.key;
            // SAFETY: the agent writes it once.
            match unsafe { FILES.get(key) } {
                Some(entry) => found.set_file(entry),
                None => found.set_file(&FileEntry { id: VDSO_ID, ..NO_TABLE }),
            }
        }
    }
    1
}

/// Announces the file that is mapped at an address of the current process, if it is new. Run by the agent, of whose process
/// it is.
#[inline(always)]
pub fn introduce(address: u64) {
    if let Some(mm) = task::address_space(task::current()) {
        find_code(u64::from(AGENT_SLOT), mm.address(), address);
    }
}

/// Writes what is known of the file whose key the scratch space has to the mapping found; announces it to the agent when it is
/// new.
#[inline(always)]
fn identify(scratch: *mut Scratch, source: u64, file: KernelPointer) {
    // SAFETY: the scratch space is this program's alone.
    let (found, record, path) =
        unsafe { (&mut (*scratch).found, &mut (*scratch).new_file, &mut (*scratch).path) };
    let key = &record.key;
    // SAFETY: the value is copied; an update by the agent meanwhile changes whole fields.
    if let Some(entry) = unsafe { FILES.get(key) } {
        return found.set_file(entry);
    }
    let Some(id) = next_id(source) else {
        found.file = Mapping::NO_FILE;
        return count(Counter::FileNotAnnounced);
    };
    let entry = FileEntry { id, ..NO_TABLE };
    found.set_file(&entry);
    if FILES.insert(key, entry, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU may have been first.
        // SAFETY: as above.
        match unsafe { FILES.get(key) } {
            Some(entry) => found.set_file(entry),
            None => {
                found.file = Mapping::NO_FILE;
                count(Counter::FileNotAnnounced);
            }
        }
        return;
    }
    record.kind = Kind::NewFile as u32;
    record.id = id;
    // Who looks at another process's thread has written that process's id.
    if source != Source::OpenWait as u64 {
        record.tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    }
    record.start = found.start;
    record.end = found.end;
    path::write(source, file, path, record);
    // SAFETY: a whole record.
    let announced =
        unsafe { ring::emit((&raw const *record).cast(), size_of::<NewFile>() as u64, Urgency::Now) };
    if announced.is_err() {
        count(Counter::FileNotAnnounced);
        let key = &record.key;
        let _ = FILES.remove(key);
    }
}

/// An id that no other CPU and no other source gives out.
#[inline(always)]
fn next_id(source: u64) -> Option<u32> {
    let counter = FILE_IDS.get_ptr_mut(source as u32)?;
    // SAFETY: this CPU's and source's alone.
    let (number, cpu) = unsafe {
        let number = *counter;
        *counter = number.wrapping_add(1);
        (number, bpf_get_smp_processor_id())
    };
    let row = u64::from(number) * u64::from(CPUS.load()) + u64::from(cpu);
    let id = 1 + row * u64::from(SLOTS) + source;
    (id <= u64::from(MAX_FILE_ID)).then_some(id as u32)
}

/// The rule for an offset, by the memo or by a search.
#[inline(always)]
fn look_up(mapping: &Mapping, offset: u64) -> Option<Rule> {
    if offset >> PAGE_BITS >= u64::from(mapping.pages) {
        return None;
    }
    let frame = Frame::in_file(mapping.file, offset);
    let memo = UNWIND_MEMO.get_ptr_mut(Memo::index(frame))?;
    // SAFETY: the entry is in the map, and one word.
    let rule = match unsafe { memo.read_volatile() }.rule(frame) {
        Some(rule) => rule,
        None => {
            let rule = search(mapping, offset)?;
            // SAFETY: as above.
            unsafe { memo.write_volatile(Memo::new(frame, rule)) };
            rule
        }
    };
    UNWIND_RULES.get(mapping.first_rule.wrapping_add(rule)).copied()
}

/// The number of the rule that the last row at or before the offset has.
#[inline(always)]
fn search(mapping: &Mapping, offset: u64) -> Option<u32> {
    let page = UNWIND_PAGES.get(mapping.first_page.wrapping_add((offset >> PAGE_BITS) as u32))?;
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
    Some(chunk[base & (CHUNK_ROWS - 1)].rule())
}
