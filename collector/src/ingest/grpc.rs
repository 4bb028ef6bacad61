//! The service as gRPC sees it: what `tonic` would generate, with buffers that do not keep the size of the largest message.
//!
//! A stream begins with a window that has the whole dictionary, some hundred kilobytes; those that follow have ten. `tonic` reads all
//! messages of a stream into one buffer, which keeps its size for as long as nobody else refers to it: with two thousand streams, 200 MB
//! that nobody uses. Here the message that was read last is held until the next is: so the buffer is never the stream's alone when it
//! wants room, and it takes a new one, of the size of what comes.

use prost::Message;
use prost::bytes::{Buf, Bytes};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::Request as HttpRequest;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use chokepoint_proto::stream::collector_server::{Collector, SERVICE_NAME};
use chokepoint_proto::stream::{FromAgent, FromCollector};

use super::service::Ingest;

/// What is read at first: more than a hello.
const READ_BYTES: usize = 1 << 10;
/// What is written at first: more than an answer.
const WRITE_BYTES: usize = 512;
/// Answers that are written together at most.
const WRITE_TOGETHER: usize = 16 << 10;
/// The service's only method.
const EXCHANGE: &str = "/chokepoint.stream.v1.Collector/Exchange";

/// The service, and the bytes of a message at most.
#[derive(Clone)]
pub(super) struct OnHttp {
    pub(super) ingest: Ingest,
    pub(super) message_bytes: usize,
}

impl NamedService for OnHttp {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<HttpRequest<Body>> for OnHttp {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        if request.uri().path() != EXCHANGE {
            return Box::pin(async { Ok(Status::unimplemented("there is no such method").into_http()) });
        }
        let Self { ingest, message_bytes } = self.clone();
        Box::pin(async move {
            let grpc = Grpc::new(Messages).max_decoding_message_size(message_bytes);
            Ok({ grpc }.streaming(Exchange(ingest), request).await)
        })
    }
}

struct Exchange(Ingest);

impl StreamingService<FromAgent> for Exchange {
    type Response = FromCollector;
    type ResponseStream = <Ingest as Collector>::ExchangeStream;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<FromAgent>>) -> Self::Future {
        let ingest = self.0.clone();
        Box::pin(async move { ingest.exchange(request).await })
    }
}

/// Reads and writes messages.
#[derive(Clone, Copy, Debug)]
struct Messages;

impl Codec for Messages {
    type Encode = FromCollector;
    type Decode = FromAgent;
    type Encoder = Writer;
    type Decoder = Reader;

    fn encoder(&mut self) -> Writer {
        Writer
    }

    fn decoder(&mut self) -> Reader {
        Reader { last: Bytes::new() }
    }
}

struct Writer;

impl Encoder for Writer {
    type Item = FromCollector;
    type Error = Status;

    fn encode(&mut self, message: FromCollector, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(to).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(WRITE_BYTES, WRITE_TOGETHER)
    }
}

struct Reader {
    /// Held, so that the buffer it is part of goes when the next message needs more than what is left of it.
    last: Bytes,
}

impl Decoder for Reader {
    type Item = FromAgent;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<FromAgent>, Status> {
        // A part of the stream's buffer, not a copy.
        self.last = from.copy_to_bytes(from.remaining());
        let message = FromAgent::decode(self.last.as_ref());
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(READ_BYTES, WRITE_TOGETHER)
    }
}
