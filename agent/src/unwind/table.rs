//! One file's table: the rows that the kernel programs search, before they are loaded.

use std::collections::HashMap;

use chokepoint_ebpf::unwind::table::{
    Cfa, MAX_PAGES, MAX_RULES, OTHER_LOST, PAGE_BITS, PAGE_BYTES, Row, Rule, Saved, SavedAt,
};
use chokepoint_ebpf::unwind::x86_64::RBX;

/// Rows of one table: 32 MB, of which a 555 MB library needs three quarters. A file with more is left out, because it would
/// push all others out of any budget.
pub const MAX_ROWS: usize = 8 << 20;

/// Code lies in the first GiB of a file, or the file is left out: the kernel programs have no more pages for all files.
pub const MAX_CODE_OFFSET: u64 = (MAX_PAGES as u64) << PAGE_BITS;

/// The rules of a file's code, by file offset.
///
/// Invariants, which [`Table::check`] tests on what comes from a disk: a row's rule is an index into `rules`; a page's rows
/// lie within `rows` and, if it has any, start at offset 0 and rise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The distinct rules, at most [`MAX_RULES`].
    pub rules: Vec<Rule>,
    /// The rows of all pages, page after page; [`Row::rule`] is an index into `rules`.
    pub rows: Vec<Row>,
    /// Where each page's rows are, by file offset >> [`PAGE_BITS`].
    pub pages: Vec<PageRows>,
}

/// Where the rows of a page are in [`Table::rows`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRows {
    /// Index of the first.
    pub first: u32,
    /// How many; 0 for a page without code.
    pub count: u16,
}

/// Which limit a file is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TooLarge(pub &'static str);

impl Table {
    /// The rule for an offset in the file, found as the kernel programs find it; [`Rule::NONE`] where no row covers it.
    #[must_use]
    pub fn rule_at(&self, file_offset: u64) -> Rule {
        let page = usize::try_from(file_offset >> PAGE_BITS).ok().and_then(|page| self.pages.get(page));
        let Some(page) = page else { return Rule::NONE };
        let first = page.first as usize;
        let rows = self.rows.get(first..first + usize::from(page.count)).unwrap_or_default();
        let offset = (file_offset & (PAGE_BYTES - 1)) as u16;
        let behind = rows.partition_point(|row| row.offset <= offset);
        let row = behind.checked_sub(1).map(|at| rows[at]);
        row.and_then(|row| self.rules.get(usize::from(row.rule))).copied().unwrap_or(Rule::NONE)
    }

    /// The same with less in it, for x86-64: unless some frame of the file is counted from `rbx`, which is rare, nothing is
    /// said of where that register is saved, and rows that differ in nothing else become one.
    #[must_use]
    pub fn compact(self) -> Self {
        let is_used = self.rules.iter().any(|rule| {
            matches!(Cfa::of(rule.cfa), Cfa::Register | Cfa::Deref) && rule.cfa_register() == RBX
        });
        if is_used {
            return self;
        }
        let mut numbers: HashMap<Rule, u16> = HashMap::new();
        let mut rules = Vec::new();
        let translated: Vec<u16> = self
            .rules
            .iter()
            .map(|rule| {
                let other = match Cfa::of(rule.cfa) {
                    Cfa::Register | Cfa::Deref | Cfa::Plt => OTHER_LOST,
                    _ => rule.other,
                };
                let rule = Rule { other, ..*rule };
                *numbers.entry(rule).or_insert_with(|| {
                    rules.push(rule);
                    rules.len() as u16 - 1
                })
            })
            .collect();
        let mut rows = Vec::with_capacity(self.rows.len());
        let pages = self.pages.iter().map(|page| {
            let first = page.first as usize;
            let kept = rows.len();
            for row in &self.rows[first..first + usize::from(page.count)] {
                let rule = translated[usize::from(row.rule)];
                if rows.len() == kept || rows.last().is_some_and(|last: &Row| last.rule != rule) {
                    rows.push(Row { rule, ..*row });
                }
            }
            PageRows { first: kept as u32, count: (rows.len() - kept) as u16 }
        });
        let pages = pages.collect();
        rows.shrink_to_fit();
        Self { rules, rows, pages }
    }

    /// Whether it keeps its invariants.
    #[must_use]
    pub fn check(&self) -> bool {
        let sizes =
            self.rules.len() <= MAX_RULES && self.rows.len() <= MAX_ROWS && self.pages.len() <= MAX_PAGES;
        let rules = self.rows.iter().all(|row| usize::from(row.rule) < self.rules.len());
        let page = |page: &PageRows| {
            let first = page.first as usize;
            let Some(rows) = self.rows.get(first..first + usize::from(page.count)) else { return false };
            let starts = rows.first().is_none_or(|row| row.offset == 0);
            let rises = rows.is_sorted_by(|a, b| a.offset < b.offset);
            starts && rises && rows.last().is_none_or(|row| u64::from(row.offset) < PAGE_BYTES)
        };
        sizes && rules && self.pages.iter().all(page)
    }

    /// Memory of its rows and pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&self.rules[..]) + size_of_val(&self.rows[..]) + size_of_val(&self.pages[..])
    }
}

/// A rule as one number, which hashes faster than its fields and is what a file holds.
#[inline]
pub(super) fn rule_bits(rule: Rule) -> u64 {
    let saved = rule.frame_pointer.offset() as u16 | rule.frame_pointer.saved() as u16;
    u64::from(rule.cfa_offset as u32)
        | u64::from(saved) << 32
        | u64::from(rule.cfa) << 48
        | u64::from(rule.other as u8) << 56
}

/// The rule that [`rule_bits`] made this number of. Any number is some rule.
pub(super) fn rule_of_bits(bits: u64) -> Rule {
    let at = (bits >> 32) as i16;
    let saved = match at & 7 {
        0 => Saved::Same,
        1 => Saved::AtCfa,
        2 => Saved::AtFramePointer,
        _ => Saved::Undefined,
    };
    Rule {
        cfa_offset: bits as i32,
        frame_pointer: SavedAt::new(saved, i64::from(at & !7)).unwrap_or(SavedAt::UNDEFINED),
        cfa: (bits >> 48) as u8,
        other: (bits >> 56) as i8,
    }
}
