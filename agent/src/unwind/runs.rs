//! From functions in any order to a table.
//!
//! Call-frame information comes function by function, mostly but not always in the order of addresses. Each function leaves
//! a **run** of rows here; only the runs are sorted, of which there are ten times fewer than rows. Then the runs are laid
//! out one behind the other and cut into pages.

use std::ops::Range;

use chokepoint_ebpf::unwind::table::{MAX_RULES, PAGE_BITS, PAGE_BYTES, Row, Rule};
use hashbrown::HashMap;

use super::table::{self, MAX_CODE_OFFSET, MAX_ROWS, PageRows, Table, TooLarge};

/// Functions of one file. `librustc_driver` has 170 thousand, a browser a million.
const MAX_RUNS: usize = 4 << 20;

/// Rows before merging and dropping: real files lose up to a third.
const MAX_STAGED_ROWS: usize = 2 * MAX_ROWS;

/// Bytes without call-frame information that are taken for the padding that aligns the next function: nothing executes
/// there, so that what came before may as well go on, and a row is saved.
const MAX_PADDING_BYTES: u32 = 15;

/// A stretch without call-frame information that is longer than this was not compiled: runtimes carry code that they
/// generated when they were built, as V8 its builtins, and it keeps a frame pointer.
const GENERATED_BYTES: u32 = 256 << 10;

/// Gaps that are looked at; real files have a handful.
const MAX_GAPS: usize = 256;

/// The functions of one file, on their way to a [`Table`].
pub struct Runs {
    rules: Rules,
    rows: Vec<StagedRow>,
    runs: Vec<Run>,
    /// Where the last row is.
    last_offset: u32,
}

/// A function's code, by file offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    start: u32,
    /// Index of its first row. It also orders functions that start at the same place, as they came.
    first: u32,
    rows: u32,
    end: u32,
}

/// A row by its distance from the one before it in its run. Longer distances are bridged by rows that change nothing.
#[derive(Clone, Copy)]
struct StagedRow {
    advance: u16,
    rule: u16,
}

impl Default for Runs {
    fn default() -> Self {
        Self { rules: Rules::new(), rows: Vec::new(), runs: Vec::new(), last_offset: 0 }
    }
}

impl Runs {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Begins a function that has the code from `start` up to `end`; [`Runs::row`]s follow, at least one.
    ///
    /// # Errors
    /// [`TooLarge`] when there are more functions than any file has, or it lies too far back in the file.
    pub fn begin(&mut self, start: u64, end: u64) -> Result<(), TooLarge> {
        if end > MAX_CODE_OFFSET {
            return Err(TooLarge("it has code further back than tables reach"));
        }
        if self.runs.len() == MAX_RUNS {
            return Err(TooLarge("it has more functions than any real file"));
        }
        let first = self.rows.len() as u32;
        self.last_offset = start as u32;
        self.runs.push(Run { start: start as u32, end: end as u32, first, rows: 0 });
        Ok(())
    }

    /// From here on, `rule` holds. A function's first row is at its start; offsets do not fall, and lie in it.
    ///
    /// # Errors
    /// [`TooLarge`] when there are more rows than a table may have.
    #[inline]
    pub fn row(&mut self, offset: u64, rule: Rule) -> Result<(), TooLarge> {
        let Some(run) = self.runs.last_mut() else { return Ok(()) };
        let offset = offset as u32;
        let rule = self.rules.id(rule);
        if run.rows > 0 {
            let last = self.rows.len() - 1;
            if self.rows[last].rule == rule {
                return Ok(());
            }
            if offset == self.last_offset {
                self.rows[last].rule = rule;
                return Ok(());
            }
        }
        let mut advance = offset.saturating_sub(self.last_offset);
        while advance > u32::from(u16::MAX) {
            let rule = self.rows.last().map_or(rule, |row| row.rule);
            advance -= u32::from(u16::MAX);
            run.rows += 1;
            self.rows.push(StagedRow { advance: u16::MAX, rule });
            if self.rows.len() >= MAX_STAGED_ROWS {
                break;
            }
        }
        if self.rows.len() >= MAX_STAGED_ROWS {
            return Err(TooLarge("it has more rows than a table may have"));
        }
        run.rows += 1;
        self.rows.push(StagedRow { advance: advance as u16, rule });
        self.last_offset = offset;
        Ok(())
    }

    /// Ends the last function at `end`, if it went on.
    pub fn cut(&mut self, end: u64) {
        if let Some(run) = self.runs.last_mut() {
            run.end = run.end.min(u32::try_from(end).unwrap_or(u32::MAX));
        }
    }

    /// The short stretches between functions, in which there may be one that is not described.
    pub fn gaps(&mut self, bytes: Range<u32>) -> Vec<Range<u64>> {
        self.runs.sort_unstable();
        let mut covered = None;
        let mut gaps = Vec::new();
        for run in &self.runs {
            let gap = covered.unwrap_or(run.start)..run.start;
            if gaps.len() < MAX_GAPS && gap.start < gap.end && bytes.contains(&(gap.end - gap.start)) {
                gaps.push(u64::from(gap.start)..u64::from(gap.end));
            }
            covered = covered.max(Some(run.end));
        }
        gaps
    }

    /// Lays the functions out by their place in the file. Of two that overlap, the one that starts first has what both
    /// claim; of two that start at the same place, the one that came first.
    ///
    /// # Errors
    /// [`TooLarge`] when there are more rows than a table may have.
    pub fn into_table(mut self) -> Result<Table, TooLarge> {
        self.runs.sort_unstable();
        let mut layout = Layout::new(self.rules.id(Rule::NONE), self.rows.len());
        let generated = self.rules.id(Rule::FRAME_POINTER);
        let mut covered = self.runs.first().map_or(0, |run| run.start);
        for run in &self.runs {
            let start = run.start.max(covered);
            if run.end <= start || run.rows == 0 {
                continue;
            }
            if start - covered > GENERATED_BYTES {
                layout.put(covered, generated);
            } else if start - covered > MAX_PADDING_BYTES {
                layout.put(covered, layout.none);
            }
            let rows = &self.rows[run.first as usize..(run.first + run.rows) as usize];
            let mut at = run.start;
            let mut waiting = None;
            for row in rows {
                at += u32::from(row.advance);
                if at >= run.end {
                    break;
                }
                if at <= start {
                    waiting = Some(row.rule);
                    continue;
                }
                if let Some(rule) = waiting.take() {
                    layout.put(start, rule);
                }
                layout.put(at, row.rule);
            }
            if let Some(rule) = waiting {
                layout.put(start, rule);
            }
            covered = run.end;
        }
        layout.put(covered, layout.none);
        if layout.rows.len() > MAX_ROWS {
            return Err(TooLarge("it has more rows than a table may have"));
        }
        layout.rows.shrink_to_fit();
        Ok(Table { rules: self.rules.rules, rows: layout.rows, pages: layout.pages })
    }
}

/// Rows as they are laid out, in rising order.
struct Layout {
    rows: Vec<Row>,
    pages: Vec<PageRows>,
    /// The rule that holds behind the last row.
    current: u16,
    none: u16,
}

impl Layout {
    fn new(none: u16, rows: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), pages: Vec::new(), current: none, none }
    }

    fn put(&mut self, offset: u32, rule: u16) {
        if rule == self.current {
            return;
        }
        let page = (offset >> PAGE_BITS) as usize;
        let in_page = (offset & (PAGE_BYTES as u32 - 1)) as u16;
        while self.pages.len() < page {
            self.begin_page(self.current != self.none);
        }
        if self.pages.len() == page {
            if in_page == 0 && rule == self.none {
                // Whether the page has anything at all is not known yet.
                self.current = rule;
                return;
            }
            self.begin_page(in_page != 0);
        }
        self.push(in_page, rule);
        self.current = rule;
    }

    /// Begins the next page, with a row for its first byte if `carry_over`.
    fn begin_page(&mut self, carry_over: bool) {
        self.pages.push(PageRows { first: self.rows.len() as u32, count: 0 });
        if carry_over {
            self.push(0, self.current);
        }
    }

    fn push(&mut self, offset: u16, rule: u16) {
        self.rows.push(Row { offset, rule });
        if let Some(page) = self.pages.last_mut() {
            page.count += 1;
        }
    }
}

/// Rules that are found again without hashing.
const RECENT: usize = 512;

/// Rules by number.
struct Rules {
    rules: Vec<Rule>,
    ids: HashMap<u64, u16>,
    /// Slots begin with a rule that has its right number, too.
    recent: Box<[(u64, u16); RECENT]>,
}

impl Rules {
    fn new() -> Self {
        let unsupported = (table::rule_bits(Rule::UNSUPPORTED), 0);
        let recent = Box::new([unsupported; RECENT]);
        let mut rules = Self { rules: Vec::new(), ids: HashMap::new(), recent };
        // The first, so that it has a number when there is none left for others.
        rules.add(Rule::UNSUPPORTED);
        rules.add(Rule::NONE);
        rules
    }

    #[inline]
    fn id(&mut self, rule: Rule) -> u16 {
        let bits = table::rule_bits(rule);
        let slot = recent_slot(bits);
        let (recent, id) = self.recent[slot];
        if recent == bits {
            return id;
        }
        let id = match self.ids.get(&bits) {
            Some(&id) => id,
            None => self.add(rule),
        };
        self.recent[slot] = (bits, id);
        id
    }

    #[cold]
    fn add(&mut self, rule: Rule) -> u16 {
        if self.rules.len() == MAX_RULES {
            return 0;
        }
        let id = self.rules.len() as u16;
        self.rules.push(rule);
        self.ids.insert(table::rule_bits(rule), id);
        id
    }
}

/// Fibonacci hashing: spreads the few bits that differ. Rules made to collide only cost the hash that this saves.
fn recent_slot(bits: u64) -> usize {
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RECENT.trailing_zeros())) as usize
}
