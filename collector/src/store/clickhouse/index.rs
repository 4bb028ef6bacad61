//! Whose rows are: the labels of all series, in memory, for every query asks for them.
//!
//! They never change, and are read as they are added. A fleet's hundred thousand sets take some 50 MB.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};

use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::told::service;
use crate::labels::{Labels, Matcher};
use crate::store::{Asker, StoreError};

/// Label sets that a store may have. Each takes some 500 bytes.
const MAX_SERIES: usize = 1 << 20;
/// Seconds by which what is read again overlaps: what was added while others were read may be told late.
const OVERLAP_S: u32 = 120;
/// Services that a query names; it reads all of them where it would have to name more.
const MAX_NAMED: usize = 1_000;

/// All series that were read so far.
#[derive(Debug, Default)]
pub(super) struct SeriesIndex {
    labels: HashMap<u64, Arc<Labels>>,
    /// When the last of each server was added, by its clock.
    read: HashMap<String, u32>,
}

#[derive(Debug, Row, Deserialize)]
struct Added {
    id: u64,
    names: Vec<String>,
    values: Vec<String>,
    added_s: u32,
}

/// The series that a query is about.
#[derive(Debug)]
pub(super) struct Selected {
    /// Each with the number of its group, from 1 on.
    pub(super) series: Vec<(u64, u32)>,
    /// The values of the groups' labels, the first is that of number 1.
    pub(super) groups: Vec<Vec<String>>,
    /// Whether it is all that there is, and in one group.
    pub(super) is_everything: bool,
    /// Their services, where they are few.
    pub(super) services: Option<BTreeSet<String>>,
}

impl SeriesIndex {
    /// Reads what has come since, of the servers that answer.
    ///
    /// # Errors
    /// Where none does, or there are too many.
    pub(super) fn refresh(shared: &Shared, asker: &Asker) -> Result<(), StoreError> {
        let lock = || shared.index.lock().unwrap_or_else(PoisonError::into_inner);
        let read = lock().read.clone();
        let answers = shared.ask_all(asker, "cannot read whose rows there are", |server| {
            let from = read.get(server.address()).map_or(0, |last| last.saturating_sub(OVERLAP_S));
            let sql = format!(
                "SELECT id, names, values, toUInt32(added) AS added_s FROM series WHERE added >= toDateTime({from}) \
                 LIMIT {}",
                MAX_SERIES + 1
            );
            Ok((server.address().to_owned(), server.rows_for::<Added>(asker, &sql)?))
        })?;
        let mut index = lock();
        for (address, rows) in answers {
            let last = rows.iter().map(|row| row.added_s).max().unwrap_or(0);
            let read = index.read.entry(address).or_default();
            *read = last.max(*read);
            for Added { id, names, values, .. } in rows {
                index.labels.entry(id).or_insert_with(|| Arc::new(names.into_iter().zip(values).collect()));
            }
        }
        if index.labels.len() > MAX_SERIES {
            return Err(StoreError::TooLarge { what: "label sets in the store", limit: MAX_SERIES });
        }
        Ok(())
    }

    /// The labels of a series, where it is known.
    pub(super) fn labels(&self, series: u64) -> Option<Arc<Labels>> {
        self.labels.get(&series).cloned()
    }

    /// Those whose labels fulfil all matchers, kept apart by labels.
    pub(super) fn select(&self, matchers: &[Matcher], group_by: &[String]) -> Selected {
        let mut numbers: HashMap<Vec<String>, u32> = HashMap::new();
        let mut groups = Vec::new();
        let mut series = Vec::new();
        let mut services = BTreeSet::new();
        for (id, labels) in &self.labels {
            if !matchers.iter().all(|matcher| matcher.admits(labels)) {
                continue;
            }
            let values: Vec<String> =
                group_by.iter().map(|name| labels.get(name).cloned().unwrap_or_default()).collect();
            let number = *numbers.entry(values).or_insert_with_key(|values| {
                groups.push(values.clone());
                groups.len() as u32
            });
            series.push((*id, number));
            if services.len() <= MAX_NAMED {
                services.insert(service(labels).to_owned());
            }
        }
        let is_everything = matchers.is_empty() && group_by.is_empty();
        let services = (!is_everything && services.len() <= MAX_NAMED).then_some(services);
        Selected { series, groups, is_everything, services }
    }
}
