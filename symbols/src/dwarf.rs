//! Functions, inlined functions and lines by debug information.
//!
//! It is read once, unit by unit, within bounds: of bytes, of entries, and of time, which whoever asks keeps. What it refers to in other files
//! (`dwz` moves names there) is not followed: an inlined function without a name is left out, and its code counts for the function around it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use gimli::constants as dw;
use gimli::{AttributeValue, DwarfSections, EndianSlice, NativeEndian, SectionId};
use thiserror::Error;

use crate::elf::Elf;
use crate::name;
use crate::symbols::{Builder, Inlined, MAX_FUNCTIONS, NO_FILE, Quality, Row};
use crate::tables;
use crate::unfold::{self, UnfoldError};

/// Sections that are read; those of variables' places and of macros, often a quarter of the whole, are not among them.
const SECTIONS: [&str; 9] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];
/// How far a function's name is followed: from what was inlined to its abstract form to its declaration.
const MAX_ORIGINS: usize = 8;
/// Ranges of addresses that are read at most: a real function has a few.
const MAX_RANGES: usize = 4 << 20;
/// Entries between two looks at the time.
const LOOK_EVERY: usize = 1 << 12;
/// Which part of what may be read abbreviations may be: in memory, those of a unit are some twenty times as long. Of real files they are a fiftieth.
const ABBREVIATIONS_SHARE: u64 = 8;
/// Units that are read, some hundred bytes each as long as they all are. Large programs have some ten thousand.
const MAX_UNITS: usize = 1 << 16;
/// Lines of code that follows on itself: a section has some thousands.
const MAX_SEQUENCE: usize = 1 << 18;
/// Names of entries that others refer to; when there are more, all are forgotten and read again.
const MAX_KNOWN_NAMES: usize = 1 << 16;
/// Units that others refer to, in memory: with link-time optimisation, a unit refers to a few.
const MAX_OTHERS: usize = 4;

/// Debug information that cannot be used.
#[derive(Debug, Error)]
pub enum DwarfError {
    /// It is too large, or not there.
    #[error(transparent)]
    Unfold(#[from] UnfoldError),
    /// It is not what the standard says.
    #[error("debug information is malformed: {0}")]
    Malformed(#[from] gimli::Error),
    /// Reading it took too long.
    #[error("reading debug information took too long")]
    TooLong,
    /// A parser has panicked.
    #[error("debug information makes its parser panic")]
    Panicked,
}

type Slice<'s> = EndianSlice<'s, NativeEndian>;
type Dwarf<'s> = gimli::Dwarf<Slice<'s>>;
type Unit<'s> = gimli::Unit<Slice<'s>>;
type UnitHeader<'s> = gimli::UnitHeader<Slice<'s>>;
type Entry<'s> = gimli::DebuggingInformationEntry<Slice<'s>>;
type Result<T> = std::result::Result<T, DwarfError>;

/// Bytes of the sections that would be read, uncompressed where they are not compressed; `None`: there is no debug information.
#[must_use]
pub fn bytes(elf: &Elf) -> Option<u64> {
    elf.section(".debug_info")?;
    Some(SECTIONS.iter().filter_map(|name| elf.section(name)).map(|section| section.size).sum())
}

/// Adds what the file's debug information tells. After an error nothing of it was added.
///
/// # Errors
/// Where it is larger than `limit`, damaged, or takes longer than `is_over` says.
pub fn add(
    builder: &mut Builder,
    file: &File,
    elf: &Elf,
    limit: u64,
    is_over: &mut dyn FnMut() -> bool,
) -> Result<()> {
    // Not after most of it was read.
    if bytes(elf).is_some_and(|bytes| bytes > limit) {
        return Err(UnfoldError::TooLarge(limit).into());
    }
    let mut left = limit;
    let mut load = |id: SectionId| -> Result<Vec<u8>> {
        let section =
            Some(id.name()).filter(|name| SECTIONS.contains(name)).and_then(|name| elf.section(name));
        let Some(section) = section else { return Ok(Vec::new()) };
        let most = if id == SectionId::DebugAbbrev { left.min(limit / ABBREVIATIONS_SHARE) } else { left };
        let content = unfold::content(file, section, most)?;
        left -= content.len() as u64;
        Ok(content)
    };
    let sections = DwarfSections::load(&mut load)?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, NativeEndian));
    let before = builder.mark();
    // Some additions in it overflow, where that is looked at.
    let read = catch_unwind(AssertUnwindSafe(|| {
        let mut reading = Reading::new(builder, &dwarf, tables::code(elf), is_over)?;
        reading.read()?;
        Ok(reading.functions)
    }));
    match read.unwrap_or(Err(DwarfError::Panicked)) {
        Ok(mut functions) => {
            // Of several that begin at an address the longest counts.
            functions.sort_unstable_by_key(|function| {
                (function.range.start, u64::MAX - function.range.end, function.name)
            });
            let functions = functions.into_iter().map(|function| (function.range, function.name));
            builder.merge(functions, Quality::Debug, |_, name| Some(name));
            builder.has_debug_information();
            Ok(())
        }
        Err(error) => {
            builder.back_to(before);
            Err(error)
        }
    }
}

/// A function that no table has.
struct Found {
    range: Range<u64>,
    name: u32,
}

struct Reading<'s, 'o> {
    builder: &'o mut Builder,
    dwarf: &'s Dwarf<'s>,
    headers: Vec<UnitHeader<'s>>,
    /// Units that others refer to, by their number; the one that was needed last at the end.
    others: VecDeque<(usize, Rc<Unit<'s>>)>,
    code: Vec<Range<u64>>,
    is_over: &'o mut dyn FnMut() -> bool,
    /// By the place of an entry in its section.
    names: HashMap<usize, Option<u32>>,
    ranges_left: usize,
    functions: Vec<Found>,
    /// Whether there is no room for more.
    is_full: bool,
}

impl<'s, 'o> Reading<'s, 'o> {
    fn new(
        builder: &'o mut Builder,
        dwarf: &'s Dwarf<'s>,
        code: Vec<Range<u64>>,
        is_over: &'o mut dyn FnMut() -> bool,
    ) -> Result<Self> {
        let mut headers = Vec::new();
        let mut units = dwarf.units();
        while headers.len() < MAX_UNITS
            && let Some(header) = units.next()?
        {
            headers.push(header);
        }
        if headers.len() >= MAX_UNITS {
            builder.cut();
        }
        Ok(Self {
            builder,
            dwarf,
            headers,
            others: VecDeque::new(),
            code,
            is_over,
            names: HashMap::new(),
            ranges_left: MAX_RANGES,
            functions: Vec::new(),
            is_full: false,
        })
    }

    fn read(&mut self) -> Result<()> {
        for at in 0..self.headers.len() {
            self.look_at_time()?;
            // One at a time: what is known of its abbreviations and files is often more than itself.
            let unit = Rc::new(self.dwarf.unit(self.headers[at])?);
            let files = self.rows(&unit)?;
            self.entries(at, &unit, &files)?;
            if self.is_full {
                self.builder.cut();
                break;
            }
        }
        Ok(())
    }

    fn look_at_time(&mut self) -> Result<()> {
        if (self.is_over)() { Err(DwarfError::TooLong) } else { Ok(()) }
    }

    /// Reads a unit's lines. Returns the names of its files by their numbers.
    fn rows(&mut self, unit: &Unit<'s>) -> Result<HashMap<u64, u32>> {
        let mut files = HashMap::new();
        let Some(program) = unit.line_program.clone() else { return Ok(files) };
        let header = program.header().clone();
        let (mut rows, mut read) = (program.rows(), 0_usize);
        let mut sequence: Vec<Row> = Vec::new();
        while let Some((_, row)) = rows.next_row()? {
            read += 1;
            if read.is_multiple_of(LOOK_EVERY) {
                self.look_at_time()?;
            }
            if row.end_sequence() {
                // Code that the linker has left out begins at no place where code is.
                if sequence.first().is_some_and(|row| self.is_code(row.start)) {
                    sequence.push(Row { start: row.address(), file: NO_FILE, line: 0 });
                    self.is_full |= !self.builder.lines(&sequence);
                }
                sequence.clear();
                continue;
            }
            // One that has no end is none.
            self.is_full |= sequence.len() >= MAX_SEQUENCE;
            if self.is_full {
                return Ok(files);
            }
            let (start, index) = (row.address(), row.file_index());
            let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            let file = self.file(unit, &header, index, &mut files);
            match sequence.last_mut() {
                // Of an address the last row counts.
                Some(last) if last.start == start => *last = Row { start, file, line },
                Some(last) if (last.file, last.line) == (file, line) => {}
                _ => sequence.push(Row { start, file, line }),
            }
        }
        // Files that only calls of inlined functions name.
        for index in 0..=(header.file_names().len() as u64).min(1 << 16) {
            self.file(unit, &header, index, &mut files);
        }
        Ok(files)
    }

    /// The number of a file's path.
    fn file(
        &mut self,
        unit: &Unit<'s>,
        header: &gimli::LineProgramHeader<Slice<'s>>,
        index: u64,
        files: &mut HashMap<u64, u32>,
    ) -> u32 {
        if let Some(known) = files.get(&index) {
            return *known;
        }
        let text =
            |value| self.dwarf.attr_string(unit, value).ok().map(|text| text.to_string_lossy().into_owned());
        let path = header.file(index).and_then(|file| {
            let directory = file.directory(header).and_then(text).unwrap_or_default();
            let root = unit.comp_dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
            // What is absolute replaces what is before it.
            Some(std::path::Path::new(&root).join(directory).join(text(file.path_name())?))
        });
        let number = path.and_then(|path| self.builder.name(&name::path(&path))).unwrap_or(NO_FILE);
        files.insert(index, number);
        number
    }

    fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|code| code.contains(&address))
    }

    /// Reads a unit's functions, and what is inlined into them.
    fn entries(&mut self, at: usize, unit: &Rc<Unit<'s>>, files: &HashMap<u64, u32>) -> Result<()> {
        let mut entries = unit.entries();
        let mut read = 0_usize;
        while let Some(entry) = entries.next_dfs()? {
            read += 1;
            if read.is_multiple_of(LOOK_EVERY) {
                self.look_at_time()?;
            }
            let is_inlined = match entry.tag() {
                dw::DW_TAG_subprogram => false,
                dw::DW_TAG_inlined_subroutine => true,
                _ => continue,
            };
            let mut ranges = self.dwarf.die_ranges(unit, entry)?;
            let mut name = None;
            while let Some(range) = ranges.next()? {
                let Some(left) = self.ranges_left.checked_sub(1) else { return self.full() };
                self.ranges_left = left;
                if range.begin >= range.end || !self.is_code(range.begin) {
                    continue;
                }
                // What a table has is named there.
                if !is_inlined && self.builder.has_function_at(range.begin) {
                    continue;
                }
                let Some(name) = *name.get_or_insert_with(|| self.name(at, unit, entry, 0)) else { break };
                if !is_inlined {
                    // They are there twice for a moment.
                    let bytes = 2 * size_of::<Found>() * (self.functions.len() + 1);
                    if self.functions.len() >= MAX_FUNCTIONS || !self.builder.has_room_beside(bytes) {
                        return self.full();
                    }
                    self.functions.push(Found { range: range.begin..range.end, name });
                    continue;
                }
                let number = |name| entry.attr_value(name).and_then(|value| value.udata_value()).unwrap_or(0);
                let call_file = match entry.attr_value(dw::DW_AT_call_file) {
                    Some(AttributeValue::FileIndex(index)) => index,
                    value => value.and_then(|value| value.udata_value()).unwrap_or(u64::MAX),
                };
                let has_room = self.builder.inline(Inlined {
                    start: range.begin,
                    end: range.end,
                    name,
                    call_file: files.get(&call_file).copied().unwrap_or(NO_FILE),
                    call_line: u32::try_from(number(dw::DW_AT_call_line)).unwrap_or(0),
                });
                if !has_room {
                    return self.full();
                }
            }
        }
        Ok(())
    }

    fn full(&mut self) -> Result<()> {
        self.is_full = true;
        Ok(())
    }

    /// The number of a function's name: its own, or that of what it is an instance of.
    fn name(&mut self, at: usize, unit: &Rc<Unit<'s>>, entry: &Entry<'s>, origins: usize) -> Option<u32> {
        let (mut linkage, mut plain, mut origin) = (None, None, None);
        for attribute in entry.attrs() {
            match attribute.name() {
                dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => linkage = Some(attribute.value()),
                dw::DW_AT_name => plain = Some(attribute.value()),
                dw::DW_AT_abstract_origin | dw::DW_AT_specification => origin = Some(attribute.value()),
                _ => {}
            }
        }
        let text = |value| self.dwarf.attr_string(unit, value).ok();
        let own = linkage.and_then(text);
        // A declaration may have the name that the linker knows, and its definition none.
        let of_origin = match (&own, origin) {
            (None, Some(origin)) if origins < MAX_ORIGINS => {
                self.name_of_origin(at, unit, origin, origins + 1)
            }
            _ => None,
        };
        of_origin.or_else(|| {
            let name = own.or_else(|| plain.and_then(|value| self.dwarf.attr_string(unit, value).ok()))?;
            let name = name::function(&name.to_string_lossy());
            if name.is_empty() { None } else { self.builder.name(&name) }
        })
    }

    fn name_of_origin(
        &mut self,
        at: usize,
        unit: &Rc<Unit<'s>>,
        origin: AttributeValue<Slice<'s>>,
        origins: usize,
    ) -> Option<u32> {
        let start = |header: &UnitHeader<'_>| header.debug_info_offset().map_or(0, |offset| offset.0);
        let (at, unit, offset) = match origin {
            AttributeValue::UnitRef(offset) => (at, Rc::clone(unit), offset),
            AttributeValue::DebugInfoRef(offset) => {
                let after = self.headers.partition_point(|header| start(header) <= offset.0);
                let of = after.checked_sub(1)?;
                let within = offset.to_unit_offset(&self.headers[of])?;
                let unit = if of == at { Rc::clone(unit) } else { self.other(of)? };
                (of, unit, within)
            }
            _ => return None,
        };
        let place = start(&self.headers[at]).checked_add(offset.0)?;
        if let Some(known) = self.names.get(&place) {
            return *known;
        }
        let entry = unit.entry(offset).ok()?;
        let name = self.name(at, &unit, &entry, origins);
        if self.names.len() >= MAX_KNOWN_NAMES {
            self.names.clear();
        }
        self.names.insert(place, name);
        name
    }

    /// A unit that another refers to.
    fn other(&mut self, number: usize) -> Option<Rc<Unit<'s>>> {
        let unit = match self.others.iter().position(|(known, _)| *known == number) {
            Some(at) => self.others.remove(at)?.1,
            None => Rc::new(self.dwarf.unit(self.headers[number]).ok()?),
        };
        if self.others.len() >= MAX_OTHERS {
            self.others.pop_front();
        }
        self.others.push_back((number, Rc::clone(&unit)));
        Some(unit)
    }
}
