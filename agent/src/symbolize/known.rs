//! What was found at the addresses of files, where nothing but functions is asked for: other places in the same functions, and in what has no
//! name, need no look at their file.
//!
//! Over weeks of windows, new places in the same functions never end, and to look one up its file's symbols are all read.

use std::collections::{BTreeMap, HashMap};

use super::cache::Identity;
use super::elf::{BuildId, Code};
use super::scan::Piece;
use super::symbols::{Note, SourceLine, Symbolized};
use crate::address::{FileOffset, VirtualOffset};

/// Pieces that are remembered, some 150 bytes each. When there are more, all are forgotten: what still runs is soon there again.
const MAX_PIECES: usize = 30_000;
/// Files of which any are; some 200 bytes each.
const MAX_FILES: usize = 4_096;

/// An address in a file, and what is there.
pub(super) type Answer = Symbolized<Option<VirtualOffset>>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct KnownFunctions {
    files: HashMap<Identity, KnownFile>,
    pieces: usize,
}

/// What is known of a file's functions.
pub(super) struct KnownFile {
    pub(super) build_id: BuildId,
    pub(super) notes: Vec<Note>,
    code: Vec<Code>,
    /// By the address at which they begin: that at which they end, and the function there.
    pieces: BTreeMap<u64, (u64, Option<String>)>,
}

impl KnownFunctions {
    /// What is known of a file.
    pub(super) fn file(&self, identity: Identity) -> Option<&KnownFile> {
        self.files.get(&identity)
    }

    /// Takes note of a file that was opened.
    pub(super) fn opened(
        &mut self,
        identity: Identity,
        build_id: &BuildId,
        notes: &[Note],
        code: impl Iterator<Item = Code>,
    ) {
        if self.files.len() >= MAX_FILES || self.pieces >= MAX_PIECES {
            (self.files, self.pieces) = Default::default();
        }
        let file = self.files.entry(identity).or_insert_with(|| KnownFile {
            build_id: build_id.clone(),
            notes: Vec::new(),
            code: code.collect(),
            pieces: BTreeMap::new(),
        });
        file.notes = notes.to_vec();
    }

    /// Takes note of what is in a file that was opened, by its addresses.
    pub(super) fn found(&mut self, identity: Identity, piece: &Piece) {
        let Some(file) = self.files.get_mut(&identity) else { return };
        let Piece { range, function } = piece;
        let before = file.pieces.insert(range.start, (range.end, function.clone()));
        self.pieces += usize::from(before.is_none());
    }
}

impl KnownFile {
    /// What is at an offset; `None` where that has to be looked up.
    pub(super) fn answer(&self, offset: FileOffset) -> Option<Answer> {
        let address = self.code.iter().find_map(|code| code.address_of(offset))?;
        let (_, (end, function)) = self.pieces.range(..=address.0).next_back()?;
        (address.0 < *end).then(|| {
            let lines = function.iter().cloned().map(SourceLine::of_function).collect();
            Symbolized { address: Some(address), module: None, lines }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::symbolize::elf::Elf;

    fn build_id() -> BuildId {
        let file = std::fs::File::open("/proc/self/exe").expect("it is there");
        let elf = Elf::read(&file).expect("it is a binary");
        elf.build_id(&file).expect("it can be read")
    }

    fn piece(range: Range<u64>, function: Option<&str>) -> Piece {
        Piece { range, function: function.map(str::to_owned) }
    }

    #[test]
    fn places_in_pieces_that_were_found_are_known_and_no_others() {
        let identity = Identity::of(&std::fs::metadata("/proc/self/exe").expect("it is there"));
        let build_id = build_id();
        let code = || [Code { address: 0x40_1000, offset: 0x1000, size: 0x2000 }].into_iter();
        let mut known = KnownFunctions::default();
        known.found(identity, &piece(0..9, Some("of a file that was not opened")));
        known.opened(identity, &build_id, &[Note::SymbolsDamaged], code());
        known.found(identity, &piece(0x40_1100..0x40_1180, Some("outer")));
        known.found(identity, &piece(0x40_1180..0x40_1190, Some("inner")));
        known.found(identity, &piece(0x40_1190..0x40_1200, None));
        let file = known.file(identity).expect("it was opened");
        assert_eq!(file.notes, [Note::SymbolsDamaged]);
        let told = |offset| {
            let answer = file.answer(FileOffset(offset))?;
            let function = answer.lines.first().map(|line| line.function.clone());
            Some((answer.address.map(|address| address.0), function))
        };
        assert_eq!(told(0x1100), Some((Some(0x40_1100), Some("outer".to_owned()))));
        assert_eq!(told(0x1185), Some((Some(0x40_1185), Some("inner".to_owned()))));
        assert_eq!(told(0x11ff), Some((Some(0x40_11ff), None)));
        for unknown in [0x10ff, 0x1200, 0x3000, 0] {
            assert_eq!(told(unknown), None, "{unknown:#x}");
        }
    }
}
