//! The ways that messages go: over gRPC, on one connection for as long as it holds, or over HTTP, each on its own.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use chokepoint_tls::{HTTP_1, HTTP_2};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{HeaderMap, RETRY_AFTER};
use hyper::{StatusCode, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceResponse;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::{Options, Protocol};
use crate::protocols::otlp::http::PATH;
use crate::protocols::otlp::status::Told;
use crate::query_command::client::{Address, ClientError, Content};

/// The method of gRPC.
const EXPORT: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
/// For a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer, which has a sentence at most.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is there, but for so many of its profiles.
    Taken { rejected: u64, why: String },
    /// It will be refused whenever it comes.
    Refused(String),
    /// It may come again, after this time at the soonest.
    Later { why: String, after: Duration },
}

impl Outcome {
    fn later(why: String) -> Self {
        Self::Later { why, after: Duration::ZERO }
    }

    fn taken(response: ExportProfilesServiceResponse) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_profiles).unwrap_or_default();
        Self::Taken { rejected, why: partial.error_message }
    }
}

/// A way that is taken again and again.
pub(super) struct Way {
    options: Options,
    /// Of gRPC, where the last call went well.
    channel: Option<(Channel, Address)>,
}

impl Way {
    pub(super) fn new(options: Options) -> Self {
        Self { options, channel: None }
    }

    /// Sends a message. Certificates and the token are read when a connection begins.
    pub(super) async fn send(&mut self, message: Bytes) -> Outcome {
        match self.options.protocol {
            Protocol::Grpc => self.grpc(message).await,
            Protocol::Http => self.http(&message).await,
        }
    }

    async fn grpc(&mut self, message: Bytes) -> Outcome {
        let (channel, address) = match self.channel.take() {
            Some(channel) => channel,
            None => match connect(&self.options).await {
                Ok(channel) => channel,
                Err(why) => return Outcome::later(why),
            },
        };
        let mut client = Grpc::new(channel.clone())
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        if let Err(error) = client.ready().await {
            return Outcome::later(with_causes(&error));
        }
        let mut request = Request::new(message);
        if let Some(value) = address.authorization() {
            match MetadataValue::try_from(value.as_bytes()) {
                Ok(value) => drop(request.metadata_mut().insert("authorization", value)),
                Err(error) => return Outcome::Refused(format!("the token cannot be sent: {error}")),
            }
        }
        match client.unary(request, PathAndQuery::from_static(EXPORT), Export).await {
            Ok(response) => {
                self.channel = Some((channel, address));
                Outcome::taken(response.into_inner())
            }
            Err(status) => of_status(&status),
        }
    }

    async fn http(&self, message: &[u8]) -> Outcome {
        let address = match self.options.address(HTTP_1) {
            Ok(address) => address,
            Err(error) => return Outcome::later(error.reason()),
        };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let bytes = match gzip.write_all(message).and_then(|()| gzip.finish()) {
            Ok(bytes) => bytes,
            Err(error) => return Outcome::Refused(format!("it cannot be compressed: {error}")),
        };
        match address.send(PATH, Content::gzipped("application/x-protobuf", bytes)).await {
            Ok((status, headers, body)) => of_answer(status, &headers, &body),
            Err(error) => Outcome::later(error.reason()),
        }
    }
}

impl Options {
    /// Where it goes, with what is shown there.
    pub(super) fn address(&self, protocol: &[u8]) -> Result<Address, ClientError> {
        Address::of(&self.endpoint, &self.credentials, protocol)
    }

    /// Reads the files once, as each connection will.
    ///
    /// # Errors
    /// The endpoint is none, a file is of no use, or the token would be sent to another host for all to read.
    pub fn check(&self) -> Result<(), String> {
        let protocol = match self.protocol {
            Protocol::Grpc => HTTP_2,
            Protocol::Http => HTTP_1,
        };
        self.address(protocol).map(drop).map_err(|error| error.reason())
    }
}

async fn connect(options: &Options) -> Result<(Channel, Address), String> {
    let address = options.address(HTTP_2).map_err(|error| error.reason())?;
    let way = address.clone();
    let connector = service_fn(move |_: Uri| {
        let way = way.clone();
        async move { way.connect().await.map(TokioIo::new).map_err(|error| std::io::Error::other(error.reason())) }
    });
    let endpoint = Endpoint::from_shared(options.endpoint.clone()).map_err(|error| with_causes(&error))?;
    let channel = endpoint.connect_timeout(PATIENCE).connect_with_connector(connector).await;
    Ok((channel.map_err(|error| with_causes(&error))?, address))
}

/// By what OTLP says of codes; what this end says itself is of the connection.
fn of_status(status: &Status) -> Outcome {
    let why = match status.source() {
        Some(source) => return Outcome::later(with_causes(source)),
        None => format!("{}: {}", status.code(), status.message()),
    };
    let after = Told::decode(status.details()).ok().and_then(|told| told.retry_after());
    match (status.code(), after) {
        (
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss,
            after,
        ) => Outcome::Later { why, after: after.unwrap_or_default() },
        // Who has no room now says when there is some; else it is too large.
        (Code::ResourceExhausted, Some(after)) => Outcome::Later { why, after },
        _ => Outcome::Refused(why),
    }
}

fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if status.is_success() {
        return match ExportProfilesServiceResponse::decode(body) {
            Ok(response) => Outcome::taken(response),
            Err(error) => Outcome::Refused(format!("what answers speaks no OTLP: {error}")),
        };
    }
    let told = Told::decode(body).unwrap_or_default().message;
    let why = format!("{status}: {told}");
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    match status.as_u16() {
        429 | 502..=504 => Outcome::Later { why, after: Duration::from_secs(seconds.unwrap_or_default()) },
        _ => Outcome::Refused(why),
    }
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Sends bytes that are a message already: they are kept to be sent again.
#[derive(Clone, Copy)]
struct Export;

impl Codec for Export {
    type Encode = Bytes;
    type Decode = ExportProfilesServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Export {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Export {
    type Item = ExportProfilesServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let message = ExportProfilesServiceResponse::decode(bytes);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_come_again_is_told_from_what_is_refused_for_good() {
        let is_later = |outcome| matches!(outcome, Outcome::Later { .. });
        for (code, may) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::ResourceExhausted, false),
            (Code::InvalidArgument, false),
            (Code::Unauthenticated, false),
        ] {
            assert_eq!(is_later(of_status(&Status::new(code, "no"))), may, "{code}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().expect("a value"));
        let after = Duration::from_secs(7);
        let why = "429 Too Many Requests: ".to_owned();
        assert_eq!(of_answer(StatusCode::TOO_MANY_REQUESTS, &headers, b""), Outcome::Later { why, after });
        for (status, may) in [(503, true), (500, false), (400, false), (404, false), (302, false)] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_later(of_answer(status, &HeaderMap::new(), b"")), may, "{status}");
        }
        let told = Told::new("no such thing".to_owned()).encode_to_vec();
        let refused = Outcome::Refused("400 Bad Request: no such thing".to_owned());
        assert_eq!(of_answer(StatusCode::BAD_REQUEST, &HeaderMap::new(), &told), refused);
        let taken = Outcome::Taken { rejected: 0, why: String::new() };
        assert_eq!(of_answer(StatusCode::OK, &HeaderMap::new(), b""), taken);
    }
}
