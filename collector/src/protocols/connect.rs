//! Calls as the Connect protocol has them: one message in the body of a POST, as Protocol Buffers or JSON, and one in the answer's; an error is
//! JSON with a code and a status. <https://connectrpc.com/docs/protocol>

use std::io::Read;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use chokepoint_proto::json;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, Limited};
use prost::{Message, Name};
use serde::Serialize;
use tokio::time::timeout;

use crate::access::Denied;
use crate::api::{self, Refused};
use crate::query::QueryError;

/// How long a message may take to come.
const MAX_BODY_TIME: Duration = Duration::from_secs(10);

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Protocol Buffers' own form.
    Proto,
    /// JSON, as Protocol Buffers have it.
    Json,
}

/// What is wrong with a call, by the names that Connect has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    InvalidArgument,
    NotFound,
    Unimplemented,
    ResourceExhausted,
    DeadlineExceeded,
    Unavailable,
    Unauthenticated,
    PermissionDenied,
    Internal,
}

/// A call that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    /// For people: what is wrong, and what to do.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let (status, _, message) = api::told(&refused);
        let code = match status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
            status if status.is_server_error() => Code::Internal,
            _ => Code::InvalidArgument,
        };
        Self { code, message }
    }
}

impl From<QueryError> for Fault {
    fn from(error: QueryError) -> Self {
        Refused::Query(error).into()
    }
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidArgument => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A request's message as it came.
pub(crate) struct Call {
    pub(crate) codec: Codec,
    pub(crate) bytes: Vec<u8>,
}

impl Call {
    /// Reads a call of at most so many bytes, uncompressed.
    ///
    /// # Errors
    /// It is none, or too long.
    pub(crate) async fn read(
        method: &Method,
        headers: &HeaderMap,
        body: Body,
        max_bytes: usize,
    ) -> Result<Self, Fault> {
        if method != Method::POST {
            return Err(Fault::unimplemented("calls are made with POST"));
        }
        let codec = codec(headers)?;
        let text = |name| headers.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap_or("?"));
        let is_gzip = match text(CONTENT_ENCODING) {
            "" | "identity" => false,
            "gzip" => true,
            other => {
                let message = format!("{other:?} is not understood: compress with gzip, or not at all");
                return Err(Fault::unimplemented(message));
            }
        };
        let body = timeout(MAX_BODY_TIME, Limited::new(body, max_bytes).collect()).await;
        let body =
            body.map_err(|_| Fault::new(Code::DeadlineExceeded, "the message did not come in time"))?;
        let body = body.map_err(|_| too_long(max_bytes))?.to_bytes();
        let bytes = if is_gzip { gunzip(&body, max_bytes)? } else { body.to_vec() };
        Ok(Self { codec, bytes })
    }

    /// The message.
    ///
    /// # Errors
    /// What is there is another one.
    pub(crate) fn message<M: Message + Name + Default>(&self) -> Result<M, Fault> {
        self.codec.read(&self.bytes)
    }
}

fn no_message<M: Name>(error: &dyn std::error::Error) -> Fault {
    Fault::invalid(format!("this is no {}: {error}", M::full_name()))
}

fn too_long(max_bytes: usize) -> Fault {
    let most = chokepoint_analysis::units::bytes(max_bytes as u64);
    Fault::new(Code::ResourceExhausted, format!("the message is longer than {most}, or broke off"))
}

fn codec(headers: &HeaderMap) -> Result<Codec, Fault> {
    let content_type = headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Codec::Json),
        "application/proto" => Ok(Codec::Proto),
        _ => {
            let message =
                "send application/proto or application/json: only single calls of Connect are answered here";
            Err(Fault::unimplemented(message))
        }
    }
}

/// Uncompresses so many bytes, and no more.
pub(crate) fn gunzip(bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, Fault> {
    let mut plain = Vec::new();
    let limit = max_bytes as u64 + 1;
    MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut plain)
        .map_err(|error| Fault::invalid(format!("what came is not gzipped: {error}")))?;
    if plain.len() > max_bytes { Err(too_long(max_bytes)) } else { Ok(plain) }
}

impl Codec {
    /// A question's message.
    ///
    /// # Errors
    /// What is there is another one.
    pub(crate) fn read<M: Message + Name + Default>(self, bytes: &[u8]) -> Result<M, Fault> {
        match self {
            Self::Proto => M::decode(bytes).map_err(|error| no_message::<M>(&error)),
            Self::Json => json::decode(bytes).map_err(|error| no_message::<M>(&error)),
        }
    }

    /// The answer's message.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write<M: Message + Name>(self, message: &M) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Proto => Ok(message.encode_to_vec()),
            Self::Json => json::encode(message).map_err(|error| {
                tracing::error!(%error, "an answer cannot be written");
                Fault::new(Code::Internal, "the answer cannot be written: the collector's log says why")
            }),
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Proto => "application/proto",
            Self::Json => "application/json",
        }
    }
}

/// A fault as it goes out.
pub(crate) fn refusal(fault: &Fault) -> Response {
    let bytes = serde_json::to_vec(fault).unwrap_or_default();
    let mut response = Response::new(Body::from(Bytes::from(bytes)));
    *response.status_mut() = fault.code.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What somebody is answered who may not call.
pub(crate) fn denied(denied: Denied) -> Response {
    let mut response = refusal(&Refused::Denied(denied.clone()).into());
    // For who counts them.
    response.extensions_mut().insert(denied);
    response
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn what_is_uncompressed_is_bounded() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[0; 4096]).expect("it is in memory");
        let bytes = encoder.finish().expect("it is in memory");
        assert_eq!(gunzip(&bytes, 4096).expect("all of it").len(), 4096);
        assert_eq!(gunzip(&bytes, 4095).expect_err("too long").code, Code::ResourceExhausted);
        assert_eq!(gunzip(&bytes[..20], 4096).expect_err("cut").code, Code::InvalidArgument);
    }
}
