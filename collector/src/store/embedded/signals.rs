//! Signals over time.

use std::collections::HashMap;

use super::rows::{MAX, VALUE};
use super::scan::{Scan, plan};
use super::{Shared, failed};
use crate::store::{SignalQuery, SignalSeries, SignalValue, StoreError};

/// Name and unit of each signal's number.
type Signals = HashMap<u32, (String, String)>;

/// Answers a query. Where windows were deleted already, the values are those of minutes or hours.
///
/// # Errors
/// Where the store cannot be read, or there are more values than the query allows.
pub(super) fn signals(shared: &Shared, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
    let step = || "cannot look up signals".to_owned();
    let access = shared.read()?;
    let names = {
        let mut names = access
            .catalogue()
            .prepare_cached(
                "SELECT signals.id, name.text, unit.text FROM signals
                 JOIN strings AS name ON name.id = signals.name JOIN strings AS unit ON unit.id = signals.unit
                 WHERE ?1 = '' OR name.text = ?1",
            )
            .map_err(failed(step))?;
        let rows = names
            .query_map([&query.name], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
            .map_err(failed(step))?;
        rows.collect::<Result<Signals, _>>().map_err(failed(step))?
    };
    let selection = &query.selection;
    let series = access.index.select(&selection.matchers);
    let scan = Scan {
        shared,
        access: &access,
        // In their own steps: as the windows were, for as long as there are windows.
        parts: plan(selection.from_unix_ns, selection.until_unix_ns, Some(1)),
        kind: if names.len() == 1 { names.keys().next().copied() } else { None },
        series: &series,
        asker: &selection.asker,
    };
    let mut found: HashMap<(u32, u32), Vec<SignalValue>> = HashMap::new();
    let mut values = 0;
    scan.readings(|reading| {
        if names.contains_key(&reading.signal) {
            values += 1;
            if values > query.max_values {
                return Err(StoreError::TooLarge { what: "values of signals", limit: query.max_values });
            }
            found.entry((reading.signal, reading.series)).or_default().push(SignalValue {
                start_unix_ns: reading.start_unix_ns,
                value: reading.values[VALUE],
                max: reading.values[MAX],
                level: reading.level,
            });
        }
        Ok(())
    })?;
    let mut all: Vec<SignalSeries> = found
        .into_iter()
        .map(|((signal, series), mut values)| {
            values.sort_by_key(|value| value.start_unix_ns);
            let (name, unit) = names[&signal].clone();
            SignalSeries { name, labels: access.index.labels(series), unit, values }
        })
        .collect();
    all.sort_by(|one, other| (&one.name, &one.labels).cmp(&(&other.name, &other.labels)));
    Ok(all)
}
