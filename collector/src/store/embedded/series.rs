//! Whose rows are: the label sets of all series, in memory, for every query asks for them.
//!
//! They are read from the catalogue as they come and never change. A set takes some 80 bytes and each of its strings is there once: a
//! fleet's hundred thousand sets take some 20 MB.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::{failed, varint};
use crate::labels::{Labels, Matcher};
use crate::store::StoreError;

/// All series that were read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct SeriesIndex {
    strings: HashMap<u32, Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    /// Pairs of name and value, by the set's number; the first has none.
    sets: Vec<Box<[(u32, u32)]>>,
    /// The sets of host and subject, by the series' number; the first has none.
    series: Vec<(u32, u32)>,
}

/// What a label set says of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Yes,
    No,
    /// The label is not in it.
    Nothing,
}

impl SeriesIndex {
    /// Whether the catalogue has more.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn is_behind(&self, catalogue: &Connection) -> Result<bool, StoreError> {
        let count = |sql| catalogue.query_row(sql, (), |row| row.get::<_, usize>(0)).map_err(failed(reading));
        Ok(count("SELECT coalesce(max(id), 0) FROM series")? >= self.series.len().max(1)
            || count("SELECT coalesce(max(id), 0) FROM label_sets")? >= self.sets.len().max(1))
    }

    /// Reads what has come since.
    ///
    /// # Errors
    /// Where the catalogue cannot be read.
    pub(super) fn refresh(&mut self, catalogue: &Connection) -> Result<(), StoreError> {
        self.read_sets(catalogue)?;
        let mut statement = catalogue
            .prepare_cached("SELECT id, host, own FROM series WHERE id >= ?1 ORDER BY id")
            .map_err(failed(reading))?;
        let mut rows = statement.query([self.series.len()]).map_err(failed(reading))?;
        while let Some(row) = rows.next().map_err(failed(reading))? {
            let read = || Ok::<_, rusqlite::Error>((row.get::<_, usize>(0)?, row.get(1)?, row.get(2)?));
            let (number, host, own) = read().map_err(failed(reading))?;
            self.series.resize(number + 1, (0, 0));
            self.series[number] = (host, own);
        }
        Ok(())
    }

    fn read_sets(&mut self, catalogue: &Connection) -> Result<(), StoreError> {
        let mut statement = catalogue
            .prepare_cached("SELECT id, labels FROM label_sets WHERE id >= ?1 ORDER BY id")
            .map_err(failed(reading))?;
        let mut text =
            catalogue.prepare_cached("SELECT text FROM strings WHERE id = ?1").map_err(failed(reading))?;
        let mut rows = statement.query([self.sets.len()]).map_err(failed(reading))?;
        while let Some(row) = rows.next().map_err(failed(reading))? {
            let read = || Ok::<_, rusqlite::Error>((row.get::<_, usize>(0)?, row.get::<_, Vec<u8>>(1)?));
            let (number, labels) = read().map_err(failed(reading))?;
            let set = pairs(&labels).ok_or_else(|| failed(reading)("a label set is damaged"))?;
            for string in set.iter().flat_map(|(name, value)| [*name, *value]) {
                if !self.strings.contains_key(&string) {
                    let text: Box<str> =
                        text.query_row([string], |row| row.get(0)).map_err(failed(reading))?;
                    let text: Arc<str> = text.into();
                    self.numbers.insert(Arc::clone(&text), string);
                    self.strings.insert(string, text);
                }
            }
            self.sets.resize(number + 1, Box::default());
            self.sets[number] = set;
        }
        Ok(())
    }

    /// One more than the greatest number of a series.
    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// For each series' number, whether its labels fulfil all matchers.
    pub(super) fn select(&self, matchers: &[Matcher]) -> Vec<bool> {
        let mut selected = vec![true; self.series.len()];
        if let Some(none) = selected.first_mut() {
            *none = false;
        }
        for matcher in matchers {
            let admits_nothing = matcher.admits(&Labels::new());
            let says = self.what_sets_say(matcher);
            for (selected, (host, own)) in selected.iter_mut().zip(&self.series) {
                let of = |set: &u32| says.get(*set as usize).copied().unwrap_or(Says::Nothing);
                // A subject's own label hides its host's of the same name.
                *selected &= match (of(own), of(host)) {
                    (Says::Nothing, Says::Nothing) => admits_nothing,
                    (Says::Nothing, host) => host == Says::Yes,
                    (own, _) => own == Says::Yes,
                };
            }
        }
        selected
    }

    fn what_sets_say(&self, matcher: &Matcher) -> Vec<Says> {
        let Some(name) = self.numbers.get(matcher.name.as_str()) else {
            return vec![Says::Nothing; self.sets.len()];
        };
        // Few values are those of many sets.
        let mut of_values: HashMap<u32, Says> = HashMap::new();
        let say = |value| {
            let labels = Labels::from([(matcher.name.clone(), self.text(value).to_owned())]);
            if matcher.admits(&labels) { Says::Yes } else { Says::No }
        };
        let of_set = |set: &[(u32, u32)]| {
            let value = value_in(set, *name)?;
            Some(*of_values.entry(value).or_insert_with(|| say(value)))
        };
        let mut of_set = of_set;
        self.sets.iter().map(|set| of_set(set).unwrap_or(Says::Nothing)).collect()
    }

    /// The labels of a series.
    pub(super) fn labels(&self, series: u32) -> Labels {
        let (host, own) = self.series.get(series as usize).copied().unwrap_or_default();
        let mut labels = self.set_labels(host);
        labels.extend(self.set_labels(own));
        labels
    }

    /// The labels of a set.
    pub(super) fn set_labels(&self, set: u32) -> Labels {
        let pairs = self.sets.get(set as usize).map(Box::as_ref).unwrap_or_default();
        pairs
            .iter()
            .map(|(name, value)| (self.text(*name).to_owned(), self.text(*value).to_owned()))
            .collect()
    }

    /// A label of a series; empty where it has none of this name.
    pub(super) fn label(&self, series: u32, name: &str) -> &str {
        let value = || {
            let name = self.numbers.get(name)?;
            let (host, own) = self.series.get(series as usize)?;
            [own, host].into_iter().find_map(|set| value_in(self.sets.get(*set as usize)?, *name))
        };
        value().map_or("", |value| self.text(value))
    }

    /// What rows of a series are told apart by first: the service that its host's operator or its pod names, else the process.
    pub(super) fn service(&self, series: u32) -> &str {
        let service = self.label(series, "service");
        if service.is_empty() { self.label(series, "process") } else { service }
    }

    fn text(&self, string: u32) -> &str {
        self.strings.get(&string).map_or("", AsRef::as_ref)
    }
}

fn value_in(set: &[(u32, u32)], name: u32) -> Option<u32> {
    set.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
}

fn pairs(mut labels: &[u8]) -> Option<Box<[(u32, u32)]>> {
    let mut pairs = Vec::new();
    while !labels.is_empty() {
        pairs.push((varint::take_u32(&mut labels)?, varint::take_u32(&mut labels)?));
    }
    Some(pairs.into())
}

fn reading() -> String {
    "cannot read whose rows there are".to_owned()
}
