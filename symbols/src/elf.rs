//! A bounded first look at a file: is it ELF, where is it loaded, which sections has it, which build is it?
//!
//! blazesym maps a file and trusts its headers. This looks first, with a handful of small positioned reads, so that
//! what blazesym is given has section tables and sections of a size we are willing to pay for, and so that debug
//! files can be searched by build id or debug link. Nothing here allocates more than a constant, whatever the file
//! says.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::address::{FileOffset, VirtualOffset};

/// Sections beyond this many mean a relocatable object or an attack; executables and libraries have some forty.
const MAX_SECTIONS: u64 = 4096;
/// Program headers beyond this many are not read; real files have about a dozen.
const MAX_SEGMENTS: u64 = 256;
/// Section names are a few hundred bytes in all.
const MAX_SECTION_NAMES_BYTES: u64 = 1 << 20;
/// A note section or segment holds a few notes of some tens of bytes.
const MAX_NOTES_BYTES: u64 = 64 << 10;
/// SHA-1 build ids have 20 bytes, others at most 64. The ELF note allows gigabytes.
const MAX_BUILD_ID_BYTES: usize = 64;
/// A file name cannot be longer (NAME_MAX), and its checksum follows.
const MAX_DEBUG_LINK_BYTES: u64 = 255 + 1 + 3 + 4;

/// A path cannot be longer (PATH_MAX), and a build id follows.
const MAX_ALTERNATE_LINK_BYTES: u64 = 4096 + MAX_BUILD_ID_BYTES as u64;

/// Type of a section with content of the program's own kind.
pub const SHT_PROGBITS: u32 = 1;
/// Type of a section of notes.
pub const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
/// Flag of a section whose content is compressed.
pub const SHF_COMPRESSED: u64 = 1 << 11;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const NT_GNU_BUILD_ID: u32 = 3;

/// What tells one build of a binary from another: the GNU build id of its ELF note, or, where a file has none, a
/// hash of its headers and ends.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// The bytes, 20 for the usual SHA-1 note, 16 for the hash that stands in.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl BuildId {
    /// The ELF note that would hold it.
    #[must_use]
    pub fn to_note(&self) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4, self.0.len() as u32, NT_GNU_BUILD_ID] {
            note.extend(word.to_ne_bytes());
        }
        note.extend(b"GNU\0");
        note.extend(&self.0);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// What the headers of an ELF file say.
#[derive(Debug)]
pub struct Elf {
    /// Whether addresses have 64 bits.
    pub is_64_bit: bool,
    /// `e_type`.
    pub file_type: u16,
    /// `e_machine`.
    pub machine: u16,
    /// All sections.
    pub sections: Vec<Section>,
    /// The GNU build id, if there is one.
    pub gnu_build_id: Option<BuildId>,
    segments: Vec<Segment>,
}

/// Sections of stubs through which a binary calls functions of others.
pub const LINKAGE_SECTIONS: [&str; 4] = [".plt", ".plt.sec", ".plt.got", ".iplt"];

/// A section, as its header has it.
#[derive(Debug)]
pub struct Section {
    /// Its name, cut at 64 bytes.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Where it is loaded.
    pub address: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// Bytes of each of its entries, where it is a table.
    pub entry_size: u64,
}

/// Executable bytes of the file, and the address that they have in the ELF's own space.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Where it is loaded.
    pub address: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

impl Code {
    /// The address of what lies at `offset` in the file; `None` where that is not this code.
    #[must_use]
    pub fn address_of(&self, offset: FileOffset) -> Option<VirtualOffset> {
        let within = offset.0.wrapping_sub(self.offset);
        (within < self.size).then(|| VirtualOffset(self.address.wrapping_add(within)))
    }
}

#[derive(Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_size: u64,
}

/// Why a file's headers could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It does not begin as one.
    #[error("not an ELF file")]
    NotElf,
    /// It is for processors of the other kind.
    #[error("it has another byte order")]
    ByteOrder,
    /// The headers contradict themselves or the file.
    #[error("{0}")]
    Malformed(&'static str),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Elf {
    /// Reads the headers of a regular file.
    ///
    /// # Errors
    /// Where it is no ELF file of this host's byte order, or cannot be read.
    pub fn read(file: &File) -> Result<Self, ElfError> {
        let mut head = [0; 64];
        let read = read_up_to(file, &mut head, 0)?;
        let head = Fields(&head[..read]);
        if head.0.get(..4) != Some(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        let is_64_bit = match head.0.get(4) {
            Some(1) => false,
            Some(2) => true,
            _ => return Err(ElfError::Malformed("unknown class")),
        };
        let native_order = if cfg!(target_endian = "little") { 1 } else { 2 };
        if head.0.get(5) != Some(&native_order) {
            return Err(ElfError::ByteOrder);
        }
        let short = ElfError::Malformed("the header is cut short");
        let header = (|| {
            let tables = if is_64_bit { (32, 40, 54) } else { (28, 32, 42) };
            Some(Header {
                is_64_bit,
                file_type: head.u16(16)?,
                machine: head.u16(18)?,
                segments_at: head.word(tables.0, is_64_bit)?,
                sections_at: head.word(tables.1, is_64_bit)?,
                segment_bytes: head.u16(tables.2)?,
                segment_count: head.u16(tables.2 + 2)?,
                section_bytes: head.u16(tables.2 + 4)?,
                section_count: head.u16(tables.2 + 6)?,
                section_names: head.u16(tables.2 + 8)?,
            })
        })()
        .ok_or(short)?;

        let segments = header.read_segments(file)?;
        let sections = header.read_sections(file)?;
        let gnu_build_id = find_build_id(file, &sections, &segments);
        Ok(Self {
            is_64_bit,
            file_type: header.file_type,
            machine: header.machine,
            sections,
            gnu_build_id,
            segments,
        })
    }

    /// Where the loader puts what lies at `offset` in the file: nowhere, if no loaded segment covers it.
    #[must_use]
    pub fn virtual_offset(&self, offset: FileOffset) -> Option<VirtualOffset> {
        let covers = |s: &&Segment| s.kind == PT_LOAD && offset.0.wrapping_sub(s.offset) < s.file_size;
        let mut loaded = self.segments.iter().filter(covers);
        // Packed files map the same bytes twice; what was executed is the executable one.
        let first = loaded.clone().next()?;
        let segment = loaded.find(|s| s.flags & PF_X != 0).unwrap_or(first);
        Some(VirtualOffset(segment.address.wrapping_add(offset.0 - segment.offset)))
    }

    /// The code that the loader maps, segment by segment.
    pub fn code(&self) -> impl Iterator<Item = Code> {
        let executable = |s: &&Segment| s.kind == PT_LOAD && s.flags & PF_X != 0 && s.file_size > 0;
        let code = |s: &Segment| Code { address: s.address, offset: s.offset, size: s.file_size };
        self.segments.iter().filter(executable).map(code)
    }

    /// The section of this name, if it holds anything in the file.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name && s.kind != SHT_NOBITS && s.size > 0)
    }

    /// The stubs among which this address is, through which the binary calls functions of others.
    #[must_use]
    pub fn linkage(&self, address: u64) -> Option<Range<u64>> {
        let mut sections = LINKAGE_SECTIONS.iter().filter_map(|name| self.section(name));
        let section = sections.find(|section| address.wrapping_sub(section.address) < section.size)?;
        Some(section.address..section.address.checked_add(section.size)?)
    }

    /// Whether the file itself describes its functions and lines.
    #[must_use]
    pub fn has_debug_info(&self) -> bool {
        self.section(".debug_info").is_some()
    }

    /// The file name and checksum of the debug file this file names.
    #[must_use]
    pub fn debug_link(&self, file: &File) -> Option<(Vec<u8>, u32)> {
        let section = self.section(".gnu_debuglink")?;
        let data = read_range(file, section.offset, section.size, MAX_DEBUG_LINK_BYTES).ok()?;
        let length = data.iter().position(|&byte| byte == 0)?;
        let checksum = Fields(&data).u32((length + 1).next_multiple_of(4))?;
        let name = &data[..length];
        // The format has no directories; with one it would be a path to anywhere.
        let is_file_name = !name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..";
        is_file_name.then(|| (name.to_vec(), checksum))
    }

    /// The path and build id of the file that holds what several debug files have in common, as `dwz` leaves it.
    #[must_use]
    pub fn alternate_link(&self, file: &File) -> Option<(Vec<u8>, BuildId)> {
        let section = self.section(".gnu_debugaltlink")?;
        let data = read_range(file, section.offset, section.size, MAX_ALTERNATE_LINK_BYTES).ok()?;
        let length = data.iter().position(|&byte| byte == 0).filter(|&length| length > 0)?;
        let id = &data[length + 1..];
        let is_id = (1..=MAX_BUILD_ID_BYTES).contains(&id.len());
        is_id.then(|| (data[..length].to_vec(), BuildId(id.to_vec())))
    }

    /// The GNU build id, or a hash that stands in for it.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn build_id(&self, file: &File) -> io::Result<BuildId> {
        match &self.gnu_build_id {
            Some(id) => Ok(id.clone()),
            None => content_hash(file),
        }
    }
}

struct Header {
    is_64_bit: bool,
    file_type: u16,
    machine: u16,
    segments_at: u64,
    sections_at: u64,
    segment_bytes: u16,
    segment_count: u16,
    section_bytes: u16,
    section_count: u16,
    section_names: u16,
}

impl Header {
    fn read_segments(&self, file: &File) -> Result<Vec<Segment>, ElfError> {
        let entry = if self.is_64_bit { 56 } else { 32 };
        if self.segment_count == 0 {
            return Ok(Vec::new());
        }
        if u64::from(self.segment_bytes) != entry || u64::from(self.segment_count) > MAX_SEGMENTS {
            return Err(ElfError::Malformed("the program header table is of no known shape"));
        }
        let size = entry * u64::from(self.segment_count);
        let table = read_range(file, self.segments_at, size, entry * MAX_SEGMENTS)?;
        let parse = |entry: &[u8]| {
            let field = Fields(entry);
            let wide = self.is_64_bit;
            Some(Segment {
                kind: field.u32(0)?,
                flags: field.u32(if wide { 4 } else { 24 })?,
                offset: field.word(if wide { 8 } else { 4 }, wide)?,
                address: field.word(if wide { 16 } else { 8 }, wide)?,
                file_size: field.word(if wide { 32 } else { 16 }, wide)?,
            })
        };
        // One that goes on at zero behind the last address, or the last place in a file, is loaded nowhere.
        let ends = |segment: &Segment| {
            let ends = [segment.offset, segment.address].map(|start| start.checked_add(segment.file_size));
            ends.iter().all(Option::is_some)
        };
        Ok(table.chunks_exact(entry as usize).filter_map(parse).filter(ends).collect())
    }

    fn read_sections(&self, file: &File) -> Result<Vec<Section>, ElfError> {
        let entry = if self.is_64_bit { 64 } else { 40 };
        // A count of zero with a table means "more than 65,279": far over our limit, like none at all.
        if self.section_count == 0 {
            return Ok(Vec::new());
        }
        if u64::from(self.section_bytes) != entry || u64::from(self.section_count) > MAX_SECTIONS {
            return Err(ElfError::Malformed("the section header table is of no known shape"));
        }
        let size = entry * u64::from(self.section_count);
        let table = read_range(file, self.sections_at, size, entry * MAX_SECTIONS)?;
        let parse = |entry: &[u8]| {
            let field = Fields(entry);
            let wide = self.is_64_bit;
            let section = Section {
                name: String::new(),
                kind: field.u32(4)?,
                flags: field.word(8, wide)?,
                address: field.word(if wide { 16 } else { 12 }, wide)?,
                offset: field.word(if wide { 24 } else { 16 }, wide)?,
                size: field.word(if wide { 32 } else { 20 }, wide)?,
                entry_size: field.word(if wide { 56 } else { 36 }, wide)?,
            };
            Some((field.u32(0)?, section))
        };
        let mut parsed: Vec<_> = table.chunks_exact(entry as usize).filter_map(parse).collect();
        let names = match parsed.get(usize::from(self.section_names)) {
            Some((_, names)) => read_range(file, names.offset, names.size, MAX_SECTION_NAMES_BYTES)?,
            None => return Err(ElfError::Malformed("the section names are missing")),
        };
        for (name_at, section) in &mut parsed {
            let name = names.get(*name_at as usize..).unwrap_or_default();
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            section.name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
        }
        Ok(parsed.into_iter().map(|(_, section)| section).collect())
    }
}

fn find_build_id(file: &File, sections: &[Section], segments: &[Segment]) -> Option<BuildId> {
    // Sections first: in a separate debug file the segments' offsets are those of the original.
    let sections = sections.iter().filter(|s| s.kind == SHT_NOTE).map(|s| (s.offset, s.size));
    let segments = segments.iter().filter(|s| s.kind == PT_NOTE).map(|s| (s.offset, s.file_size));
    // Real files have three or four; the cap bounds the work on a table full of them.
    sections.chain(segments).take(16).find_map(|(offset, size)| {
        let notes = read_range(file, offset, size, MAX_NOTES_BYTES).ok()?;
        build_id_note(&notes)
    })
}

fn build_id_note(mut notes: &[u8]) -> Option<BuildId> {
    loop {
        let field = Fields(notes);
        let (name_bytes, id_bytes) = (field.u32(0)? as usize, field.u32(4)? as usize);
        let id_at = 12_usize.checked_add(name_bytes.checked_next_multiple_of(4)?)?;
        let end = id_at.checked_add(id_bytes)?;
        if field.u32(8)? == NT_GNU_BUILD_ID && notes.get(12..12 + name_bytes) == Some(b"GNU\0") {
            let id = notes.get(id_at..end)?;
            return (1..=MAX_BUILD_ID_BYTES).contains(&id.len()).then(|| BuildId(id.to_vec()));
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

/// FNV-1a of the first and last pages and the length: cheap, the same on every host, and different between builds,
/// whose section tables (at the end) and entry points (at the start) differ.
fn content_hash(file: &File) -> io::Result<BuildId> {
    const PAGE_BYTES: u64 = 4096;
    let length = file.metadata()?.len();
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    };
    for start in [0, length.saturating_sub(PAGE_BYTES)] {
        let mut page = [0; PAGE_BYTES as usize];
        let read = read_up_to(file, &mut page, start)?;
        add(&page[..read]);
    }
    add(&length.to_le_bytes());
    Ok(BuildId(hash.to_be_bytes().to_vec()))
}

/// Reads `size` bytes, which must not be more than `limit`; the file may say anything.
///
/// # Errors
/// Where they are more, or not in the file.
pub fn read_range(file: &File, offset: u64, size: u64, limit: u64) -> Result<Vec<u8>, ElfError> {
    if size > limit {
        return Err(ElfError::Malformed("a table is larger than any real one"));
    }
    let mut data = vec![0; size as usize];
    match file.read_exact_at(&mut data, offset) {
        Ok(()) => Ok(data),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ElfError::Malformed("a table lies outside the file"))
        }
        // An offset beyond what a file can have.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Err(ElfError::Malformed("a table lies outside the file"))
        }
        Err(error) => Err(error.into()),
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Integers at byte positions, in native order; `None` past the end.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// A number of 16 bits.
    #[must_use]
    pub fn u16(&self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_ne_bytes)
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn u32(&self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_ne_bytes)
    }

    /// A number of 64 bits.
    #[must_use]
    pub fn u64(&self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_ne_bytes)
    }

    /// An address or size: 64 bits wide in 64-bit files, else 32.
    #[must_use]
    pub fn word(&self, at: usize, wide: bool) -> Option<u64> {
        if wide { self.u64(at) } else { self.u32(at).map(u64::from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_of;

    #[test]
    fn every_prefix_of_a_real_file_is_an_error_or_fine_and_never_a_panic() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        for length in (0..200).chain([own.len() / 2, own.len() - 1]) {
            let _ = Elf::read(&file_of(&own[..length]));
        }
        assert!(matches!(Elf::read(&file_of(b"")), Err(ElfError::NotElf)));
        assert!(matches!(Elf::read(&file_of(b"#!/bin/sh\n")), Err(ElfError::NotElf)));
        assert!(matches!(Elf::read(&file_of(&own[..20])), Err(ElfError::Malformed(_))));
    }

    #[test]
    fn headers_filled_with_ones_allocate_nothing_much() {
        let mut content = vec![0xff; 4096];
        content[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        assert!(matches!(Elf::read(&file_of(&content)), Err(ElfError::Malformed(_))));
    }

    #[test]
    fn notes_are_walked_to_the_build_id() {
        let note = |kind: u32, name: &[u8; 4], id: &[u8]| {
            let mut note = Vec::new();
            note.extend((name.len() as u32).to_ne_bytes());
            note.extend((id.len() as u32).to_ne_bytes());
            note.extend(kind.to_ne_bytes());
            note.extend(name);
            note.extend(id);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let notes =
            [note(1, b"GNU\0", b"abi"), note(3, b"Go\0\0", b"no"), note(3, b"GNU\0", b"\x01\x02\xab")];
        assert_eq!(build_id_note(&notes.concat()).unwrap().to_string(), "0102ab");
        assert_eq!(build_id_note(&notes[..2].concat()), None);
        assert_eq!(build_id_note(&note(3, b"GNU\0", &[7; 65])), None);
        assert_eq!(build_id_note(&[0xff; 40]), None);
        let id = BuildId(vec![1, 2, 3, 4, 5]);
        assert_eq!(build_id_note(&id.to_note()), Some(id));
    }

    #[test]
    fn a_stand_in_for_the_build_id_depends_on_the_content() {
        let id = |content: &[u8]| content_hash(&file_of(content)).unwrap();
        assert_eq!(id(b"one"), id(b"one"));
        assert_ne!(id(b"one"), id(b"two"));
        let mut long = vec![0; 100_000];
        let before = id(&long);
        *long.last_mut().unwrap() = 1;
        assert_ne!(id(&long), before);
        assert_eq!(before.as_bytes().len(), 16);
    }
}
