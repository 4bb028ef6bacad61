//! The store's distributed home: ClickHouse servers, each a shard.
//!
//! **Constraints.** Collectors come and go, several at a time, and have nothing but what agents were not told yet. A batch that was
//! acknowledged is there once, whichever collector took it and however often it came. A shard that does not answer is never taken for one
//! that has nothing.
//!
//! **Layout.** What an agent tells is on one shard, by the hash of its service and host ([`layout`] says how that changes). `batches` has a
//! row for each batch, kind and service, with the samples as arrays; names are kept once by a number that is made of their content
//! ([`content`]), so that collectors agree without asking each other ([`schema.sql`](schema.sql)). Hours that are over are added up to
//! minutes and hours ([`rollup`], [`rollups.sql`](rollups.sql)); [`levels`] says when those are read instead of windows.
//!
//! **Recovery.** The servers alone say what is there. [`writer`] says why a batch counts once whoever dies.
//!
//! **Deletion.** By age, whole partitions: windows of an hour, sums of a day or week ([`retention`]).

mod address;
mod appender;
mod catalogue;
mod content;
mod encrypted;
mod frames;
mod index;
mod layout;
mod levels;
mod owners;
mod retention;
mod rollup;
mod rows;
mod schema;
mod select;
mod server;
mod shard;
mod signals;
mod sums;
mod told;
mod verdicts;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream::Hello;
use chokepoint_tls::{ClientFiles, HTTP_1};
use tokio::runtime::Runtime;

pub use self::address::{BadAddress, ENCRYPTED_SCHEME, Login, SCHEME, Servers};
pub use self::schema::Dialect;

use self::index::SeriesIndex;
use self::layout::Place;
use self::levels::History;
use self::server::{Access, Failure, Server};
use self::shard::Shard;
use self::told::Texts;
use self::writer::{Pace, Queue};
use super::embedded::Disowned;
use super::{
    AgentStatus, Appender, Asker, Frames, Holdings, Selection, SignalQuery, SignalSeries, StackId, Store,
    StoreError, SumQuery, Sums, VerdictSpan,
};

/// Threads that talk to servers; what waits takes none.
const RUNTIME_THREADS: usize = 2;

/// What the store keeps, and how it goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// How one logs on; `None`: as the server's default user.
    pub login: Option<Login>,
    /// The authorities of which one has to have signed the servers' certificates, where TLS is spoken; `None`: those that the host trusts.
    pub ca: Option<PathBuf>,
    /// What is kept for how long; `None`: that is for others to say.
    pub keep: Option<Keep>,
    /// Samples that make a block go out at once.
    pub block_rows: usize,
    /// How long the first batch of a block waits for others.
    pub linger: Duration,
}

/// For how many days what is kept, today's not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Windows as they were, with what limited hosts.
    pub windows_days: u64,
    /// Sums of minutes.
    pub minutes_days: u64,
    /// Sums of hours.
    pub hours_days: u64,
}

impl Keep {
    /// Sums are kept as long as windows at least, and those of hours as long as those of minutes: they are made of them.
    #[must_use]
    pub fn new(windows_days: u64, minutes_days: u64, hours_days: u64) -> Self {
        let minutes_days = minutes_days.max(windows_days);
        Self { windows_days, minutes_days, hours_days: hours_days.max(minutes_days) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { login: None, ca: None, keep: None, block_rows: 100_000, linger: Duration::from_millis(500) }
    }
}

/// A store on servers.
#[derive(Debug)]
pub struct ClickHouse {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

/// What all parts of the store use.
#[derive(Debug)]
struct Shared {
    shards: Vec<Arc<Shard>>,
    keep: Option<Keep>,
    index: Mutex<SeriesIndex>,
    texts: Arc<Texts>,
}

impl ClickHouse {
    /// Opens the store on these servers. Their tables are made where they are not there, also later on those that do not answer now.
    ///
    /// # Errors
    /// Where none of them answers, or one of them cannot be part of this store.
    pub fn open(servers: &Servers, options: &Options) -> Result<Self, StoreError> {
        let what = || format!("cannot open {servers}");
        let failed = |error: std::io::Error| StoreError::Failed { what: what(), source: error.into() };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("store-servers")
            .enable_all()
            .build()
            .map_err(failed)?;
        let of = servers.addresses.len() as u32;
        let access = Access { login: options.login.clone(), tls: tls(servers, options).map_err(&failed)? };
        let pace = Pace { rows: options.block_rows, linger: options.linger };
        let mut shards: Vec<Arc<Shard>> = Vec::new();
        let mut writers = Vec::new();
        for (own, address) in (0..).zip(&servers.addresses) {
            let server = Server::new(address, &servers.database, &access, runtime.handle().clone());
            let (queue, jobs) = Queue::new();
            let first = shards.first().map(Arc::clone);
            let place = Place { own, of };
            let shard = Arc::new(Shard::new(server, &servers.database, place, first, options.keep, queue));
            writers.push(writer::start(Arc::clone(&shard), jobs, pace).map_err(failed)?);
            shards.push(shard);
        }
        let shared = Shared { shards, keep: options.keep, index: Mutex::default(), texts: Arc::default() };
        // From here on it is closed whatever happens.
        let store = Self { shared: Arc::new(shared), writers, runtime: Some(runtime) };
        for shard in &store.shared.shards {
            match shard.fits() {
                // That is told below.
                Ok(()) | Err(Failure::Silent(_)) => {}
                Err(failure) => return Err(failure.into_error(&what())),
            }
        }
        let mut silent = Vec::new();
        for shard in &store.shared.shards {
            match shard.ask(|_| Ok(())) {
                Ok(()) => {}
                Err(Failure::Silent(why)) => {
                    tracing::warn!(why, "a server of the store does not answer");
                    silent.push(why);
                }
                Err(failure) => return Err(failure.into_error(&what())),
            }
        }
        if silent.len() == store.shared.shards.len() {
            return Err(StoreError::Failed { what: what(), source: silent.join("; ").into() });
        }
        Ok(store)
    }

    /// Has agents belong to nobody, so that the next who proves an identity owns them. Returns how many.
    ///
    /// # Errors
    /// Where a server does not answer.
    pub fn disown(&self, whose: &Disowned) -> Result<usize, StoreError> {
        owners::disown(&self.shared, whose)
    }
}

/// What is trusted, where TLS is spoken.
fn tls(servers: &Servers, options: &Options) -> std::io::Result<Option<chokepoint_tls::Client>> {
    let files = ClientFiles { ca: options.ca.clone(), ..ClientFiles::default() };
    let client = || chokepoint_tls::Client::new(&files, HTTP_1).map_err(std::io::Error::other);
    servers.is_encrypted.then(client).transpose()
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // What waits is written before. Who comes later is told that the store is closed.
        for shard in &self.shared.shards {
            shard.queue.close();
        }
        for writer in self.writers.drain(..) {
            // It has said why, if it has panicked.
            let _ = writer.join();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Asks every shard the same at once. Those that do not answer are told to the asker.
    ///
    /// # Errors
    /// Where one cannot answer, or none does.
    fn ask_all<T: Send>(
        &self,
        asker: &Asker,
        what: &str,
        ask: impl Fn(&Server) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let answers: Vec<Result<T, Failure>> = match self.shards.as_slice() {
            [only] => vec![only.ask(&ask)],
            shards => std::thread::scope(|scope| {
                let asked: Vec<_> = shards.iter().map(|shard| scope.spawn(|| shard.ask(&ask))).collect();
                let answer = |asked: std::thread::ScopedJoinHandle<'_, _>| {
                    asked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                asked.into_iter().map(answer).collect()
            }),
        };
        let mut answered = Vec::new();
        let mut silent = Vec::new();
        for (shard, answer) in (1..).zip(answers) {
            match answer {
                Ok(answer) => answered.push(answer),
                Err(Failure::Silent(why)) => {
                    silent.push(format!("shard {shard} of {}: {why}", self.shards.len()));
                }
                Err(failure) => return Err(failure.into_error(what)),
            }
        }
        if answered.is_empty() {
            return Err(StoreError::Failed { what: what.to_owned(), source: silent.join("; ").into() });
        }
        for why in silent {
            asker.tell_missing(why);
        }
        Ok(answered)
    }

    /// Has each server do what is due: have go what is old, and add up an hour. Whether more may be due.
    ///
    /// # Errors
    /// Where one cannot; the others have done theirs. One that does not answer has its turn the next time.
    fn keep_up(&self, now_unix_ns: u64) -> Result<bool, StoreError> {
        let mut is_more = false;
        let mut result = Ok(());
        for shard in &self.shards {
            let done = shard.ask(|server| {
                let history = History::read(server, &Asker::default(), 0, u64::MAX)?;
                if let Some(keep) = self.keep {
                    retention::forget(server, &history, keep, now_unix_ns)?;
                }
                rollup::roll(server, &history, now_unix_ns)
            });
            match done {
                Ok(is_own) => is_more |= is_own,
                Err(Failure::Silent(why)) => tracing::warn!(why, "a server of the store does not answer"),
                Err(failure) => {
                    result = Err(failure.into_error("cannot add windows up, or have old ones go"))
                }
            }
        }
        result.map(|()| is_more)
    }

    /// As [`Self::ask_all`], where an answer without one of them would be wrong.
    ///
    /// # Errors
    /// Where one does not answer.
    fn ask_each<T: Send>(
        &self,
        what: &str,
        ask: impl Fn(&Server) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, StoreError> {
        let asker = Asker::default();
        let answers = self.ask_all(&asker, what, ask)?;
        match asker.missing() {
            missing if missing.is_empty() => Ok(answers),
            missing => Err(StoreError::Failed { what: what.to_owned(), source: missing.join("; ").into() }),
        }
    }
}

impl Store for ClickHouse {
    fn appender(&self, hello: &Hello, identity: Option<&str>) -> Result<Box<dyn Appender>, StoreError> {
        Ok(Box::new(appender::ClickHouseAppender::new(&self.shared, hello, identity)?))
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
        verdicts::verdicts(&self.shared, selection)
    }

    fn labels(
        &self,
        selection: &Selection,
        max_values: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        catalogue::labels(&self.shared, selection, max_values)
    }

    fn kinds(&self) -> Result<Vec<(String, Unit)>, StoreError> {
        catalogue::kinds(&self.shared)
    }

    fn agents(&self) -> Result<Vec<AgentStatus>, StoreError> {
        catalogue::agents(&self.shared)
    }

    fn agents_for(&self, asker: &Asker) -> Result<Vec<AgentStatus>, StoreError> {
        catalogue::agents_for(&self.shared, asker)
    }

    fn holdings(&self) -> Result<Holdings, StoreError> {
        catalogue::holdings(&self.shared)
    }

    fn maintain(&self, now_unix_ns: u64) -> Result<bool, StoreError> {
        self.shared.keep_up(now_unix_ns)
    }
}
