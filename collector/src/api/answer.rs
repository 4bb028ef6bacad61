//! Answers and errors as HTTP has them.

use std::io::{self, Write};

use axum::body::{Body, Bytes};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::endpoints::{HTML, JSON, SVG};
use crate::access::Denied;
use crate::control::Refusal;
use crate::query::QueryError;
use crate::query::limits::Limits;

/// Nothing in an answer is to be run or loaded by a browser that shows it.
const NOTHING_RUNS: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// A picture runs the script by which a click zooms in, as a page of no origin: it reaches nothing here. Reports have pictures.
const PICTURE_RUNS: &str = "default-src 'none'; frame-ancestors 'none'; sandbox allow-scripts; \
    script-src 'unsafe-inline'; style-src 'unsafe-inline'";
/// Seconds after which to ask again where too much is asked.
const RETRY_AFTER_S: u64 = 2;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) content_type: &'static str,
    /// The name under which a browser keeps it.
    pub(crate) file_name: Option<String>,
    pub(crate) bytes: Vec<u8>,
    /// What it takes of the room for answers that are not sent yet.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// An answer's bytes, with the room that they take until the last of them is sent.
struct Unsent {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why there is none.
#[derive(Debug)]
pub(crate) enum Refused {
    Query(QueryError),
    /// Too many queries at a time.
    Busy,
    TooSlow,
    NoSuchPath,
    OnlyGet,
    /// Nothing is done by this method here.
    OtherMethod,
    /// What is asked for did not come, or is too long.
    NoBody,
    /// It is not JSON.
    NotJson,
    /// A page of another site asks.
    FromElsewhere,
    /// No profile on demand.
    Demand(Refusal),
    /// It is for a name that the collector does not have.
    OtherHost,
    /// Who asks may not.
    Denied(Denied),
    /// Something that should not happen.
    Failed(String),
}

/// An error as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// The error.
    pub error: ErrorShown,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorShown {
    /// For programs: `bad_query`, `too_large`, `not_found`, `method_not_allowed`, `busy`, `too_slow`,
    /// `other_host`, `unauthenticated`, `forbidden`, `failed`; of profiles on demand also `bad_request`, `ambiguous`, `not_done`, `too_many`,
    /// `unavailable`.
    pub code: String,
    /// For people: what is wrong, and what to do.
    pub message: String,
}

/// An answer in JSON.
pub(super) fn json(value: &impl Serialize, limits: &Limits) -> Result<Answer, QueryError> {
    let mut bounded = Bounded { bytes: Vec::new(), most: limits.max_answer_bytes };
    match serde_json::to_writer(&mut bounded, value) {
        Ok(()) => Ok(Answer { content_type: JSON, file_name: None, bytes: bounded.bytes, room: None }),
        Err(_) => Err(too_long(limits)),
    }
}

pub(crate) fn too_long(limits: &Limits) -> QueryError {
    let most = chokepoint_analysis::units::bytes(limits.max_answer_bytes as u64);
    QueryError::TooLarge(format!("the answer is longer than {most}: ask for less time, or fewer things"))
}

/// Takes so many bytes and no more.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What goes out.
pub(crate) fn response(result: Result<Answer, Refused>) -> Response {
    let wanted = result.as_ref().err().and_then(wanted);
    let denied = match &result {
        Err(Refused::Denied(denied)) => Some(denied.clone()),
        _ => None,
    };
    let (status, answer) = match result {
        Ok(answer) => (StatusCode::OK, answer),
        Err(refused) => error(&refused),
    };
    let bytes = Bytes::from_owner(Unsent { bytes: answer.bytes, _room: answer.room });
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    // For who counts them.
    if let Some(denied) = denied {
        response.extensions_mut().insert(denied);
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Some(name) = answer.file_name
        && let Ok(value) = HeaderValue::from_str(&format!("inline; filename=\"{name}\""))
    {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    let policy = if [SVG, HTML].contains(&answer.content_type) { PICTURE_RUNS } else { NOTHING_RUNS };
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let same_origin = HeaderName::from_static("cross-origin-resource-policy");
    headers.insert(same_origin, HeaderValue::from_static("same-origin"));
    if let Some(wanted) = wanted {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(wanted));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

/// What a client is to send, in the words of HTTP.
fn wanted(refused: &Refused) -> Option<&'static str> {
    let Refused::Denied(denied) = refused else { return None };
    match denied {
        Denied::NoToken => Some("Bearer realm=\"chokepoint\""),
        denied if denied.is_unauthenticated() => Some("Bearer realm=\"chokepoint\", error=\"invalid_token\""),
        _ => None,
    }
}

fn error(refused: &Refused) -> (StatusCode, Answer) {
    let (status, code, message) = told(refused);
    let shown = ErrorAnswer { error: ErrorShown { code: code.to_owned(), message } };
    let bytes = serde_json::to_vec(&shown).unwrap_or_default();
    (status, Answer { content_type: JSON, file_name: None, bytes, room: None })
}

/// The status, the code and the message of a refusal. What the collector's operator has to know of it is logged.
pub(crate) fn told(refused: &Refused) -> (StatusCode, &'static str, String) {
    match refused {
        Refused::Query(QueryError::Bad(message)) => (StatusCode::BAD_REQUEST, "bad_query", message.clone()),
        Refused::Query(QueryError::TooLarge(message)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "too_large", message.clone())
        }
        Refused::Query(QueryError::NotFound(message)) => {
            (StatusCode::NOT_FOUND, "not_found", message.clone())
        }
        Refused::Query(QueryError::Failed(error)) => {
            tracing::error!(error = error as &dyn std::error::Error, "a query failed");
            let message = "the store cannot be read: the collector's log says why".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
        }
        Refused::Busy => {
            let message = format!("too many queries at a time: ask again in {RETRY_AFTER_S} s");
            (StatusCode::SERVICE_UNAVAILABLE, "busy", message)
        }
        Refused::TooSlow => {
            let message = "the query took too long: ask for less time, or for fewer hosts".to_owned();
            (StatusCode::GATEWAY_TIMEOUT, "too_slow", message)
        }
        Refused::NoSuchPath => {
            let message = "there is no such path: /api/v1/openapi.json lists those there are".to_owned();
            (StatusCode::NOT_FOUND, "not_found", message)
        }
        Refused::OnlyGet => {
            (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "queries are asked with GET".to_owned())
        }
        Refused::OtherMethod => {
            let message = "that cannot be done here: /api/v1/openapi.json says what can".to_owned();
            (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        }
        Refused::NoBody => {
            let message = "what is asked for did not come in time, or is longer than 64 KiB".to_owned();
            (StatusCode::BAD_REQUEST, "bad_request", message)
        }
        Refused::NotJson => {
            let message = "send what you ask for as JSON, with Content-Type: application/json".to_owned();
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request", message)
        }
        Refused::FromElsewhere => {
            let message = "a page of another site cannot have this done".to_owned();
            (StatusCode::FORBIDDEN, "forbidden", message)
        }
        Refused::Demand(refusal) => {
            let (status, code) = match refusal {
                Refusal::Bad(_) => (StatusCode::BAD_REQUEST, "bad_request"),
                Refusal::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
                Refusal::Ambiguous(_) => (StatusCode::CONFLICT, "ambiguous"),
                Refusal::NotDone(_) => (StatusCode::CONFLICT, "not_done"),
                Refusal::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many"),
                Refusal::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
                Refusal::Store(error) => {
                    tracing::error!(error = error as &dyn std::error::Error, "a target was not found");
                    (StatusCode::INTERNAL_SERVER_ERROR, "failed")
                }
            };
            let message = match refusal {
                Refusal::Store(_) => "the store cannot be read: the collector's log says why".to_owned(),
                told => told.to_string(),
            };
            (status, code, message)
        }
        Refused::OtherHost => {
            let message = "the collector does not have this name: ask it by its address, or let its operator allow the name";
            (StatusCode::MISDIRECTED_REQUEST, "other_host", message.to_owned())
        }
        Refused::Denied(denied) if denied.is_unauthenticated() => {
            let message = format!("{denied}: send one as the header \"Authorization: Bearer TOKEN\"");
            (StatusCode::UNAUTHORIZED, "unauthenticated", message)
        }
        Refused::Denied(denied) => (StatusCode::FORBIDDEN, "forbidden", denied.to_string()),
        Refused::Failed(what) => {
            tracing::error!(what, "a query ended unexpectedly");
            let message = "the query ended unexpectedly: the collector's log says why".to_owned();
            (StatusCode::INTERNAL_SERVER_ERROR, "failed", message)
        }
    }
}
