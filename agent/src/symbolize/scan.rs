//! Functions by the symbol tables of a file, in one pass over each table.
//!
//! Who looks up thousands of addresses sorts the tables first. Continuous windows meet a few new places in a file at a time, and no index of
//! hundreds of files is to be kept for that: here the addresses are sorted, and each symbol is put to those it could be for. That takes some
//! ten nanoseconds a symbol, a buffer, and no page of the file stays resident. Each answer comes with the range of addresses that it is true
//! for, so that it need not be asked again; that there is nothing is an answer, too.
//!
//! What counts is the symbol that begins last at or before the address: where it has ended, nothing is known. Of several that begin there it is
//! the longest.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use chokepoint_symbols::tables::{self, KINDS, MAX_NAME_BYTES, Symbol, symbol};

use super::elf::{Elf, ElfError, Fields, SHF_COMPRESSED, Section};
use super::name;

/// Bytes of a table that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;
/// Names are read by so much at first.
const USUAL_NAME_BYTES: usize = 256;

/// A range of addresses, and the one function that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    /// As it is shown; `None` where nothing is known.
    pub(super) function: Option<String>,
}

impl Piece {
    /// Nothing is known of any address.
    pub(super) const NOTHING: Self = Self { range: 0..u64::MAX, function: None };

    /// Adds what another table says, where this knows nothing.
    pub(super) fn or(self, other: Self) -> Self {
        if self.function.is_some() {
            return self;
        }
        let range = self.range.start.max(other.range.start)..self.range.end.min(other.range.end);
        Self { range, function: other.function }
    }
}

/// What the file's tables say of these addresses, which are sorted, in their order.
pub(super) fn look_up(file: &File, sorted: &[u64]) -> Result<Vec<Piece>, ElfError> {
    let elf = Elf::read(file)?;
    let mut pieces = vec![Piece::NOTHING; sorted.len()];
    for kind in &KINDS {
        let open: Vec<usize> = (0..sorted.len()).filter(|at| pieces[*at].function.is_none()).collect();
        let (Some(symbols), Some(names)) = (elf.section(kind.symbols), elf.section(kind.names)) else {
            continue;
        };
        if open.is_empty() || (symbols.flags | names.flags) & SHF_COMPRESSED != 0 {
            continue;
        }
        let addresses: Vec<u64> = open.iter().map(|at| sorted[*at]).collect();
        let nearest = nearest(file, &elf, symbols, &addresses)?;
        for ((at, address), nearest) in open.into_iter().zip(addresses).zip(nearest) {
            let (range, name) = nearest.piece(address, kind.reaches_on);
            let function = match name {
                Some(name) => read_name(file, names, name)?,
                None => None,
            };
            let known = std::mem::replace(&mut pieces[at], Piece::NOTHING);
            pieces[at] = known.or(Piece { range, function });
        }
    }
    Ok(pieces)
}

/// The symbols that begin last at or before an address.
#[derive(Clone, Copy, Debug, Default)]
struct Nearest {
    /// Where they begin, and the longest: its size and the place of its name.
    longest: Option<Symbol>,
    /// The place of the name of one without a size.
    sizeless: Option<u32>,
    /// Where the first begins that comes after the address; `None`: none does.
    next: Option<u64>,
}

impl Nearest {
    /// Takes note of a symbol at or before the address.
    fn meet(&mut self, symbol: Symbol) {
        match &mut self.longest {
            Some(longest) if longest.start > symbol.start => return,
            Some(longest) if longest.start == symbol.start => {
                if longest.size < symbol.size {
                    *longest = symbol;
                }
            }
            _ => (self.longest, self.sizeless) = (Some(symbol), None),
        }
        if symbol.size == 0 {
            self.sizeless.get_or_insert(symbol.name);
        }
    }

    /// What that says of the address: for which others it is true, too, and the place of the function's name.
    fn piece(&self, address: u64, reaches_on: bool) -> (Range<u64>, Option<u32>) {
        let next = self.next.unwrap_or(u64::MAX);
        let Some(Symbol { start, size, name }) = self.longest else { return (0..next, None) };
        let end = start.saturating_add(size);
        match self.sizeless {
            _ if address < end => (start..end.min(next), Some(name)),
            Some(name) if reaches_on => (end..next, Some(name)),
            Some(name) if address == start => (start..start + 1, Some(name)),
            Some(_) => (end.max(start.saturating_add(1))..next, None),
            None => (end..next, None),
        }
    }
}

/// Reads all symbols of a table, and keeps those nearest to each of the sorted addresses.
fn nearest(file: &File, elf: &Elf, table: &Section, sorted: &[u64]) -> Result<Vec<Nearest>, ElfError> {
    let mut nearest = vec![Nearest::default(); sorted.len()];
    let (entry_bytes, has_marks) = (tables::entry_bytes(elf), tables::has_marks(elf));
    let mut buffer = vec![0; BUFFER_BYTES / entry_bytes * entry_bytes];
    let (mut offset, end) = (table.offset, table.offset.saturating_add(table.size));
    while end - offset >= entry_bytes as u64 {
        let whole = (end - offset) / entry_bytes as u64 * entry_bytes as u64;
        let length = whole.min(buffer.len() as u64) as usize;
        let part = &mut buffer[..length];
        file.read_exact_at(part, offset).map_err(cut_short)?;
        offset += length as u64;
        for entry in part.chunks_exact(entry_bytes) {
            let Some(symbol) = symbol(&Fields(entry), elf.is_64_bit, has_marks) else { continue };
            let after = sorted.partition_point(|address| *address < symbol.start);
            if let Some(nearest) = nearest.get_mut(after) {
                nearest.meet(symbol);
            }
            if let Some(before) = after.checked_sub(1) {
                let next = &mut nearest[before].next;
                *next = Some(next.map_or(symbol.start, |next| next.min(symbol.start)));
            }
        }
    }
    // What is nearest to one address is to the next as well, unless something begins between them.
    for at in 1..nearest.len() {
        if nearest[at].longest.is_none() {
            (nearest[at].longest, nearest[at].sizeless) = (nearest[at - 1].longest, nearest[at - 1].sizeless);
        }
    }
    for at in (1..nearest.len()).rev() {
        nearest[at - 1].next = nearest[at - 1].next.or(nearest[at].next);
    }
    Ok(nearest)
}

/// A name, as it is shown; `None` of an empty one.
fn read_name(file: &File, names: &Section, at: u32) -> Result<Option<String>, ElfError> {
    let left = names.size.saturating_sub(u64::from(at)).min(MAX_NAME_BYTES as u64) as usize;
    let mut text = vec![0; left.min(USUAL_NAME_BYTES)];
    loop {
        let offset = names.offset.saturating_add(u64::from(at));
        file.read_exact_at(&mut text, offset).map_err(cut_short)?;
        let end = text.iter().position(|byte| *byte == 0);
        if end.is_some() || text.len() == left {
            text.truncate(end.unwrap_or(left));
            break;
        }
        text.resize(left, 0);
    }
    let name = name::function(&String::from_utf8_lossy(&text));
    Ok((!name.is_empty()).then_some(name))
}

fn cut_short(error: std::io::Error) -> ElfError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput => {
            ElfError::Malformed("a table lies outside the file")
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of the address at hand, of a table of (start, size, name).
    fn piece(table: &[(u64, u64, u32)], address: u64, reaches_on: bool) -> (Range<u64>, Option<u32>) {
        let mut nearest = Nearest::default();
        for (start, size, name) in table.iter().copied() {
            if start <= address {
                nearest.meet(Symbol { start, size, name });
            } else {
                nearest.next = Some(nearest.next.map_or(start, |next| next.min(start)));
            }
        }
        nearest.piece(address, reaches_on)
    }

    #[test]
    fn the_symbol_that_begins_last_counts_up_to_the_next() {
        // One within another, and one that begins with it.
        let table = [(0x100, 0x100, 1), (0x140, 0x10, 2), (0x140, 0x8, 3), (0x300, 0x10, 4)];
        assert_eq!(piece(&table, 0x90, true), (0..0x100, None));
        assert_eq!(piece(&table, 0x110, true), (0x100..0x140, Some(1)));
        assert_eq!(piece(&table, 0x14a, true), (0x140..0x150, Some(2)));
        assert_eq!(piece(&table, 0x150, true), (0x150..0x300, None));
        assert_eq!(piece(&table, 0x30f, true), (0x300..0x310, Some(4)));
        assert_eq!(piece(&table, 0x310, true), (0x310..u64::MAX, None));
    }

    #[test]
    fn a_symbol_without_a_size_reaches_on_only_in_whole_tables() {
        let table = [(0x100, 0, 1), (0x200, 0x10, 2)];
        assert_eq!(piece(&table, 0x180, true), (0x100..0x200, Some(1)));
        assert_eq!(piece(&table, 0x100, false), (0x100..0x101, Some(1)));
        assert_eq!(piece(&table, 0x180, false), (0x101..0x200, None));
        // Beyond one with a size at the same place.
        let both = [(0x100, 0, 1), (0x100, 0x10, 2)];
        assert_eq!(piece(&both, 0x108, true), (0x100..0x110, Some(2)));
        assert_eq!(piece(&both, 0x110, true), (0x110..u64::MAX, Some(1)));
    }

    #[test]
    fn every_answer_of_this_programs_own_table_is_true_for_its_whole_range() {
        let file = File::open("/proc/self/exe").expect("it is there");
        let elf = Elf::read(&file).expect("it is a binary");
        let code = elf.code().last().expect("it has code");
        let step = (code.size / 100).max(2);
        // Two next to each other are mostly in one function.
        let pair = |at| [code.address + at * step, code.address + at * step + 1];
        let sorted: Vec<u64> = (0..100).flat_map(pair).collect();
        let together = look_up(&file, &sorted).expect("it can be read");
        assert!(together.iter().filter(|piece| piece.function.is_some()).count() > 100);
        for (address, piece) in sorted.iter().zip(&together).step_by(7) {
            assert!(piece.range.contains(address), "{address:#x} in {piece:?}");
            let alone = look_up(&file, &[*address]).expect("it can be read");
            assert_eq!(&alone[0], piece, "{address:#x}");
            let ends = [piece.range.start, piece.range.end - 1];
            assert!(
                look_up(&file, &ends).expect("it can be read").iter().all(|end| end == piece),
                "{piece:?}"
            );
        }
    }
}
