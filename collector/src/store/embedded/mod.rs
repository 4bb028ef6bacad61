//! The store's embedded home: one directory, one process, no server.
//!
//! **Constraints.** A batch that was acknowledged survives the loss of power and is there once. Two thousand agents send two hundred
//! batches a second, and a disk's slowest step takes milliseconds: batches share it. Memory does not grow with history. Nothing that is
//! read changes while it is read. Any other program that reads Parquet reads history.
//!
//! **Layout.** `catalogue.sqlite` is a SQLite database in WAL mode: names with their numbers, agents, which batches are stored, verdicts,
//! the list of segments, and fresh windows as compressed columns ([`fresh`]). `segments/` has history: immutable Parquet files of samples
//! and of signals, each written three times: as the windows were, by the minute and by the hour ([`segments`]). `names/` tells other programs what the
//! numbers in them mean ([`export`]). `lock` is held while a
//! process has the store open.
//!
//! **Recovery.** The catalogue alone says what is there. A transaction that did not end is not there; SQLite sees to that. A segment's
//! file is whole and on the disk before the one transaction that lists it and deletes the fresh windows that it holds; files that the
//! catalogue does not list are leftovers, and removed when the store is opened.
//!
//! **Deletion.** Whole segments, by age and where there are too many bytes, the finest first ([`retention`]): first from the catalogue,
//! then, when no query is left that may read them, from the disk. Then the names that nothing refers to any more ([`unused`]). How much
//! went is counted.

mod answers;
mod appender;
mod compact;
mod directory;
mod export;
mod frames;
mod fresh;
mod marks;
mod names;
mod readers;
mod retention;
mod rollup;
mod rows;
mod scan;
mod schema;
mod segments;
mod series;
mod signals;
mod sums;
mod told;
mod unused;
mod varint;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream::Hello;
use rusqlite::Connection;
use thiserror::Error;

use self::directory::Directory;
use self::frames::Known;
use self::names::Names;
use self::readers::{Access, Readers};
use self::retention::Doomed;
use self::told::Streams;
use self::unused::Unused;
use self::writer::{Outcome, Queue, Work};
/// How a query's time is cut into parts of several levels: the same for every home.
pub(super) use self::{scan::plan, segments::Level};
use super::{
    AgentStatus, Appender, Frames, Holdings, Selection, SignalQuery, SignalSeries, StackId, Store,
    StoreError, SumQuery, Sums, VerdictSpan,
};

/// Nanoseconds of a minute.
pub(crate) const MINUTE_NS: u64 = 60_000_000_000;
/// Nanoseconds of an hour.
pub(crate) const HOUR_NS: u64 = 60 * MINUTE_NS;
/// Nanoseconds of a day.
pub(crate) const DAY_NS: u64 = 24 * HOUR_NS;

/// Pages of the catalogue's log before it is copied into the catalogue: 16 MB, some seconds of a fleet's batches.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Bytes that the log keeps on the disk when it is empty.
const LOG_BYTES: u32 = 64 << 20;

/// What the store keeps, and how it goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long windows are kept as they were.
    pub windows_ns: u64,
    /// How long the sums of minutes are kept.
    pub minutes_ns: u64,
    /// How long the sums of hours are kept, and what limited hosts.
    pub hours_ns: u64,
    /// Bytes of all segments together. The names and what is fresh come on top.
    pub max_bytes: u64,
    /// Bytes of the names in the catalogue, about. The oldest history goes before there are as many; where that does not help, nothing new is
    /// taken.
    pub max_name_bytes: u64,
    /// By how much names grow at least before those are looked for that nothing refers to.
    pub name_slack_bytes: u64,
    /// How long a window stays where it was written first, for others of its hour to join it.
    pub fresh_ns: u64,
    /// Rows of a segment of windows, about: what is sorted in memory, with 48 bytes each.
    pub segment_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            windows_ns: 2 * DAY_NS,
            minutes_ns: 14 * DAY_NS,
            hours_ns: 400 * DAY_NS,
            max_bytes: 50 << 30,
            max_name_bytes: 4 << 30,
            name_slack_bytes: 64 << 20,
            fresh_ns: 5 * MINUTE_NS,
            segment_rows: 1 << 20,
        }
    }
}

/// Which agents are to belong to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disowned {
    /// One, by its identity.
    Agent([u8; 16]),
    /// All of one owner.
    Owner(String),
}

/// The store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another collector has {} open: stop it, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// A newer version of this program wrote it.
    #[error(
        "the store has version {found} of its schema, and this collector knows {known}: use the newer one"
    )]
    TooNew {
        /// The version that was found.
        found: usize,
        /// The newest that is known.
        known: usize,
    },
    /// The disk, or what is on it.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// A store in a directory.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What all parts of the store use.
#[derive(Debug)]
struct Shared {
    directory: Directory,
    options: Options,
    names: Names,
    /// The connection that writes.
    catalogue: Mutex<Connection>,
    readers: Readers,
    /// What stacks are made of, as far as somebody asked.
    frames: Known,
    queue: Queue,
    streams: Streams,
    /// Held by who does what is due.
    upkeep: Mutex<Upkeep>,
}

/// What goes on from one piece of upkeep to the next.
#[derive(Debug, Default)]
struct Upkeep {
    /// The files that go when nobody reads them any more.
    doomed: Doomed,
    /// The search for names that go.
    unused: Unused,
}

impl Embedded {
    /// Opens the store in a directory, which is made where it is not there.
    ///
    /// # Errors
    /// Where another process has it open, a newer program wrote it, or the disk fails.
    pub fn open(path: &Path, mut options: Options) -> Result<Self, OpenError> {
        // What is finer goes no later than what is coarser.
        options.minutes_ns = options.minutes_ns.min(options.hours_ns);
        options.windows_ns = options.windows_ns.min(options.minutes_ns);
        let directory = Directory::take(path)?;
        let mut catalogue = connect(&directory.catalogue())?;
        schema::migrate(&mut catalogue)?;
        let names = Names::new(connect(&directory.catalogue())?, options.max_name_bytes)?;
        let readers = Readers::new(directory.catalogue());
        let streams = Streams::new(path)?;
        let (queue, jobs): (Queue, Receiver<_>) = Queue::new();
        let shared = Arc::new(Shared {
            directory,
            options,
            names,
            catalogue: Mutex::new(catalogue),
            readers,
            frames: Known::default(),
            queue,
            streams,
            upkeep: Mutex::default(),
        });
        retention::remove_leftovers(&shared)?;
        let writer = writer::start(Arc::clone(&shared), jobs)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Has agents belong to nobody, so that the next who proves an identity owns them. Returns how many.
    ///
    /// # Errors
    /// Where the catalogue cannot be written.
    pub fn disown(&self, whose: Disowned) -> Result<usize, StoreError> {
        match self.shared.queue.write(Work::Disown(whose))? {
            Outcome::Disowned(agents) => Ok(agents),
            _ => Err(failed(|| "cannot disown agents".to_owned())("nobody says how many")),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // What waits is written before. Who comes later is told that the store is closed.
        self.shared.queue.stop();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// The connection that writes, for this thread alone.
    fn catalogue(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic ended was rolled back.
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<Access<'_>, StoreError> {
        self.readers.access()
    }
}

impl Store for Embedded {
    fn appender(&self, hello: &Hello, identity: Option<&str>) -> Result<Box<dyn Appender>, StoreError> {
        Ok(Box::new(appender::EmbeddedAppender::new(Arc::clone(&self.shared), hello, identity)?))
    }

    fn sums(&self, query: &SumQuery) -> Result<Sums, StoreError> {
        sums::sums(&self.shared, query)
    }

    fn frames(&self, stacks: &[StackId]) -> Result<Frames, StoreError> {
        frames::frames(&self.shared, stacks)
    }

    fn signals(&self, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
        signals::signals(&self.shared, query)
    }

    fn verdicts(&self, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
        answers::verdicts(&self.shared, selection)
    }

    fn labels(
        &self,
        selection: &Selection,
        max_values: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        answers::labels(&self.shared, selection, max_values)
    }

    fn kinds(&self) -> Result<Vec<(String, Unit)>, StoreError> {
        answers::kinds(&self.shared)
    }

    fn agents(&self) -> Result<Vec<AgentStatus>, StoreError> {
        answers::agents(&self.shared)
    }

    fn holdings(&self) -> Result<Holdings, StoreError> {
        retention::holdings(&self.shared)
    }

    fn maintain(&self, now_unix_ns: u64) -> Result<bool, StoreError> {
        let mut upkeep = self.shared.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        let Upkeep { doomed, unused } = &mut *upkeep;
        // What makes room comes first: the rest needs some.
        let is_more = retention::delete(&self.shared, now_unix_ns, doomed)?
            || compact::fresh(&self.shared, now_unix_ns)?
            || rollup::minutes(&self.shared, now_unix_ns)?
            || export::names(&self.shared)?;
        // On a busy fleet there is always something to write.
        Ok(unused::delete(&self.shared, now_unix_ns, unused, doomed)? || is_more)
    }
}

/// A connection to the catalogue.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // In WAL mode only this one has the disk confirm each transaction.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        connection.pragma_update(None, "cache_size", -(CACHE_KIB))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| failed(|| format!("cannot open {}", path.display()))(error))
}

/// Memory for pages of the catalogue, of each connection.
const CACHE_KIB: i64 = 8 << 10;

/// Says what could not be done.
fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: impl FnOnce() -> String,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Failed { what: what(), source: source.into() }
}
