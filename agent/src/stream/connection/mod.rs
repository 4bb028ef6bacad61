//! Sends what waits to the collector: one stream for as long as it holds, then the next.
//!
//! [`exchange`] decides what may be sent and what an answer means; [`backoff`] when to try again. Here is the network around them. Batches
//! are read from the spool one by one, when the collector can take one more: nothing is kept in memory but what is on its way.

pub mod backoff;
pub mod collectors;
pub mod credentials;
pub mod exchange;
pub mod recode;
mod way;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chokepoint_proto::dictionary::{self, Sender};
use chokepoint_proto::stream::collector_client::CollectorClient;
use chokepoint_proto::stream::from_agent::Message;
use chokepoint_proto::stream::{Batch, FromAgent, Hello};
use chokepoint_tls::Stamp;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::spool::{Spool, Spooled};
use super::symbols::uploads::Uploads;
use crate::demand::OnDemand;
use crate::demand::commands::Commands;
use backoff::Backoff;
use collectors::Turn;
use credentials::Credentials;
use exchange::{Broken, Exchange, Said};

/// For a connection, and then for the collector's Welcome.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream is quiet between windows: what is between the two must not forget it, and a collector that is gone is to be noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What is remembered of what a stream has said: some 10 MB. Beginning anew costs one window in full, every half an hour on a busy host.
const REMEMBERED: dictionary::Limits =
    dictionary::Limits { entries: 1 << 16, string_bytes: 4 << 20, parts: 1 << 17 };

/// Where to, and who speaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The collector: `https://host:port`, or `http://host:port`. Of several collectors of one store all, with commas between them.
    pub collector: String,
    /// What of it is trusted, and what it is shown: read anew for each stream.
    pub credentials: Credentials,
    /// Which versions of these files are wanted.
    pub stamp: Stamp,
    /// Who speaks.
    pub hello: Hello,
}

/// The spool as those who fill and those who empty it share it.
pub struct SharedSpool {
    spool: Mutex<Spool>,
    filled: Notify,
}

impl SharedSpool {
    /// Shares it.
    #[must_use]
    pub fn new(spool: Spool) -> Self {
        Self { spool: Mutex::new(spool), filled: Notify::new() }
    }

    /// The spool.
    pub fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a window, and has it sent. Returns its number, or `None` where it had to be dropped.
    pub fn append(&self, window: Vec<u8>, window_bytes: u64) -> Option<u64> {
        let sequence = self.lock().append(window, window_bytes);
        self.filled.notify_one();
        sequence
    }
}

/// How it goes, for those who watch.
#[derive(Debug, Default)]
pub struct Status {
    /// Whether the collector has said Welcome on a stream that holds.
    pub is_connected: AtomicBool,
    /// Streams begun so far.
    pub streams: AtomicU64,
    /// Batches sent, again ones included.
    pub sent: AtomicU64,
    /// Bytes of them, compressed.
    pub sent_bytes: AtomicU64,
    /// Batches that the collector has stored.
    pub stored: AtomicU64,
    /// Batches that it will never store.
    pub refused: AtomicU64,
}

/// Why a stream has ended.
#[derive(Debug, Error)]
enum Ended {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("the collector ended the stream: {0}")]
    Status(String),
    #[error("the collector closed the stream")]
    Closed,
    #[error("the collector did not answer in time")]
    Silent,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the collector refused batch {0}: {1}")]
    Refused(u64, String),
    /// It is another collector's turn.
    #[error("the target has changed")]
    Retargeted,
    /// Nobody wants anything sent any more.
    #[error("the agent ends")]
    Stopped,
}

/// Sends for as long as it is polled. Without a target it waits for one.
pub async fn deliver(
    spool: Arc<SharedSpool>,
    status: Arc<Status>,
    on_demand: Arc<OnDemand>,
    mut symbols: Option<Uploads>,
    mut target: watch::Receiver<Option<Target>>,
) {
    let mut backoff = Backoff::default();
    let mut turn = Turn::of_agent(&spool.lock().identity());
    loop {
        let current = target.borrow_and_update().clone();
        let own = |target: Target| {
            let collector = turn.collector(&target.collector).to_owned();
            Target { collector, ..target }
        };
        let Some(current) = current.map(own) else {
            if target.changed().await.is_err() {
                return;
            }
            continue;
        };
        status.streams.fetch_add(1, Ordering::Relaxed);
        // They end with the stream: nobody could be told what came of them.
        let commands = Commands::new(Arc::clone(&on_demand));
        if let Some(symbols) = &mut symbols {
            symbols.begin_stream();
        }
        let beside = Beside { commands, symbols: symbols.as_mut() };
        let ended = one_stream(&current, &spool, &status, beside, &mut backoff, &mut target).await;
        let was_connected = status.is_connected.swap(false, Ordering::Relaxed);
        match ended {
            Ended::Stopped => return,
            Ended::Retargeted => {
                backoff.succeeded();
                continue;
            }
            _ => turn.goes_on(),
        }
        let wait = backoff.next(fastrand::f64());
        let wait_s = wait.as_secs_f32();
        if was_connected {
            tracing::warn!(collector = current.collector, %ended, wait_s, "the stream to the collector has ended");
        } else {
            tracing::warn!(collector = current.collector, %ended, wait_s, "no stream to the collector");
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = target.changed() => match changed {
                // What kept it from the collector before may be what was changed.
                Ok(()) => backoff.succeeded(),
                Err(_) => return,
            },
        }
    }
}

/// What a stream has beside windows.
struct Beside<'s> {
    commands: Commands,
    /// Where the collector names the functions of binaries.
    symbols: Option<&'s mut Uploads>,
}

impl Beside<'_> {
    /// What is to be said next.
    async fn next(&mut self) -> Message {
        match &mut self.symbols {
            None => Message::Update(self.commands.next().await),
            Some(symbols) => tokio::select! {
                update = self.commands.next() => Message::Update(update),
                message = symbols.next() => message,
            },
        }
    }
}

async fn one_stream(
    to: &Target,
    spool: &SharedSpool,
    status: &Status,
    beside: Beside<'_>,
    backoff: &mut Backoff,
    target: &mut watch::Receiver<Option<Target>>,
) -> Ended {
    let Err(ended) = exchange_with(to, spool, status, beside, backoff, target).await;
    ended
}

async fn exchange_with(
    to: &Target,
    spool: &SharedSpool,
    status: &Status,
    mut beside: Beside<'_>,
    backoff: &mut Backoff,
    target: &mut watch::Receiver<Option<Target>>,
) -> Result<std::convert::Infallible, Ended> {
    let way = way::connect(to).await?;
    let mut client = CollectorClient::new(way.channel.clone());
    // One message waits for the transport, which takes one when its peer has room.
    let (out, outgoing) = mpsc::channel(1);
    let say = |message| FromAgent { message: Some(message) };
    let _ = out.try_send(say(Message::Hello(to.hello.clone())));
    let opened =
        tokio::time::timeout(PATIENCE, client.exchange(way.request(ReceiverStream::new(outgoing)))).await;
    let ended = |error: tonic::Status| way.ended(&error);
    let mut incoming = opened.map_err(|_| Ended::Silent)?.map_err(ended)?.into_inner();

    let (mut exchange, mut sender) = (Exchange::new(), Sender::with_limits(REMEMBERED));
    let welcome_due = tokio::time::Instant::now() + PATIENCE;
    // What a command comes to, and symbols, go out between batches: one of each in turn, so that neither holds the other up.
    let (mut update, mut was_update) = (None, false);
    loop {
        let next = exchange.sends_after().and_then(|last| spool.lock().next_after(last));
        tokio::select! {
            message = incoming.message() => {
                let message = message.map_err(ended)?.ok_or(Ended::Closed)?;
                match exchange.take(message)? {
                    Said::Welcome { takes_symbols } => {
                        if let Some(symbols) = &mut beside.symbols {
                            symbols.welcome(takes_symbols);
                        }
                        tracing::info!(collector = to.collector, "connected");
                        status.is_connected.store(true, Ordering::Relaxed);
                    }
                    Said::Stored(sequence) => {
                        spool.lock().remove(sequence);
                        status.stored.fetch_add(1, Ordering::Relaxed);
                        backoff.succeeded();
                    }
                    Said::Refused { sequence, reason } => {
                        spool.lock().remove(sequence);
                        status.refused.fetch_add(1, Ordering::Relaxed);
                        return Err(Ended::Refused(sequence, reason));
                    }
                    Said::Command(command) => beside.commands.take(command),
                    Said::Cancel(id) => beside.commands.cancel(id),
                    Said::Wanted(wanted) => {
                        if let Some(symbols) = &mut beside.symbols {
                            symbols.take(wanted);
                        }
                    }
                    Said::Nothing => {}
                }
            }
            told = beside.next(), if update.is_none() => update = Some(told),
            permit = out.reserve(), if next.is_some() || update.is_some() => {
                let permit = permit.map_err(|_| Ended::Closed)?;
                was_update = update.is_some() && (next.is_none() || !was_update);
                if was_update && let Some(update) = update.take() {
                    permit.send(say(update));
                    continue;
                }
                let Some(sequence) = next else { continue };
                match next_batch(sequence, spool, &mut sender, &mut exchange, status) {
                    Some(batch) => {
                        status.sent.fetch_add(1, Ordering::Relaxed);
                        status.sent_bytes.fetch_add(batch.window.len() as u64, Ordering::Relaxed);
                        permit.send(say(Message::Batch(batch)));
                        exchange.sent(sequence);
                    }
                    None => exchange.skipped(sequence),
                }
            }
            () = spool.filled.notified() => {}
            changed = target.changed() => {
                return Err(changed.map_or(Ended::Stopped, |()| Ended::Retargeted));
            }
            () = tokio::time::sleep_until(welcome_due), if !exchange.is_welcome() => return Err(Ended::Silent),
        }
    }
}

/// The batch as this stream is to carry it; `None` where it cannot be sent, and is not kept any more.
fn next_batch(
    sequence: u64,
    spool: &SharedSpool,
    sender: &mut Sender,
    exchange: &mut Exchange,
    status: &Status,
) -> Option<Batch> {
    let Spooled { window, window_bytes, .. } = spool.lock().read(sequence)?;
    if exchange.is_too_large(window_bytes) {
        tracing::warn!(sequence, window_bytes, "a window is dropped: it is larger than the collector takes");
        status.refused.fetch_add(1, Ordering::Relaxed);
        spool.lock().drop_damaged(sequence);
        return None;
    }
    match recode::recode(&window, window_bytes, sender) {
        Ok((window, window_bytes)) => {
            let dropped_batches = spool.lock().fill().dropped;
            Some(Batch { sequence, window, window_bytes, dropped_batches })
        }
        Err(error) => {
            tracing::warn!(sequence, %error, "a window is dropped: it is not what it should be");
            spool.lock().drop_damaged(sequence);
            None
        }
    }
}
