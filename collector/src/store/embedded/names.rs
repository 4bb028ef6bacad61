//! Numbers of what is stored once for all hosts: strings, functions, stacks, label sets and the like.
//!
//! A number is given here, in memory, and written with the next transaction, together with the first batch that refers to it. When that
//! transaction fails, the next one writes it; so a number that was given out once always means the same. Every transaction writes all
//! that is not written yet, so numbers appear in the catalogue in their order. A number is never given out again, also when its name was
//! deleted ([`super::unused`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::marks::InUse;
use super::writer::signed;
use super::{failed, retention};
use crate::store::StoreError;

#[cfg(test)]
mod tests;

/// Entries of each table that are kept in memory, so that what all hosts have in common is not looked up for each: with 60 bytes each, 15 MB
/// a table. When there are more, all are forgotten, and looked up again as they are needed.
const MAX_CACHED: usize = 1 << 18;
/// Bytes of their texts, of each table: names may be as long as a window.
const MAX_CACHED_BYTES: usize = 16 << 20;
/// Entries of each table that wait to be written. Above it the disk takes nothing, and new streams are to wait.
const MAX_UNWRITTEN: usize = 1 << 20;
/// Bytes of their texts, of each table.
const MAX_UNWRITTEN_BYTES: usize = 64 << 20;

/// Something that has a number.
pub(super) trait Entry: Clone + Eq + Hash {
    /// Finds the number by the values.
    const FIND: &str;
    /// Writes the values, and last the number.
    const ADD: &str;
    /// The greatest number.
    const GREATEST: &str;
    /// The next lower numbers before one.
    const BEFORE: &str;
    /// Deletes one. As what adds, it tells about how many bytes the row and its place in the index take.
    const DELETE: &str;

    /// Bytes of its texts.
    fn bytes(&self) -> usize;
    /// What it is told apart by.
    fn values(&self) -> Vec<ToSqlOutput<'_>>;
}

/// A part of a name, which may have text.
trait Part {
    fn bytes(&self) -> usize {
        0
    }
}

impl Part for u32 {}
impl Part for i32 {}
impl Part for u64 {}

impl Part for Box<str> {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Part for Box<[u8]> {
    fn bytes(&self) -> usize {
        self.len()
    }
}

macro_rules! entry {
    (
        $name:ident { $($field:ident: $kind:ty => $value:expr),+ },
        $table:literal, $find:literal, $add:literal, $bytes:literal
    ) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(super) struct $name {
            $(pub(super) $field: $kind),+
        }

        impl Entry for $name {
            const FIND: &str = concat!("SELECT id FROM ", $table, " WHERE ", $find);
            // What a transaction wrote that was taken for failed is there already.
            const ADD: &str =
                concat!("INSERT INTO ", $table, " ", $add, " ON CONFLICT DO NOTHING RETURNING ", $bytes);
            const GREATEST: &str = concat!("SELECT coalesce(max(id), 0) FROM ", $table);
            const BEFORE: &str = concat!("SELECT id FROM ", $table, " WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
            const DELETE: &str = concat!("DELETE FROM ", $table, " WHERE id = ?1 RETURNING ", $bytes);

            fn bytes(&self) -> usize {
                let Self { $($field),+ } = self;
                [$(Part::bytes($field)),+].into_iter().sum()
            }

            fn values(&self) -> Vec<ToSqlOutput<'_>> {
                let Self { $($field),+ } = self;
                vec![$($value($field)),+]
            }
        }
    };
}

fn of_number(value: &u32) -> ToSqlOutput<'_> {
    i64::from(*value).into()
}

fn of_small(value: &i32) -> ToSqlOutput<'_> {
    i64::from(*value).into()
}

/// SQLite has signed numbers only; the upper half of the addresses is negative there.
fn of_address(value: &u64) -> ToSqlOutput<'_> {
    value.cast_signed().into()
}

fn of_text(value: &str) -> ToSqlOutput<'_> {
    value.into()
}

fn of_bytes(value: &[u8]) -> ToSqlOutput<'_> {
    value.into()
}

entry!(
    Text { text: Box<str> => of_text },
    "strings", "text = ?1", "(text, id) VALUES (?1, ?2)", "2 * octet_length(text) + 16"
);
entry!(
    Function { name: u32 => of_number, file: u32 => of_number },
    "functions", "name = ?1 AND file = ?2", "(name, file, id) VALUES (?1, ?2, ?3)", "32"
);
entry!(
    Module { kind: i32 => of_small, path: u32 => of_number, build_id: Box<[u8]> => of_bytes },
    "modules", "kind = ?1 AND path = ?2 AND build_id = ?3",
    "(kind, path, build_id, id) VALUES (?1, ?2, ?3, ?4)", "2 * octet_length(build_id) + 32"
);
entry!(
    Location { module: u32 => of_number, address: u64 => of_address, lines: Box<[u8]> => of_bytes },
    "locations", "module = ?1 AND address = ?2 AND lines = ?3",
    "(module, address, lines, id) VALUES (?1, ?2, ?3, ?4)", "2 * octet_length(lines) + 40"
);
entry!(
    Node { parent: u32 => of_number, location: u32 => of_number },
    "nodes", "parent = ?1 AND location = ?2", "(parent, location, id) VALUES (?1, ?2, ?3)", "32"
);
entry!(
    LabelSet { labels: Box<[u8]> => of_bytes },
    "label_sets", "labels = ?1", "(labels, id) VALUES (?1, ?2)", "2 * octet_length(labels) + 16"
);
entry!(
    Series { host: u32 => of_number, own: u32 => of_number },
    "series", "host = ?1 AND own = ?2", "(host, own, id) VALUES (?1, ?2, ?3)", "32"
);
entry!(
    Kind { name: Box<str> => of_text, unit: i32 => of_small },
    "kinds", "name = ?1 AND unit = ?2", "(name, unit, id) VALUES (?1, ?2, ?3)",
    "2 * octet_length(name) + 16"
);
entry!(
    Signal { name: u32 => of_number, resource: u32 => of_number, kind: u32 => of_number, unit: u32 => of_number },
    "signals", "name = ?1 AND resource = ?2 AND kind = ?3 AND unit = ?4",
    "(name, resource, kind, unit, id) VALUES (?1, ?2, ?3, ?4, ?5)", "48"
);

/// All numbers.
#[derive(Debug)]
pub(super) struct Names(Mutex<Tables>);

/// The numbers, while nobody else gives any.
#[derive(Debug)]
pub(super) struct Tables {
    catalogue: Connection,
    /// Bytes of all names that are written, about.
    bytes: u64,
    /// Those of the transaction under way.
    in_flight_bytes: u64,
    /// Where there are as many, there are no new names.
    max_bytes: u64,
    pub(super) strings: Table<Text>,
    pub(super) functions: Table<Function>,
    pub(super) modules: Table<Module>,
    pub(super) locations: Table<Location>,
    pub(super) nodes: Table<Node>,
    pub(super) label_sets: Table<LabelSet>,
    pub(super) series: Table<Series>,
    pub(super) kinds: Table<Kind>,
    pub(super) signals: Table<Signal>,
}

/// Does the same with each table.
macro_rules! each_table {
    ($tables:expr, $table:ident, $do:expr) => {{
        macro_rules! with {
            ($field:ident) => {{
                let $table = &mut $tables.$field;
                $do
            }};
        }
        with!(strings);
        with!(functions);
        with!(modules);
        with!(locations);
        with!(nodes);
        with!(label_sets);
        with!(series);
        with!(kinds);
        with!(signals);
    }};
}

impl Names {
    /// The numbers of a catalogue that is read through this connection, and what its names may take.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn new(catalogue: Connection, max_bytes: u64) -> Result<Self, StoreError> {
        let mut tables = Tables {
            bytes: retention::total(&catalogue, BYTES)
                .map_err(failed(|| "cannot read how much there is".to_owned()))?,
            in_flight_bytes: 0,
            max_bytes,
            strings: Table::new(&catalogue)?,
            functions: Table::new(&catalogue)?,
            modules: Table::new(&catalogue)?,
            locations: Table::new(&catalogue)?,
            nodes: Table::new(&catalogue)?,
            label_sets: Table::new(&catalogue)?,
            series: Table::new(&catalogue)?,
            kinds: Table::new(&catalogue)?,
            signals: Table::new(&catalogue)?,
            catalogue,
        };
        // Nine tables with two statements each.
        tables.catalogue.set_prepared_statement_cache_capacity(32);
        each_table!(tables, table, table.cached.shrink_to_fit());
        Ok(Self(Mutex::new(tables)))
    }

    /// The numbers, for this thread alone.
    pub(super) fn lock(&self) -> MutexGuard<'_, Tables> {
        // What panicked has given out whole numbers or none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all that is not written into a transaction of the one writer. [`Names::end`] is to follow.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub(super) fn write(&self, transaction: &Connection) -> Result<(), StoreError> {
        let tables = &mut *self.lock();
        tables.in_flight_bytes = 0;
        each_table!(tables, table, tables.in_flight_bytes += table.write(transaction)?);
        let bytes = signed(tables.in_flight_bytes);
        retention::add_to_total(transaction, BYTES, bytes).map_err(failed(|| "cannot write names".to_owned()))
    }

    /// The transaction is over: what it wrote is there, or is to be written again.
    pub(super) fn end(&self, is_written: bool) {
        let tables = &mut *self.lock();
        each_table!(tables, table, table.end(is_written));
        if is_written {
            tables.bytes += tables.in_flight_bytes;
        }
    }
}

/// The total of the bytes of all names.
pub(super) const BYTES: &str = "name_bytes";

/// A table of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Series,
    LabelSets,
    Signals,
    Kinds,
    Nodes,
    Locations,
    Functions,
    Modules,
    Strings,
}

impl Of {
    /// All, those that refer to others before these.
    pub(super) const ALL: [Self; 9] = [
        Self::Series,
        Self::LabelSets,
        Self::Signals,
        Self::Kinds,
        Self::Nodes,
        Self::Locations,
        Self::Functions,
        Self::Modules,
        Self::Strings,
    ];
}

/// Does the same with the table of this name.
macro_rules! with_table {
    ($tables:expr, $of:expr, $table:ident, $do:expr) => {{
        macro_rules! with {
            ($field:ident) => {{
                let $table = &mut $tables.$field;
                $do
            }};
        }
        match $of {
            Of::Series => with!(series),
            Of::LabelSets => with!(label_sets),
            Of::Signals => with!(signals),
            Of::Kinds => with!(kinds),
            Of::Nodes => with!(nodes),
            Of::Locations => with!(locations),
            Of::Functions => with!(functions),
            Of::Modules => with!(modules),
            Of::Strings => with!(strings),
        }
    }};
}

impl Tables {
    /// Begins to find out which names are in use. What is in memory is forgotten, so that no number is given out unseen.
    pub(super) fn begin_marking(&mut self) {
        each_table!(self, table, {
            table.forget_cached();
            table.in_use.begin(table.next);
        });
    }

    /// Ends it.
    pub(super) fn end_marking(&mut self) {
        each_table!(self, table, table.in_use.end());
    }

    /// Which names of a table are in use.
    pub(super) fn in_use(&mut self, of: Of) -> &mut InUse {
        with_table!(self, of, table, &mut table.in_use)
    }

    /// Deletes those of the next lower numbers that are not in use, in this transaction. Returns them and their bytes, and the lowest number
    /// that was looked at; `None`: there are no lower ones.
    ///
    /// # Errors
    /// Where the catalogue cannot be written.
    pub(super) fn delete_unused(
        &mut self,
        transaction: &Connection,
        of: Of,
        before: u32,
        most: usize,
    ) -> rusqlite::Result<(Vec<u32>, u64, Option<u32>)> {
        with_table!(self, of, table, table.delete_unused(transaction, before, most))
    }

    /// So many bytes less: the transaction that deleted them is over.
    pub(super) fn deleted(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

macro_rules! number_of {
    ($($method:ident, $field:ident, $entry:ty;)*) => {
        $(
            #[doc = concat!("The number of an entry of `", stringify!($field), "`.")]
            ///
            /// # Errors
            /// Where the catalogue cannot be read or has no room, or too much waits to be written.
            pub(super) fn $method(&mut self, entry: $entry) -> Result<u32, StoreError> {
                let has_room = self.bytes < self.max_bytes;
                self.$field.number(&self.catalogue, entry, has_room)
            }
        )*
    };
}

impl Tables {
    number_of! {
        function, functions, Function;
        module, modules, Module;
        location, locations, Location;
        node, nodes, Node;
        label_set, label_sets, LabelSet;
        series, series, Series;
        kind, kinds, Kind;
        signal, signals, Signal;
    }

    /// The number of a string.
    ///
    /// # Errors
    /// As for the others.
    pub(super) fn string(&mut self, text: &str) -> Result<u32, StoreError> {
        let has_room = self.bytes < self.max_bytes;
        self.strings.number(&self.catalogue, Text { text: text.into() }, has_room)
    }
}

/// The numbers of one kind of entry.
#[derive(Debug)]
pub(super) struct Table<T> {
    next: u32,
    /// Some of those that are written.
    cached: HashMap<T, u32>,
    cached_bytes: usize,
    /// Those that a transaction is writing.
    in_flight: HashMap<T, u32>,
    unwritten: HashMap<T, u32>,
    /// Of those, and of those that a transaction is writing.
    unwritten_bytes: usize,
    in_use: InUse,
}

impl<T: Entry> Table<T> {
    fn new(catalogue: &Connection) -> Result<Self, StoreError> {
        let step = || "cannot read the numbers of names".to_owned();
        let greatest: u32 = catalogue.query_row(T::GREATEST, (), |row| row.get(0)).map_err(failed(step))?;
        Ok(Self {
            next: greatest + 1,
            cached: HashMap::new(),
            cached_bytes: 0,
            in_flight: HashMap::new(),
            unwritten: HashMap::new(),
            unwritten_bytes: 0,
            in_use: InUse::default(),
        })
    }

    fn number(&mut self, catalogue: &Connection, entry: T, has_room: bool) -> Result<u32, StoreError> {
        let number = self.find_or_give(catalogue, entry, has_room)?;
        self.in_use.mark(number);
        Ok(number)
    }

    fn find_or_give(&mut self, catalogue: &Connection, entry: T, has_room: bool) -> Result<u32, StoreError> {
        let step = || "cannot look up a name".to_owned();
        for known in [&self.cached, &self.unwritten, &self.in_flight] {
            if let Some(number) = known.get(&entry) {
                return Ok(*number);
            }
        }
        let mut find = catalogue.prepare_cached(T::FIND).map_err(failed(step))?;
        let found: Option<u32> = find
            .query_row(params_from_iter(entry.values()), |row| row.get(0))
            .optional()
            .map_err(failed(step))?;
        if let Some(number) = found {
            self.cache(entry, number);
            return Ok(number);
        }
        if !has_room {
            return Err(failed(step)("the catalogue has as many names as it may"));
        }
        if self.unwritten.len() >= MAX_UNWRITTEN || self.unwritten_bytes >= MAX_UNWRITTEN_BYTES {
            return Err(failed(step)("too many new ones wait for the disk"));
        }
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| failed(step)("all numbers are taken"))?;
        self.unwritten_bytes += entry.bytes();
        self.unwritten.insert(entry, number);
        Ok(number)
    }

    fn cache(&mut self, entry: T, number: u32) {
        if self.cached.len() >= MAX_CACHED || self.cached_bytes >= MAX_CACHED_BYTES {
            self.forget_cached();
        }
        self.cached_bytes += entry.bytes();
        self.cached.insert(entry, number);
    }

    fn forget_cached(&mut self) {
        self.cached = HashMap::new();
        self.cached_bytes = 0;
    }

    /// Returns the bytes of what is new.
    fn write(&mut self, transaction: &Connection) -> Result<u64, StoreError> {
        let step = || "cannot write names".to_owned();
        if self.unwritten.is_empty() {
            return Ok(0);
        }
        self.in_flight.extend(mem::take(&mut self.unwritten));
        let mut add = transaction.prepare_cached(T::ADD).map_err(failed(step))?;
        let mut in_order: Vec<(&T, u32)> =
            self.in_flight.iter().map(|(entry, number)| (entry, *number)).collect();
        in_order.sort_unstable_by_key(|(_, number)| *number);
        let mut bytes = 0;
        for (entry, number) in in_order {
            let mut values = entry.values();
            values.push(i64::from(number).into());
            let added = add.query_row(params_from_iter(values), |row| row.get(0)).optional();
            bytes += added.map_err(failed(step))?.map_or(0, i64::unsigned_abs);
        }
        Ok(bytes)
    }

    fn end(&mut self, is_written: bool) {
        for (entry, number) in mem::take(&mut self.in_flight) {
            if is_written {
                // From the cache it is given out.
                self.unwritten_bytes -= entry.bytes();
                self.in_use.mark(number);
                self.cache(entry, number);
            } else {
                self.unwritten.insert(entry, number);
            }
        }
    }

    fn delete_unused(
        &mut self,
        transaction: &Connection,
        before: u32,
        most: usize,
    ) -> rusqlite::Result<(Vec<u32>, u64, Option<u32>)> {
        // The greatest stays, so that no number is given out again after the next start.
        let greatest: u32 = transaction.query_row(T::GREATEST, (), |row| row.get(0))?;
        let mut next = transaction.prepare_cached(T::BEFORE)?;
        let next = next.query_map((before, most), |row| row.get(0))?.collect::<Result<Vec<u32>, _>>()?;
        let mut delete = transaction.prepare_cached(T::DELETE)?;
        let mut bytes = 0;
        let mut deleted = Vec::new();
        for number in next.iter().copied().filter(|number| *number < greatest && !self.in_use.has(*number)) {
            let own: i64 = delete.query_row([number], |row| row.get(0))?;
            bytes += own.unsigned_abs();
            deleted.push(number);
        }
        Ok((deleted, bytes, next.last().copied()))
    }
}
