//! The symbols of one build: functions, what was inlined into them, and lines, by the ELF's own addresses.
//!
//! Functions do not overlap. What was inlined nests: of two that have an address the one that begins later, or ends earlier, is inside the
//! other. A line counts from its address to the next. Files that tell less are asked for what better ones leave open: [`Builder::fill`] adds
//! functions only where none are.

use std::collections::HashMap;
use std::ops::Range;

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
                builder.inlined.push(Inlined { name, call_file, ..*inlined });
            }
        }
        let row = |row: &Row| Row { file: of(row.file).unwrap_or(NO_FILE), ..*row };
        builder.rows = self.rows.iter().map(row).collect();
        builder.is_cut |= self.is_cut;
        builder.finish()
    }
}

/// Symbols in the making.
#[derive(Debug)]
pub struct Builder {
    build_id: Vec<u8>,
    quality: Quality,
    is_cut: bool,
    names: Names,
    numbers: HashMap<String, u32>,
    functions: Vec<Named>,
    pub(crate) inlined: Vec<Inlined>,
    pub(crate) rows: Vec<Row>,
}

impl Builder {
    /// Nothing yet.
    #[must_use]
    pub fn new(build_id: Vec<u8>) -> Self {
        Self {
            build_id,
            quality: Quality::Exported,
            is_cut: false,
            names: Names::default(),
            numbers: HashMap::new(),
            functions: Vec::new(),
            inlined: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds functions where none are known yet.
    pub fn fill(&mut self, mut more: Vec<Function>, quality: Quality) {
        more.sort_by_key(|function| function.range.start);
        let known = std::mem::take(&mut self.functions);
        let mut known = known.into_iter().peekable();
        let mut all: Vec<Named> = Vec::new();
        let mut has_more = false;
        for function in more {
            while let Some(known) = known.next_if(|known| known.start <= function.range.start) {
                all.push(known);
            }
            let Range { start, mut end } = function.range;
            if let Some(next) = known.peek() {
                end = end.min(next.start);
            }
            if start >= end || all.last().is_some_and(|before| start < before.end) {
                continue;
            }
            if all.len() + known.len() >= MAX_FUNCTIONS {
                self.is_cut = true;
                continue;
            }
            let Some(name) = self.name(&function.name) else { continue };
            all.push(Named { start, end, name });
            has_more = true;
        }
        all.extend(known);
        self.functions = all;
        if has_more {
            self.quality = self.quality.max(quality);
        }
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
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if self.names.text.len() + name.len() > MAX_TEXT_BYTES || self.names.ends.len() >= MAX_NAMES {
            self.is_cut = true;
            return None;
        }
        let number = self.names.ends.len() as u32;
        self.names.text.push_str(name);
        self.names.ends.push(self.names.text.len() as u32);
        self.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// The symbols.
    #[must_use]
    pub fn finish(mut self) -> Symbols {
        self.inlined.retain(|inlined| inlined.start < inlined.end);
        self.inlined.sort_by_key(|inlined| (inlined.start, u64::MAX - inlined.end));
        // Where a sequence ends another begins: of several rows at an address the last that has a file counts.
        self.rows.sort_by_key(|row| (row.start, row.file != NO_FILE));
        let mut rows: Vec<Row> = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            match rows.last_mut() {
                Some(last) if last.start == row.start => *last = row,
                Some(last) if (last.file, last.line) == (row.file, row.line) => {}
                _ => rows.push(row),
            }
        }
        if self.inlined.len() > MAX_INLINED {
            self.inlined.truncate(MAX_INLINED);
            self.is_cut = true;
        }
        if rows.len() > MAX_ROWS {
            rows.truncate(MAX_ROWS);
            self.is_cut = true;
        }
        Symbols {
            build_id: self.build_id,
            quality: self.quality,
            is_cut: self.is_cut,
            names: self.names,
            functions: self.functions,
            inlined: self.inlined,
            rows,
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
        builder.inlined.push(Inlined { start: 0x20, end: 0x30, name: inner, call_file: b, call_line: 7 });
        builder.inlined.push(Inlined { start: 0x20, end: 0x40, name: middle, call_file: a, call_line: 3 });
        for (start, file, line) in [(0x10, a, 1), (0x20, b, 20), (0x28, b, 21), (0x40, a, 4)] {
            builder.rows.push(Row { start, file, line });
        }
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
