//! The store's distributed home: ClickHouse servers, each a shard.
//!
//! **Constraints.** Collectors come and go, several at a time, and have nothing but what agents were not told yet. A batch that was
//! acknowledged is there once, whichever collector took it and however often it came. A shard that does not answer is never taken for one
//! that has nothing.
//!
//! **Layout.** What an agent tells is on one shard, by the hash of its service and host. `windows` has a row for each batch, kind and
//! service, with the samples as arrays; names are kept once by a number that is made of their content ([`content`]), so that
//! collectors agree without asking each other ([`schema.sql`](schema.sql)).
//!
//! **Recovery.** The servers alone say what is there. [`writer`] says why a batch counts once whoever dies.
//!
//! **Deletion.** By the day, with the window's age: by TTL where the server knows that, else by dropping partitions ([`catalogue`]).

mod address;
mod appender;
mod catalogue;
mod content;
mod frames;
mod index;
mod owners;
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

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::stream::Hello;
use tokio::runtime::Runtime;

pub use self::address::{BadAddress, Login, SCHEME, Servers};
pub use self::schema::Dialect;

use self::index::SeriesIndex;
use self::server::{Failure, Server};
use self::shard::Shard;
use self::told::Texts;
use self::writer::{Pace, Queue};
use super::embedded::Disowned;
use super::{
    AgentStatus, Appender, Asker, Frames, Holdings, Selection, SignalQuery, SignalSeries, StackId, Store,
    StoreError, SumQuery, Sums, VerdictSpan,
};
use crate::labels::Labels;

/// Threads that talk to servers; what waits takes none.
const RUNTIME_THREADS: usize = 2;

/// What the store keeps, and how it goes about it.
#[derive(Clone, Debug)]
pub struct Options {
    /// How one logs on; `None`: as the server's default user.
    pub login: Option<Login>,
    /// How many days windows are kept, today's not counted; `None`: that is for others to say.
    pub keep_days: Option<u64>,
    /// Samples that make a block go out at once.
    pub block_rows: usize,
    /// How long the first batch of a block waits for others.
    pub linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { login: None, keep_days: None, block_rows: 100_000, linger: Duration::from_millis(500) }
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
    keep_days: Option<u64>,
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
        let count = servers.addresses.len() as u32;
        let pace = Pace { rows: options.block_rows, linger: options.linger };
        let mut shards = Vec::new();
        let mut writers = Vec::new();
        for (place, address) in (0..).zip(&servers.addresses) {
            let server =
                Server::new(address, &servers.database, options.login.as_ref(), runtime.handle().clone());
            let (queue, jobs) = Queue::new();
            let place = (place, count);
            let shard = Arc::new(Shard::new(server, &servers.database, place, options.keep_days, queue));
            writers.push(writer::start(Arc::clone(&shard), jobs, pace).map_err(failed)?);
            shards.push(shard);
        }
        let shared =
            Shared { shards, keep_days: options.keep_days, index: Mutex::default(), texts: Arc::default() };
        // From here on it is closed whatever happens.
        let store = Self { shared: Arc::new(shared), writers, runtime: Some(runtime) };
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
    /// The shard of an agent with these labels.
    fn home(&self, labels: &Labels) -> Result<Arc<Shard>, StoreError> {
        Ok(Arc::clone(&self.shards[appender::shard_of(self, labels)?]))
    }

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

    /// The same where an answer without one of them would be wrong.
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

    fn holdings(&self) -> Result<Holdings, StoreError> {
        catalogue::holdings(&self.shared)
    }

    fn maintain(&self, now_unix_ns: u64) -> Result<bool, StoreError> {
        catalogue::maintain(&self.shared, now_unix_ns)
    }
}
