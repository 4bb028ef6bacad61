//! Wires the stages: what arrives on gRPC goes into the store, beside which its upkeep runs, and whatever else serves from it.
//!
//! Every capacity, and what happens when it is full:
//!
//! | what | capacity | when full |
//! |---|---|---|
//! | connections | [`Limits::connections`] | the next wait in the kernel |
//! | connections of which it is not known who is there | those of [`Door`], 10 s each | the next wait in the kernel; of one address, they end |
//! | what one agent sends in a second | [`Limits::agent_bytes_per_s`] | its stream waits |
//! | streams | [`Limits::streams`] | the next agent is refused, and comes again |
//! | a stream's messages before they are read | 256 KiB, HTTP/2's window | the agent waits |
//! | a message | [`Limits::message_bytes`] | the stream ends |
//! | windows that are decoded | [`Limits::decoding_bytes`] | streams wait |
//! | threads that wait for the disk | [`BLOCKING_THREADS`] | streams wait |
//! | batches that wait for the writer | the store's queue | threads wait |
//! | profiles that other programs send | those of [`Inbox`] | senders are told to send again later |
//! | messages of OTLP that wait to be sent on | those of [`crate::protocols::otlp::send`] | the next is lost, and counted |
//! | what waits to be told to an agent | 16 messages | the stream waits; a command is refused |
//! | symbols of builds | those of [`crate::symbols`] | leases wait, files that nobody needed for longest go |
//! | profiles on demand | [`crate::control::Limits`] | more are refused; of finished ones the oldest go |

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::access::Guard;
use crate::api;
use crate::clock::now_unix_ns;
use crate::control::Control;
use crate::ingest::{self, Counts, Inbox, Ingest, Limits, Tap};
use crate::listen::Door;
use crate::page;
use crate::protocols;
use crate::query;
use crate::query::fleet::recent::Recent;
use crate::store::embedded::OpenError;
use crate::store::{Home, Store, StoreError};
use crate::symbols::FleetSymbols;
use crate::symbols::named::Named;

/// Threads that wait for the disk: as many batches are in one transaction at most. Four confirmations a second would do for 200 batches.
pub const BLOCKING_THREADS: usize = 64;
/// Threads that wait for other servers: a block takes a second, and a thread that waits takes little.
pub const DISTRIBUTED_BLOCKING_THREADS: usize = 1024;
/// How long the store is left alone when nothing is due.
const UPKEEP_EVERY: Duration = Duration::from_secs(15);
/// How often files of certificates and tokens are looked at: a token that was revoked is refused so much later at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often memory that is free is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(15);
/// How long streams and queries that are under way may take to end.
const FAREWELL: Duration = Duration::from_secs(10);

/// What is served, and from where.
#[derive(Clone)]
pub struct Serve {
    /// The store's home.
    pub store: Home,
    /// Where agents are listened to.
    pub listen: SocketAddr,
    /// What is accepted from them.
    pub limits: Limits,
    /// Who is let in.
    pub guard: Guard,
    /// What has agents make profiles.
    pub control: Arc<Control>,
    /// What names the code of agents that send addresses alone; `None`: nobody does.
    pub symbols: Option<Arc<FleetSymbols>>,
    /// Who else is told of what is stored.
    pub tap: Option<Arc<dyn Tap>>,
}

/// What goes on beside; ends soon after it is told to.
pub type Companion = Box<dyn FnOnce(Shared) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> + Send>;

/// What a companion has in common with those that serve agents.
#[derive(Clone)]
pub struct Shared {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What was counted at the door.
    pub counts: Arc<Counts>,
    /// What limits services, for all who want to know it again and again.
    pub services: Arc<Recent>,
    /// Takes in what others than agents send: the same at each address, so that what comes by both is known.
    pub inbox: Inbox,
    /// Tells when to stop.
    pub stopping: watch::Receiver<bool>,
}

/// The collector cannot go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can be listened to.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where it was to be.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The transport has failed.
    #[error("cannot serve agents: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// What goes on beside has failed.
    #[error("cannot serve queries: {0}")]
    Companion(io::Error),
    /// A part has panicked.
    #[error("a part of the collector has failed: {0}")]
    Part(#[from] tokio::task::JoinError),
    /// The store's upkeep has panicked or has no thread: history would grow without end.
    #[error("the store's upkeep has failed: {0}")]
    Upkeep(String),
}

/// A listener at this address.
///
/// # Errors
/// [`ServeError::Listen`], which names the address.
pub async fn listen_on(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Answers queries over HTTP to those who may ask, and serves the page that asks them to everybody. Without TLS only to those who ask an address,
/// `localhost`, or one of these names; with TLS, nobody else's page can take the collector for its own server.
#[must_use]
pub fn queries(
    listener: TcpListener,
    control: Arc<Control>,
    limits: query::limits::Limits,
    names: Vec<String>,
    guard: &Guard,
) -> Companion {
    let (access, tls) = (Arc::clone(&guard.access), guard.queries.clone());
    Box::new(move |shared| {
        let Shared { store, counts, services, inbox, mut stopping } = shared;
        let (of_store, of_control, own) = (Arc::clone(&store), Arc::clone(&control), Arc::clone(&counts));
        let metrics = move || {
            let holdings = of_store.holdings();
            // What was counted at the door is told also where the store cannot be read.
            let holdings =
                holdings.inspect_err(|error| tracing::error!(%error, "cannot tell what the store holds"));
            let holdings = holdings.map(|holdings| holdings.metrics()).unwrap_or_default();
            own.metrics() + &of_control.metrics() + &holdings
        };
        let router = api::router(store, control, services, limits, Arc::new(metrics));
        let router = protocols::add_pushes_to(router, &inbox);
        let mut router = api::only_for_callers(router, access, Arc::clone(&counts));
        // It has nothing that is anybody's: without a token it asks for one.
        router = page::beside(router);
        if tls.is_none() {
            router = api::only_for_hosts(router, names);
        }
        let stop = async move {
            // What tells is gone when everything is.
            let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
        };
        Box::pin(async move {
            let door = Door::new(listener, limits.max_connections, tls, counts);
            api::serve(door, router, stop).await;
            Ok(())
        })
    })
}

/// Has certificates and tokens read again when their files change, and at once when the signal comes.
#[must_use]
pub fn refresh(guard: Guard, mut told: Signal) -> Companion {
    Box::new(move |Shared { counts, mut stopping, .. }| {
        Box::pin(async move {
            loop {
                let is_told = tokio::select! {
                    _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
                    told = told.recv() => told.is_some(),
                    () = tokio::time::sleep(LOOK_EVERY) => false,
                };
                let (guard, counts) = (guard.clone(), Arc::clone(&counts));
                tokio::task::spawn_blocking(move || guard.refresh(is_told, &counts)).await?;
            }
        })
    })
}

/// Has memory that is free given back now and then.
#[must_use]
pub fn give_back(give_back: fn()) -> Companion {
    Box::new(move |Shared { mut stopping, .. }| {
        Box::pin(async move {
            let mut is_stopping = async || stopping.wait_for(|is_stopping| *is_stopping).await.is_ok();
            while tokio::time::timeout(GIVE_BACK_EVERY, is_stopping()).await.is_err() {
                // It takes some tens of milliseconds.
                tokio::task::spawn_blocking(give_back).await?;
            }
            Ok(())
        })
    })
}

/// Serves until `stop` ends or a part fails, then ends what is under way and closes the store. `ready` learns where agents are listened to.
///
/// # Errors
/// Where it cannot begin, or a part fails.
pub async fn serve(
    serve: Serve,
    companions: Vec<Companion>,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Serve { store, listen, limits, guard, control, symbols, tap } = serve;
    // First of all, so that nothing is opened where another serves already.
    let mut store = tokio::task::spawn_blocking(move || store.open()).await??;
    if let Some(symbols) = &symbols {
        store = Arc::new(Named::new(store, Arc::clone(symbols)));
    }
    let listener = listen_on(listen).await?;
    let address = listener.local_addr().map_err(|source| ServeError::Listen { address: listen, source })?;

    let (stopping, has_stopped) = watch::channel(false);
    let counts = Arc::new(Counts::default());
    let door = Door::new(listener, limits.connections, guard.agents, Arc::clone(&counts));
    let stopped = has_stopped.clone();
    let ingest = Ingest::new(
        Arc::clone(&store),
        guard.access,
        limits,
        Arc::clone(&counts),
        (control, symbols),
        tap,
        stopped,
    );
    let shared = Shared {
        store: Arc::clone(&store),
        counts,
        services: Arc::default(),
        inbox: ingest.inbox(),
        stopping: has_stopped.clone(),
    };
    let mut parts: JoinSet<Result<(), ServeError>> = JoinSet::new();
    parts.spawn(async move { Ok(ingest::serve(ingest, door).await?) });
    for companion in companions {
        let part = companion(shared.clone());
        parts.spawn(async move { part.await.map_err(ServeError::Companion) });
    }
    // The store is closed when nobody has it any more.
    drop(shared);
    let kept_up = Arc::clone(&store);
    let (upkeep, upkeep_ended) = Upkeep::start(move || kept_up.maintain(now_unix_ns()), has_stopped)?;
    ready(address);

    let mut result = tokio::select! {
        () = stop => Ok(()),
        // No part ends before it is told to.
        ended = parts.join_next() => flatten(ended),
        // It says why when it is joined.
        _ = upkeep_ended => Ok(()),
    };
    // Nobody may be left to hear it.
    let _ = stopping.send(true);
    let farewell = async {
        while let Some(ended) = parts.join_next().await {
            let ended = flatten(Some(ended));
            if result.is_ok() {
                result = ended;
            }
        }
    };
    if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
        tracing::warn!("some streams or queries did not end in time");
    }
    parts.shutdown().await;
    let finished = finish(upkeep, store).await;
    result.and(finished)
}

fn flatten(ended: Option<Result<Result<(), ServeError>, tokio::task::JoinError>>) -> Result<(), ServeError> {
    match ended {
        None => Ok(()),
        Some(ended) => ended?,
    }
}

/// Has the store end its transaction and close, on a thread that may wait.
async fn finish(upkeep: Upkeep, store: Arc<dyn Store>) -> Result<(), ServeError> {
    let finish = move || {
        let ended = upkeep.join();
        drop(store);
        tracing::info!("the store is closed");
        ended
    };
    tokio::task::spawn_blocking(finish).await?
}

/// The thread of the store's upkeep. It is one of its own, so that what segments take while they are made is freed where it was taken:
/// on whichever of the blocking threads was free, each would come to keep as much.
struct Upkeep(JoinHandle<()>);

impl Upkeep {
    /// Starts it; what is returned beside it ends with the thread, which ends when told to or with a panic.
    fn start(
        maintain: impl FnMut() -> Result<bool, StoreError> + Send + 'static,
        stopping: watch::Receiver<bool>,
    ) -> Result<(Self, oneshot::Receiver<()>), ServeError> {
        let runtime = Handle::current();
        let (ends, ended) = oneshot::channel();
        let keep_up = move || {
            let _ends: oneshot::Sender<()> = ends;
            keep_up(maintain, stopping, &runtime);
        };
        let thread = thread::Builder::new().name("store-upkeep".to_owned()).spawn(keep_up);
        let thread = thread.map_err(|error| ServeError::Upkeep(format!("it has no thread: {error}")))?;
        Ok((Self(thread), ended))
    }

    /// Waits until it has ended.
    fn join(self) -> Result<(), ServeError> {
        self.0.join().map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            ServeError::Upkeep(text.unwrap_or("it has panicked").to_owned())
        })
    }
}

/// Does what is due in the store, until it stops.
fn keep_up(
    mut maintain: impl FnMut() -> Result<bool, StoreError>,
    mut stopping: watch::Receiver<bool>,
    runtime: &Handle,
) {
    loop {
        let is_more = maintain().unwrap_or_else(|error| {
            tracing::warn!(%error, "the store's upkeep is put off");
            false
        });
        let pause = if is_more { Duration::ZERO } else { UPKEEP_EVERY };
        let stopped = stopping.wait_for(|is_stopping| *is_stopping);
        // Who tells is gone when everything is.
        if runtime.block_on(async { tokio::time::timeout(pause, stopped).await.is_ok() }) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn upkeep_that_panics_is_told_and_one_that_is_told_to_stop_does() {
        let (stop, stopping) = watch::channel(false);
        let mut turns = 0;
        let works_thrice = move || {
            turns += 1;
            assert!(turns < 4, "the fourth panics");
            Ok(true)
        };
        let (upkeep, ended) = Upkeep::start(works_thrice, stopping.clone()).expect("a thread");
        ended.await.expect_err("the thread is gone");
        let told = upkeep.join().expect_err("it has panicked").to_string();
        assert!(told.ends_with("the fourth panics"), "{told}");

        let (began, has_begun) = std::sync::mpsc::channel();
        let fails = move || {
            let _ = began.send(());
            Err(StoreError::NobodyAsks)
        };
        let (upkeep, ended) = Upkeep::start(fails, stopping).expect("a thread");
        has_begun.recv().expect("it goes on after a failure, or waits to");
        stop.send(true).expect("it hears it");
        ended.await.expect_err("the thread is gone");
        upkeep.join().expect("it has not panicked");
    }
}
