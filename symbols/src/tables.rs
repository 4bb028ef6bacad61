//! Symbol tables: what is at the entries, and all functions of a table.

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;

use crate::elf::{Elf, Fields, Section};
use crate::symbols::{Builder, Quality};
use crate::unfold::{self, UnfoldError};

/// Types of symbols that may be where code is: none, an object, a function, and one that is chosen as the program starts.
const TYPES: [u8; 4] = [NO_TYPE, 1, FUNCTION, CHOSEN];
const NO_TYPE: u8 = 0;
const FUNCTION: u8 = 2;
const CHOSEN: u8 = 10;
const UNDEFINED: u16 = 0;
const LOCAL: u8 = 0;
const ARM: u16 = 40;
const AARCH64: u16 = 183;

/// A kind of symbol table.
#[derive(Debug)]
pub struct Kind {
    /// Its section.
    pub symbols: &'static str,
    /// The section of its names.
    pub names: &'static str,
    /// Whether a symbol without a size is taken to reach to the next. In the tables of what is exported most functions are missing.
    pub reaches_on: bool,
}

/// The whole table of symbols, and that of what is exported.
pub const KINDS: [Kind; 2] = [
    Kind { symbols: ".symtab", names: ".strtab", reaches_on: true },
    Kind { symbols: ".dynsym", names: ".dynstr", reaches_on: false },
];

/// An entry that may be a function.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Its address.
    pub start: u64,
    /// Its bytes; 0 where the table does not say.
    pub size: u64,
    /// Where its name begins among the names.
    pub name: u32,
}

/// Bytes of an entry.
#[must_use]
pub fn entry_bytes(elf: &Elf) -> usize {
    if elf.is_64_bit { 24 } else { 16 }
}

/// Whether tables of this processor have marks of where instructions and data begin, `$x` and `$d`.
#[must_use]
pub fn has_marks(elf: &Elf) -> bool {
    matches!(elf.machine, ARM | AARCH64)
}

/// A symbol that may be a function; `None` of the others.
#[must_use]
pub fn symbol(entry: &Fields<'_>, is_64_bit: bool, has_marks: bool) -> Option<Symbol> {
    let at = |wide, narrow| if is_64_bit { wide } else { narrow };
    let info = *entry.0.get(at(4, 12))?;
    let (kind, binding) = (info & 0xf, info >> 4);
    if !TYPES.contains(&kind) || entry.u16(at(6, 14))? == UNDEFINED {
        return None;
    }
    let (start, size) = (entry.word(at(8, 4), is_64_bit)?, entry.word(at(16, 8), is_64_bit)?);
    if has_marks && kind == NO_TYPE && binding == LOCAL && size == 0 {
        return None;
    }
    Some(Symbol { start, size, name: entry.u32(0)? })
}

/// Adds all functions of a table that lie in the file's code: what counts is the symbol that begins last at or before an address, and of
/// several that begin there the longest, and of those as long the one that the table has first.
///
/// # Errors
/// Where it cannot be read, or is larger than `limit` with its names. Nothing of it was added.
pub fn add(
    builder: &mut Builder,
    file: &File,
    elf: &Elf,
    (kind, quality): (&Kind, Quality),
    limit: u64,
) -> Result<(), UnfoldError> {
    let (Some(table), Some(names)) = (elf.section(kind.symbols), elf.section(kind.names)) else {
        return Ok(());
    };
    let code: Vec<Range<u64>> = code(elf);
    let mut symbols = entries(file, elf, table, &code, limit)?;
    let names = unfold::content(file, names, limit.saturating_sub(table.size))?;
    symbols.sort_unstable_by_key(|entry| (entry.start, u64::MAX - entry.size, entry.number));
    symbols.dedup_by_key(|entry| entry.start);
    let functions = symbols.iter().enumerate().map(|(at, entry)| {
        let end_of_code = code.iter().find(|code| code.contains(&entry.start)).map_or(0, |code| code.end);
        let next = symbols.get(at + 1).map_or(end_of_code, |next| next.start.min(end_of_code));
        let end = match entry.size {
            0 if kind.reaches_on => next,
            0 => entry.start + 1,
            size => entry.start.saturating_add(size),
        };
        (entry.start..end.min(next), entry.name)
    });
    builder.merge(functions, quality, |builder, at| {
        let name = names.get(at as usize..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = crate::name::function(&String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]));
        if name.is_empty() { None } else { builder.name(&name) }
    });
    Ok(())
}

/// A symbol that may be a function, and which of the table it is.
struct Entry {
    start: u64,
    size: u64,
    name: u32,
    number: u32,
}

/// Those of a table that lie in code. The table is read through, and not kept.
fn entries(
    file: &File,
    elf: &Elf,
    table: &Section,
    code: &[Range<u64>],
    limit: u64,
) -> Result<Vec<Entry>, UnfoldError> {
    let (stream, size) = unfold::unfold(file, table)?;
    if size > limit {
        return Err(UnfoldError::TooLarge(limit));
    }
    let mut stream = BufReader::new(stream.take(size));
    let mut entry = vec![0; entry_bytes(elf)];
    let has_marks = has_marks(elf);
    let mut found = Vec::new();
    for number in 0..u32::try_from(size / entry.len() as u64).unwrap_or(u32::MAX) {
        stream.read_exact(&mut entry).map_err(UnfoldError::Unreadable)?;
        let Some(Symbol { start, size, name }) = symbol(&Fields(&entry), elf.is_64_bit, has_marks) else {
            continue;
        };
        if code.iter().any(|code| code.contains(&start)) {
            found.push(Entry { start, size, name, number });
        }
    }
    Ok(found)
}

/// Of a name more than this is not read. Few have more than some hundred bytes.
pub const MAX_NAME_BYTES: usize = 16 << 10;

/// Where code is: by its segments, or by the sections of a file of debug information, whose segments have no content.
pub(crate) fn code(elf: &Elf) -> Vec<Range<u64>> {
    const EXECUTABLE: u64 = 1 << 2;
    let of_segments = elf.code().map(|code| code.address..code.address.saturating_add(code.size));
    let sections = elf.sections.iter().filter(|section| section.flags & EXECUTABLE != 0);
    let of_sections = sections.map(|section| section.address..section.address.saturating_add(section.size));
    of_segments.chain(of_sections).collect()
}
