//! Functions, inlined functions and lines by debug information.
//!
//! It is read whole and once, within bounds: of bytes, of entries, and of time, which whoever asks keeps. What it refers to in other files
//! (`dwz` moves names there) is not followed: an inlined function without a name is left out, and its code counts for the function around it.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use gimli::constants as dw;
use gimli::{AttributeValue, DwarfSections, EndianSlice, NativeEndian, SectionId};
use thiserror::Error;

use crate::elf::Elf;
use crate::name;
use crate::symbols::{Builder, Function, Inlined, MAX_INLINED, MAX_ROWS, NO_FILE, Quality, Row};
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
    let mut left = limit;
    let mut load = |id: SectionId| -> Result<Vec<u8>> {
        let section =
            Some(id.name()).filter(|name| SECTIONS.contains(name)).and_then(|name| elf.section(name));
        let Some(section) = section else { return Ok(Vec::new()) };
        let content = unfold::content(file, section, left)?;
        left -= content.len() as u64;
        Ok(content)
    };
    let sections = DwarfSections::load(&mut load)?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, NativeEndian));
    // Some additions in it overflow, where that is looked at.
    let found = catch_unwind(AssertUnwindSafe(|| {
        let mut reading = Reading::new(&dwarf, tables::code(elf), is_over)?;
        reading.read()?;
        Ok(reading.found)
    }));
    let found: Found = found.unwrap_or(Err(DwarfError::Panicked))?;
    found.add_to(builder);
    Ok(())
}

/// What debug information tells, its names by their numbers.
#[derive(Default)]
struct Found {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
    functions: Vec<(Range<u64>, u32)>,
    inlined: Vec<Inlined>,
    rows: Vec<Row>,
    is_cut: bool,
}

impl Found {
    fn number(&mut self, name: String) -> u32 {
        let next = self.names.len() as u32;
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }

    fn add_to(self, builder: &mut Builder) {
        let function = |(range, number): (Range<u64>, u32)| Function {
            range,
            name: self.names[number as usize].clone(),
        };
        builder.fill(self.functions.into_iter().map(function).collect(), Quality::Debug);
        let mut numbers = vec![None; self.names.len()];
        for inlined in self.inlined {
            let mut of = |number: u32| {
                let name = self.names.get(number as usize)?;
                *numbers[number as usize].get_or_insert_with(|| builder.name(name))
            };
            let (name, call_file) = (of(inlined.name), of(inlined.call_file).unwrap_or(NO_FILE));
            if let Some(name) = name {
                builder.inlined.push(Inlined { name, call_file, ..inlined });
            }
        }
        for row in self.rows {
            let file = self.names.get(row.file as usize).and_then(|file| builder.name(file));
            builder.rows.push(Row { file: file.unwrap_or(NO_FILE), ..row });
        }
        if self.is_cut {
            builder.cut();
        }
        builder.has_debug_information();
    }
}

struct Reading<'s, 'o> {
    dwarf: &'s Dwarf<'s>,
    units: Vec<Unit<'s>>,
    code: Vec<Range<u64>>,
    is_over: &'o mut dyn FnMut() -> bool,
    /// By the place of an entry in its section.
    names: HashMap<usize, Option<u32>>,
    ranges_left: usize,
    found: Found,
}

impl<'s, 'o> Reading<'s, 'o> {
    fn new(
        dwarf: &'s Dwarf<'s>,
        code: Vec<Range<u64>>,
        is_over: &'o mut dyn FnMut() -> bool,
    ) -> Result<Self> {
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            if is_over() {
                return Err(DwarfError::TooLong);
            }
            units.push(dwarf.unit(header)?);
        }
        let names = HashMap::new();
        Ok(Self { dwarf, units, code, is_over, names, ranges_left: MAX_RANGES, found: Found::default() })
    }

    fn read(&mut self) -> Result<()> {
        for at in 0..self.units.len() {
            let files = self.rows(at)?;
            self.entries(at, &files)?;
        }
        Ok(())
    }

    fn look_at_time(&mut self) -> Result<()> {
        if (self.is_over)() { Err(DwarfError::TooLong) } else { Ok(()) }
    }

    /// Reads a unit's lines. Returns the names of its files by their numbers.
    fn rows(&mut self, unit: usize) -> Result<HashMap<u64, u32>> {
        let mut files = HashMap::new();
        let Some(program) = self.units[unit].line_program.clone() else { return Ok(files) };
        let header = program.header().clone();
        let (mut rows, mut read) = (program.rows(), 0_usize);
        let mut sequence: Vec<Row> = Vec::new();
        while let Some((_, row)) = rows.next_row()? {
            read += 1;
            if read.is_multiple_of(LOOK_EVERY) {
                self.look_at_time()?;
            }
            if self.found.rows.len() + sequence.len() >= 2 * MAX_ROWS {
                self.found.is_cut = true;
                return Ok(files);
            }
            if row.end_sequence() {
                // Code that the linker has left out begins at no place where code is.
                if sequence.first().is_some_and(|row| self.is_code(row.start)) {
                    self.found.rows.append(&mut sequence);
                    self.found.rows.push(Row { start: row.address(), file: NO_FILE, line: 0 });
                }
                sequence.clear();
                continue;
            }
            let (start, index) = (row.address(), row.file_index());
            let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            let file = self.file(unit, &header, index, &mut files);
            if sequence.last().is_none_or(|last| (last.file, last.line) != (file, line)) {
                sequence.push(Row { start, file, line });
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
        unit: usize,
        header: &gimli::LineProgramHeader<Slice<'s>>,
        index: u64,
        files: &mut HashMap<u64, u32>,
    ) -> u32 {
        if let Some(known) = files.get(&index) {
            return *known;
        }
        let unit = &self.units[unit];
        let text =
            |value| self.dwarf.attr_string(unit, value).ok().map(|text| text.to_string_lossy().into_owned());
        let path = header.file(index).and_then(|file| {
            let directory = file.directory(header).and_then(text).unwrap_or_default();
            let root = unit.comp_dir.map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
            // What is absolute replaces what is before it.
            Some(std::path::Path::new(&root).join(directory).join(text(file.path_name())?))
        });
        let number = path.map_or(NO_FILE, |path| self.found.number(name::path(&path)));
        files.insert(index, number);
        number
    }

    fn is_code(&self, address: u64) -> bool {
        self.code.iter().any(|code| code.contains(&address))
    }

    /// Reads a unit's functions, and what is inlined into them.
    fn entries(&mut self, at: usize, files: &HashMap<u64, u32>) -> Result<()> {
        // The cursor borrows the unit while names of others are read.
        let again = self.dwarf.unit(self.units[at].header)?;
        let unit = std::mem::replace(&mut self.units[at], again);
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
            let mut ranges = self.dwarf.die_ranges(&unit, entry)?;
            let mut name = None;
            while let Some(range) = ranges.next()? {
                let Some(left) = self.ranges_left.checked_sub(1) else { return self.full() };
                self.ranges_left = left;
                if range.begin >= range.end || !self.is_code(range.begin) {
                    continue;
                }
                let Some(name) = *name.get_or_insert_with(|| self.name(at, entry, 0)) else { break };
                if !is_inlined {
                    self.found.functions.push((range.begin..range.end, name));
                    continue;
                }
                if self.found.inlined.len() >= MAX_INLINED {
                    return self.full();
                }
                let number = |name| entry.attr_value(name).and_then(|value| value.udata_value()).unwrap_or(0);
                let call_file = match entry.attr_value(dw::DW_AT_call_file) {
                    Some(AttributeValue::FileIndex(index)) => index,
                    value => value.and_then(|value| value.udata_value()).unwrap_or(u64::MAX),
                };
                self.found.inlined.push(Inlined {
                    start: range.begin,
                    end: range.end,
                    name,
                    call_file: files.get(&call_file).copied().unwrap_or(NO_FILE),
                    call_line: u32::try_from(number(dw::DW_AT_call_line)).unwrap_or(0),
                });
            }
        }
        Ok(())
    }

    fn full(&mut self) -> Result<()> {
        self.found.is_cut = true;
        Ok(())
    }

    /// The number of a function's name: its own, or that of what it is an instance of.
    fn name(&mut self, unit: usize, entry: &Entry<'s>, origins: usize) -> Option<u32> {
        let (mut linkage, mut plain, mut origin) = (None, None, None);
        for attribute in entry.attrs() {
            match attribute.name() {
                dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => linkage = Some(attribute.value()),
                dw::DW_AT_name => plain = Some(attribute.value()),
                dw::DW_AT_abstract_origin | dw::DW_AT_specification => origin = Some(attribute.value()),
                _ => {}
            }
        }
        let text = |value| self.dwarf.attr_string(&self.units[unit], value).ok();
        let own = linkage.and_then(text);
        // A declaration may have the name that the linker knows, and its definition none.
        let of_origin = match (&own, origin) {
            (None, Some(origin)) if origins < MAX_ORIGINS => self.name_of_origin(unit, origin, origins + 1),
            _ => None,
        };
        of_origin.or_else(|| {
            let text = |value| self.dwarf.attr_string(&self.units[unit], value).ok();
            let name = own.or_else(|| plain.and_then(text))?;
            let name = name::function(&name.to_string_lossy());
            (!name.is_empty()).then(|| self.found.number(name))
        })
    }

    fn name_of_origin(
        &mut self,
        unit: usize,
        origin: AttributeValue<Slice<'s>>,
        origins: usize,
    ) -> Option<u32> {
        let (unit, offset) = match origin {
            AttributeValue::UnitRef(offset) => (unit, offset),
            AttributeValue::DebugInfoRef(offset) => {
                let start = |unit: &Unit<'_>| unit.header.debug_info_offset().map_or(0, |offset| offset.0);
                let after = self.units.partition_point(|unit| start(unit) <= offset.0);
                let unit = after.checked_sub(1)?;
                (unit, offset.to_unit_offset(&self.units[unit].header)?)
            }
            _ => return None,
        };
        let place = self.units[unit].header.debug_info_offset()?.0.checked_add(offset.0)?;
        if let Some(known) = self.names.get(&place) {
            return *known;
        }
        let entry = self.units[unit].entry(offset).ok()?;
        let name = self.name(unit, &entry, origins);
        self.names.insert(place, name);
        name
    }
}
