//! Builds tables of what a case has of its files, and walks its stack by them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use chokepoint::unwind::{self, BuildError, Table};
use chokepoint_ebpf::sample::{MAX_USER_FRAMES, StackOutcome};
use chokepoint_ebpf::unwind::frame::{Frame, Place};
use chokepoint_ebpf::unwind::table::Rule;
use chokepoint_ebpf::unwind::walk::{Host, Mapping, WINDOW_BYTES, WINDOW_WORDS, Walk, advance};
use chokepoint_ebpf::unwind::x86_64::X86_64;

use super::case::{Case, Excerpt, Go, Hex, Mapped, PROGRAM_COUNTER, REGISTERS, memory_words};

/// Walks a stack from these registers on. The frames, leaf first, and how it ended.
pub fn walk(host: &impl Host, registers: &BTreeMap<String, Hex>) -> (Vec<Frame>, StackOutcome) {
    // SAFETY: it says that zeroed memory is a valid value.
    let mut walk: Walk = unsafe { std::mem::zeroed() };
    let register = |name: &str| registers.get(name).copied().unwrap_or_default().0;
    walk.begin(register(PROGRAM_COUNTER), 0);
    walk.forget_mappings();
    for (number, name) in REGISTERS.iter().enumerate() {
        walk.set_register(number as u8, register(name));
    }
    let mut frames = Vec::new();
    while frames.len() < MAX_USER_FRAMES {
        let step = advance::<X86_64>(&mut walk, host);
        frames.extend(step.frame);
        if let Some(end) = step.end {
            return (frames, end);
        }
    }
    (frames, StackOutcome::DepthLimit)
}

/// Reads the words of a window, each of which may be out of reach.
pub fn read_window(walk: &mut Walk, address: u64, word: impl Fn(u64) -> Option<u64>) -> bool {
    let words = (0..WINDOW_WORDS as u64).map(|at| word(address.wrapping_add(8 * at)));
    let Some(words) = words.collect::<Option<Vec<_>>>() else { return false };
    walk.window.copy_from_slice(&words);
    true
}

/// Stands for memory that a case does not have, because no walk has looked at it. No mapping covers it.
const UNKNOWN: u64 = 0xbad0_bad0_bad0_bad0;

/// The mapping of a file with this number, or of none, that covers an address.
pub fn mapping_at(file: Option<usize>, mapped: &[Mapped], address: u64) -> Option<Mapping> {
    let mapped = mapped.iter().find(|mapped| (mapped.start.0..mapped.end.0).contains(&address))?;
    Some(Mapping {
        start: mapped.start.0,
        end: mapped.end.0,
        file_offset: mapped.offset.0,
        // Zero is the vDSO's.
        file: file.map_or(Mapping::NO_FILE, |number| number as u32 + 1),
        known: 1,
        ..Mapping::default()
    })
}

/// A frame as cases write it.
pub fn show(frame: Frame, name_of: impl Fn(usize) -> String) -> String {
    match frame.place() {
        Some(Place::File(id, offset)) => format!("{}+{offset:#x}", name_of(id as usize - 1)),
        Some(Place::Anonymous(address)) => format!("{address:#x}"),
        Some(Place::Unmapped(address)) => format!("unmapped:{address:#x}"),
        Some(Place::Vdso(_)) | None => format!("{frame:?}"),
    }
}

/// A case with its tables.
pub struct Replay<'a> {
    case: &'a Case,
    tables: Vec<Table>,
    memory: BTreeMap<u64, u64>,
}

impl<'a> Replay<'a> {
    /// Builds the tables.
    pub fn new(case: &'a Case) -> io::Result<Self> {
        let tables = case.files.iter().map(table).collect::<io::Result<_>>()?;
        Ok(Self { case, tables, memory: memory_words(&case.memory) })
    }

    /// The rule that the table of a file has.
    pub fn rule_at(&self, file: usize, offset: u64) -> Rule {
        self.tables[file].rule_at(offset)
    }

    /// Walks the stack. The frames as cases write them, and how it ended.
    pub fn run(&self) -> (Vec<String>, String) {
        let (frames, end) = walk(self, &self.case.registers);
        let name = |number: usize| self.case.files[number].name.clone();
        (frames.into_iter().map(|frame| show(frame, name)).collect(), format!("{end:?}"))
    }
}

impl Host for Replay<'_> {
    fn read_window(&self, walk: &mut Walk, address: u64) -> bool {
        let window = address..address.wrapping_add(WINDOW_BYTES);
        let is_there = window.start < window.end && self.memory.range(window).next().is_some();
        is_there && read_window(walk, address, |address| self.read_word(address).or(Some(UNKNOWN)))
    }

    fn read_word(&self, address: u64) -> Option<u64> {
        self.memory.get(&address).copied()
    }

    fn map(&self, walk: &mut Walk, slot: usize, address: u64) -> bool {
        let files = self.case.files.iter().enumerate();
        let found = files
            .filter_map(|(number, file)| mapping_at(Some(number), &file.mappings, address))
            .next()
            .or_else(|| mapping_at(None, &self.case.anonymous, address));
        if let Some(mapping) = found {
            walk.mappings[slot] = mapping;
        }
        found.is_some()
    }

    fn rule(&self, mapping: &Mapping, offset: u64) -> Rule {
        self.rule_at(mapping.file as usize - 1, offset)
    }
}

/// A file's table, as the agent makes it.
pub fn table_of(file: &File) -> io::Result<Table> {
    match unwind::build(file) {
        Ok(table) => Ok(table.compact()),
        Err(BuildError::NoCallFrames) => Ok(Table::default()),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn table(excerpt: &Excerpt) -> io::Result<Table> {
    table_of(&rebuilt(excerpt)?)
}

const HEADER_BYTES: u64 = 64;
const SEGMENT_BYTES: u64 = 56;
const SECTION_BYTES: u64 = 64;

/// A file with holes, in which what is kept has its place.
fn rebuilt(excerpt: &Excerpt) -> io::Result<File> {
    let file = tempfile::tempfile()?;
    let go = excerpt.go.as_ref().map(go_section);
    let mut end = HEADER_BYTES + SEGMENT_BYTES * excerpt.code.len() as u64;
    for stretch in excerpt.sections.values().chain(&excerpt.code) {
        end = end.max(stretch.offset.0 + stretch.bytes.0);
    }
    for (offset, content) in &excerpt.content {
        file.write_all_at(&content.0, offset.0)?;
    }
    for (name, section) in &excerpt.sections {
        if [".eh_frame", ".debug_frame"].contains(&name.as_str()) {
            write_call_frames(&file, name, excerpt)?;
        }
        end = end.max(section.offset.0 + section.bytes.0);
    }

    let mut names = b"\0".to_vec();
    let mut sections = vec![0; SECTION_BYTES as usize];
    let mut add = |name: &str, kind: u32, address: u64, offset: u64, bytes: u64| {
        sections.extend((names.len() as u32).to_le_bytes());
        sections.extend(kind.to_le_bytes());
        sections
            .extend([2, address, offset, bytes, 0, 1, 0].iter().flat_map(|field: &u64| field.to_le_bytes()));
        names.extend(name.bytes().chain([0]));
    };
    for (name, section) in &excerpt.sections {
        add(name, 1, section.address.0, section.offset.0, section.bytes.0);
    }
    if let Some(content) = &go {
        file.write_all_at(content, end)?;
        add(".gopclntab", 1, end, end, content.len() as u64);
        end += content.len() as u64;
    }
    const NAMES: &str = ".shstrtab";
    add(NAMES, 3, 0, end, 1 << 10);
    names.resize(1 << 10, 0);
    file.write_all_at(&names, end)?;
    end += names.len() as u64;
    file.write_all_at(&sections, end)?;

    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend([3, 62].iter().flat_map(|field: &u16| field.to_le_bytes()));
    head.extend(1_u32.to_le_bytes());
    head.extend([0, HEADER_BYTES, end].iter().flat_map(|field: &u64| field.to_le_bytes()));
    head.extend(0_u32.to_le_bytes());
    let count = sections.len() as u64 / SECTION_BYTES;
    let sizes = [HEADER_BYTES, SEGMENT_BYTES, excerpt.code.len() as u64, SECTION_BYTES, count, count - 1];
    head.extend(sizes.iter().flat_map(|field| (*field as u16).to_le_bytes()));
    for code in &excerpt.code {
        head.extend(1_u32.to_le_bytes());
        head.extend(5_u32.to_le_bytes());
        let address = code.address.0;
        let fields = [code.offset.0, address, address, code.bytes.0, code.bytes.0, 0x1000];
        head.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    }
    file.write_all_at(&head, 0)?;
    Ok(file)
}

/// Writes the entries to their places, and between them common entries that nothing refers to.
fn write_call_frames(file: &File, name: &str, excerpt: &Excerpt) -> io::Result<()> {
    let section = &excerpt.sections[name];
    let mut at = 0;
    let fill = |from: u64, to: u64| {
        let mut entry = (to.saturating_sub(from + 4) as u32).to_le_bytes().to_vec();
        entry.extend(if name == ".eh_frame" { [0; 4] } else { [0xff; 4] });
        // Version 1, no augmentation, factors 1 and -8, return address in 16; what follows are instructions that do nothing.
        entry.extend([1, 0, 1, 0x78, 16]);
        let fits = from + entry.len() as u64 <= to;
        if fits { file.write_all_at(&entry, section.offset.0 + from) } else { Ok(()) }
    };
    for (offset, entry) in &excerpt.call_frames {
        fill(at, offset.0)?;
        file.write_all_at(&entry.0, section.offset.0 + offset.0)?;
        at = offset.0 + entry.0.len() as u64;
    }
    fill(at, section.bytes.0)
}

/// Go's tables, in the form of Go 1.20 and later.
fn go_section(go: &Go) -> Vec<u8> {
    const HEADER_BYTES: usize = 80;
    const DESCRIPTION_BYTES: usize = 44;
    /// Where nothing is described.
    const NOWHERE: u32 = u32::MAX;
    let relative = |address: Hex| (address.0 - go.text.0) as u32;
    let mut starts: Vec<(u32, Option<usize>)> = Vec::new();
    for (number, function) in go.functions.iter().enumerate() {
        // The one before it ends here; else its end is the start of one that nothing is known of.
        starts.retain(|(start, _)| *start != relative(function.start));
        starts.push((relative(function.start), Some(number)));
        starts.push((relative(function.end), None));
    }
    let count = starts.len() - 1;
    let index_bytes = (2 * count + 1) * 4;
    let (mut names, mut distances) = (vec![0], vec![0]);
    let (mut index, mut descriptions) = (Vec::new(), Vec::new());
    for (place, (start, number)) in starts.iter().enumerate() {
        index.extend(start.to_le_bytes());
        if place == count {
            break;
        }
        let Some(function) = number.map(|number| &go.functions[number]) else {
            index.extend(NOWHERE.to_le_bytes());
            continue;
        };
        index.extend(((index_bytes + descriptions.len()) as u32).to_le_bytes());
        let mut description = [0; DESCRIPTION_BYTES];
        description[..4].copy_from_slice(&start.to_le_bytes());
        description[4..8].copy_from_slice(&(names.len() as u32).to_le_bytes());
        if !function.pcsp.0.is_empty() {
            description[16..20].copy_from_slice(&(distances.len() as u32).to_le_bytes());
        }
        description[41] = function.flag;
        descriptions.extend(description);
        names.extend(function.name.bytes().chain([0]));
        distances.extend(&function.pcsp.0);
    }
    let names_at = HEADER_BYTES;
    let distances_at = names_at + names.len();
    let index_at = distances_at + distances.len();
    let mut section = 0xffff_fff1_u32.to_le_bytes().to_vec();
    section.extend([0, 0, 1, 8]);
    let fields = [count as u64, 0, go.text.0, names_at as u64, 0, 0, distances_at as u64, index_at as u64];
    section.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    section.resize(HEADER_BYTES, 0);
    for part in [names, distances, index, descriptions] {
        section.extend(part);
    }
    section
}
