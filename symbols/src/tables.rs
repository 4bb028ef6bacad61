//! Symbol tables: what is at the entries, and all functions of a table.

use std::fs::File;
use std::ops::Range;

use crate::elf::{Elf, Fields};
use crate::symbols::Function;
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

/// All functions of a table that lie in the file's code, in the order of their addresses, none within another: what counts is the symbol that
/// begins last at or before an address, and of several that begin there the longest. `None`: there is no such table.
///
/// # Errors
/// Where it cannot be read, or is larger than `limit` with its names.
pub fn functions(
    file: &File,
    elf: &Elf,
    kind: &Kind,
    limit: u64,
) -> Result<Option<Vec<Function>>, UnfoldError> {
    let (Some(table), Some(names)) = (elf.section(kind.symbols), elf.section(kind.names)) else {
        return Ok(None);
    };
    let table = unfold::content(file, table, limit)?;
    let names = unfold::content(file, names, limit - table.len() as u64)?;
    let code: Vec<Range<u64>> = code(elf);
    let is_code = |symbol: &Symbol| code.iter().any(|code| code.contains(&symbol.start));
    let entry = |entry| symbol(&Fields(entry), elf.is_64_bit, has_marks(elf));
    let mut symbols: Vec<Symbol> =
        table.chunks_exact(entry_bytes(elf)).filter_map(entry).filter(is_code).collect();
    drop(table);
    // The longest first, and of those as long the one that the table has first.
    symbols.sort_by_key(|symbol| (symbol.start, u64::MAX - symbol.size));
    symbols.dedup_by_key(|symbol| symbol.start);
    let mut functions = Vec::with_capacity(symbols.len());
    for (at, symbol) in symbols.iter().enumerate() {
        let end_of_code = code.iter().find(|code| code.contains(&symbol.start)).map_or(0, |code| code.end);
        let next = symbols.get(at + 1).map_or(end_of_code, |next| next.start.min(end_of_code));
        let end = match symbol.size {
            0 if kind.reaches_on => next,
            0 => symbol.start + 1,
            size => symbol.start.saturating_add(size),
        };
        let name = names.get(symbol.name as usize..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = crate::name::function(&String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]));
        if !name.is_empty() {
            functions.push(Function { range: symbol.start..end.min(next), name });
        }
    }
    Ok(Some(functions))
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
