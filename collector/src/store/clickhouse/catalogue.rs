//! What there is: labels, kinds, agents, how much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

use chokepoint_analysis::profile::Unit;
use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::levels::{History, Rolled};
use super::owners::{self, digits};
use super::rows::{AgentRow, KindRow, day};
use super::select::{HOUR, MINUTE, selected, within};
use super::sums::unit_of;
use crate::clock::now_unix_ns;
use crate::store::{AgentStatus, Asker, Holdings, Selection, StoreError};

/// Label names with their values; of those that have more, some.
///
/// # Errors
/// Where no server answers.
pub(super) fn labels(
    shared: &Shared,
    selection: &Selection,
    max_values: usize,
) -> Result<Vec<(String, Vec<String>)>, StoreError> {
    let selected = selected(shared, selection, &[])?;
    let (from, until) = (selection.from_unix_ns, selection.until_unix_ns);
    let answers = shared.ask_all(&selection.asker, "cannot look up labels", |server| {
        let sources = History::read(server, &selection.asker, from, until)?.sources(from, until, None);
        let windows = within(&sources.windows).map(|time| {
            format!("SELECT DISTINCT arrayJoin(arrayConcat(series, signal_series)) AS found FROM history WHERE {time}")
        });
        let of_sums = |tables: [&str; 2], rolled: &Rolled, start: &str| {
            let time = rolled.condition(start);
            let statement = |table| Some(format!("SELECT DISTINCT series FROM {table} WHERE {}", time.as_ref()?));
            tables.map(statement)
        };
        let minutes = of_sums(["minutes", "signal_minutes"], &sources.minutes, MINUTE);
        let hours = of_sums(["hours", "signal_hours"], &sources.hours, HOUR);
        let mut series = Vec::new();
        for sql in [windows].into_iter().chain(minutes).chain(hours).flatten() {
            series.extend(server.rows_for::<u64>(&selection.asker, &sql)?);
        }
        Ok(series)
    })?;
    let wanted: std::collections::HashSet<u64> = selected.series.iter().map(|(series, _)| *series).collect();
    let index = shared.index.lock().unwrap_or_else(PoisonError::into_inner);
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in answers.into_iter().flatten().filter(|series| wanted.contains(series)) {
        let labels = index.labels(series).unwrap_or_default();
        for (name, value) in labels.iter() {
            let values = values.entry(name.clone()).or_default();
            if values.len() < max_values {
                values.insert(value.clone());
            }
        }
    }
    Ok(values.into_iter().map(|(name, values)| (name, values.into_iter().collect())).collect())
}

/// All kinds of samples.
///
/// # Errors
/// Where a server does not answer.
pub(super) fn kinds(shared: &Shared) -> Result<Vec<(String, Unit)>, StoreError> {
    let answers = shared.ask_each("cannot look up kinds", |server| {
        server.rows::<KindRow>("SELECT kind, max(unit) AS unit FROM kinds GROUP BY kind")
    })?;
    let mut kinds: BTreeMap<String, u8> = BTreeMap::new();
    for KindRow { kind, unit } in answers.into_iter().flatten() {
        let known = kinds.entry(kind).or_insert(unit);
        *known = unit.max(*known);
    }
    Ok(kinds.into_iter().map(|(kind, unit)| (kind, unit_of(unit))).collect())
}

/// What is said where a server cannot tell of agents.
const CANNOT: &str = "cannot look up agents";

/// What the windows of an agent tell of it.
#[derive(Debug, Row, Deserialize)]
struct Seen {
    agent: [u8; 16],
    batches: u64,
    until: u64,
    dropped: u64,
    said: Vec<String>,
    gave_up: Vec<String>,
}

/// All agents of which windows are kept, or that said hello since the oldest of them.
///
/// # Errors
/// Where a server does not answer: it may have some that others have not.
pub(super) fn agents(shared: &Shared) -> Result<Vec<AgentStatus>, StoreError> {
    let asker = Asker::default();
    let agents = agents_for(shared, &asker)?;
    match asker.missing() {
        missing if missing.is_empty() => Ok(agents),
        missing => Err(StoreError::Failed { what: CANNOT.to_owned(), source: missing.join("; ").into() }),
    }
}

/// The same of the servers that answer.
///
/// # Errors
/// Where none does.
pub(super) fn agents_for(shared: &Shared, asker: &Asker) -> Result<Vec<AgentStatus>, StoreError> {
    let answers = shared.ask_all(asker, CANNOT, |server| {
        let agents = "SELECT agent, names, values, kernel, program, cpus, seen_unix_ns FROM agents \
                      ORDER BY agent, seen_unix_ns DESC LIMIT 1 BY agent";
        let seen = "SELECT agent, uniqExact(sequence) AS batches, max(start_unix_ns + duration_ns) AS until, \
                    max(dropped_batches) AS dropped, argMax(notes, start_unix_ns) AS said, \
                    argMax(given_up, start_unix_ns) AS gave_up \
                    FROM history WHERE kind = '' AND service = '' GROUP BY agent";
        Ok((server.rows_for::<AgentRow>(asker, agents)?, server.rows_for::<Seen>(asker, seen)?))
    })?;
    let owners: HashMap<[u8; 16], String> = owners::all(shared, asker)?.into_iter().collect();
    let mut latest: BTreeMap<[u8; 16], AgentRow> = BTreeMap::new();
    let mut told: HashMap<[u8; 16], Seen> = HashMap::new();
    for (agents, seen) in answers {
        for row in agents {
            if latest.get(&row.agent).is_none_or(|known| known.seen_unix_ns < row.seen_unix_ns) {
                latest.insert(row.agent, row);
            }
        }
        for row in seen {
            let known = told.entry(row.agent).or_insert_with(|| Seen { batches: 0, ..row_of(&row) });
            let batches = known.batches + row.batches;
            let dropped = known.dropped.max(row.dropped);
            if row.until >= known.until {
                *known = row;
            }
            (known.batches, known.dropped) = (batches, dropped);
        }
    }
    let kept = shared.keep.map_or(u16::MAX, |keep| u16::try_from(keep.windows_days).unwrap_or(u16::MAX));
    let oldest = day(now_unix_ns()).saturating_sub(kept);
    let is_kept = |row: &AgentRow| told.contains_key(&row.agent) || day(row.seen_unix_ns) >= oldest;
    latest.retain(|_, row| is_kept(row));
    let status = |row: AgentRow| {
        let seen = told.remove(&row.agent);
        let mut status = AgentStatus {
            agent: digits(&row.agent),
            owner: owners.get(&row.agent).cloned().unwrap_or_default(),
            labels: row.names.into_iter().zip(row.values).collect(),
            kernel: row.kernel,
            program: row.program,
            ..AgentStatus::default()
        };
        if let Some(seen) = seen {
            status.last_window_unix_ns = seen.until;
            status.batches = seen.batches;
            status.dropped_batches = seen.dropped;
            status.notes = seen.said;
            status.given_up = seen.gave_up;
        }
        status
    };
    Ok(latest.into_values().map(status).collect())
}

fn row_of(row: &Seen) -> Seen {
    Seen {
        agent: row.agent,
        batches: row.batches,
        until: row.until,
        dropped: row.dropped,
        said: row.said.clone(),
        gave_up: row.gave_up.clone(),
    }
}

/// Parts of a table that are in use.
#[derive(Debug, Row, Deserialize)]
struct PartsRow {
    is_history: u8,
    parts: u64,
    all_rows: u64,
    bytes: u64,
}

/// How much the servers hold. Rows are those of the tables: one of `windows` has many samples.
///
/// # Errors
/// Where a server does not answer.
pub(super) fn holdings(shared: &Shared) -> Result<Holdings, StoreError> {
    let sql = "SELECT table IN ('windows', 'batches', 'minutes', 'hours', 'signal_minutes', 'signal_hours') AS is_history, count() AS parts, sum(rows) AS all_rows, \
               sum(bytes_on_disk) AS bytes FROM system.parts \
               WHERE database = currentDatabase() AND active GROUP BY is_history";
    let answers =
        shared.ask_each("cannot tell what the store holds", |server| server.rows::<PartsRow>(sql))?;
    let mut holdings = Holdings::default();
    for row in answers.into_iter().flatten() {
        if row.is_history == 1 {
            holdings.segments += row.parts;
            holdings.segment_rows += row.all_rows;
            holdings.segment_bytes += row.bytes;
        } else {
            holdings.name_bytes += row.bytes;
        }
    }
    Ok(holdings)
}
