//! A collector that keeps what it is told in memory, and fails when a test wants it to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use chokepoint_proto::dictionary::Receiver;
use chokepoint_proto::stream::collector_server::{Collector, CollectorServer};
use chokepoint_proto::stream::{
    Answer, Dictionary, FromAgent, FromCollector, Hello, Welcome, Window, from_agent, from_collector,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// A row of a window, with names for its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of the process.
    pub process: String,
    /// Name of the thread.
    pub thread: String,
    /// Labels, one after the other: a name, its value, the next name.
    pub labels: Vec<String>,
    /// Class of thread time.
    pub class: String,
    /// Functions, leaf first; none where the stack is not known.
    pub functions: Vec<String>,
    /// Samples.
    pub count: u64,
    /// Nanoseconds.
    pub weight: u64,
}

/// A batch as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who sent it.
    pub hello: Hello,
    /// Number of the stream that it came on, over all collectors of this recording.
    pub stream: u64,
    /// Its number.
    pub sequence: u64,
    /// Bytes of it as it came.
    pub bytes: usize,
    /// The window, without what its rows say.
    pub window: Window,
    /// Its rows.
    pub rows: Vec<Row>,
    /// Batches that the agent says it has dropped.
    pub dropped: u64,
}

/// Everything that came, whichever collector it came to.
#[derive(Clone, Default)]
pub struct Recording {
    received: Arc<Mutex<Vec<Received>>>,
    streams: Arc<AtomicU64>,
    is_silent: Arc<AtomicBool>,
}

impl Recording {
    /// What came so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has batches answered, or only taken.
    pub fn answer(&self, answers: bool) {
        self.is_silent.store(!answers, Ordering::Relaxed);
    }
}

/// A collector that listens; it is gone at once when dropped.
pub struct FakeCollector {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl FakeCollector {
    /// Listens at this address, which may have a port of 0.
    #[must_use]
    pub fn listen(address: SocketAddr, recording: &Recording) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("it can listen");
        let address = listener.local_addr().expect("it listens");
        let service = CollectorServer::new(Service(recording.clone())).max_decoding_message_size(64 << 20);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let server = Server::builder().add_service(service);
                tokio::select! {
                    served = server.serve_with_incoming(TcpListenerStream::new(listener)) => served.expect("it serves"),
                    _ = stopped => {}
                }
            });
            // With the runtime go all connections, as with a process that is killed.
        });
        Self { stop: Some(stop), thread: Some(thread), address }
    }
}

impl Drop for FakeCollector {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

struct Service(Recording);

#[tonic::async_trait]
impl Collector for Service {
    type ExchangeStream = ReceiverStream<Result<FromCollector, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (out, outgoing) = mpsc::channel(16);
        let mut incoming = request.into_inner();
        let recording = self.0.clone();
        tokio::spawn(async move {
            if let Err(status) = recording.take_in(&mut incoming, &out).await {
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl Recording {
    async fn take_in(
        &self,
        incoming: &mut Streaming<FromAgent>,
        out: &mpsc::Sender<Result<FromCollector, Status>>,
    ) -> Result<(), Status> {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let invalid = |what: &str| Status::invalid_argument(what.to_owned());
        let say = |message| Ok(FromCollector { message: Some(message) });
        let Some(from_agent::Message::Hello(hello)) = incoming.message().await?.and_then(|said| said.message)
        else {
            return Err(invalid("no hello"));
        };
        let welcome =
            Welcome { protocol: 1, max_window_bytes: 16 << 20, max_unanswered: 4, ..Welcome::default() };
        let _ = out.send(say(from_collector::Message::Welcome(welcome))).await;
        let mut receiver = Receiver::new();
        while let Some(said) = incoming.message().await? {
            let Some(from_agent::Message::Batch(batch)) = said.message else { continue };
            let bytes = zstd::bulk::decompress(&batch.window, batch.window_bytes as usize)
                .map_err(|_| invalid("not compressed"))?;
            let mut window = Window::decode(&bytes[..]).map_err(|_| invalid("no window"))?;
            receiver.take(&mut window).map_err(|error| invalid(&error.to_string()))?;
            let rows = rows(&window, receiver.known());
            window.profiles.clear();
            let received = Received {
                hello: hello.clone(),
                stream,
                sequence: batch.sequence,
                bytes: batch.window.len(),
                window,
                rows,
                dropped: batch.dropped_batches,
            };
            self.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
            if !self.is_silent.load(Ordering::Relaxed) {
                let answer = Answer { sequence: batch.sequence, refused: String::new() };
                let _ = out.send(say(from_collector::Message::Answer(answer))).await;
            }
        }
        Ok(())
    }
}

fn rows(window: &Window, known: &Dictionary) -> Vec<Row> {
    let text = |number: u32| known.strings[number as usize].clone();
    let Some(wall) = window.profiles.iter().find(|profile| profile.kind == "wall") else {
        return Vec::new();
    };
    let functions = |leaf: u32| {
        let node = |plus_one: u32| plus_one.checked_sub(1).map(|node| node as usize);
        let nodes = std::iter::successors(node(leaf), |at| node(known.stack_parent[*at]));
        nodes
            .flat_map(|at| &known.locations[known.stack_location[at] as usize].lines)
            .map(|line| text(known.functions[line.function as usize].name))
            .collect()
    };
    let row = |at: usize| {
        let subject = &known.subjects[wall.subject[at] as usize];
        Row {
            process: text(subject.process),
            thread: text(subject.thread),
            labels: subject.labels.iter().map(|number| text(*number)).collect(),
            class: text(wall.class[at]),
            functions: functions(wall.stack[at]),
            count: wall.count[at],
            weight: wall.weight[at],
        }
    };
    (0..wall.subject.len()).map(row).collect()
}
