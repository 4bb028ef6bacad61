//! Go's own tables: `.gopclntab`, which is in every Go binary, stripped or not, and takes the place of `.eh_frame`.
//!
//! It has a header, names, a table of functions by address, and for each function a compact list of the distance between
//! the stack pointer and the return address (`pcsp`). Go code keeps frame pointers, in a place that follows from that
//! distance. What must be known by name is where the runtime switches stacks and where threads and goroutines start.
//!
//! Layouts: `runtime/symtab.go` and `runtime/runtime2.go` of Go 1.16 to 1.26.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use chokepoint_ebpf::unwind::aarch64::{LINK_ABOVE_FRAME_POINTER, SP};
use chokepoint_ebpf::unwind::table::{Rule, Saved, SavedAt};
use chokepoint_ebpf::unwind::x86_64::RSP;

use super::bytes::Bytes;
use super::runs::Runs;
use super::table::TooLarge;
use crate::symbolize::elf::{self, Code, Elf, Section};

/// Functions of one binary; kubectl has 80 thousand.
const MAX_FUNCTIONS: u64 = 1 << 20;
/// Names are cut here. Instantiated generics have long ones.
const MAX_NAME_BYTES: usize = 1024;
/// The header's bytes at most.
const HEADER_BYTES: usize = 8 + 9 * 8;
/// Relocations of a position-independent binary: 24 bytes for each pointer in its data.
const MAX_RELOCATIONS_BYTES: u64 = 64 << 20;

/// Where `runtime.moduledata` has the address of the code, since it has its own section.
const MODULE_TEXT_AT: u64 = 176;

const SHT_RELA: u32 = 4;
const R_X86_64_RELATIVE: u32 = 8;
const R_AARCH64_RELATIVE: u32 = 1027;
const EM_AARCH64: u16 = 183;

/// `_func.flag`: the function sets the stack pointer to what it likes.
const FLAG_SP_WRITE: u8 = 2;

/// Functions that a goroutine, a thread or the program starts with. `goexit` is what a goroutine's first function returns
/// to.
const STARTS: [&[u8]; 6] = [
    b"runtime.goexit",
    b"runtime.mstart",
    b"runtime.rt0_go",
    b"_rt0_amd64",
    b"_rt0_amd64_linux",
    b"_rt0_arm64_linux",
];

/// Functions that switch stacks; newer compilers also flag them.
const SWITCHES: [&[u8]; 9] = [
    b"runtime.systemstack",
    b"runtime.mcall",
    b"runtime.morestack",
    b"runtime.asmcgocall",
    b"runtime.cgocallback",
    b"runtime.gogo",
    b"runtime.nanotime1",
    b"runtime.walltime",
    b"time.now",
];

/// What signal handlers return to.
const SIGNAL_RETURNS: [&[u8]; 2] = [b"runtime.sigreturn__sigaction", b"runtime.sigreturn"];

/// Called by C: keeps C's registers in the places that `PUSH_REGS_HOST_TO_ABI0` of `abi_amd64.h` gives them.
const FROM_C: &[u8] = b"crosscall2";
/// Bytes that it takes, and where in them `rbp` and `rbx` are.
const FROM_C_BYTES: i64 = 232;
const FROM_C_RBP_AT: i64 = 16 - FROM_C_BYTES - 8;
const FROM_C_RBX_AT: i64 = 24 - FROM_C_BYTES - 8;

/// The header of `.gopclntab`; offsets are within the section.
#[derive(Clone, Debug)]
struct Header {
    version: Version,
    /// Addresses in `pcsp` are in units of this.
    quantum: u64,
    functions: u64,
    names: u64,
    distances: u64,
    index: u64,
    /// Where the code starts; 0 where it is left to the loader or not said.
    text: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Go116,
    Go118,
    Go120,
}

impl Header {
    fn parse(section: &[u8]) -> Option<Self> {
        let mut fields = Bytes(section);
        let version = match fields.u32()? {
            0xffff_fffa => Version::Go116,
            0xffff_fff0 => Version::Go118,
            0xffff_fff1 => Version::Go120,
            _ => return None,
        };
        if fields.u16()? != 0 {
            return None;
        }
        let quantum = u64::from(fields.u8()?);
        if !matches!(quantum, 1 | 2 | 4) || fields.u8()? != 8 {
            return None;
        }
        let functions = fields.u64()?;
        let _files = fields.u64()?;
        let text = if version == Version::Go116 { 0 } else { fields.u64()? };
        let names = fields.u64()?;
        let _units = fields.u64()?;
        let _file_names = fields.u64()?;
        let distances = fields.u64()?;
        let index = fields.u64()?;
        let header = Self { version, quantum, functions, names, distances, index, text };
        (functions > 0 && functions <= MAX_FUNCTIONS).then_some(header)
    }

    /// Bytes of an address in the index.
    fn address_bytes(&self) -> usize {
        if self.version == Version::Go116 { 8 } else { 4 }
    }

    fn index_bytes(&self) -> usize {
        // Address and place of each function, and the address behind the last.
        (2 * self.functions as usize + 1) * self.address_bytes()
    }

    /// The address of the function with this number, and its place behind the index's start.
    fn function(&self, index: &[u8], number: usize) -> Option<(u64, u64)> {
        let bytes = self.address_bytes();
        let mut entry = Bytes(index.get(2 * number * bytes..)?);
        if self.version == Version::Go116 {
            Some((entry.u64()?, entry.u64().unwrap_or(0)))
        } else {
            let address = self.text.wrapping_add(entry.u32()?.into());
            Some((address, entry.u32().map_or(0, u64::from)))
        }
    }

    /// Offsets in a function's description: of its name, its `pcsp` and its flags.
    fn layout(&self) -> (usize, usize, Option<usize>) {
        match self.version {
            Version::Go116 => (8, 20, None),
            Version::Go118 => (4, 16, Some(37)),
            Version::Go120 => (4, 16, Some(41)),
        }
    }
}

/// A binary's section of Go tables.
pub struct GoSection<'a> {
    section: &'a Section,
    header: Header,
}

impl<'a> GoSection<'a> {
    /// Finds it; `None` in a binary that is not Go's, or of a Go that is too old, or whose code cannot be placed.
    pub fn find(file: &File, elf: &'a Elf) -> Option<Self> {
        let section = elf.section(".gopclntab").or_else(|| elf.section(".data.rel.ro.gopclntab"))?;
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, section.offset).ok()?;
        let mut header = Header::parse(&head)?;
        if header.version != Version::Go116 && header.text == 0 {
            header.text = text(file, elf, section)?;
        }
        Some(Self { section, header })
    }

    /// Where it is in the file.
    pub fn section(&self) -> &'a Section {
        self.section
    }

    /// Adds every function to `runs`, by the section's content. Gives the virtual addresses of all of them.
    ///
    /// # Errors
    /// [`TooLarge`]
    pub fn read(&self, content: &[u8], elf: &Elf, runs: &mut Runs) -> Result<Range<u64>, TooLarge> {
        let header = &self.header;
        let code: Vec<Code> = elf.code().collect();
        let frame = if elf.machine == EM_AARCH64 { aarch64_rule } else { x86_64_rule };
        let all = content.get(offset(header.index)..).unwrap_or_default();
        let index = all.get(..header.index_bytes()).unwrap_or_default();
        let count = if index.is_empty() { 0 } else { header.functions as usize };
        let mut range: Option<Range<u64>> = None;
        for number in 0..count {
            let (Some((start, at)), Some((end, _))) =
                (header.function(index, number), header.function(index, number + 1))
            else {
                break;
            };
            // They are sorted. Whatever is not would be read again and again.
            if start >= end || range.as_ref().is_some_and(|range| start < range.end) {
                continue;
            }
            let Some(segment) = code.iter().find(|code| start.wrapping_sub(code.address) < code.size) else {
                continue;
            };
            range = Some(range.map_or(start, |range| range.start)..end);
            let in_segment = start - segment.address;
            let len = (end - start).min(segment.size - in_segment);
            let place = segment.offset.saturating_add(in_segment);
            if place.checked_add(len).is_none() {
                continue;
            }
            let function = Function::new(header, content, all.get(offset(at)..).unwrap_or_default());
            function.rows(place, len, frame, runs)?;
        }
        Ok(range.unwrap_or(0..0))
    }
}

/// What is said of a function.
struct Function<'a> {
    kind: Kind,
    encoded: Bytes<'a>,
    quantum: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Usual,
    Start,
    Switch,
    SignalReturn,
    FromC,
}

impl<'a> Function<'a> {
    fn new(header: &Header, content: &'a [u8], description: &[u8]) -> Self {
        let (name_at, distances_at, flags_at) = header.layout();
        let word = |at: usize| Bytes(description.get(at..).unwrap_or_default()).u32().unwrap_or(0);
        let names = content.get(offset(header.names)..).unwrap_or_default();
        let name = names.get(word(name_at) as usize..).map(name_in).unwrap_or_default();
        let flags = flags_at.and_then(|at| description.get(at)).copied().unwrap_or(0);
        let kind = if STARTS.contains(&name) {
            Kind::Start
        } else if SIGNAL_RETURNS.contains(&name) {
            Kind::SignalReturn
        } else if name == FROM_C {
            Kind::FromC
        } else if flags & FLAG_SP_WRITE != 0 || SWITCHES.contains(&name) {
            Kind::Switch
        } else {
            Kind::Usual
        };
        let distances = match word(distances_at) {
            0 => &[],
            at => content
                .get(offset(header.distances)..)
                .and_then(|all| all.get(at as usize..))
                .unwrap_or_default(),
        };
        Self { kind, encoded: Bytes(distances), quantum: header.quantum }
    }

    /// Adds the rows of the function that has `len` bytes from `place` in the file on.
    fn rows(
        self,
        place: u64,
        len: u64,
        frame: fn(i64, Kind) -> Rule,
        runs: &mut Runs,
    ) -> Result<(), TooLarge> {
        match self.kind {
            Kind::Start => {
                runs.begin(place, place + len)?;
                return runs.row(place, Rule::END);
            }
            Kind::SignalReturn => {
                // A handler returns to its first byte, and a return address stands for the byte before.
                let before = place.saturating_sub(1);
                runs.cut(before);
                runs.begin(before, place + len)?;
                return runs.row(before, Rule::SIGNAL);
            }
            Kind::Usual | Kind::Switch | Kind::FromC => {}
        }
        runs.begin(place, place + len)?;
        let has_frame = self.kind == Kind::Switch && self.distances(len).any(|(_, distance)| distance > 0);
        let mut distances = self.distances(len);
        for (at, distance) in &mut distances {
            let rule = match self.kind {
                // It pushes the frame pointer first, where it has a frame.
                Kind::Switch if distance > 0 || !has_frame => Rule::FRAME_POINTER,
                kind => frame(distance, kind),
            };
            runs.row(place + at, rule)?;
        }
        if distances.at < len { runs.row(place + distances.at, Rule::NONE) } else { Ok(()) }
    }

    fn distances(&self, len: u64) -> Distances<'a> {
        let (bytes, quantum) = (self.encoded, self.quantum);
        Distances { bytes, quantum, len, at: 0, distance: -1 }
    }
}

/// From which place of a function on, up to its `len`, the return address is how far above the stack pointer.
struct Distances<'a> {
    bytes: Bytes<'a>,
    quantum: u64,
    len: u64,
    at: u64,
    distance: i64,
}

impl Iterator for Distances<'_> {
    type Item = (u64, i64);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.len {
            return None;
        }
        let change = self.bytes.unsigned()? as u32;
        if change == 0 && self.at > 0 {
            return None;
        }
        let change = (change >> 1) as i32 ^ -((change & 1) as i32);
        self.distance += i64::from(change);
        let at = self.at;
        // Without progress a hostile list would be read for nothing.
        self.at += (u64::from(self.bytes.unsigned()? as u32) * self.quantum).max(1);
        Some((at, self.distance))
    }
}

/// The frame pointer is pushed first, right below the return address.
fn x86_64_rule(distance: i64, kind: Kind) -> Rule {
    let (Ok(cfa_offset), 0) = (i32::try_from(distance.saturating_add(8)), distance & 7) else {
        return Rule::UNSUPPORTED;
    };
    let usual = Rule::register(RSP, cfa_offset);
    let at_cfa = |offset| SavedAt::new(Saved::AtCfa, offset).unwrap_or(SavedAt::UNDEFINED);
    match distance {
        ..0 => Rule::UNSUPPORTED,
        0 => usual,
        FROM_C_BYTES.. if kind == Kind::FromC => {
            Rule { frame_pointer: at_cfa(FROM_C_RBP_AT), other: (FROM_C_RBX_AT / 8) as i8, ..usual }
        }
        _ => Rule { frame_pointer: at_cfa(-16), ..usual },
    }
}

/// The link register is at the stack pointer, the frame pointer right below.
fn aarch64_rule(distance: i64, _: Kind) -> Rule {
    let Ok(cfa_offset) = i32::try_from(distance) else { return Rule::UNSUPPORTED };
    let usual = Rule::register(SP, cfa_offset);
    match distance {
        ..0 => Rule::UNSUPPORTED,
        0 => usual,
        _ => match SavedAt::new(Saved::AtCfa, -distance - 8) {
            Some(frame_pointer) => Rule { frame_pointer, other: LINK_ABOVE_FRAME_POINTER, ..usual },
            None => Rule::UNSUPPORTED,
        },
    }
}

/// Names of a Go binary's functions. Keeps the index in memory, and reads the rest where it is asked for.
pub struct GoFunctions {
    file: File,
    section_at: u64,
    header: Header,
    index: Vec<u8>,
}

impl GoFunctions {
    /// `None` for a file that is no Go binary.
    #[must_use]
    pub fn open(file: &File) -> Option<Self> {
        Self::with_headers(file, &Elf::read(file).ok()?)
    }

    /// The same, where the headers have been read.
    pub(crate) fn with_headers(file: &File, elf: &Elf) -> Option<Self> {
        let GoSection { section, header } = GoSection::find(file, elf)?;
        let bytes = header.index_bytes() as u64;
        let index_at = section.offset.checked_add(header.index)?;
        let index = elf::read_range(file, index_at, bytes, bytes).ok()?;
        Some(Self { file: file.try_clone().ok()?, section_at: section.offset, header, index })
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.index.len() as u64
    }

    /// The name of the function at a virtual address.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        let header = &self.header;
        let address_of = |number| header.function(&self.index, number).map(|(address, _)| address);
        let (mut low, mut high) = (0, header.functions as usize);
        if address < address_of(0)? || address >= address_of(high)? {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if address_of(middle)? <= address { low = middle } else { high = middle }
        }
        self.name_of(low)
    }

    /// All functions, in the order of their addresses. Reads all names.
    #[must_use]
    pub fn functions(&self) -> Vec<(Range<u64>, String)> {
        let address_of = |number| self.header.function(&self.index, number).map(|(address, _)| address);
        let function = |number| Some((address_of(number)?..address_of(number + 1)?, self.name_of(number)?));
        (0..self.header.functions as usize).filter_map(function).collect()
    }

    /// The name of a function by its number.
    fn name_of(&self, number: usize) -> Option<String> {
        let header = &self.header;
        let (_, at) = header.function(&self.index, number)?;
        let at = self.section_at.checked_add(header.index)?.checked_add(at)?;
        let mut name_at = [0; 4];
        self.file.read_exact_at(&mut name_at, at.checked_add(header.layout().0 as u64)?).ok()?;
        let names = self.section_at.checked_add(header.names)?;
        let mut name = [0; MAX_NAME_BYTES];
        let read =
            self.file.read_at(&mut name, names.checked_add(u32::from_le_bytes(name_at).into())?).ok()?;
        let name = name_in(&name[..read]);
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

/// Up to the end of a name.
fn name_in(bytes: &[u8]) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(MAX_NAME_BYTES)];
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn offset(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Where the code starts, where the header does not say: up to Go 1.25 because the loader is to write it there, later
/// because only `runtime.moduledata` has it, where again the loader may be to write it.
fn text(file: &File, elf: &Elf, section: &Section) -> Option<u64> {
    let in_header = section.address.wrapping_add(24);
    let module = elf.section(".go.module");
    let in_module = module.map_or(in_header, |module| module.address.wrapping_add(MODULE_TEXT_AT));
    if let Some(module) = module {
        let mut text = [0; 8];
        file.read_exact_at(&mut text, module.offset.checked_add(MODULE_TEXT_AT)?).ok()?;
        if text != [0; 8] {
            return Some(u64::from_le_bytes(text));
        }
    }
    let relocations = elf.sections.iter().filter(|section| section.kind == SHT_RELA).take(4);
    for section in relocations {
        let Ok(content) = elf::read_range(file, section.offset, section.size, MAX_RELOCATIONS_BYTES) else {
            continue;
        };
        for entry in content.chunks_exact(24) {
            let mut fields = Bytes(entry);
            let (at, kind, addend) = (fields.u64()?, fields.u64()? as u32, fields.u64()?);
            let relative = matches!(kind, R_X86_64_RELATIVE | R_AARCH64_RELATIVE);
            if relative && (at == in_module || at == in_header) {
                return Some(addend);
            }
        }
    }
    None
}
