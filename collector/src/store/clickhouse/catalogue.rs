//! What there is: labels, kinds, agents, how much; and what goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::PoisonError;

use chokepoint_analysis::profile::Unit;
use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::owners::{self, digits};
use super::rows::{AgentRow, KindRow, day};
use super::schema::Dialect;
use super::select::{between, selected};
use super::server::Failure;
use super::sums::unit_of;
use crate::clock::now_unix_ns;
use crate::store::{AgentStatus, Holdings, Selection, StoreError};

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
    let sql = format!(
        "SELECT DISTINCT arrayJoin(arrayConcat(series, signal_series)) AS found FROM windows WHERE {}",
        between(selection.from_unix_ns, selection.until_unix_ns)
    );
    let answers = shared.ask_all(&selection.asker, "cannot look up labels", |server| {
        server.rows_for::<u64>(&selection.asker, &sql)
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
    let what = "cannot look up agents";
    let answers = shared.ask_each(what, |server| {
        let agents = "SELECT agent, names, values, kernel, program, cpus, seen_unix_ns FROM agents \
                      ORDER BY agent, seen_unix_ns DESC LIMIT 1 BY agent";
        let seen = "SELECT agent, uniqExact(sequence) AS batches, max(start_unix_ns + duration_ns) AS until, \
                    max(dropped_batches) AS dropped, argMax(notes, start_unix_ns) AS said, \
                    argMax(given_up, start_unix_ns) AS gave_up \
                    FROM windows WHERE kind = '' AND service = '' GROUP BY agent";
        Ok((server.rows::<AgentRow>(agents)?, server.rows::<Seen>(seen)?))
    })?;
    let owners: HashMap<[u8; 16], String> = owners::all(shared)?.into_iter().collect();
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
    let kept = shared.keep_days.map_or(u16::MAX, |days| u16::try_from(days).unwrap_or(u16::MAX));
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
    let sql = "SELECT table = 'windows' AS is_history, count() AS parts, sum(rows) AS all_rows, \
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

/// Has days that are too old go, where the servers do not know by themselves.
///
/// # Errors
/// Where a server cannot. One that does not answer has its turn the next time.
pub(super) fn maintain(shared: &Shared, now_unix_ns: u64) -> Result<bool, StoreError> {
    let Some(keep_days) = shared.keep_days else { return Ok(false) };
    let oldest = u64::from(day(now_unix_ns)).saturating_sub(keep_days);
    for shard in &shared.shards {
        let dropped = shard.speaking().and_then(|(server, dialect)| {
            if dialect == Dialect::Modern {
                return Ok(());
            }
            let old = format!(
                "SELECT DISTINCT toString(toDate(partition)) FROM system.parts WHERE database = currentDatabase() \
                 AND table = 'windows' AND active AND toDate(partition) < toDate({oldest})"
            );
            for day in server.rows::<String>(&old)? {
                tracing::info!(server = server.address(), day, "what is too old goes");
                server.execute(&format!("ALTER TABLE windows DROP PARTITION '{day}'"))?;
            }
            Ok(())
        });
        match dropped {
            Ok(()) => {}
            Err(Failure::Silent(why)) => tracing::warn!(why, "a server of the store does not answer"),
            Err(failure) => return Err(failure.into_error("cannot delete what is too old")),
        }
    }
    Ok(false)
}
