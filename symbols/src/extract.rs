//! Makes the symbols of a build of its files: the binary, and its file of debug information where there is one.

use std::fs::File;

use crate::dwarf;
use crate::elf::{Elf, LINKAGE_SECTIONS};
use crate::symbols::{Builder, Function, Quality, Symbols};
use crate::tables::{self, KINDS};

/// Name of stubs through which a binary calls functions of others.
pub const LINKAGE: &str = "[plt]";

/// What may be read, and what may come of it: so much memory is taken for a moment. A table and debug information are never there at the same
/// time, symbols beside each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a symbol table with its names.
    pub table_bytes: u64,
    /// Bytes of debug information. Of more nothing is read, and the build has functions alone.
    pub debug_bytes: u64,
    /// Bytes of the symbols while they are made. What does not fit is left out, and they say so.
    pub symbols_bytes: usize,
}

/// A file of a build.
#[derive(Clone, Copy, Debug)]
pub struct Part<'f> {
    /// The file.
    pub file: &'f File,
    /// Its headers.
    pub elf: &'f Elf,
}

/// What was made, and why it is less than it could be.
#[derive(Debug)]
pub struct Extracted {
    /// The symbols; `None`: there are none in any of the files.
    pub symbols: Option<Symbols>,
    /// What could not be read, each a sentence.
    pub remarks: Vec<String>,
}

/// How much the parts would tell, by their headers alone. `has_own_table` says that there is a table of functions beside them.
#[must_use]
pub fn quality(parts: &[Part<'_>], has_own_table: bool, limits: &Limits) -> Option<Quality> {
    let has = |name: &str| parts.iter().any(|part| part.elf.section(name).is_some());
    let has_debug = |part: &Part<'_>| dwarf::bytes(part.elf).is_some_and(|bytes| bytes <= limits.debug_bytes);
    if parts.iter().any(has_debug) {
        Some(Quality::Debug)
    } else if has_own_table || has(".symtab") || has(".gnu_debugdata") {
        Some(Quality::Functions)
    } else {
        has(".dynsym").then_some(Quality::Exported)
    }
}

/// Makes the symbols of the build of the parts: the best first. `own_table` are functions that another table names, as Go's.
/// `is_over` says when reading debug information has taken too long.
#[must_use]
pub fn extract(
    build_id: &[u8],
    parts: &[Part<'_>],
    own_table: Vec<Function>,
    limits: &Limits,
    is_over: &mut dyn FnMut() -> bool,
) -> Extracted {
    let mut builder = Builder::within(build_id.to_vec(), limits.symbols_bytes);
    let mut remarks = Vec::new();
    // A stub has no symbol, and the function before it often no size.
    for section in parts.iter().flat_map(|part| LINKAGE_SECTIONS.map(|name| part.elf.section(name))).flatten()
    {
        let range = section.address..section.address.saturating_add(section.size);
        builder.fill(vec![Function { range, name: LINKAGE.to_owned() }], Quality::Exported);
    }
    for (kind, quality) in KINDS.iter().zip([Quality::Functions, Quality::Exported]) {
        for part in parts {
            let added = tables::add(&mut builder, part.file, part.elf, (kind, quality), limits.table_bytes);
            if let Err(error) = added {
                remarks.push(format!("{}: {error}", kind.symbols));
            }
        }
    }
    builder.fill(own_table, Quality::Functions);
    for part in parts.iter().filter(|part| part.elf.is_64_bit && part.elf.has_debug_info()) {
        match dwarf::add(&mut builder, part.file, part.elf, limits.debug_bytes, is_over) {
            Ok(()) => break,
            Err(error) => remarks.push(error.to_string()),
        }
    }
    let symbols = builder.finish();
    if symbols.is_cut() {
        remarks.push("there is no room for all of them".to_owned());
    }
    let symbols = Some(symbols).filter(|symbols| symbols.functions() > 0);
    Extracted { symbols, remarks }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { table_bytes: 1 << 30, debug_bytes: 1 << 30, symbols_bytes: 1 << 30 };

    #[test]
    fn this_program_tells_where_this_test_is() {
        let file = File::open("/proc/self/exe").expect("it is there");
        let elf = Elf::read(&file).expect("it is a binary");
        let part = Part { file: &file, elf: &elf };
        assert_eq!(quality(&[part], false, &LIMITS), Some(Quality::Debug));
        let made = extract(b"id", &[part], Vec::new(), &LIMITS, &mut || false);
        assert_eq!(made.remarks, [""; 0]);
        let symbols = made.symbols.expect("there are some");
        assert_eq!(symbols.quality(), Quality::Debug);
        let own = "this_program_tells_where_this_test_is";
        let (range, _) =
            symbols.iter().find(|(_, name)| name.ends_with(own)).expect("this test has a symbol");
        let lines = symbols.at(range.start);
        let outer = lines.last().expect("it is a function");
        assert!(outer.function.ends_with(own) && outer.file.ends_with("symbols/src/extract.rs"), "{outer:?}");
        assert!(outer.line > 0 && outer.line < 200, "{outer:?}");
        assert!(symbols.iter().all(|(range, _)| range.start < range.end));
        let again = Symbols::read(&symbols.write().expect("it is not too large")).expect("it was written");
        assert_eq!(again, symbols);
    }

    #[test]
    fn what_takes_too_long_or_is_too_large_leaves_functions() {
        let file = File::open("/proc/self/exe").expect("it is there");
        let elf = Elf::read(&file).expect("it is a binary");
        let part = Part { file: &file, elf: &elf };
        let small = Limits { debug_bytes: 1000, ..LIMITS };
        assert_eq!(quality(&[part], false, &small), Some(Quality::Functions));
        for (limits, remark) in [(small, "more than"), (LIMITS, "too long")] {
            let made = extract(b"id", &[part], Vec::new(), &limits, &mut || true);
            assert_eq!(made.symbols.expect("there are some").quality(), Quality::Functions);
            assert!(made.remarks[0].contains(remark), "{:?}", made.remarks);
        }
    }
}
