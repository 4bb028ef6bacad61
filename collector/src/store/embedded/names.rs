//! Numbers of what is stored once for all hosts: strings, functions, stacks, label sets and the like.
//!
//! A number is given here, in memory, and written with the next transaction, together with the first batch that refers to it. When that
//! transaction fails, the next one writes it; so a number that was given out once always means the same. Every transaction writes all
//! that is not written yet, so numbers appear in the catalogue in their order.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::failed;
use crate::store::StoreError;

/// Entries of each table that are kept in memory, so that what all hosts have in common is not looked up for each: with 60 bytes each, 15 MB
/// a table. When there are more, all are forgotten, and looked up again as they are needed.
const MAX_CACHED: usize = 1 << 18;
/// Entries of each table that wait to be written. Above it the disk takes nothing, and new streams are to wait.
const MAX_UNWRITTEN: usize = 1 << 20;

/// Something that has a number.
pub(super) trait Entry: Clone + Eq + Hash {
    /// Finds the number by the values.
    const FIND: &str;
    /// Writes the values, and last the number.
    const ADD: &str;
    /// The greatest number.
    const GREATEST: &str;

    /// What it is told apart by.
    fn values(&self) -> Vec<ToSqlOutput<'_>>;
}

macro_rules! entry {
    ($name:ident { $($field:ident: $kind:ty => $value:expr),+ }, $table:literal, $find:literal, $add:literal) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(super) struct $name {
            $(pub(super) $field: $kind),+
        }

        impl Entry for $name {
            const FIND: &str = concat!("SELECT id FROM ", $table, " WHERE ", $find);
            // What a transaction wrote that was taken for failed is there already.
            const ADD: &str = concat!("INSERT INTO ", $table, " ", $add, " ON CONFLICT DO NOTHING");
            const GREATEST: &str = concat!("SELECT coalesce(max(id), 0) FROM ", $table);

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

entry!(Text { text: Box<str> => of_text }, "strings", "text = ?1", "(text, id) VALUES (?1, ?2)");
entry!(
    Function { name: u32 => of_number, file: u32 => of_number },
    "functions", "name = ?1 AND file = ?2", "(name, file, id) VALUES (?1, ?2, ?3)"
);
entry!(
    Module { kind: i32 => of_small, path: u32 => of_number, build_id: Box<[u8]> => of_bytes },
    "modules", "kind = ?1 AND path = ?2 AND build_id = ?3", "(kind, path, build_id, id) VALUES (?1, ?2, ?3, ?4)"
);
entry!(
    Location { module: u32 => of_number, address: u64 => of_address, lines: Box<[u8]> => of_bytes },
    "locations", "module = ?1 AND address = ?2 AND lines = ?3", "(module, address, lines, id) VALUES (?1, ?2, ?3, ?4)"
);
entry!(
    Node { parent: u32 => of_number, location: u32 => of_number },
    "nodes", "parent = ?1 AND location = ?2", "(parent, location, id) VALUES (?1, ?2, ?3)"
);
entry!(LabelSet { labels: Box<[u8]> => of_bytes }, "label_sets", "labels = ?1", "(labels, id) VALUES (?1, ?2)");
entry!(
    Series { host: u32 => of_number, own: u32 => of_number },
    "series", "host = ?1 AND own = ?2", "(host, own, id) VALUES (?1, ?2, ?3)"
);
entry!(
    Kind { name: Box<str> => of_text, unit: i32 => of_small },
    "kinds", "name = ?1 AND unit = ?2", "(name, unit, id) VALUES (?1, ?2, ?3)"
);
entry!(
    Signal { name: u32 => of_number, resource: u32 => of_number, kind: u32 => of_number, unit: u32 => of_number },
    "signals", "name = ?1 AND resource = ?2 AND kind = ?3 AND unit = ?4",
    "(name, resource, kind, unit, id) VALUES (?1, ?2, ?3, ?4, ?5)"
);

/// All numbers.
#[derive(Debug)]
pub(super) struct Names(Mutex<Tables>);

/// The numbers, while nobody else gives any.
#[derive(Debug)]
pub(super) struct Tables {
    catalogue: Connection,
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
    /// The numbers of a catalogue that is read through this connection.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn new(catalogue: Connection) -> Result<Self, StoreError> {
        let mut tables = Tables {
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
        each_table!(tables, table, table.write(transaction)?);
        Ok(())
    }

    /// The transaction is over: what it wrote is there, or is to be written again.
    pub(super) fn end(&self, is_written: bool) {
        let tables = &mut *self.lock();
        each_table!(tables, table, table.end(is_written));
    }
}

macro_rules! number_of {
    ($($method:ident, $field:ident, $entry:ty;)*) => {
        $(
            #[doc = concat!("The number of an entry of `", stringify!($field), "`.")]
            ///
            /// # Errors
            /// Where the catalogue cannot be read, or too much waits to be written.
            pub(super) fn $method(&mut self, entry: $entry) -> Result<u32, StoreError> {
                self.$field.number(&self.catalogue, entry)
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
        self.strings.number(&self.catalogue, Text { text: text.into() })
    }
}

/// The numbers of one kind of entry.
#[derive(Debug)]
pub(super) struct Table<T> {
    next: u32,
    /// Some of those that are written.
    cached: HashMap<T, u32>,
    /// Those that a transaction is writing.
    in_flight: HashMap<T, u32>,
    unwritten: HashMap<T, u32>,
}

impl<T: Entry> Table<T> {
    fn new(catalogue: &Connection) -> Result<Self, StoreError> {
        let step = || "cannot read the numbers of names".to_owned();
        let greatest: u32 = catalogue.query_row(T::GREATEST, (), |row| row.get(0)).map_err(failed(step))?;
        Ok(Self {
            next: greatest + 1,
            cached: HashMap::new(),
            in_flight: HashMap::new(),
            unwritten: HashMap::new(),
        })
    }

    fn number(&mut self, catalogue: &Connection, entry: T) -> Result<u32, StoreError> {
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
        if self.unwritten.len() >= MAX_UNWRITTEN {
            return Err(failed(step)("too many new ones wait for the disk"));
        }
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| failed(step)("all numbers are taken"))?;
        self.unwritten.insert(entry, number);
        Ok(number)
    }

    fn cache(&mut self, entry: T, number: u32) {
        if self.cached.len() >= MAX_CACHED {
            self.cached = HashMap::new();
        }
        self.cached.insert(entry, number);
    }

    fn write(&mut self, transaction: &Connection) -> Result<(), StoreError> {
        let step = || "cannot write names".to_owned();
        if self.unwritten.is_empty() {
            return Ok(());
        }
        self.in_flight.extend(mem::take(&mut self.unwritten));
        let mut add = transaction.prepare_cached(T::ADD).map_err(failed(step))?;
        let mut in_order: Vec<(&T, u32)> =
            self.in_flight.iter().map(|(entry, number)| (entry, *number)).collect();
        in_order.sort_unstable_by_key(|(_, number)| *number);
        for (entry, number) in in_order {
            let mut values = entry.values();
            values.push(i64::from(number).into());
            add.execute(params_from_iter(values)).map_err(failed(step))?;
        }
        Ok(())
    }

    fn end(&mut self, is_written: bool) {
        for (entry, number) in mem::take(&mut self.in_flight) {
            if is_written {
                self.cache(entry, number);
            } else {
                self.unwritten.insert(entry, number);
            }
        }
    }
}
