//! The symbols of one build: functions, what was inlined into them, and lines, by the ELF's own addresses.
//!
//! Functions do not overlap. What was inlined nests: of two that have an address the one that begins later, or ends earlier, is inside the
//! other. A line counts from its address to the next. Files that tell less are asked for what better ones leave open: [`Builder::fill`] adds
//! functions only where none are.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use hashbrown::HashTable;

/// How much a build's symbols tell, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Quality {
    /// Functions that others may call.
    Exported = 1,
    /// All functions: a whole symbol table, or Go's own.
    Functions = 2,
    /// Inlined functions and lines, too.
    Debug = 3,
}

impl Quality {
    /// By its number.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Exported),
            2 => Some(Self::Functions),
            3 => Some(Self::Debug),
            _ => None,
        }
    }

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported functions",
            Self::Functions => "functions",
            Self::Debug => "debug information",
        }
    }
}

/// A function's addresses, and its name as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its addresses.
    pub range: Range<u64>,
    /// Its name.
    pub name: String,
}

/// What is at an address: one of the functions there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'s> {
    /// The function's name.
    pub function: &'s str,
    /// The source file as the compiler recorded it; empty where it is not known.
    pub file: &'s str,
    /// From 1; 0 where it is not known.
    pub line: u32,
}

/// Entries of each list at most. Symbols that are longer are cut, and say so.
pub(crate) const MAX_FUNCTIONS: usize = 500_000;
pub(crate) const MAX_INLINED: usize = 1_000_000;
pub(crate) const MAX_ROWS: usize = 2_000_000;
/// Names at most, and bytes of them all.
pub(crate) const MAX_NAMES: usize = 1_000_000;
pub(crate) const MAX_TEXT_BYTES: usize = 24 << 20;
/// Functions inlined into each other at an address at most, as many as are looked at.
const MAX_DEPTH: usize = 64;
/// Inlined functions before an address that are looked at: large functions have some thousands.
const MAX_LOOK_BACK: usize = 1 << 14;
/// The number of no file.
pub(crate) const NO_FILE: u32 = u32::MAX;

/// The symbols of one build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    pub(crate) build_id: Vec<u8>,
    pub(crate) quality: Quality,
    /// Whether something was left out for its size.
    pub(crate) is_cut: bool,
    pub(crate) names: Names,
    pub(crate) functions: Vec<Named>,
    pub(crate) inlined: Vec<Inlined>,
    pub(crate) rows: Vec<Row>,
}

/// A function, its name by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) name: u32,
}

/// Addresses of an inlined function, and from where it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inlined {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) name: u32,
    pub(crate) call_file: u32,
    pub(crate) call_line: u32,
}

/// From an address on, a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) start: u64,
    pub(crate) file: u32,
    pub(crate) line: u32,
}

/// Strings, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) text: String,
    pub(crate) ends: Vec<u32>,
}

impl Names {
    pub(crate) fn get(&self, number: u32) -> &str {
        let number = number as usize;
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(number).copied().unwrap_or(start);
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }
}

impl Symbols {
    /// Of which build.
    #[must_use]
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// How much they tell.
    #[must_use]
    pub fn quality(&self) -> Quality {
        self.quality
    }

    /// Whether something was left out for its size.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many functions they have.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.functions.len()
    }

    /// Memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.names.text.len()
            + 4 * self.names.ends.len()
            + size_of_val(&*self.functions)
            + size_of_val(&*self.inlined)
            + size_of_val(&*self.rows)
    }

    /// What is at an address, the innermost inlined function first; nothing where no function is known.
    #[must_use]
    pub fn at(&self, address: u64) -> Vec<Line<'_>> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let function = after.checked_sub(1).map(|at| self.functions[at]);
        let Some(function) = function.filter(|function| address < function.end) else { return Vec::new() };
        let (mut file, mut line) = self.row(address, function.start);
        let mut lines = Vec::new();
        for inlined in self.inlined(address, function) {
            lines.push(Line { function: self.names.get(inlined.name), file: self.file(file), line });
            (file, line) = (inlined.call_file, inlined.call_line);
        }
        lines.push(Line { function: self.names.get(function.name), file: self.file(file), line });
        lines
    }

    /// What was inlined at an address of a function, the innermost first.
    fn inlined(&self, address: u64, function: Named) -> impl Iterator<Item = Inlined> {
        let until = self.inlined.partition_point(|inlined| inlined.start <= address);
        let from = self.inlined.partition_point(|inlined| inlined.start < function.start);
        let from = from.max(until.saturating_sub(MAX_LOOK_BACK)).min(until);
        let has = move |inlined: &&Inlined| address < inlined.end;
        self.inlined[from..until].iter().rev().filter(has).take(MAX_DEPTH).copied()
    }

    fn row(&self, address: u64, from: u64) -> (u32, u32) {
        let after = self.rows.partition_point(|row| row.start <= address);
        let row = after.checked_sub(1).map(|at| self.rows[at]).filter(|row| row.start >= from);
        row.map_or((NO_FILE, 0), |row| (row.file, row.line))
    }

    fn file(&self, number: u32) -> &str {
        if number == NO_FILE { "" } else { self.names.get(number) }
    }

    /// All functions, in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (Range<u64>, &str)> {
        self.functions.iter().map(|function| (function.start..function.end, self.names.get(function.name)))
    }

    /// These, with every function that `earlier` tells told as it tells it: what they add are functions in between, inlined functions and lines.
    #[must_use]
    pub fn adding_to(self, earlier: &Self) -> Self {
        let mut builder = Builder::new(self.build_id.clone());
        let owned = |(range, name): (Range<u64>, &str)| Function { range, name: name.to_owned() };
        builder.fill(earlier.iter().map(owned).collect(), earlier.quality.max(self.quality));
        builder.fill(self.iter().map(owned).collect(), self.quality);
        let names: Vec<Option<u32>> =
            (0..self.names.ends.len()).map(|number| builder.name(self.names.get(number as u32))).collect();
        let of = |number: u32| names.get(number as usize).copied().flatten();
        for inlined in &self.inlined {
            if let Some(name) = of(inlined.name) {
                let call_file = of(inlined.call_file).unwrap_or(NO_FILE);
                builder.inline(Inlined { name, call_file, ..*inlined });
            }
        }
        let row = |row: &Row| Row { file: of(row.file).unwrap_or(NO_FILE), ..*row };
        builder.lines(&self.rows.iter().map(row).collect::<Vec<_>>());
        builder.is_cut |= self.is_cut;
        builder.finish()
    }
}

/// Names, each of which has one number: they are kept once, and found by their hashes.
#[derive(Debug, Default)]
struct Numbered {
    names: Names,
    numbers: HashTable<u32>,
    /// Seeded by chance: who makes a file cannot know which names collide.
    hasher: RandomState,
}

impl Numbered {
    /// A number, and the byte by which a table finds it, where half of its places are taken.
    const ENTRY_BYTES: usize = 2 * (size_of::<u32>() + 1);

    /// The number of a name; `None` where it is new and would take more than so many bytes.
    fn number(&mut self, name: &str, room: usize) -> Option<u32> {
        let Self { names, numbers, hasher } = self;
        let hash = hasher.hash_one(name);
        if let Some(number) = numbers.find(hash, |number| names.get(*number) == name) {
            return Some(*number);
        }
        let is_full = names.text.len() + name.len() > MAX_TEXT_BYTES || names.ends.len() >= MAX_NAMES;
        if is_full || name.len() + size_of::<u32>() + Self::ENTRY_BYTES > room {
            return None;
        }
        let number = names.ends.len() as u32;
        names.text.push_str(name);
        names.ends.push(names.text.len() as u32);
        numbers.insert_unique(hash, number, |number| hasher.hash_one(names.get(*number)));
        Some(number)
    }

    /// Forgets all but the first so many.
    fn truncate(&mut self, count: usize) {
        self.names.ends.truncate(count);
        self.names.text.truncate(self.names.ends.last().map_or(0, |end| *end as usize));
        self.numbers.retain(|number| (*number as usize) < count);
    }

    fn bytes(&self) -> usize {
        self.names.text.len() + (size_of::<u32>() + Self::ENTRY_BYTES) * self.names.ends.len()
    }
}

/// Symbols in the making, in no more memory than was said.
#[derive(Debug)]
pub struct Builder {
    build_id: Vec<u8>,
    quality: Quality,
    is_cut: bool,
    max_bytes: usize,
    names: Numbered,
    functions: Vec<Named>,
    inlined: Vec<Inlined>,
    rows: Vec<Row>,
}

/// How much there was at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    names: usize,
    inlined: usize,
    rows: usize,
    is_cut: bool,
}

impl Builder {
    /// Nothing yet, with room for as much as symbols may have.
    #[must_use]
    pub fn new(build_id: Vec<u8>) -> Self {
        Self::within(build_id, usize::MAX)
    }

    /// Nothing yet, with room for so many bytes: what does not fit is left out, and the symbols say so. Lists that grow may take twice as much
    /// for a moment.
    #[must_use]
    pub fn within(build_id: Vec<u8>, max_bytes: usize) -> Self {
        Self {
            build_id,
            quality: Quality::Exported,
            is_cut: false,
            max_bytes,
            names: Numbered::default(),
            functions: Vec::new(),
            inlined: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds functions where none are known yet.
    pub fn fill(&mut self, mut more: Vec<Function>, quality: Quality) {
        more.sort_by_key(|function| function.range.start);
        let more = more.into_iter().map(|function| (function.range, function.name));
        self.merge(more, quality, |builder, name| builder.name(&name));
    }

    /// Adds functions where none are known yet, in the order of their beginnings. Only those that are added are named.
    pub(crate) fn merge<T>(
        &mut self,
        more: impl IntoIterator<Item = (Range<u64>, T)>,
        quality: Quality,
        mut name: impl FnMut(&mut Self, T) -> Option<u32>,
    ) {
        let known = self.functions.len();
        let mut next = 0;
        for (Range { start, mut end }, named) in more {
            while next < known && self.functions[next].start <= start {
                next += 1;
            }
            if let Some(next) = self.functions[..known].get(next) {
                end = end.min(next.start);
            }
            // Those that were added come after all that were known.
            let added = self.functions[known..].last();
            let before = next.checked_sub(1).map(|before| &self.functions[before]).into_iter().chain(added);
            if start >= end || before.into_iter().any(|before| start < before.end) {
                continue;
            }
            if self.functions.len() >= MAX_FUNCTIONS || !self.has_room() {
                self.is_cut = true;
                break;
            }
            if let Some(name) = name(self, named) {
                self.functions.push(Named { start, end, name });
            }
        }
        if self.functions.len() > known {
            self.functions.sort_unstable_by_key(|function| function.start);
            self.quality = self.quality.max(quality);
        }
    }

    /// Whether a function is known that has this address.
    pub(crate) fn has_function_at(&self, address: u64) -> bool {
        let after = self.functions.partition_point(|function| function.start <= address);
        after.checked_sub(1).is_some_and(|at| address < self.functions[at].end)
    }

    /// Adds an inlined function; `false` where there is no room.
    pub(crate) fn inline(&mut self, inlined: Inlined) -> bool {
        let has_room = self.inlined.len() < MAX_INLINED && self.has_room();
        if has_room {
            self.inlined.push(inlined);
        }
        self.is_cut |= !has_room;
        has_room
    }

    /// Adds the lines of code that follows on itself, of which no two begin at the same address; `false` where there is no room.
    pub(crate) fn lines(&mut self, rows: &[Row]) -> bool {
        let has_room =
            self.rows.len() + rows.len() <= MAX_ROWS && self.bytes() + size_of_val(rows) <= self.max_bytes;
        if has_room {
            self.rows.extend_from_slice(rows);
        }
        self.is_cut |= !has_room;
        has_room
    }

    /// Takes note that what was added has inlined functions and lines.
    pub(crate) fn has_debug_information(&mut self) {
        self.quality = Quality::Debug;
    }

    /// Whether something was left out.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// The number of a name; `None` where there is no room for it.
    pub(crate) fn name(&mut self, name: &str) -> Option<u32> {
        let room = self.max_bytes.saturating_sub(self.bytes());
        let number = self.names.number(name, room);
        self.is_cut |= number.is_none();
        number
    }

    /// Memory that it takes, and needs to be finished.
    fn bytes(&self) -> usize {
        // What was inlined is sorted with as much room beside it.
        self.names.bytes()
            + size_of_val(&*self.functions)
            + 2 * size_of_val(&*self.inlined)
            + size_of_val(&*self.rows)
    }

    fn has_room(&self) -> bool {
        self.has_room_beside(0)
    }

    /// Whether there is room for more beside so many bytes of whoever makes them.
    pub(crate) fn has_room_beside(&self, bytes: usize) -> bool {
        self.bytes() + bytes < self.max_bytes
    }

    /// How much there is now.
    pub(crate) fn mark(&self) -> Mark {
        let (names, inlined, rows) = (self.names.names.ends.len(), self.inlined.len(), self.rows.len());
        Mark { names, inlined, rows, is_cut: self.is_cut }
    }

    /// Forgets names, inlined functions and lines that came after a mark; no functions may have come.
    pub(crate) fn back_to(&mut self, mark: Mark) {
        self.names.truncate(mark.names);
        self.inlined.truncate(mark.inlined);
        self.rows.truncate(mark.rows);
        self.is_cut = mark.is_cut;
    }

    /// The symbols.
    #[must_use]
    pub fn finish(mut self) -> Symbols {
        self.inlined.retain(|inlined| inlined.start < inlined.end);
        // Of those with the same addresses the inner ones came later, and stay so.
        self.inlined.sort_by_key(|inlined| (inlined.start, u64::MAX - inlined.end));
        // Where a sequence ends another begins: of several rows at an address one that has a file counts.
        self.rows.sort_unstable_by_key(|row| (row.start, row.file != NO_FILE, row.file, row.line));
        self.rows.dedup_by(|row, last| {
            if row.start == last.start {
                *last = *row;
            }
            (row.file, row.line) == (last.file, last.line)
        });
        Symbols {
            build_id: self.build_id,
            quality: self.quality,
            is_cut: self.is_cut,
            names: self.names.names,
            functions: self.functions,
            inlined: self.inlined,
            rows: self.rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(range: Range<u64>, name: &str) -> Function {
        Function { range, name: name.to_owned() }
    }

    fn told(symbols: &Symbols, address: u64) -> Vec<String> {
        let line = |line: Line<'_>| format!("{} {}:{}", line.function, line.file, line.line);
        symbols.at(address).into_iter().map(line).collect()
    }

    #[test]
    fn what_is_known_stays_and_gaps_are_filled() {
        let mut builder = Builder::new(vec![1]);
        builder.fill(vec![function(0x20..0x30, "b"), function(0x10..0x18, "a")], Quality::Exported);
        let more = vec![function(0x10..0x20, "x"), function(0x1c..0x28, "c"), function(0x30..0x40, "d")];
        builder.fill(more, Quality::Functions);
        let symbols = builder.finish();
        let all: Vec<_> = symbols.iter().collect();
        assert_eq!(all, [(0x10..0x18, "a"), (0x1c..0x20, "c"), (0x20..0x30, "b"), (0x30..0x40, "d")]);
        assert_eq!(symbols.quality(), Quality::Functions);
        assert_eq!(told(&symbols, 0x18), [""; 0]);
        assert_eq!(told(&symbols, 0x1f), ["c :0"]);
    }

    fn with_inlined(outer: &str) -> Symbols {
        let mut builder = Builder::new(vec![1]);
        builder.fill(vec![function(0x10..0x50, outer)], Quality::Functions);
        let names = ["inner", "middle", "a.c", "b.c"].map(|name| builder.name(name).expect("there is room"));
        let [inner, middle, a, b] = names;
        builder.inline(Inlined { start: 0x20, end: 0x30, name: inner, call_file: b, call_line: 7 });
        builder.inline(Inlined { start: 0x20, end: 0x40, name: middle, call_file: a, call_line: 3 });
        let rows = [(0x10, a, 1), (0x20, b, 20), (0x28, b, 21), (0x40, a, 4)];
        builder.lines(&rows.map(|(start, file, line)| Row { start, file, line }));
        builder.has_debug_information();
        builder.finish()
    }

    #[test]
    fn inlined_functions_have_the_line_and_those_around_them_their_calls() {
        let symbols = with_inlined("outer");
        assert_eq!(told(&symbols, 0x12), ["outer a.c:1"]);
        assert_eq!(told(&symbols, 0x29), ["inner b.c:21", "middle b.c:7", "outer a.c:3"]);
        assert_eq!(told(&symbols, 0x3f), ["middle b.c:21", "outer a.c:3"]);
        assert_eq!(told(&symbols, 0x4f), ["outer a.c:4"]);
        assert_eq!(told(&symbols, 0x50), [""; 0]);
    }

    #[test]
    fn better_symbols_of_somebody_else_rename_nothing() {
        let mut earlier = Builder::new(vec![1]);
        earlier.fill(vec![function(0x10..0x50, "honest")], Quality::Exported);
        let both = with_inlined("renamed").adding_to(&earlier.finish());
        assert_eq!(told(&both, 0x29), ["inner b.c:21", "middle b.c:7", "honest a.c:3"]);
        assert_eq!(both.quality(), Quality::Debug);
    }
}
