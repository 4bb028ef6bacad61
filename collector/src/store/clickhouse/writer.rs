//! The writer of each shard: takes what waits into one block, so that the server gets few large ones.
//!
//! **What is atomic.** A block of rows of one partition becomes one part, which is there or not; so all rows of a batch are in one block,
//! with the hour when its window began as the partition. Names go before: they are the same whoever writes them, and nobody sees one that
//! nothing refers to. When the server has confirmed the block, all its batches are answered.
//!
//! **What is not known.** A collector that dies, or does not hear, between the block and the answer leaves agents that send their batches
//! again, here or to another collector. That looks which are stored; and where it cannot see the first block yet, because the server is
//! still busy with it, the batch has its rows twice. They are the same rows, of the same key: readers take one of each, and the database
//! keeps one of each when it merges parts. So nothing depends on who was faster.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::rows::WindowRow;
use super::server::Failure;
use super::shard::Shard;
use super::told::Names;
use crate::store::StoreError;

/// Batches that may wait for a writer. Who comes when it is full waits with its batch in hand.
const MAX_WAITING: usize = 1024;
/// Names of each kind that are known to be written. When there are more, all are forgotten, and written again as they are used.
const MAX_KNOWN: usize = 1 << 20;

/// When a block goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// With so many samples.
    pub(super) rows: usize,
    /// So long after its first batch came.
    pub(super) linger: Duration,
}

/// A batch with its names, and where the answer goes.
pub(super) struct Job {
    pub(super) rows: Vec<WindowRow>,
    pub(super) names: Names,
    pub(super) answer: SyncSender<Result<(), StoreError>>,
}

/// The way to a writer.
#[derive(Debug)]
pub(super) struct Queue(Mutex<Option<SyncSender<Job>>>);

/// What is known to be written.
#[derive(Debug, Default)]
pub(super) struct Written(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    series: HashSet<u64>,
    frames: HashSet<u64>,
    stacks: HashSet<u64>,
    kinds: HashSet<(String, u8)>,
}

impl Queue {
    /// A queue, and where the writer takes from it.
    pub(super) fn new() -> (Self, Receiver<Job>) {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// Has the writer end when all is written that waits.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Has a batch written, and waits until it is.
    ///
    /// # Errors
    /// Where it is not, or nobody knows.
    pub(super) fn write(&self, rows: Vec<WindowRow>, names: Names) -> Result<(), StoreError> {
        let closed = || Failure::refused("the store is closed".to_owned()).into_error("cannot write");
        let (answer, answered) = sync_channel(1);
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or_else(closed)?;
        sender.send(Job { rows, names, answer }).map_err(|_| closed())?;
        drop(sender);
        answered.recv().unwrap_or_else(|_| Err(closed()))
    }
}

impl Written {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stack is known to be written.
    pub(super) fn has_stack(&self, stack: u64) -> bool {
        self.lock().stacks.contains(&stack)
    }
}

/// Writes until the queue is closed and empty.
pub(super) fn write_all(shard: &Shard, queue: &Receiver<Job>, pace: Pace) {
    while let Ok(first) = queue.recv() {
        let until = Instant::now() + pace.linger;
        let mut samples = samples_of(&first);
        let mut jobs = vec![first];
        while samples < pace.rows {
            match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(job) => {
                    samples += samples_of(&job);
                    jobs.push(job);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        write(shard, jobs);
    }
}

fn samples_of(job: &Job) -> usize {
    job.rows.iter().map(|row| row.series.len() + row.signal.len()).sum()
}

/// Batches of one hour, and who waits for each.
#[derive(Default)]
struct OfHour {
    rows: Vec<WindowRow>,
    answers: Vec<SyncSender<Result<(), StoreError>>>,
}

/// Writes the names and then each hour's batches, and answers.
fn write(shard: &Shard, jobs: Vec<Job>) {
    let mut names = Names::default();
    let mut hours: BTreeMap<u32, OfHour> = BTreeMap::new();
    for job in jobs {
        names.series.extend(job.names.series);
        names.frames.extend(job.names.frames);
        names.stacks.extend(job.names.stacks);
        names.kinds.extend(job.names.kinds);
        // A batch is of one hour, and none is without rows.
        let hour = job.rows.first().map_or(0, |row| row.hour);
        let hour = hours.entry(hour).or_default();
        hour.rows.extend(job.rows);
        hour.answers.push(job.answer);
    }
    let written = shard.to_write().and_then(|server| write_names(shard, &server, names).map(|()| server));
    for OfHour { rows, answers } in hours.into_values() {
        let result = match &written {
            Ok(server) => shard.store(server, &rows),
            Err(failure) => Err(failure.again()),
        };
        for answer in answers {
            let told = match &result {
                Ok(()) => Ok(()),
                Err(failure) => Err(failure.again().into_error("cannot write to the store's server")),
            };
            // Who asked may have gone.
            let _ = answer.send(told);
        }
    }
}

fn write_names(shard: &Shard, server: &super::server::Server, mut names: Names) -> Result<(), Failure> {
    {
        let known = &mut *shard.written.lock();
        only_new(&mut names.series, |row| row.id, &known.series);
        only_new(&mut names.frames, |row| row.id, &known.frames);
        only_new(&mut names.stacks, |row| row.id, &known.stacks);
        only_new(&mut names.kinds, |row| (row.kind.clone(), row.unit), &known.kinds);
    }
    server.insert("series", &names.series)?;
    server.insert("frames", &names.frames)?;
    server.insert("stacks", &names.stacks)?;
    server.insert("kinds", &names.kinds)?;
    let known = &mut *shard.written.lock();
    remember(&mut known.series, names.series.iter().map(|row| row.id));
    remember(&mut known.frames, names.frames.iter().map(|row| row.id));
    remember(&mut known.stacks, names.stacks.iter().map(|row| row.id));
    remember(&mut known.kinds, names.kinds.into_iter().map(|row| (row.kind, row.unit)));
    Ok(())
}

/// Leaves the first of each that is not known.
fn only_new<T, K: Eq + std::hash::Hash>(rows: &mut Vec<T>, key: impl Fn(&T) -> K, known: &HashSet<K>) {
    let mut seen = HashSet::new();
    rows.retain(|row| {
        let key = key(row);
        !known.contains(&key) && seen.insert(key)
    });
}

fn remember<K: Eq + std::hash::Hash>(known: &mut HashSet<K>, new: impl Iterator<Item = K>) {
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.extend(new);
}

/// Starts the writer of a shard.
///
/// # Errors
/// Where there is no thread for it.
pub(super) fn start(
    shard: Arc<Shard>,
    queue: Receiver<Job>,
    pace: Pace,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || write_all(&shard, &queue, pace))
}
