//! The one writer: takes what waits into one transaction, so that many agents share the disk's slowest step.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, named_params, params};

use super::{Disowned, Shared, failed};
use crate::store::StoreError;

/// What may wait for the writer. Who comes when it is full waits with its batch in hand, as it waits for the answer.
const MAX_WAITING: usize = 256;
/// What one transaction takes at most: with some ten kilobytes each, what the catalogue's log holds between two checkpoints.
const MAX_TOGETHER: usize = 128;

/// Agents that may be known at once; those of which nothing is stored any more are forgotten. Each takes some hundred bytes.
const MAX_AGENTS: i64 = 1 << 16;

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Queue(Mutex<SyncSender<Job>>);

/// Something to write, and where the answer goes.
pub(super) struct Job {
    work: Work,
    answer: SyncSender<Result<Outcome, StoreError>>,
}

/// Something to write.
pub(super) enum Work {
    /// An agent that says hello.
    Agent(NewAgent),
    /// A batch.
    Batch(NewBatch),
    /// All names that are not written.
    Names,
    /// Agents that are to belong to nobody.
    Disown(Disowned),
    /// Nothing more: the writer ends.
    Stop,
}

/// What came of it.
pub(super) enum Outcome {
    /// The agent's number.
    Agent(i64),
    /// The agent is another one's.
    NotOwned,
    /// There are as many agents as may be known.
    TooManyAgents,
    /// So many agents belong to nobody now.
    Disowned(usize),
    /// It is written.
    Stored,
    /// The batch was stored before.
    Known,
}

/// An agent as it says hello.
pub(super) struct NewAgent {
    pub(super) identity: Vec<u8>,
    /// The label set of its host.
    pub(super) host: u32,
    pub(super) kernel: String,
    pub(super) program: String,
    pub(super) cpus: u32,
    /// Who has proven to be it; `None`: nobody was asked.
    pub(super) owner: Option<String>,
    pub(super) seen_unix_ns: i64,
}

/// A batch in the store's numbers.
pub(super) struct NewBatch {
    pub(super) agent: i64,
    pub(super) host: u32,
    pub(super) sequence: i64,
    pub(super) dropped_batches: i64,
    /// When it came, by this host's clock.
    pub(super) seen_unix_ns: i64,
    pub(super) start_unix_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) rows: i64,
    /// What is missing of the window, and what its agent has given up: sentences, as JSON.
    pub(super) notes: String,
    pub(super) given_up: String,
    /// Empty: there are none.
    pub(super) samples: Vec<u8>,
    /// Empty: there are none.
    pub(super) signals: Vec<u8>,
    pub(super) verdict: Option<NewVerdict>,
}

/// What limited the host.
pub(super) struct NewVerdict {
    pub(super) code: String,
    pub(super) confidence: f64,
    pub(super) severity: u32,
    pub(super) share: f64,
    pub(super) summary: String,
    /// Compressed.
    pub(super) diagnosis: Vec<u8>,
}

impl Queue {
    /// A queue, and where the writer takes from it.
    pub(super) fn new() -> (Self, Receiver<Job>) {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        (Self(Mutex::new(sender)), receiver)
    }

    /// Has the writer end when all is written that waits.
    pub(super) fn stop(&self) {
        let (answer, _) = sync_channel(1);
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Where it has ended already, nothing waits.
        let _ = sender.send(Job { work: Work::Stop, answer });
    }

    /// Has something written, and waits until it is.
    ///
    /// # Errors
    /// Where it is not written.
    pub(super) fn write(&self, work: Work) -> Result<Outcome, StoreError> {
        let closed = || failed(|| "cannot write".to_owned())("the store is closed");
        let (answer, answered) = sync_channel(1);
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.send(Job { work, answer }).map_err(|_| closed())?;
        answered.recv().unwrap_or_else(|_| Err(closed()))
    }
}

/// Starts the writer, which ends with [`Work::Stop`].
///
/// # Errors
/// Where there is no thread for it.
pub(super) fn start(shared: Arc<Shared>, queue: Receiver<Job>) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || write_all(&shared, &queue))
        .map_err(failed(|| "cannot start the store's writer".to_owned()))
}

fn write_all(shared: &Shared, queue: &Receiver<Job>) {
    let mut is_stopped = false;
    while !is_stopped {
        let Ok(first) = queue.recv() else { return };
        let mut jobs = vec![first];
        jobs.extend(queue.try_iter().take(MAX_TOGETHER - 1));
        is_stopped = jobs.iter().any(|job| matches!(job.work, Work::Stop));
        jobs.retain(|job| !matches!(job.work, Work::Stop));
        let together = write(shared, &jobs);
        match together {
            Ok(outcomes) => {
                for (job, outcome) in jobs.iter().zip(outcomes) {
                    answer(job, Ok(outcome));
                }
            }
            Err(error) if jobs.len() == 1 => answer(&jobs[0], Err(error)),
            // One of them may be what fails, or all of them too much for what is left of the disk.
            Err(_) => {
                for job in &jobs {
                    let outcome =
                        write(shared, std::slice::from_ref(job)).map(|mut outcomes| outcomes.remove(0));
                    answer(job, outcome);
                }
            }
        }
    }
}

/// Who asked may have gone.
fn answer(job: &Job, outcome: Result<Outcome, StoreError>) {
    let _ = job.answer.send(outcome);
}

/// One transaction. When this returns it is on the disk, or nothing of it is.
fn write(shared: &Shared, jobs: &[Job]) -> Result<Vec<Outcome>, StoreError> {
    let step = || "cannot write to the store's catalogue".to_owned();
    let mut catalogue = shared.catalogue();
    let mut attempt = || {
        let transaction =
            catalogue.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(step))?;
        shared.names.write(&transaction)?;
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            let outcome = match &job.work {
                Work::Agent(agent) => write_agent(&transaction, agent),
                Work::Batch(batch) => write_batch(&transaction, batch),
                Work::Disown(whose) => disown(&transaction, whose),
                Work::Names | Work::Stop => Ok(Outcome::Stored),
            };
            outcomes.push(outcome.map_err(failed(step))?);
        }
        transaction.commit().map_err(failed(step))?;
        Ok(outcomes)
    };
    let outcomes = attempt();
    shared.names.end(outcomes.is_ok());
    outcomes
}

fn write_agent(transaction: &Transaction<'_>, agent: &NewAgent) -> rusqlite::Result<Outcome> {
    let NewAgent { identity, host, kernel, program, cpus, owner, seen_unix_ns } = agent;
    let has_room: bool = transaction
        .prepare_cached(
            "SELECT (SELECT count(*) FROM agents) < ?1 OR EXISTS (SELECT 1 FROM agents WHERE identity = ?2)",
        )?
        .query_row(params![MAX_AGENTS, identity], |row| row.get(0))?;
    if !has_room {
        return Ok(Outcome::TooManyAgents);
    }
    // Where it is another one's, nothing is updated, and so nothing returned.
    let mut write = transaction.prepare_cached(
        "INSERT INTO agents (identity, host, kernel, program, cpus, owner, seen_unix_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (identity) DO UPDATE SET host = ?2, kernel = ?3, program = ?4, cpus = ?5, owner = coalesce(owner, ?6),
         seen_unix_ns = ?7
         WHERE owner IS NULL OR ?6 IS NULL OR owner = ?6 RETURNING id",
    )?;
    let values = params![identity, host, kernel, program, cpus, owner, seen_unix_ns];
    let number = write.query_row(values, |row| row.get(0)).optional()?;
    Ok(number.map_or(Outcome::NotOwned, Outcome::Agent))
}

fn disown(transaction: &Transaction<'_>, whose: &Disowned) -> rusqlite::Result<Outcome> {
    let agents = match whose {
        Disowned::Agent(identity) => transaction.execute(
            "UPDATE agents SET owner = NULL WHERE identity = ?1 AND owner IS NOT NULL",
            params![identity],
        )?,
        Disowned::Owner(owner) => {
            transaction.execute("UPDATE agents SET owner = NULL WHERE owner = ?1", params![owner])?
        }
    };
    Ok(Outcome::Disowned(agents))
}

fn write_batch(transaction: &Transaction<'_>, batch: &NewBatch) -> rusqlite::Result<Outcome> {
    let NewBatch { agent, start_unix_ns, duration_ns, .. } = batch;
    let end_unix_ns = start_unix_ns.saturating_add(*duration_ns);
    let is_new = take_sequence(transaction, *agent, batch.sequence)?;
    transaction
        .prepare_cached(
            "UPDATE agents SET dropped_batches = max(dropped_batches, ?2), batches = batches + ?3,
             seen_unix_ns = ?7, notes = iif(?3 AND last_window_unix_ns <= ?4, ?5, notes),
             given_up = iif(?3 AND last_window_unix_ns <= ?4, ?6, given_up),
             last_window_unix_ns = iif(?3, max(last_window_unix_ns, ?4), last_window_unix_ns) WHERE id = ?1",
        )?
        .execute(params![
            agent,
            batch.dropped_batches,
            i64::from(is_new),
            end_unix_ns,
            batch.notes,
            batch.given_up,
            batch.seen_unix_ns
        ])?;
    if !is_new {
        return Ok(Outcome::Known);
    }
    if batch.rows > 0 {
        transaction
            .prepare_cached(
                "INSERT INTO windows (agent, start_unix_ns, duration_ns, rows, samples, signals)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![agent, start_unix_ns, duration_ns, batch.rows, batch.samples, batch.signals])?;
    }
    if let Some(verdict) = &batch.verdict {
        write_verdict(transaction, batch, verdict)?;
    }
    Ok(Outcome::Stored)
}

/// Remembers that a batch is stored; whether it was not before. Batches come in the order of their numbers but for those that come
/// again, so an agent has one run for each gap.
fn take_sequence(transaction: &Connection, agent: i64, sequence: i64) -> rusqlite::Result<bool> {
    let mut before = transaction.prepare_cached(
        "SELECT first, last FROM stored WHERE agent = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
    )?;
    let before: Option<(i64, i64)> =
        before.query_row(params![agent, sequence], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if before.is_some_and(|(_, last)| sequence <= last) {
        return Ok(false);
    }
    let after = match sequence.checked_add(1) {
        Some(next) => transaction
            .prepare_cached("DELETE FROM stored WHERE agent = ?1 AND first = ?2 RETURNING last")?
            .query_row(params![agent, next], |row| row.get(0))
            .optional()?,
        None => None,
    };
    let first = before.filter(|(_, last)| *last == sequence - 1).map_or(sequence, |(first, _)| first);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO stored (agent, first, last) VALUES (?1, ?2, ?3)")?
        .execute(params![agent, first, after.unwrap_or(sequence)])?;
    Ok(true)
}

/// Adds a window to the run that it continues, or begins one. One window may be missing between two of a run.
fn write_verdict(
    transaction: &Transaction<'_>,
    batch: &NewBatch,
    verdict: &NewVerdict,
) -> rusqlite::Result<()> {
    let until = batch.start_unix_ns.saturating_add(batch.duration_ns);
    let mut last = transaction.prepare_cached(
        "SELECT id, host, code, last_unix_ns, until_unix_ns FROM verdicts WHERE agent = ?1
         ORDER BY from_unix_ns DESC LIMIT 1",
    )?;
    let last: Option<(i64, u32, String, i64, i64)> = last
        .query_row(params![batch.agent], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .optional()?;
    let run = last.filter(|(_, host, code, last, until)| {
        *host == batch.host
            && *code == verdict.code
            && (*last..=until.saturating_add(batch.duration_ns)).contains(&batch.start_unix_ns)
    });
    let sql = if run.is_some() {
        "UPDATE verdicts SET last_unix_ns = :start, until_unix_ns = :until, windows = windows + 1,
         confidence = :confidence, severity = :severity, share = :share, summary = :summary, diagnosis = :diagnosis
         WHERE id = :id AND agent = :agent AND host = :host AND code = :code"
    } else {
        "INSERT INTO verdicts (id, agent, host, code, from_unix_ns, last_unix_ns, until_unix_ns, windows,
         confidence, severity, share, summary, diagnosis)
         VALUES (:id, :agent, :host, :code, :start, :start, :until, 1,
         :confidence, :severity, :share, :summary, :diagnosis)"
    };
    transaction.prepare_cached(sql)?.execute(named_params! {
        ":id": run.map(|(id, ..)| id),
        ":agent": batch.agent,
        ":host": batch.host,
        ":code": verdict.code,
        ":start": batch.start_unix_ns,
        ":until": until,
        ":confidence": finite(verdict.confidence),
        ":severity": verdict.severity,
        ":share": finite(verdict.share),
        ":summary": verdict.summary,
        ":diagnosis": verdict.diagnosis,
    })?;
    Ok(())
}

/// SQLite takes what is no number for nothing at all.
fn finite(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

/// SQLite's numbers are signed. What is above is the year 2262, or a number that no agent gets to.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
