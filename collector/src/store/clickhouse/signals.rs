//! Signals over time.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::levels::{History, Rolled};
use super::select::{HOUR, MINUTE, ONCE, selected, within};
use super::server::quoted;
use crate::store::{SignalQuery, SignalSeries, SignalValue, StoreError};

/// A value of one server.
#[derive(Debug, Row, Deserialize)]
struct ValueRow {
    name: String,
    of_unit: String,
    of_series: u64,
    start_unix_ns: u64,
    own: f64,
    highest: f64,
    lvl: u8,
}

/// Answers a query. Where windows have gone already, the values are those of minutes or hours.
///
/// # Errors
/// Where no server answers, or there are more values than the query allows.
pub(super) fn signals(shared: &Shared, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
    let selection = &query.selection;
    let selected = selected(shared, selection, &[])?;
    if selected.series.is_empty() {
        return Ok(Vec::new());
    }
    let named =
        if query.name.is_empty() { String::new() } else { format!(" AND name = {}", quoted(&query.name)) };
    let most = query.max_values.saturating_add(1);
    let (from, until) = (selection.from_unix_ns, selection.until_unix_ns);
    let of_windows = |time: String| {
        format!(
            "SELECT name, of_unit, of_series, start_unix_ns, own, highest, lvl \
             FROM (SELECT kind, service, agent, sequence, start_unix_ns, signal, signal_unit, signal_series, signal_value, \
             signal_max, signal_level FROM history WHERE kind = '' AND service = '' AND {time} {ONCE}) \
             ARRAY JOIN signal AS name, signal_unit AS of_unit, signal_series AS of_series, signal_value AS own, \
             signal_max AS highest, signal_level AS lvl WHERE {} > 0{named} LIMIT {most}",
            selected.group_of("of_series"),
        )
    };
    let of_sums = |table: &str, rolled: &Rolled, start: &str| {
        let time = rolled.condition(start)?;
        Some(format!(
            "SELECT signal AS name, unit AS of_unit, series AS of_series, {start} AS start_unix_ns, \
             sum(value) / sum(windows) AS own, max(max) AS highest, max(level) AS lvl \
             FROM {table} WHERE {time} AND {} > 0{named} GROUP BY name, of_unit, of_series, start_unix_ns LIMIT {most}",
            selected.group_of("series"),
        ))
    };
    let answers = shared.ask_all(&selection.asker, "cannot look up signals", |server| {
        // In their own steps: as the windows were, for as long as there are windows.
        let sources = History::read(server, &selection.asker, from, until)?.sources(from, until, Some(1));
        let statements = [
            within(&sources.windows).map(of_windows),
            of_sums("signal_minutes", &sources.minutes, MINUTE),
            of_sums("signal_hours", &sources.hours, HOUR),
        ];
        let mut values = Vec::new();
        for sql in statements.into_iter().flatten() {
            values.extend(server.rows_for::<ValueRow>(&selection.asker, &sql)?);
        }
        Ok(values)
    })?;
    let rows: Vec<ValueRow> = answers.into_iter().flatten().collect();
    if rows.len() > query.max_values {
        return Err(StoreError::TooLarge { what: "values of signals", limit: query.max_values });
    }
    let index = shared.index.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found: BTreeMap<(String, String, u64), Vec<SignalValue>> = BTreeMap::new();
    for row in rows {
        found.entry((row.name, row.of_unit, row.of_series)).or_default().push(SignalValue {
            start_unix_ns: row.start_unix_ns,
            value: row.own,
            max: row.highest,
            level: row.lvl,
        });
    }
    let mut all: Vec<SignalSeries> = found
        .into_iter()
        .map(|((name, unit, series), mut values)| {
            values.sort_by_key(|value| value.start_unix_ns);
            let labels = index.labels(series).map(|labels| (*labels).clone()).unwrap_or_default();
            SignalSeries { name, labels, unit, values }
        })
        .collect();
    all.sort_by(|one, other| (&one.name, &one.labels).cmp(&(&other.name, &other.labels)));
    Ok(all)
}
