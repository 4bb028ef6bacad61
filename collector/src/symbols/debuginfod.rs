//! Servers of debug information, by the protocol of `debuginfod`: `GET /buildid/BUILDID/debuginfo` is the file of debug information of a
//! build. They are asked for builds that agents know less of, and for those of which a question shows that they have no names, one at a time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chokepoint_symbols::Symbols;
use chokepoint_symbols::elf::{Elf, ElfError};
use chokepoint_symbols::extract::{Extracted, Limits, Part, extract};
use hyper::StatusCode;
use thiserror::Error;
use tokio::sync::Notify;

use super::FleetSymbols;
use super::origin::{Origin, hex};
use crate::ingest::{Count, Counts};
use crate::query_command::client::{Address, ClientError};

/// Builds that wait; more are passed over, and come again.
const MAX_WAITING: usize = 256;
/// Builds of which it is remembered that there was nothing.
const MAX_REMEMBERED: usize = 4_096;
/// How long a server that has nothing of a build is not asked for it again.
const NOT_FOUND: Duration = Duration::from_secs(24 * 3_600);
/// The same where it did not answer, or with what is of no use.
const FAILED: Duration = Duration::from_secs(900);
/// Bytes of a file of debug information.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// How long one may take to come.
const MAX_TIME: Duration = Duration::from_secs(300);
/// What is read of it, in memory for a moment.
const LIMITS: Limits = Limits { table_bytes: 64 << 20, debug_bytes: 96 << 20, symbols_bytes: 96 << 20 };
/// How long reading it may take.
const MAX_READING: Duration = Duration::from_secs(120);

/// The servers, and which builds are to be asked for.
pub(super) struct Servers {
    addresses: Vec<Arc<Address>>,
    builds: Mutex<Builds>,
    wanted: Notify,
}

#[derive(Default)]
struct Builds {
    waiting: VecDeque<Vec<u8>>,
    known: HashSet<Vec<u8>>,
    /// Up to when a build is not to be asked for.
    without: HashMap<Vec<u8>, Instant>,
}

/// Why there are no symbols of a build.
#[derive(Debug, Error)]
enum NotFetched {
    /// The server has none.
    #[error("there are none")]
    NotFound,
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("{0}")]
    Client(String),
    #[error("it does not come in time")]
    TooLate,
    #[error("cannot keep it for a moment: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Elf(#[from] ElfError),
    #[error("it is of another build")]
    OtherBuild,
    #[error("there are no functions in it")]
    Empty,
    #[error("reading it has failed")]
    Reading,
}

impl Servers {
    pub(super) fn new(addresses: Vec<Arc<Address>>) -> Self {
        Self { addresses, builds: Mutex::default(), wanted: Notify::new() }
    }

    fn builds(&self) -> MutexGuard<'_, Builds> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a build asked for, unless that was done lately.
    pub(super) fn want(&self, build_id: &[u8]) {
        if self.addresses.is_empty() {
            return;
        }
        if self.builds().want(build_id, Instant::now()) {
            self.wanted.notify_one();
        }
    }
}

impl Builds {
    fn want(&mut self, build_id: &[u8], now: Instant) -> bool {
        if self.waiting.len() >= MAX_WAITING || self.without.get(build_id).is_some_and(|until| now < *until) {
            return false;
        }
        let is_new = self.known.insert(build_id.to_vec());
        if is_new {
            self.waiting.push_back(build_id.to_vec());
        }
        is_new
    }

    /// A build was asked for; for so long it is not asked for again.
    fn asked(&mut self, build_id: Vec<u8>, now: Instant, pause: Duration) {
        self.known.remove(&build_id);
        if self.without.len() >= MAX_REMEMBERED {
            self.without.retain(|_, until| now < *until);
        }
        if self.without.len() >= MAX_REMEMBERED {
            self.without.clear();
        }
        self.without.insert(build_id, now + pause);
    }
}

/// Asks for one build after the other, for as long as it is polled.
pub(super) async fn fetch(symbols: Arc<FleetSymbols>, counts: Arc<Counts>) {
    let servers = &symbols.servers;
    loop {
        let next = servers.builds().waiting.pop_front();
        let Some(build_id) = next else {
            servers.wanted.notified().await;
            continue;
        };
        let mut pause = NOT_FOUND;
        for address in &servers.addresses {
            let outcome = match one(address, &build_id).await {
                Ok(made) => keep(&symbols, made, address).await,
                Err(error) => Err(error),
            };
            let shown = hex(&build_id);
            match outcome {
                Ok(()) => {
                    counts.add(Count::SymbolsFetched);
                    tracing::info!(build_id = shown, server = address.url(), "symbols were fetched");
                    break;
                }
                Err(NotFetched::NotFound) => {
                    tracing::debug!(build_id = shown, server = address.url(), "no debug information");
                }
                Err(error) => {
                    counts.add(Count::SymbolFetchFailures);
                    pause = FAILED;
                    tracing::warn!(build_id = shown, server = address.url(), %error, "no debug information");
                }
            }
        }
        servers.builds().asked(build_id, Instant::now(), pause);
    }
}

/// What a server has of a build.
async fn one(address: &Address, build_id: &[u8]) -> Result<Symbols, NotFetched> {
    let file = tempfile::tempfile()?;
    let path = format!("/buildid/{}/debuginfo", hex(build_id));
    let fetching = address.fetch(&path, MAX_FILE_BYTES, file.try_clone()?);
    let status = tokio::time::timeout(MAX_TIME, fetching).await.map_err(|_| NotFetched::TooLate)?;
    let status = status.map_err(|error: ClientError| NotFetched::Client(error.reason()))?;
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(NotFetched::NotFound),
        status => return Err(NotFetched::Status(status)),
    }
    let build_id = build_id.to_vec();
    let reading = tokio::task::spawn_blocking(move || read(&file, &build_id)).await;
    reading.map_err(|_| NotFetched::Reading)?
}

fn read(file: &File, build_id: &[u8]) -> Result<Symbols, NotFetched> {
    let elf = Elf::read(file)?;
    if elf.gnu_build_id.as_ref().is_none_or(|own| own.as_bytes() != build_id) {
        return Err(NotFetched::OtherBuild);
    }
    let until = Instant::now() + MAX_READING;
    let parts = [Part { file, elf: &elf }];
    let Extracted { symbols, remarks } =
        extract(build_id, &parts, Vec::new(), &LIMITS, &mut || Instant::now() > until);
    for remark in remarks {
        tracing::info!(build_id = hex(build_id), remark, "fetched symbols are less than they could be");
    }
    symbols.ok_or(NotFetched::Empty)
}

async fn keep(symbols: &Arc<FleetSymbols>, made: Symbols, address: &Address) -> Result<(), NotFetched> {
    let (symbols, origin) = (Arc::clone(symbols), Origin::of_server(address.url()));
    let keeping = tokio::task::spawn_blocking(move || symbols.kept.keep(made, origin).map(drop));
    match keeping.await {
        // What is known is as good.
        Ok(Ok(()) | Err(super::kept::NotKept::NotBetter)) => Ok(()),
        Ok(Err(error)) => Err(NotFetched::Client(error.to_string())),
        Err(_) => Err(NotFetched::Reading),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_asked_for_once_and_again_after_a_while() {
        let (mut builds, now) = (Builds::default(), Instant::now());
        assert!(builds.want(b"a", now) && !builds.want(b"a", now));
        let waiting = builds.waiting.pop_front().expect("it waits");
        assert!(!builds.want(b"a", now), "it is under way");
        builds.asked(waiting, now, FAILED);
        assert!(!builds.want(b"a", now) && builds.want(b"a", now + FAILED));
        for build in 0..2 * MAX_WAITING as u64 {
            builds.want(&build.to_le_bytes(), now);
        }
        assert_eq!(builds.waiting.len(), MAX_WAITING);
    }
}
