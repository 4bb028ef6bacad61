//! Windows that other programs send, one by one and without a stream: they go the way that agents' windows go, as those of an agent that is
//! made of who sends them.
//!
//! Who sends has no sequence numbers, and sends again what it does not know to have arrived. So each window has a digest, and one that came
//! lately is not stored again. What is sent again after the collector was started anew, or after [`KEPT_DIGESTS`] others, is stored twice:
//! the protocols have nothing to tell it by.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chokepoint_proto::stream::{Batch, Hello, Label, Window};
use prost::Message;
use ring::digest::{SHA256, digest};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::Limits;
use super::counts::{Count, Counts};
use super::rate::Allowance;
use super::session::{NotBegun, Session};
use super::tap::Tap;
use crate::access::{Access, Denied, Proven};
use crate::clock::now_unix_ns;
use crate::listen::Peer;
use crate::store::{Appended, Store};

/// Bytes of one request, uncompressed.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Bytes of requests that are taken in at once. Decoded they take some times as much.
const REQUESTS_BYTES: usize = 48 << 20;
/// What room for them is counted in: a semaphore counts to 2^32 at most.
const ROOM_UNIT_BYTES: usize = 1 << 10;
/// How long a request waits for room, or until its sender may send again.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Senders whose next number is known. Of others the store is asked.
const KEPT_SENDERS: usize = 4_096;
/// Digests of windows: those of some minutes of a thousand senders.
const KEPT_DIGESTS: usize = 16_384;
/// What is uncompressed is to be told from what is not at no cost.
const ZSTD_LEVEL: i32 = 1;

/// Who sends, as far as rows are told apart by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The protocol, by a name of its own: `otlp`.
    pub protocol: &'static str,
    /// The host's name.
    pub host: String,
    /// What else is known of the host.
    pub labels: Vec<Label>,
}

/// Takes windows in.
#[derive(Clone)]
pub struct Inbox {
    store: Arc<dyn Store>,
    access: Arc<Access>,
    limits: Limits,
    counts: Arc<Counts>,
    tap: Option<Arc<dyn Tap>>,
    room: Arc<Semaphore>,
    kept: Arc<Mutex<Kept>>,
}

/// What is known of senders and of what came.
#[derive(Default)]
struct Kept {
    senders: HashMap<[u8; 16], Arc<tokio::sync::Mutex<Known>>>,
    /// In the order in which they came to be known.
    order: VecDeque<[u8; 16]>,
    digests: HashSet<[u8; 32]>,
    arrived: VecDeque<[u8; 32]>,
}

/// A sender's state.
struct Known {
    /// The number of the batch that it sent last; `None`: the store is to be asked.
    last: Option<u64>,
    allowance: Allowance,
}

/// What was sent is not there.
#[derive(Debug, Error)]
pub enum NotTaken {
    /// Who sends may not.
    #[error("{0}")]
    Denied(Denied),
    /// It is refused for good.
    #[error("{0}")]
    Refused(String),
    /// There is too much of it now: it may come again.
    #[error("too much is sent at a time: send it again later, or less of it")]
    Busy,
    /// The store cannot write now: it may come again.
    #[error("the collector cannot store anything now: send it again later")]
    Failed,
}

/// Room for a request, until it is dropped.
pub struct Room(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Inbox {
    /// Takes in what these may send, and has the tap told of it.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        access: Arc<Access>,
        limits: Limits,
        counts: Arc<Counts>,
        tap: Option<Arc<dyn Tap>>,
    ) -> Self {
        let room = Arc::new(Semaphore::new(REQUESTS_BYTES / ROOM_UNIT_BYTES));
        Self { store, access, limits, counts, tap, room, kept: Arc::default() }
    }

    /// What who sends has proven, with its request and its connection.
    ///
    /// # Errors
    /// [`NotTaken::Denied`].
    pub fn proven(&self, authorization: Option<&[u8]>, peer: Option<&Peer>) -> Result<Proven, NotTaken> {
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        self.access.agent(authorization, certificate).map_err(|denied| self.denied(denied))
    }

    /// Counts a call whose message is none.
    pub(crate) fn refuse_message(&self) {
        self.counts.add(Count::MessagesRefused);
    }

    fn denied(&self, denied: Denied) -> NotTaken {
        self.counts.add(if denied.is_unauthenticated() {
            Count::RequestsUnauthenticated
        } else {
            Count::RequestsForbidden
        });
        NotTaken::Denied(denied)
    }

    /// Counts profiles that came, of which so many were refused.
    pub fn count(&self, profiles: u64, refused: u64) {
        self.counts.add_many(Count::ProfilesReceived, profiles);
        self.counts.add_many(Count::ProfilesRefused, refused);
    }

    /// Room for a request of the largest size.
    ///
    /// # Errors
    /// [`NotTaken::Busy`].
    pub async fn room(&self) -> Result<Room, NotTaken> {
        let units = u32::try_from(MAX_REQUEST_BYTES / ROOM_UNIT_BYTES).unwrap_or(u32::MAX);
        match timeout(MAX_WAIT, Arc::clone(&self.room).acquire_many_owned(units)).await {
            Ok(Ok(room)) => Ok(Room(room)),
            Ok(Err(_)) | Err(_) => Err(NotTaken::Busy),
        }
    }

    /// Stores a whole window of so many profiles, so that it survives the loss of power when this returns. One that is there is not stored again.
    ///
    /// # Errors
    /// Why not.
    pub async fn take(
        &self,
        proven: &Proven,
        sender: &Sender,
        window: &Window,
        profiles: u64,
    ) -> Result<Appended, NotTaken> {
        let hello = hello(proven, sender);
        proven.check(&hello).map_err(|denied| self.denied(denied))?;
        let bytes = window.encode_to_vec();
        if bytes.len() > self.limits.window_bytes {
            let most = chokepoint_analysis::units::bytes(self.limits.window_bytes as u64);
            return Err(NotTaken::Refused(format!(
                "a window is larger than {most}: send for less time at once"
            )));
        }
        let agent: [u8; 16] = agent(proven, sender);
        let own = [agent.as_slice(), &bytes].concat();
        let digest = digest(&SHA256, &own).as_ref().try_into().unwrap_or([0; 32]);
        let known = self.known(agent);
        // One window of a sender after the other, as its numbers are.
        let mut known = known.lock_owned().await;
        if self.has(&digest) {
            self.counts.add_many(Count::ProfilesKnown, profiles);
            return Ok(Appended::Known);
        }
        let wait = known.allowance.take(bytes.len() as u64, Instant::now());
        if wait > MAX_WAIT {
            self.counts.add(Count::BatchesThrottled);
            return Err(NotTaken::Busy);
        }
        tokio::time::sleep(wait).await;
        let inbox = self.clone();
        let identity = proven.identity().map(str::to_owned);
        let taken = tokio::task::spawn_blocking(move || {
            let appended = inbox.append(&hello, identity.as_deref(), &mut known, &bytes)?;
            inbox.keep(digest);
            Ok(appended)
        });
        taken.await.unwrap_or_else(|error| {
            tracing::error!(%error, "what was sent was not taken in");
            Err(NotTaken::Failed)
        })
    }

    fn append(
        &self,
        hello: &Hello,
        identity: Option<&str>,
        known: &mut Known,
        window: &[u8],
    ) -> Result<Appended, NotTaken> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "what was sent cannot be stored");
            NotTaken::Failed
        };
        let session = Session::open(&*self.store, hello, identity, self.limits, Arc::clone(&self.counts));
        let mut session = session.map_err(|error| match error {
            NotBegun::Refused(why) | NotBegun::NotOwned(why) => NotTaken::Refused(why),
            NotBegun::TooMany(_) => NotTaken::Busy,
            NotBegun::Failed(error) => failed(&error),
        })?;
        session = session.told_to(self.tap.as_deref(), hello);
        let compressed = zstd::bulk::compress(window, ZSTD_LEVEL).map_err(|error| failed(&error))?;
        loop {
            let last = match known.last {
                Some(last) => last,
                None => self.last(hello).map_err(|error| failed(&error))?,
            };
            let sequence = last + 1;
            let batch = Batch {
                sequence,
                window: compressed.clone(),
                window_bytes: window.len() as u64,
                dropped_batches: 0,
            };
            let appended = session.append(&batch, now_unix_ns());
            match appended.map_err(|refused| NotTaken::Refused(refused.to_string()))? {
                Ok(Appended::New) => {
                    known.last = Some(sequence);
                    return Ok(Appended::New);
                }
                // The number was another window's.
                Ok(Appended::Known) => known.last = Some(sequence),
                Err(error) => return Err(failed(&error)),
            }
        }
    }

    /// The number of an agent's last batch: they follow each other without a gap.
    fn last(&self, hello: &Hello) -> Result<u64, crate::store::StoreError> {
        let identity: String = hello.agent.iter().map(|byte| format!("{byte:02x}")).collect();
        let agents = self.store.agents()?;
        Ok(agents.iter().find(|agent| agent.agent == identity).map_or(0, |agent| agent.batches))
    }

    fn known(&self, agent: [u8; 16]) -> Arc<tokio::sync::Mutex<Known>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.senders.get(&agent) {
            return Arc::clone(known);
        }
        while kept.senders.len() >= KEPT_SENDERS {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.senders.remove(&oldest);
        }
        let Limits { agent_bytes_per_s, agent_saved_s, .. } = self.limits;
        let allowance = Allowance::new(agent_bytes_per_s, agent_saved_s, Instant::now());
        let known = Arc::new(tokio::sync::Mutex::new(Known { last: None, allowance }));
        kept.senders.insert(agent, Arc::clone(&known));
        kept.order.push_back(agent);
        known
    }

    fn has(&self, digest: &[u8; 32]) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).digests.contains(digest)
    }

    fn keep(&self, digest: [u8; 32]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.arrived.len() >= KEPT_DIGESTS
            && let Some(oldest) = kept.arrived.pop_front()
        {
            kept.digests.remove(&oldest);
        }
        if kept.digests.insert(digest) {
            kept.arrived.push_back(digest);
        }
    }
}

fn hello(proven: &Proven, sender: &Sender) -> Hello {
    Hello {
        protocol: super::hello::PROTOCOL,
        agent: agent(proven, sender).to_vec(),
        host: sender.host.clone(),
        program: sender.protocol.to_owned(),
        labels: sender.labels.clone(),
        ..Hello::default()
    }
}

/// The agent that a sender is: the same for the same host, protocol and proven name, and nobody else's.
fn agent(proven: &Proven, sender: &Sender) -> [u8; 16] {
    let identity = proven.identity().unwrap_or_default();
    // Each length tells where the next part begins.
    let parts = [sender.protocol, identity, &sender.host];
    let named: Vec<u8> =
        parts.iter().flat_map(|part| part.len().to_le_bytes().into_iter().chain(part.bytes())).collect();
    let mut agent = [0; 16];
    agent.copy_from_slice(&digest(&SHA256, &named).as_ref()[..16]);
    agent
}
