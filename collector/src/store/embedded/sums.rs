//! Adds samples up.

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream;
use hashbrown::{HashMap, HashSet};
use rusqlite::OptionalExtension;

use super::readers::Access;
use super::rows::Sample;
use super::scan::{Scan, plan};
use super::{Shared, failed};
use crate::store::{StackId, StoreError, Sum, SumQuery, Sums};

/// No group was given to a series yet.
const NO_GROUP: u32 = u32::MAX;

/// Answers a query.
///
/// # Errors
/// Where the store cannot be read, or there are more sums than the query allows.
pub(super) fn sums(shared: &Shared, query: &SumQuery) -> Result<Sums, StoreError> {
    let access = shared.read()?;
    let Some((kind, unit)) = kind(&access, &query.kind)? else { return Ok(Sums::default()) };
    let classes = classes(&access, &query.classes)?;
    let selection = &query.selection;
    let series = access.index.select(&selection.matchers);
    let scan = Scan {
        shared,
        access: &access,
        parts: plan(selection.from_unix_ns, selection.until_unix_ns, query.step_ns),
        kind: Some(kind),
        series: &series,
        asker: &selection.asker,
    };
    let mut groups = Groups::new(&access, &query.group_by);
    let mut totals = Totals { sums: HashMap::new(), last: None, most: query.max_sums };
    scan.samples(|sample| {
        if classes.as_ref().is_some_and(|classes| !classes.contains(&sample.class)) {
            return Ok(());
        }
        let key = Key {
            group: groups.of(sample.series),
            start_unix_ns: query.step_ns.map_or(0, |step| floor(sample.start_unix_ns, step)),
            class: if query.by_class { sample.class } else { 0 },
            stack: if query.by_stack { sample.stack } else { 0 },
        };
        totals.add(key, sample)
    })?;
    let sums = totals.finish()?;
    let words = words(&access, sums.keys().map(|key| key.class))?;
    let mut sums: Vec<Sum> = sums
        .into_iter()
        .map(|(key, (count, weight))| Sum {
            group: groups.values[key.group as usize].clone(),
            start_unix_ns: key.start_unix_ns,
            class: words.get(&key.class).cloned().unwrap_or_default(),
            stack: (key.stack != 0).then_some(StackId(u64::from(key.stack))),
            count,
            weight,
        })
        .collect();
    sums.sort_unstable();
    Ok(Sums { unit: (!sums.is_empty()).then_some(unit), sums })
}

/// When the step began: steps begin at whole multiples of their length since the epoch.
fn floor(unix_ns: u64, step_ns: u64) -> u64 {
    unix_ns - unix_ns % step_ns.max(1)
}

/// The number and unit of a kind. Where agents differ in its unit, they measure something else; it is what the first said.
fn kind(access: &Access<'_>, name: &str) -> Result<Option<(u32, Unit)>, StoreError> {
    access
        .catalogue()
        .query_row("SELECT id, unit FROM kinds WHERE name = ?1 ORDER BY id LIMIT 1", [name], |row| {
            let unit: i32 = row.get(1)?;
            let is_time = unit == stream::Unit::Nanoseconds as i32;
            Ok((row.get(0)?, if is_time { Unit::Nanoseconds } else { Unit::Count }))
        })
        .optional()
        .map_err(failed(|| "cannot look up a kind of samples".to_owned()))
}

/// The numbers of classes; `None`: all are wanted.
fn classes(access: &Access<'_>, names: &[String]) -> Result<Option<HashSet<u32>>, StoreError> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut classes = HashSet::new();
    for name in names {
        // A kind without classes has the empty one.
        if name.is_empty() {
            classes.insert(0);
        }
        let number: Option<u32> = access
            .catalogue()
            .query_row("SELECT id FROM strings WHERE text = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(failed(|| "cannot look up a class".to_owned()))?;
        classes.extend(number);
    }
    Ok(Some(classes))
}

fn words(
    access: &Access<'_>,
    numbers: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, String>, StoreError> {
    let mut words = HashMap::new();
    for number in numbers {
        if number == 0 || words.contains_key(&number) {
            continue;
        }
        let text = access
            .catalogue()
            .query_row("SELECT text FROM strings WHERE id = ?1", [number], |row| row.get(0))
            .map_err(failed(|| "cannot look up a class".to_owned()))?;
        words.insert(number, text);
    }
    Ok(words)
}

/// What a sum was not kept apart by is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    group: u32,
    start_unix_ns: u64,
    class: u32,
    stack: u32,
}

struct Totals {
    sums: HashMap<Key, (u64, u64)>,
    /// The sum that the last rows went to, which the next go to more often than not.
    last: Option<(Key, (u64, u64))>,
    most: usize,
}

impl Totals {
    fn add(&mut self, key: Key, sample: &Sample) -> Result<(), StoreError> {
        match &mut self.last {
            Some((last, sum)) if *last == key => add(sum, (sample.count, sample.weight)),
            _ => {
                self.put_last()?;
                self.last = Some((key, (sample.count, sample.weight)));
            }
        }
        Ok(())
    }

    fn put_last(&mut self) -> Result<(), StoreError> {
        if let Some((key, sum)) = self.last.take() {
            add(self.sums.entry(key).or_default(), sum);
        }
        if self.sums.len() > self.most {
            return Err(StoreError::TooLarge { what: "sums", limit: self.most });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<HashMap<Key, (u64, u64)>, StoreError> {
        self.put_last()?;
        Ok(self.sums)
    }
}

fn add(sum: &mut (u64, u64), (count, weight): (u64, u64)) {
    *sum = (sum.0.saturating_add(count), sum.1.saturating_add(weight));
}

/// Groups of series that have the same values of the labels that were asked for.
struct Groups<'a> {
    access: &'a Access<'a>,
    by: &'a [String],
    of_series: Vec<u32>,
    numbers: HashMap<Vec<String>, u32>,
    values: Vec<Vec<String>>,
}

impl<'a> Groups<'a> {
    fn new(access: &'a Access<'a>, by: &'a [String]) -> Self {
        Self { access, by, of_series: Vec::new(), numbers: HashMap::new(), values: Vec::new() }
    }

    fn of(&mut self, series: u32) -> u32 {
        let position = series as usize;
        if position >= self.of_series.len() {
            self.of_series.resize(position + 1, NO_GROUP);
        }
        if self.of_series[position] == NO_GROUP {
            let values: Vec<String> =
                self.by.iter().map(|name| self.access.index.label(series, name).to_owned()).collect();
            let next = self.values.len() as u32;
            self.of_series[position] = *self.numbers.entry(values).or_insert_with_key(|values| {
                self.values.push(values.clone());
                next
            });
        }
        self.of_series[position]
    }
}
