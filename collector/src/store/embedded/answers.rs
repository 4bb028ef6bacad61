//! What is answered from the catalogue alone: verdicts, labels and agents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream;

use super::scan::{Scan, plan};
use super::writer::signed;
use super::{Shared, failed, fresh};
use crate::labels::Labels;
use crate::store::{AgentStatus, Selection, StoreError, VerdictSpan};

/// Bytes of an answer's verdicts at most: a day of some hundred hosts.
const MAX_SPANS_BYTES: usize = 64 << 20;
/// Bytes of a verdict beside its texts, or somewhat less.
const SPAN_BYTES: usize = 512;

/// What limited hosts: all runs that have a window of the selection's time, each as a whole.
///
/// # Errors
/// Where the catalogue cannot be read.
pub(super) fn verdicts(shared: &Shared, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
    let access = shared.read()?;
    let mut statement = access
        .catalogue()
        .prepare_cached(
            "SELECT host, code, from_unix_ns, until_unix_ns, windows, confidence, severity, share, summary, diagnosis
             FROM verdicts WHERE from_unix_ns < ?2 AND last_unix_ns >= ?1 AND until_unix_ns > ?1",
        )
        .map_err(failed(reading))?;
    let mut rows = statement
        .query([signed(selection.from_unix_ns), signed(selection.until_unix_ns)])
        .map_err(failed(reading))?;
    // Hosts are few.
    let mut hosts: HashMap<u32, Option<Labels>> = HashMap::new();
    let mut spans = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next().map_err(failed(reading))? {
        selection.asker.check()?;
        let host = row.get(0).map_err(failed(reading))?;
        let labels = hosts.entry(host).or_insert_with(|| {
            let labels = access.index.set_labels(host);
            selection.matchers.iter().all(|matcher| matcher.admits(&labels)).then_some(labels)
        });
        if let Some(labels) = labels {
            let span = span(row, labels.clone())?;
            bytes += span.diagnosis.len() + span.summary.len() + SPAN_BYTES;
            if bytes > MAX_SPANS_BYTES {
                return Err(StoreError::TooLarge { what: "bytes of verdicts", limit: MAX_SPANS_BYTES });
            }
            spans.push(span);
        }
    }
    spans.sort_by(|one, other| (host_of(one), one.from_unix_ns).cmp(&(host_of(other), other.from_unix_ns)));
    Ok(spans)
}

fn host_of(span: &VerdictSpan) -> (Option<&String>, &Labels) {
    (span.labels.get("host"), &span.labels)
}

fn span(row: &rusqlite::Row<'_>, labels: Labels) -> Result<VerdictSpan, StoreError> {
    let unsigned = |column| row.get(column).map(i64::unsigned_abs).map_err(failed(reading));
    let diagnosis = fresh::decompress(&row.get::<_, Vec<u8>>(9).map_err(failed(reading))?)?;
    Ok(VerdictSpan {
        labels,
        code: row.get(1).map_err(failed(reading))?,
        from_unix_ns: unsigned(2)?,
        until_unix_ns: unsigned(3)?,
        windows: unsigned(4)?,
        confidence: row.get(5).map_err(failed(reading))?,
        severity: unsigned(6)?.min(u64::from(u8::MAX)) as u8,
        share: row.get(7).map_err(failed(reading))?,
        summary: row.get(8).map_err(failed(reading))?,
        diagnosis: String::from_utf8_lossy(&diagnosis).into_owned(),
    })
}

/// Label names with their values; of those that have more, some.
///
/// # Errors
/// Where the store cannot be read.
pub(super) fn labels(
    shared: &Shared,
    selection: &Selection,
    max_values: usize,
) -> Result<Vec<(String, Vec<String>)>, StoreError> {
    let access = shared.read()?;
    let series = access.index.select(&selection.matchers);
    let scan = Scan {
        shared,
        access: &access,
        parts: plan(selection.from_unix_ns, selection.until_unix_ns, None),
        kind: None,
        series: &series,
        asker: &selection.asker,
    };
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, _) in scan.series()?.iter().enumerate().filter(|(_, is_found)| **is_found) {
        for (name, value) in access.index.labels(number as u32) {
            let values = values.entry(name).or_default();
            if values.len() < max_values {
                values.insert(value);
            }
        }
    }
    Ok(values.into_iter().map(|(name, values)| (name, values.into_iter().collect())).collect())
}

/// All kinds of samples. Where agents differ in the unit of one, it is what the first said, as for sums.
///
/// # Errors
/// Where the catalogue cannot be read.
pub(super) fn kinds(shared: &Shared) -> Result<Vec<(String, Unit)>, StoreError> {
    let access = shared.read()?;
    let mut statement = access
        .catalogue()
        .prepare_cached("SELECT name, unit, min(id) FROM kinds GROUP BY name ORDER BY name")
        .map_err(failed(reading))?;
    let kinds = statement
        .query_map((), |row| {
            let is_time = row.get::<_, i32>(1)? == stream::Unit::Nanoseconds as i32;
            Ok((row.get(0)?, if is_time { Unit::Nanoseconds } else { Unit::Count }))
        })
        .map_err(failed(reading))?;
    kinds.collect::<Result<_, _>>().map_err(failed(reading))
}

/// All agents, in the order in which they came.
///
/// # Errors
/// Where the catalogue cannot be read.
pub(super) fn agents(shared: &Shared) -> Result<Vec<AgentStatus>, StoreError> {
    let access = shared.read()?;
    let mut statement = access
        .catalogue()
        .prepare_cached(
            "SELECT identity, host, kernel, program, last_window_unix_ns, batches, dropped_batches,
             coalesce(owner, ''), notes, given_up FROM agents ORDER BY id",
        )
        .map_err(failed(reading))?;
    let agents = statement
        .query_map((), |row| {
            let identity: Vec<u8> = row.get(0)?;
            let unsigned = |column| row.get(column).map(i64::unsigned_abs);
            Ok(AgentStatus {
                agent: identity.iter().map(|byte| format!("{byte:02x}")).collect(),
                labels: access.index.set_labels(row.get(1)?),
                kernel: row.get(2)?,
                program: row.get(3)?,
                last_window_unix_ns: unsigned(4)?,
                batches: unsigned(5)?,
                dropped_batches: unsigned(6)?,
                owner: row.get(7)?,
                notes: sentences(&row.get::<_, String>(8)?),
                given_up: sentences(&row.get::<_, String>(9)?),
            })
        })
        .map_err(failed(reading))?;
    agents.collect::<Result<_, _>>().map_err(failed(reading))
}

/// What the writer wrote; what is not that says so itself.
fn sentences(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|_| vec!["what the store holds of this is damaged".to_owned()])
}

fn reading() -> String {
    "cannot read the catalogue".to_owned()
}
