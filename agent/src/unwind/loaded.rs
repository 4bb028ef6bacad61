//! Tables in the kernel: where each one's rows are, and what goes when there is no room.

use std::collections::HashMap;

use chokepoint_ebpf::unwind::file::{FileEntry, FileKey};
use chokepoint_ebpf::unwind::table::{
    CHUNK_BYTES, CHUNK_ROWS, FILE_RULES, MAX_CHUNKS, MAX_PAGES, MAX_RULES, PackedRow, Page, Row, Rule,
};

use super::space::{Extent, Space};
use super::table::Table;
use crate::load::LoadError;
use crate::load::unwind_maps::UnwindMaps;
use crate::process::binaries::BinaryId;

/// The kernel's tables. The owner decides what is loaded; this decides where, and what is given up for it.
pub struct LoadedTables {
    maps: UnwindMaps,
    rules: Space,
    rows: Space,
    pages: Space,
    loaded: HashMap<BinaryId, Loaded>,
    evicted: u64,
}

struct Loaded {
    pages: Extent,
    rules: Extent,
    rows: Vec<Extent>,
    files: Vec<(FileKey, u32)>,
}

/// There is no room for a table, even without those that are sampled less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl LoadedTables {
    /// No tables, in maps that may grow to `budget_bytes`.
    #[must_use]
    pub fn new(maps: UnwindMaps, budget_bytes: usize) -> Self {
        let chunks = (budget_bytes / CHUNK_BYTES).clamp(1, MAX_CHUNKS);
        Self {
            maps,
            rules: Space::new(1, MAX_RULES as u32),
            rows: Space::new(chunks, CHUNK_ROWS as u32),
            pages: Space::new(1, MAX_PAGES as u32),
            loaded: HashMap::new(),
            evicted: 0,
        }
    }

    /// Kernel memory of the rows.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.maps.chunks() * CHUNK_BYTES
    }

    /// Tables loaded now.
    #[must_use]
    pub fn tables(&self) -> usize {
        self.loaded.len()
    }

    /// Tables given up for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Loads a table and tells the kernel programs of it. Where there is no room, tables go that `usage` says are sampled less
    /// than this one, least first; their owner is told by `given_up`.
    ///
    /// # Errors
    /// `Ok(Err(NoRoom))` where that is not enough; otherwise where the kernel refuses.
    pub fn load(
        &mut self,
        binary: BinaryId,
        table: &Table,
        files: &[(FileKey, u32)],
        usage: &dyn Fn(BinaryId) -> u64,
        given_up: &mut dyn FnMut(BinaryId),
    ) -> Result<Result<(), NoRoom>, LoadError> {
        if self.unload(binary)? {
            self.maps.wait_for_programs()?;
        }
        let room = loop {
            if let Some(room) = self.take_room(table) {
                break room;
            }
            let mine = usage(binary);
            let least = self.loaded.keys().copied().min_by_key(|other| (usage(*other), *other));
            match least {
                Some(least) if usage(least) < mine => {
                    self.unload(least)?;
                    self.maps.wait_for_programs()?;
                    self.evicted += 1;
                    given_up(least);
                }
                _ => return Ok(Err(NoRoom)),
            }
        };
        self.write(table, &room)?;
        let loaded = Loaded { files: files.to_vec(), ..room };
        for (key, id) in files {
            self.maps.set_file(key, loaded.entry(*id))?;
        }
        self.loaded.insert(binary, loaded);
        Ok(Ok(()))
    }

    /// Writes rules, rows and pages to where there is room for them; no program looks there yet.
    fn write(&mut self, table: &Table, room: &Loaded) -> Result<(), LoadError> {
        let rules = &mut self.maps.rules()[room.rules.range()];
        for (target, rule) in rules.iter_mut().zip(&table.rules) {
            *target = *rule;
        }
        let has_all_rules = table.rules.len() <= FILE_RULES;
        if !has_all_rules {
            rules[LAST_RULE as usize] = Rule::UNSUPPORTED;
        }
        let pack = |row: &Row| {
            let rule = if has_all_rules { row.rule } else { row.rule.min(LAST_RULE) };
            PackedRow::new(Row { rule, ..*row })
        };
        let mut extents = room.rows.iter();
        let mut written = None;
        for (index, page) in table.pages.iter().enumerate() {
            let mut entry = Page::default();
            if page.count > 0 {
                let Some(extent) = extents.next() else { break };
                let first = page.first as usize;
                let source = &table.rows[first..first + usize::from(page.count)];
                // Pages mostly come chunk after chunk, so that each is mapped once.
                let chunk = match written.take() {
                    Some((number, chunk)) if number == extent.block => chunk,
                    _ => self.maps.chunk(extent.block)?,
                };
                let (_, chunk) = written.insert((extent.block, chunk));
                for (target, row) in chunk.rows()[extent.range()].iter_mut().zip(source) {
                    *target = pack(row);
                }
                entry = Page { chunk: extent.block as u16, count: page.count, first: extent.start };
            }
            self.maps.pages()[room.pages.start as usize + index] = entry;
        }
        Ok(())
    }

    /// Tells the kernel programs of another key and id of a file. Whether its table is loaded.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add_file(&mut self, binary: BinaryId, key: FileKey, id: u32) -> Result<bool, LoadError> {
        let Some(loaded) = self.loaded.get_mut(&binary) else { return Ok(false) };
        // What was evicted from the kernel's own table of files comes back under another id.
        loaded.files.retain(|(known, _)| *known != key);
        loaded.files.push((key, id));
        self.maps.set_file(&key, loaded.entry(id))?;
        Ok(true)
    }

    /// Tells the kernel programs that a file has no call-frame information.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn nothing_for(&mut self, key: FileKey, id: u32) -> Result<(), LoadError> {
        self.maps.set_file(&key, FileEntry { id, known: 1, ..FileEntry::default() })
    }

    /// Has a file announced again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forget(&mut self, key: &FileKey) -> Result<(), LoadError> {
        self.maps.forget_file(key)
    }

    /// Room for a table, which is nobody's yet.
    fn take_room(&mut self, table: &Table) -> Option<Loaded> {
        let pages = self.pages.take(table.pages.len() as u32)?;
        let Some(rules) = self.rules.take(table.rules.len().min(FILE_RULES) as u32) else {
            self.pages.give_back(pages);
            return None;
        };
        let mut room = Loaded { pages, rules, rows: Vec::new(), files: Vec::new() };
        for page in table.pages.iter().filter(|page| page.count > 0) {
            match self.rows.take(u32::from(page.count)) {
                Some(extent) => room.rows.push(extent),
                None => {
                    self.give_back(room);
                    return None;
                }
            }
        }
        Some(room)
    }

    fn give_back(&mut self, room: Loaded) {
        self.pages.give_back(room.pages);
        self.rules.give_back(room.rules);
        room.rows.into_iter().for_each(|extent| self.rows.give_back(extent));
    }

    /// Takes a table out of the programs' sight and its room back. Whether there was one. What is given back may be written
    /// after [`UnwindMaps::wait_for_programs`].
    fn unload(&mut self, binary: BinaryId) -> Result<bool, LoadError> {
        let Some(loaded) = self.loaded.remove(&binary) else { return Ok(false) };
        for (key, id) in &loaded.files {
            self.maps.set_file(key, FileEntry { id: *id, ..FileEntry::default() })?;
        }
        self.maps.pages()[loaded.pages.range()].fill(Page::default());
        self.give_back(loaded);
        Ok(true)
    }
}

/// The last of as many rules as a file may have; stands for the others where there are more.
const LAST_RULE: u16 = FILE_RULES as u16 - 1;

impl Loaded {
    fn entry(&self, id: u32) -> FileEntry {
        FileEntry {
            id,
            first_page: self.pages.start,
            pages: self.pages.length,
            known: 1,
            first_rule: self.rules.start,
            reserved: 0,
        }
    }
}
