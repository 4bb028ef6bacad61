//! What limited hosts: runs of windows with the same constraint, made when they are asked for.

use std::collections::HashMap;
use std::sync::PoisonError;

use clickhouse::Row;
use serde::Deserialize;

use super::Shared;
use super::index::SeriesIndex;
use super::select::{ONCE, of_time};
use super::server::{agent_literal, list};
use crate::labels::Labels;
use crate::store::{Selection, StoreError, VerdictSpan};

/// How far a run that is asked for is followed before and after the time that is asked for. What is longer is told as so long.
const FOLLOWED_NS: u64 = 24 * 3_600_000_000_000;
/// Windows that are read for an answer, of each server.
const MAX_WINDOWS: usize = 2_000_000;
/// Runs of which the last window is read at a time.
const AT_ONCE: usize = 500;
/// Bytes of an answer's verdicts at most.
const MAX_SPANS_BYTES: usize = 64 << 20;
/// Bytes of a verdict beside its texts, or somewhat less.
const SPAN_BYTES: usize = 512;

/// A window of one server.
#[derive(Debug, Row, Deserialize)]
struct DiagnosedRow {
    agent: [u8; 16],
    host: u64,
    code: String,
    sequence: u64,
    start_unix_ns: u64,
    duration_ns: u64,
}

/// What is told of a run's last window.
#[derive(Debug, Row, Deserialize)]
struct TextsRow {
    agent: [u8; 16],
    sequence: u64,
    confidence: f64,
    severity: u8,
    share: f64,
    summary: String,
    diagnosis: String,
}

/// A run of windows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    agent: [u8; 16],
    host: u64,
    code: String,
    from_unix_ns: u64,
    /// Length of the first window.
    first_ns: u64,
    /// Begin and number of the last window.
    last_unix_ns: u64,
    last: u64,
    until_unix_ns: u64,
    windows: u64,
}

impl Run {
    /// Whether a window of this agent, host and code that begins then, and is so long, belongs to it. One may be missing between.
    fn goes_on(&self, of: ([u8; 16], u64, &str), start_unix_ns: u64, duration_ns: u64) -> bool {
        let next = self.last_unix_ns..=self.until_unix_ns.saturating_add(duration_ns);
        (self.agent, self.host, &*self.code) == of && next.contains(&start_unix_ns)
    }
}

/// Answers a query: all runs that have a window of the selection's time.
///
/// # Errors
/// Where no server answers, or there are too many.
pub(super) fn verdicts(shared: &Shared, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
    let what = "cannot look up what limited hosts";
    let (from, until) = (selection.from_unix_ns, selection.until_unix_ns);
    if from >= until {
        return Ok(Vec::new());
    }
    SeriesIndex::refresh(shared, &selection.asker)?;
    let sql = format!(
        "SELECT agent, host, code, sequence, start_unix_ns, duration_ns FROM history \
         WHERE {} AND service = '' AND has_verdict = 1 ORDER BY agent, start_unix_ns {ONCE} LIMIT {}",
        of_time("", from.saturating_sub(FOLLOWED_NS), until.saturating_add(FOLLOWED_NS)),
        MAX_WINDOWS + 1,
    );
    // The texts are read of the server that has the windows.
    let spans = shared.ask_all(&selection.asker, what, |server| {
        let rows: Vec<DiagnosedRow> = server.rows_for(&selection.asker, &sql)?;
        if rows.len() > MAX_WINDOWS {
            return Ok(None);
        }
        let mut runs = runs(rows);
        runs.retain(|run| run.from_unix_ns < until && run.last_unix_ns >= from && run.until_unix_ns > from);
        {
            let index = shared.index.lock().unwrap_or_else(PoisonError::into_inner);
            let mut hosts: HashMap<u64, bool> = HashMap::new();
            runs.retain(|run| {
                *hosts.entry(run.host).or_insert_with(|| {
                    let labels = index.labels(run.host).unwrap_or_default();
                    selection.matchers.iter().all(|matcher| matcher.admits(&labels))
                })
            });
        }
        let mut texts: HashMap<([u8; 16], u64), TextsRow> = HashMap::new();
        let mut bytes = 0;
        for runs in runs.chunks(AT_ONCE) {
            let sql = format!(
                "SELECT agent, sequence, confidence, severity, share, summary, diagnosis FROM history \
                 WHERE {} AND service = '' AND agent IN ({}) AND sequence IN ({}) {ONCE}",
                of_time("", lowest(runs), highest(runs).saturating_add(1)),
                list(runs.iter().map(|run| agent_literal(&run.agent))),
                list(runs.iter().map(|run| run.last)),
            );
            for row in server.rows_for::<TextsRow>(&selection.asker, &sql)? {
                if runs.iter().any(|run| (run.agent, run.last) == (row.agent, row.sequence)) {
                    bytes += row.summary.len() + row.diagnosis.len() + SPAN_BYTES;
                    texts.insert((row.agent, row.sequence), row);
                }
            }
            if bytes > MAX_SPANS_BYTES {
                return Ok(None);
            }
        }
        Ok(Some((runs, texts)))
    })?;
    let too_large = || StoreError::TooLarge { what: "bytes of verdicts", limit: MAX_SPANS_BYTES };
    let index = shared.index.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    for of_server in spans {
        let (runs, mut texts) = of_server.ok_or_else(too_large)?;
        // Without texts it went with its hour in between.
        found.extend(runs.into_iter().filter_map(|run| Some((texts.remove(&(run.agent, run.last))?, run))));
    }
    let labels = |host| index.labels(host).map(|labels| (*labels).clone()).unwrap_or_default();
    let mut all: Vec<VerdictSpan> = joined(found)
        .into_iter()
        .map(|(texts, run)| {
            let host = labels(run.host);
            span(run, texts, host)
        })
        .collect();
    all.sort_by(|one, other| (host_of(one), one.from_unix_ns).cmp(&(host_of(other), other.from_unix_ns)));
    Ok(all)
}

/// Joins runs that go on at another server, where the store grew meanwhile.
fn joined(mut found: Vec<(TextsRow, Run)>) -> Vec<(TextsRow, Run)> {
    found.sort_by_key(|(_, run)| (run.agent, run.from_unix_ns));
    let mut all: Vec<(TextsRow, Run)> = Vec::with_capacity(found.len());
    for (texts, run) in found {
        let of = (run.agent, run.host, &*run.code);
        match all.last_mut().filter(|(_, last)| last.goes_on(of, run.from_unix_ns, run.first_ns)) {
            Some((last_texts, last)) => {
                *last_texts = texts;
                *last = Run {
                    from_unix_ns: last.from_unix_ns,
                    first_ns: last.first_ns,
                    windows: last.windows + run.windows,
                    ..run
                };
            }
            None => all.push((texts, run)),
        }
    }
    all
}

fn host_of(span: &VerdictSpan) -> (Option<&String>, &Labels) {
    (span.labels.get("host"), &span.labels)
}

fn lowest(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.last_unix_ns).min().unwrap_or(0)
}

fn highest(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.last_unix_ns).max().unwrap_or(0)
}

fn span(run: Run, texts: TextsRow, labels: Labels) -> VerdictSpan {
    VerdictSpan {
        labels,
        code: run.code,
        from_unix_ns: run.from_unix_ns,
        until_unix_ns: run.until_unix_ns,
        windows: run.windows,
        confidence: texts.confidence,
        severity: texts.severity,
        share: texts.share,
        summary: texts.summary,
        diagnosis: texts.diagnosis,
    }
}

/// Runs of windows in the order of agent and time.
fn runs(rows: Vec<DiagnosedRow>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for row in rows {
        let until = row.start_unix_ns.saturating_add(row.duration_ns);
        let of = (row.agent, row.host, &*row.code);
        match runs.last_mut().filter(|run| run.goes_on(of, row.start_unix_ns, row.duration_ns)) {
            Some(run) => {
                run.last_unix_ns = row.start_unix_ns;
                run.last = row.sequence;
                run.until_unix_ns = until;
                run.windows += 1;
            }
            None => runs.push(Run {
                agent: row.agent,
                host: row.host,
                code: row.code,
                from_unix_ns: row.start_unix_ns,
                first_ns: row.duration_ns,
                last_unix_ns: row.start_unix_ns,
                last: row.sequence,
                until_unix_ns: until,
                windows: 1,
            }),
        }
    }
    runs
}
