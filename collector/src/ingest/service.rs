//! Sessions on gRPC.

use std::sync::Arc;
use std::time::Duration;

use chokepoint_proto::stream::collector_server::Collector;
use chokepoint_proto::stream::{
    Answer, Batch, FromAgent, FromCollector, Hello, Welcome, from_agent, from_collector,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::Limits;
use super::agents::{Agents, Place};
use super::connections;
use super::counts::{Count, Counts};
use super::grpc::OnHttp;
use super::inbox::Inbox;
use super::rate::Allowance;
use super::session::{NotBegun, Session, Taken};
use super::tap::Tap;
use crate::access::{Access, Denied, Proven};
use crate::clock::now_unix_ns;
use crate::control::{Control, Link};
use crate::listen::{Door, Peer};
use crate::store::{Store, StoreError};
use crate::symbols::{FleetSymbols, SymbolsLink};

/// How long an agent may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A connection that says nothing is asked whether it is there, and ended where it does not answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams on one connection. An agent has one.
const STREAMS_A_CONNECTION: u32 = 4;
/// Bytes that an agent may send before they are read.
const FLOW_BYTES: u32 = 256 << 10;
/// Messages to an agent that wait for the network.
const ANSWERS: usize = 16;
/// Bytes in memory of a byte of an uncompressed window, as it is decoded: small numbers become eight bytes, empty strings 24.
const DECODED_BYTES: usize = 16;
/// What an offered build counts for beside its bytes.
const OFFER_BYTES: usize = 1 << 10;
/// What memory is counted in.
const PERMIT_BYTES: usize = 1 << 10;

/// The service.
#[derive(Clone)]
pub struct Ingest {
    store: Arc<dyn Store>,
    access: Arc<Access>,
    limits: Limits,
    counts: Arc<Counts>,
    control: Arc<Control>,
    symbols: Option<Arc<FleetSymbols>>,
    agents: Agents,
    tap: Option<Arc<dyn Tap>>,
    inbox: Inbox,
    memory: Arc<Semaphore>,
    /// All of it: what one batch takes at most.
    all_memory: u32,
    stopping: watch::Receiver<bool>,
}

impl Ingest {
    /// Takes in what agents say, until it stops, and has the tap told of it.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        access: Arc<Access>,
        limits: Limits,
        counts: Arc<Counts>,
        (control, symbols): (Arc<Control>, Option<Arc<FleetSymbols>>),
        tap: Option<Arc<dyn Tap>>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        // The largest window that is accepted has room in any case.
        let memory = (permits(limits.window_bytes, 0) as usize).max(limits.decoding_bytes / PERMIT_BYTES);
        let all_memory = u32::try_from(memory).unwrap_or(u32::MAX);
        let inbox =
            Inbox::new(Arc::clone(&store), Arc::clone(&access), limits, Arc::clone(&counts), tap.clone());
        Self {
            store,
            access,
            limits,
            counts,
            control,
            symbols,
            agents: Agents::new(limits.streams),
            tap,
            inbox,
            memory: Arc::new(Semaphore::new(memory)),
            all_memory,
            stopping,
        }
    }

    /// Takes in what others than agents send: the same one each time.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// The hello that a stream begins with.
    async fn hello(&self, messages: &mut Streaming<FromAgent>) -> Result<Hello, Status> {
        let first = tokio::time::timeout(HELLO_WITHIN, messages.message()).await;
        match first {
            Ok(Ok(Some(FromAgent { message: Some(from_agent::Message::Hello(hello)) }))) => Ok(hello),
            first => {
                self.counts.add(Count::HellosRefused);
                Err(match first {
                    Err(_) => Status::deadline_exceeded("no hello came in time"),
                    Ok(Err(status)) => status,
                    Ok(Ok(_)) => Status::invalid_argument("a stream begins with hello"),
                })
            }
        }
    }

    /// What an agent proves of itself, with its stream's head and its connection.
    fn proven(&self, head: &MetadataMap, peer: Option<&Peer>) -> Result<Proven, Status> {
        let authorization = head.get("authorization").map(|value| value.as_bytes());
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        self.access.agent(authorization, certificate).map_err(|denied| self.denied(&denied))
    }

    /// Counts that an agent is not let in, and says what to do.
    fn denied(&self, denied: &Denied) -> Status {
        if denied.is_unauthenticated() {
            self.counts.add(Count::StreamsUnauthenticated);
            return Status::unauthenticated(format!(
                "{denied}: give the agent one of the role agent, as token-file"
            ));
        }
        self.counts.add(Count::StreamsForbidden);
        Status::permission_denied(denied.to_string())
    }

    async fn begin(&self, hello: Hello, proven: &Proven) -> Result<Session, Status> {
        proven.check(&hello).map_err(|denied| self.denied(&denied))?;
        let (store, limits, counts) = (Arc::clone(&self.store), self.limits, Arc::clone(&self.counts));
        let tap = self.tap.clone();
        let identity = proven.identity().map(str::to_owned);
        let begin = move || {
            let session = Session::begin(&*store, &hello, identity.as_deref(), limits, counts)?;
            Ok(session.told_to(tap.as_deref(), &hello))
        };
        blocking(begin).await?.map_err(|error| match error {
            NotBegun::Refused(why) => Status::invalid_argument(why),
            NotBegun::NotOwned(why) => Status::permission_denied(why),
            NotBegun::TooMany(why) => Status::resource_exhausted(why),
            NotBegun::Failed(error) => unavailable(&error),
        })
    }

    /// Answers batches until the stream ends, and says why it does.
    async fn go_on(
        self,
        proven: Proven,
        mut session: Session,
        (mut place, links): (Place, Links),
        mut messages: Streaming<FromAgent>,
        answers: mpsc::Sender<Result<FromCollector, Status>>,
    ) -> Status {
        let mut stopping = self.stopping.clone();
        let Limits { agent_bytes_per_s, agent_saved_s, .. } = self.limits;
        let mut allowance = Allowance::new(agent_bytes_per_s, agent_saved_s, Instant::now());
        loop {
            let message = tokio::select! {
                () = place.superseded() => {
                    self.counts.add(Count::StreamsSuperseded);
                    return Status::aborted("the agent began another stream");
                }
                _ = stopping.wait_for(|is_stopping| *is_stopping) => {
                    return Status::unavailable("the collector is stopping");
                }
                message = messages.message() => message,
            };
            let batch = match message {
                Ok(Some(FromAgent { message: Some(from_agent::Message::Batch(batch)) })) => batch,
                Ok(Some(FromAgent { message: Some(from_agent::Message::Update(update)) })) => {
                    links.control.take(update);
                    continue;
                }
                Ok(Some(FromAgent {
                    message:
                        Some(
                            message @ (from_agent::Message::SymbolsOffer(_)
                            | from_agent::Message::SymbolsPart(_)),
                        ),
                })) => {
                    // Who may not stream any more gives no symbols either.
                    if let Err(denied) = self.access.still(&proven) {
                        return self.denied(&denied);
                    }
                    tokio::time::sleep(allowance.take(cost(&message), Instant::now())).await;
                    match take_symbols(links.symbols.as_ref(), message).await {
                        Ok(()) => continue,
                        Err(status) => return status,
                    }
                }
                // A newer agent's messages are none of ours.
                Ok(Some(FromAgent { message: None })) => continue,
                Ok(Some(FromAgent { message: Some(from_agent::Message::Hello(_)) })) => {
                    self.counts.add(Count::MessagesRefused);
                    return Status::invalid_argument("a stream has one hello");
                }
                Ok(None) => return Status::ok("the agent has ended the stream"),
                Err(status) => {
                    if matches!(
                        status.code(),
                        tonic::Code::OutOfRange | tonic::Code::Internal | tonic::Code::ResourceExhausted
                    ) {
                        self.counts.add(Count::MessagesRefused);
                    }
                    return status;
                }
            };
            if let Err(denied) = self.access.still(&proven) {
                return self.denied(&denied);
            }
            let wait =
                allowance.take(batch.window_bytes.min(self.limits.window_bytes as u64), Instant::now());
            if !wait.is_zero() {
                self.counts.add(Count::BatchesThrottled);
                tokio::select! {
                    _ = stopping.wait_for(|is_stopping| *is_stopping) => {
                        return Status::unavailable("the collector is stopping");
                    }
                    () = tokio::time::sleep(wait) => {}
                }
            }
            let sequence = batch.sequence;
            let taken;
            (session, taken) = match self.take(session, batch).await {
                Ok(taken) => taken,
                Err(status) => return status,
            };
            if let Some(processes) = session.processes() {
                links.control.hear(processes);
            }
            let (answer, end) = match taken {
                Taken::Stored => (Some(String::new()), None),
                Taken::Refused(why) => {
                    let why = why.to_string();
                    (Some(why.clone()), Some(Status::invalid_argument(why)))
                }
                Taken::Failed(error) => (None, Some(unavailable(&error))),
            };
            if let Some(refused) = answer {
                let answer = from_collector::Message::Answer(Answer { sequence, refused });
                if answers.send(Ok(FromCollector { message: Some(answer) })).await.is_err() {
                    return Status::cancelled("the agent has gone");
                }
            }
            if let Some(status) = end {
                return status;
            }
        }
    }

    /// Has a batch taken in, when there is memory for it.
    async fn take(&self, mut session: Session, batch: Batch) -> Result<(Session, Taken), Status> {
        // What says that it is larger than is accepted is refused before it takes any.
        let bytes = usize::try_from(batch.window_bytes).unwrap_or(usize::MAX).min(self.limits.window_bytes);
        let wanted = permits(bytes, session.held_bytes()).min(self.all_memory);
        let memory = Arc::clone(&self.memory);
        let memory = match Arc::clone(&memory).try_acquire_many_owned(wanted) {
            Ok(memory) => Ok(memory),
            Err(_) => {
                self.counts.add(Count::BatchesWaited);
                memory.acquire_many_owned(wanted).await
            }
        };
        let _memory = memory.map_err(|_| Status::unavailable("the collector is stopping"))?;
        blocking(move || {
            let taken = session.take(&batch, now_unix_ns());
            (session, taken)
        })
        .await
    }
}

#[tonic::async_trait]
impl Collector for Ingest {
    type ExchangeStream = ReceiverStream<Result<FromCollector, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let peer = request.extensions().get::<Peer>();
        let proven = self.proven(request.metadata(), peer).inspect_err(|status| {
            let address = peer.map(|peer| peer.address);
            tracing::info!(?address, code = ?status.code(), why = status.message(), "a stream is refused");
        })?;
        if let Some(peer) = peer {
            peer.is_known();
        }
        let peer = peer.map(|peer| peer.address);
        let mut messages = request.into_inner();
        let (answers, outgoing) = mpsc::channel(ANSWERS);
        let ingest = self.clone();
        // The response begins at once, so that an agent that waits for it before it speaks does not wait for ever.
        tokio::spawn(async move {
            let status = ingest.clone().stream(&proven, &mut messages, &answers).await;
            let status = match status {
                Ok((session, place)) => ingest.go_on(proven, session, place, messages, answers.clone()).await,
                Err(status) => status,
            };
            tracing::info!(?peer, code = ?status.code(), why = status.message(), "a stream has ended");
            if status.code() != tonic::Code::Ok {
                // Who has gone does not hear it.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl Ingest {
    /// Begins a stream: hello, a place, welcome.
    async fn stream(
        self,
        proven: &Proven,
        messages: &mut Streaming<FromAgent>,
        answers: &mpsc::Sender<Result<FromCollector, Status>>,
    ) -> Result<(Session, (Place, Links)), Status> {
        let hello = self.hello(messages).await?;
        let who = hello.clone();
        let identity = proven.identity();
        tracing::info!(host = ?hello.host, program = ?hello.program, identity, "a stream begins");
        // Before it takes a place: who may not have it ends nobody's stream.
        let session = self.begin(hello, proven).await?;
        let Some(place) = self.agents.enter(&who.agent) else {
            self.counts.add(Count::StreamsTooMany);
            return Err(Status::resource_exhausted("the collector has as many agents as it accepts"));
        };
        let takes_symbols = self.symbols.is_some();
        let welcome = from_collector::Message::Welcome(Welcome { takes_symbols, ..session.welcome() });
        let gone = |_| Status::cancelled("the agent has gone");
        answers.send(Ok(FromCollector { message: Some(welcome) })).await.map_err(gone)?;
        let say = || {
            let answers = answers.clone();
            Box::new(move |message| answers.try_send(Ok(message)).is_ok())
        };
        let link = |symbols: &Arc<FleetSymbols>| {
            Arc::new(symbols.connect(&who, identity, say(), Arc::clone(&self.counts)))
        };
        let links =
            Links { symbols: self.symbols.as_ref().map(link), control: self.control.connect(&who, say()) };
        Ok((session, (place, links)))
    }
}

/// What a stream has beside batches, as long as it holds.
struct Links {
    control: Link,
    symbols: Option<Arc<SymbolsLink>>,
}

/// What a message about symbols counts for among the bytes that an agent may send: to look what is known of a build takes some time, too.
fn cost(message: &from_agent::Message) -> u64 {
    let builds = match message {
        from_agent::Message::SymbolsOffer(offer) => offer.builds.len(),
        _ => 0,
    };
    (message.encoded_len() + builds * OFFER_BYTES) as u64
}

/// Takes in what an agent says of symbols. Where none are taken it is passed over: the agent was told.
async fn take_symbols(link: Option<&Arc<SymbolsLink>>, message: from_agent::Message) -> Result<(), Status> {
    let Some(link) = link.cloned() else { return Ok(()) };
    blocking(move || match message {
        from_agent::Message::SymbolsOffer(offer) => link.offered(offer),
        from_agent::Message::SymbolsPart(part) => link.part(part),
        _ => {}
    })
    .await
}

/// Serves gRPC at a door until it stops, then lets what is under way end.
///
/// # Errors
/// Where the transport fails.
pub async fn serve(ingest: Ingest, door: Door) -> Result<(), tonic::transport::Error> {
    let mut stopping = ingest.stopping.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    let message_bytes = ingest.limits.message_bytes;
    let connections = ReceiverStream::new(connections::accept(door));
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_A_CONNECTION)
        .initial_stream_window_size(FLOW_BYTES)
        .initial_connection_window_size(FLOW_BYTES)
        .add_service(crate::protocols::otlp::grpc::service(ingest.inbox()))
        .add_service(OnHttp { ingest, message_bytes })
        .serve_with_incoming_shutdown(connections, stopped)
        .await
}

/// Runs what waits for the disk where nobody waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a stream's work has failed");
        Status::internal("the collector has failed")
    })
}

fn unavailable(error: &StoreError) -> Status {
    tracing::error!(%error, "the store cannot write");
    Status::unavailable("the collector cannot store anything now")
}

/// What a window takes, with what its stream holds beside it.
fn permits(window_bytes: usize, held_bytes: usize) -> u32 {
    let bytes = window_bytes.saturating_mul(DECODED_BYTES).saturating_add(held_bytes);
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).max(1)
}
