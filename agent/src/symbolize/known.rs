//! Functions that were found before, where nothing but functions is asked for: other places in them need no look at their file.
//!
//! Over weeks of windows, new places in the same functions never end, and to look one up its file's symbols are read and sorted: of all that
//! windows cost that was most. What is remembered is the range of file offsets that a symbol covers; of symbols within others, the inner one
//! once it was met.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::cache::Identity;
use super::elf::{BuildId, Code};
use super::symbols::{Note, SourceLine, Symbolized};
use crate::address::{FileOffset, VirtualOffset};

/// Functions that are remembered, some 150 bytes each. When there are more, all are forgotten: what still runs is soon there again.
const MAX_FUNCTIONS: usize = 30_000;
/// Files of which any are; some 200 bytes each.
const MAX_FILES: usize = 4_096;

/// An address in a file, and what is there.
pub(super) type Answer = Symbolized<Option<VirtualOffset>>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct KnownFunctions {
    files: HashMap<Identity, KnownFile>,
    functions: usize,
}

/// What is known of a file's functions.
pub(super) struct KnownFile {
    pub(super) build_id: BuildId,
    pub(super) notes: Vec<Note>,
    code: Vec<Code>,
    /// Whether it has no symbols at all.
    is_bare: bool,
    /// By the address at which they begin: that at which they end, and their name.
    functions: BTreeMap<u64, (u64, SourceLine)>,
}

impl KnownFunctions {
    /// What is known of a file.
    pub(super) fn file(&self, identity: Identity) -> Option<&KnownFile> {
        self.files.get(&identity)
    }

    /// Takes note of a file that was opened. One without symbols is not to be opened again.
    pub(super) fn opened(
        &mut self,
        identity: Identity,
        build_id: &BuildId,
        notes: &[Note],
        code: impl Iterator<Item = Code>,
        is_bare: bool,
    ) {
        if self.files.len() >= MAX_FILES || self.functions >= MAX_FUNCTIONS {
            (self.files, self.functions) = Default::default();
        }
        let file = self.files.entry(identity).or_insert_with(|| KnownFile {
            build_id: build_id.clone(),
            notes: Vec::new(),
            code: code.collect(),
            is_bare,
            functions: BTreeMap::new(),
        });
        file.notes = notes.to_vec();
    }

    /// Takes note of a function of a file that was opened, by its addresses.
    pub(super) fn found(&mut self, identity: Identity, range: Range<u64>, line: &SourceLine) {
        let Some(file) = self.files.get_mut(&identity) else { return };
        let before = file.functions.insert(range.start, (range.end, line.clone()));
        self.functions += usize::from(before.is_none());
    }
}

impl KnownFile {
    /// What is at an offset; `None` where that has to be looked up.
    pub(super) fn answer(&self, offset: FileOffset) -> Option<Answer> {
        let covers = |code: &&Code| offset.0.wrapping_sub(code.offset) < code.size;
        let code = self.code.iter().find(covers)?;
        let address = code.address.wrapping_add(offset.0 - code.offset);
        let lines = if self.is_bare {
            Vec::new()
        } else {
            let (_, (end, line)) = self.functions.range(..=address).next_back()?;
            if address >= *end {
                return None;
            }
            vec![line.clone()]
        };
        Some(Symbolized { address: Some(VirtualOffset(address)), module: None, lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::elf::Elf;

    fn build_id() -> BuildId {
        let file = std::fs::File::open("/proc/self/exe").expect("it is there");
        let elf = Elf::read(&file).expect("it is a binary");
        elf.build_id(&file).expect("it can be read")
    }

    #[test]
    fn places_in_functions_that_were_found_are_known_and_no_others() {
        let identity = Identity::of(&std::fs::metadata("/proc/self/exe").expect("it is there"));
        let build_id = build_id();
        let code = || [Code { address: 0x40_1000, offset: 0x1000, size: 0x2000 }].into_iter();
        let line = |name: &str| SourceLine { function: name.to_owned(), file: String::new(), line: 0 };
        let mut known = KnownFunctions::default();
        known.found(identity, 0..9, &line("of a file that was not opened"));
        known.opened(identity, &build_id, &[], code(), false);
        known.found(identity, 0x40_1100..0x40_1200, &line("outer"));
        known.found(identity, 0x40_1180..0x40_1190, &line("inner"));
        let file = known.file(identity).expect("it was opened");
        let told = |offset| {
            let answer = file.answer(FileOffset(offset))?;
            Some((answer.address.map(|address| address.0), answer.lines[0].function.clone()))
        };
        assert_eq!(told(0x1100), Some((Some(0x40_1100), "outer".to_owned())));
        assert_eq!(told(0x1185), Some((Some(0x40_1185), "inner".to_owned())));
        for unknown in [0x10ff, 0x1200, 0x3000, 0] {
            assert_eq!(told(unknown), None, "{unknown:#x}");
        }
    }

    #[test]
    fn a_file_without_symbols_is_known_as_a_whole() {
        let identity = Identity::of(&std::fs::metadata("/proc/self/exe").expect("it is there"));
        let mut known = KnownFunctions::default();
        let code = [Code { address: 0x1000, offset: 0x1000, size: 0x2000 }].into_iter();
        known.opened(identity, &build_id(), &[Note::SymbolsDamaged], code, true);
        let file = known.file(identity).expect("it was opened");
        assert_eq!(file.notes, [Note::SymbolsDamaged]);
        assert_eq!(file.answer(FileOffset(0x1500)).map(|answer| answer.lines), Some(Vec::new()));
        assert!(file.answer(FileOffset(0x5000)).is_none());
    }
}
