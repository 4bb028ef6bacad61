//! Sends on what is stored, as profiles of OTLP, to an OpenTelemetry Collector or whoever else takes them.
//!
//! Each stream's [`Listener`] keeps what the stream's numbers mean, and adds each window that is stored to the [`message`] that all streams
//! fill: with its 2 MiB, or after five seconds, it goes. So whatever comes late is sent as what comes in time, and nothing is read again.
//! [`QUEUE`] messages wait to be sent; who comes when there are as many is lost, and counted: an agent does not wait for who is behind its
//! collector. A message is tried again for five minutes. What waits when the collector stops is tried once more, for some seconds; when
//! it is killed, what waits is lost and not counted.
//!
//! What streams have named is kept within [`KNOWN_BYTES`]. A stream for which there is no room is not sent on until its lists begin anew, and
//! its windows are counted.
//!
//! What came by OTLP is not sent on: two that send to each other would never end.

mod known;
mod message;
#[cfg(test)]
mod tests;
mod types;
mod way;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chokepoint_proto::stream::Hello;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

pub use self::types::Types;

use self::known::{Room, Roomed};
use self::message::Message;
use self::way::{Outcome, Way};
use self::window::Whose;
use super::PROTOCOL;
use crate::backoff::Backoff;
use crate::ingest::{Count, Counts, Heard, Listener, Tap};
use crate::pipeline::{Companion, Shared};
use crate::query_command::client::Credentials;

/// Messages that wait, of some 2 MiB each.
const QUEUE: usize = 16;
/// Memory for what the numbers of streams mean, of all streams together.
const KNOWN_BYTES: usize = 512 << 20;
/// How long a message waits for more.
const LINGER: Duration = Duration::from_secs(5);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long a message is tried.
const MAX_TIME: Duration = Duration::from_secs(300);
/// The pause after the first try, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// For all that waits when the collector stops.
const FAREWELL: Duration = Duration::from_secs(5);

/// How it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Over gRPC.
    #[default]
    Grpc,
    /// Over HTTP, in the form of Protocol Buffers.
    Http,
}

/// Where to, how, and what.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// How.
    pub protocol: Protocol,
    /// What is trusted and shown there; the files are read anew with each connection.
    pub credentials: Credentials,
    /// What is sent.
    pub types: Types,
}

/// Where all streams put what is to be sent.
pub struct Outlet {
    types: Types,
    open: Mutex<Open>,
    queue: mpsc::Sender<Ready>,
    room: Arc<Room>,
}

/// The message that is being filled.
#[derive(Default)]
struct Open {
    message: Message,
    /// When it began to have something.
    since: Option<Instant>,
}

/// A message that waits to be sent.
struct Ready {
    bytes: Bytes,
    profiles: u64,
}

impl Outlet {
    /// An outlet, and what sends what is put into it until the collector stops.
    #[must_use]
    pub fn new(options: Options) -> (Arc<Self>, Companion) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (types, room) = (options.types.clone(), Room::new(KNOWN_BYTES));
        let outlet = Arc::new(Self { types, open: Mutex::default(), queue, room });
        let own = Arc::clone(&outlet);
        let companion: Companion = Box::new(move |Shared { counts, stopping, .. }| {
            Box::pin(async move {
                own.send(Way::new(options), waiting, &counts, stopping).await;
                Ok(())
            })
        });
        (outlet, companion)
    }

    /// Has a message go that is full.
    fn give(&self, (request, profiles): (ExportProfilesServiceRequest, u64), counts: &Counts) {
        let bytes = Bytes::from(request.encode_to_vec());
        if self.queue.try_send(Ready { bytes, profiles }).is_err() {
            lose(profiles, "too much waits for the OTLP endpoint", counts);
        }
    }

    /// Has the message go that is being filled, where it has waited for so long.
    fn close(&self, after: Duration, counts: &Counts) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.since.is_some_and(|since| since.elapsed() >= after) {
            open.since = None;
            let taken = open.message.take();
            drop(open);
            self.give(taken, counts);
        }
    }

    async fn send(
        &self,
        mut way: Way,
        mut waiting: mpsc::Receiver<Ready>,
        counts: &Counts,
        mut stopping: watch::Receiver<bool>,
    ) {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ready = tokio::select! {
                _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
                _ = ticks.tick() => {
                    self.close(LINGER, counts);
                    continue;
                }
                ready = waiting.recv() => ready,
            };
            // This end of the queue is held by `self`.
            let Some(ready) = ready else { break };
            deliver(&mut way, ready, counts, &mut stopping).await;
        }
        self.close(Duration::ZERO, counts);
        waiting.close();
        let until = Instant::now() + FAREWELL;
        while let Ok(ready) = waiting.try_recv() {
            let outcome =
                timeout(until.saturating_duration_since(Instant::now()), way.send(ready.bytes)).await;
            match outcome {
                Ok(Outcome::Taken { rejected, why }) => taken(ready.profiles, rejected, &why, counts),
                _ => lose(ready.profiles, "the collector stops", counts),
            }
        }
    }
}

/// Sends a message until it is taken, refused or given up.
async fn deliver(way: &mut Way, ready: Ready, counts: &Counts, stopping: &mut watch::Receiver<bool>) {
    let Ready { bytes, profiles } = ready;
    let begin = Instant::now();
    let [first, longest] = PAUSES;
    let mut backoff = Backoff::new(first, longest);
    loop {
        let sent = timeout(PATIENCE, way.send(bytes.clone())).await;
        let silent =
            || Outcome::Later { why: "it does not answer in time".to_owned(), after: Duration::ZERO };
        let (why, after) = match sent.unwrap_or_else(|_| silent()) {
            Outcome::Taken { rejected, why } => return taken(profiles, rejected, &why, counts),
            Outcome::Refused(why) => return lose(profiles, &why, counts),
            Outcome::Later { why, after } => (why, after),
        };
        let pause = backoff.next(fastrand::f64()).max(after);
        if begin.elapsed() + pause > MAX_TIME {
            return lose(profiles, &why, counts);
        }
        tracing::warn!(why, "the OTLP endpoint does not take a message: it is tried again");
        tokio::select! {
            () = sleep(pause) => counts.add(Count::OtlpRetries),
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return lose(profiles, &why, counts),
        }
    }
}

fn taken(profiles: u64, rejected: u64, why: &str, counts: &Counts) {
    let rejected = rejected.min(profiles);
    counts.add_many(Count::OtlpSent, profiles - rejected);
    counts.add_many(Count::OtlpRejected, rejected);
    if rejected > 0 {
        tracing::warn!(rejected, why, "the OTLP endpoint refuses profiles");
    }
}

fn lose(profiles: u64, why: &str, counts: &Counts) {
    counts.add_many(Count::OtlpLost, profiles);
    tracing::error!(profiles, why, "profiles are not sent on by OTLP");
}

/// Taps streams into an outlet.
pub struct Streams(pub Arc<Outlet>);

impl Tap for Streams {
    fn stream(&self, hello: &Hello) -> Option<Box<dyn Listener>> {
        if hello.program == PROTOCOL {
            return None;
        }
        let labels = hello.labels.iter().map(|label| (label.name.clone(), label.value.clone()));
        let whose = Whose { agent: hello.agent.clone(), host: hello.host.clone(), labels: labels.collect() };
        let said = Roomed::new(&self.0.room);
        Some(Box::new(Stream { outlet: Arc::clone(&self.0), whose, said }))
    }
}

/// One stream.
struct Stream {
    outlet: Arc<Outlet>,
    whose: Whose,
    said: Roomed,
}

impl Listener for Stream {
    fn hear(&mut self, heard: &Heard<'_>, counts: &Counts) {
        if self.said.extend(heard.new) {
            let host = &self.whose.host;
            tracing::error!(
                host,
                "there is no room for what a stream has named: nothing of it is sent on by OTLP"
            );
        }
        if !heard.is_new {
            return;
        }
        let Some(known) = self.said.known() else {
            counts.add(Count::OtlpUnknown);
            return;
        };
        let full = {
            let mut open = self.outlet.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Open { message, since } = &mut *open;
            let types = &self.outlet.types;
            let full = window::add(message, &self.whose, heard.sequence, heard.window, known, types);
            if !full.is_empty() {
                *since = None;
            }
            if !message.is_empty() && since.is_none() {
                *since = Some(Instant::now());
            }
            full
        };
        for message in full {
            self.outlet.give(message, counts);
        }
    }
}
