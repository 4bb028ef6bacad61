//! Names of code for agents that send addresses alone ([how](../../../docs/symbols.md)).
//!
//! Agents offer the builds whose symbols they can make; each build that is lacking is asked of one of them, under a lease ([`leases`]), and
//! what it sends is put together here and [`kept`] in a directory. [`debuginfod`] servers are asked where the operator has named some. What is
//! stored keeps its addresses: [`named`] names them as they are read, so that what came before its symbols has names, too.
//!
//! | what | capacity | when full |
//! |---|---|---|
//! | leases at once | [`leases::AT_ONCE`], one of an agent | offers wait |
//! | builds that one agent has offered | [`leases::MAX_OFFERS`] | more are passed over |
//! | symbols on their way | 16 MiB for each lease | the lease ends |
//! | files in the directory | [`Options::max_bytes`] | those used longest ago go |
//! | symbols in memory | [`kept::MEMORY_BYTES`] | those used longest ago are read again |

pub mod debuginfod;
pub mod kept;
pub mod leases;
pub mod named;
pub mod origin;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chokepoint_proto::stream::from_collector::Message;
use chokepoint_proto::stream::{FromCollector, Hello, SymbolsOffer, SymbolsPart, SymbolsWanted};
use chokepoint_symbols::format::MAX_BYTES;
use chokepoint_symbols::{Quality, Symbols};
use tokio::time::{MissedTickBehavior, interval};

use self::debuginfod::Servers;
use self::kept::{Kept, NotKept};
use self::leases::{Given, Leases};
use self::origin::Origin;
use crate::clock::now_unix_ns;
use crate::control::Say;
use crate::ingest::{Count, Counts};
use crate::pipeline::{Companion, Shared};
use crate::query_command::client::Address;

/// How often leases are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often files that nobody needs are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Builds of one offer that are looked at.
const MAX_OFFERED: usize = 256;
/// Bytes of a build id.
const MAX_BUILD_ID_BYTES: usize = 64;

/// Where symbols are kept, for how long, and who has them beside agents.
#[derive(Clone)]
pub struct Options {
    /// The directory, made where it is not there. Several collectors may have one.
    pub directory: PathBuf,
    /// Bytes of all files at most.
    pub max_bytes: u64,
    /// How long a build's symbols are kept after somebody needed them last.
    pub keep: Duration,
    /// Servers of debug information, asked in their order.
    pub debuginfod: Vec<Arc<Address>>,
}

/// All that is known of builds, and who is asked for more.
pub struct FleetSymbols {
    kept: Kept,
    state: Mutex<State>,
    servers: Servers,
}

#[derive(Default)]
struct State {
    leases: Leases,
    agents: HashMap<u64, Agent>,
    /// What has come of each lease.
    uploads: HashMap<u64, Vec<u8>>,
}

struct Agent {
    origin: Origin,
    say: Say,
}

impl FleetSymbols {
    /// Opens the directory.
    ///
    /// # Errors
    /// Where it cannot be made or written.
    pub fn open(options: Options) -> std::io::Result<Arc<Self>> {
        let Options { directory, max_bytes, keep, debuginfod } = options;
        let kept = Kept::open(directory, max_bytes, keep)?;
        Ok(Arc::new(Self { kept, state: Mutex::default(), servers: Servers::new(debuginfod) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The symbols of a build; `None` where there are none yet. May read a file.
    #[must_use]
    pub fn of(&self, build_id: &[u8]) -> Option<Arc<Symbols>> {
        let found = self.kept.get(build_id);
        if found.as_ref().is_none_or(|found| found.quality() < Quality::Debug) {
            self.servers.want(build_id);
        }
        found
    }

    /// An agent's stream begins, of who has proven this identity. What is to be said to it goes to `say`.
    #[must_use]
    pub fn connect(
        self: &Arc<Self>,
        hello: &Hello,
        identity: Option<&str>,
        say: Say,
        counts: Arc<Counts>,
    ) -> SymbolsLink {
        let origin = Origin::of_agent(hello, identity);
        let mut state = self.state();
        let stream = state.leases.enter();
        state.agents.insert(stream, Agent { origin, say });
        SymbolsLink { symbols: Arc::clone(self), stream, counts }
    }

    /// Gives leases to whoever can have them now.
    fn give(&self, counts: &Counts) {
        let mut state = self.state();
        for Given { stream, lease, build_id } in state.leases.give(Instant::now()) {
            let message = Message::SymbolsWanted(SymbolsWanted { lease, build_id });
            let is_said = state
                .agents
                .get(&stream)
                .is_some_and(|agent| (agent.say)(FromCollector { message: Some(message) }));
            if is_said {
                counts.add(Count::SymbolLeases);
                state.uploads.insert(lease, Vec::new());
            } else {
                // There is no room on its stream now.
                state.leases.put_off(lease);
            }
        }
    }

    /// Takes leases back of which nothing came for too long.
    fn expire(&self, counts: &Counts) {
        let mut state = self.state();
        for (lease, build_id) in state.leases.expire(Instant::now()) {
            state.uploads.remove(&lease);
            counts.add(Count::SymbolLeasesExpired);
            let build_id = origin::hex(&build_id);
            tracing::warn!(build_id, "a lease has expired: the symbols are asked of another agent");
        }
    }
}

/// All that was sent of a build.
struct Sent {
    build_id: Vec<u8>,
    symbols: Vec<u8>,
    origin: Origin,
}

/// An agent's stream, as long as it holds.
pub struct SymbolsLink {
    symbols: Arc<FleetSymbols>,
    stream: u64,
    counts: Arc<Counts>,
}

impl SymbolsLink {
    /// Takes note of builds that the agent can make symbols of. Looks at files.
    pub fn offered(&self, offer: SymbolsOffer) {
        for build in offer.builds.into_iter().take(MAX_OFFERED) {
            let is_id = (1..=MAX_BUILD_ID_BYTES).contains(&build.build_id.len());
            let quality = u32::try_from(build.quality).ok().and_then(Quality::of_number);
            let Some(quality) = quality.filter(|_| is_id) else { continue };
            let known = self.symbols.kept.quality(&build.build_id);
            if known.is_none_or(|known| known < quality) {
                let mut state = self.symbols.state();
                if known.is_none() {
                    state.leases.lacking(&build.build_id);
                }
                state.leases.offered(self.stream, &build.build_id, quality, Instant::now());
            }
            // Better than what most hosts have.
            if quality < Quality::Debug && known.is_none_or(|known| known < Quality::Debug) {
                self.symbols.servers.want(&build.build_id);
            }
        }
        self.symbols.give(&self.counts);
    }

    /// Takes in a part of symbols. With the last it keeps them: writes a file, and may read one.
    pub fn part(&self, part: SymbolsPart) {
        let lease = part.lease;
        match self.assemble(part) {
            Ok(None) => return,
            Ok(Some(Sent { build_id, symbols, origin })) => {
                if self.keep(&build_id, &symbols, origin) {
                    self.symbols.state().leases.delivered(lease, Instant::now());
                }
            }
            Err(why) => self.refused(&why),
        }
        self.symbols.state().leases.end(self.stream, lease);
        self.symbols.give(&self.counts);
    }

    /// Everything of a lease, once its last part is there.
    fn assemble(&self, part: SymbolsPart) -> Result<Option<Sent>, String> {
        let SymbolsPart { lease, bytes, is_last, checksum, failed } = part;
        let mut state = self.symbols.state();
        let state = &mut *state;
        let Some(build_id) = state.leases.heard(self.stream, lease, Instant::now()) else {
            // Of a lease that is over.
            return Ok(None);
        };
        if !failed.is_empty() {
            state.uploads.remove(&lease);
            return Err(failed.chars().take(200).filter(|letter| !letter.is_control()).collect());
        }
        let Some(upload) = state.uploads.get_mut(&lease) else { return Ok(None) };
        if (upload.len() + bytes.len()) as u64 > MAX_BYTES {
            state.uploads.remove(&lease);
            return Err("they are longer than any that are written".to_owned());
        }
        upload.extend(bytes);
        if !is_last {
            return Ok(None);
        }
        let symbols = state.uploads.remove(&lease).unwrap_or_default();
        let mut crc = flate2::Crc::new();
        crc.update(&symbols);
        if crc.sum() != checksum {
            return Err("they are not what was sent".to_owned());
        }
        let origin = state.agents.get(&self.stream).map(|agent| agent.origin.clone());
        Ok(origin.map(|origin| Sent { build_id, symbols, origin }))
    }

    /// Keeps what was sent, where it is better than what is known. Returns whether it was what was asked for.
    fn keep(&self, build_id: &[u8], symbols: &[u8], origin: Origin) -> bool {
        let read = match Symbols::read(symbols) {
            Ok(symbols) if symbols.build_id() == build_id => Ok(symbols),
            Ok(_) => Err("they are of another build".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let kept = match read {
            Ok(symbols) => self.symbols.kept.keep(symbols, origin),
            Err(why) => {
                self.refused(&why);
                return false;
            }
        };
        match kept {
            Ok(quality) => {
                self.counts.add(Count::SymbolsKept);
                let build_id = origin::hex(build_id);
                tracing::info!(build_id, quality = quality.name(), "symbols are kept");
                true
            }
            Err(error) => {
                self.refused(&error.to_string());
                // Another would tell as much; what cannot be written may be later.
                matches!(error, NotKept::NotBetter)
            }
        }
    }

    fn refused(&self, why: &str) {
        self.counts.add(Count::SymbolsRefused);
        tracing::warn!(why, "an agent's symbols are not kept");
    }
}

impl Drop for SymbolsLink {
    fn drop(&mut self) {
        let mut state = self.symbols.state();
        state.agents.remove(&self.stream);
        for lease in state.leases.leave(self.stream) {
            state.uploads.remove(&lease);
        }
    }
}

/// Gives leases, takes them back, asks servers of debug information, and lets go of files that nobody needs, until the collector stops.
#[must_use]
pub fn keep_up(symbols: Arc<FleetSymbols>) -> Companion {
    Box::new(move |Shared { counts, mut stopping, .. }| {
        Box::pin(async move {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut sweeps = interval(SWEEP_EVERY);
            let fetching = tokio::spawn(debuginfod::fetch(Arc::clone(&symbols), Arc::clone(&counts)));
            loop {
                let is_for_sweeping = tokio::select! {
                    _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
                    _ = looks.tick() => false,
                    _ = sweeps.tick() => true,
                };
                if !is_for_sweeping {
                    symbols.expire(&counts);
                    symbols.give(&counts);
                    continue;
                }
                let swept = Arc::clone(&symbols);
                match tokio::task::spawn_blocking(move || swept.kept.sweep(now_unix_ns())).await? {
                    Ok(files) => counts.add_many(Count::SymbolsDropped, files),
                    Err(error) => tracing::warn!(%error, "symbols cannot be listed"),
                }
            }
            fetching.abort();
            Ok(())
        })
    })
}
