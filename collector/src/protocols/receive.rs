//! What requests have in common by which profiles are sent over HTTP.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::connect::gunzip;
use crate::access::Proven;
use crate::api::not_from_elsewhere;
use crate::ingest::{Inbox, MAX_REQUEST_BYTES, NotTaken};

/// How long a request's body may take to come.
const MAX_BODY_TIME: Duration = Duration::from_secs(30);

/// What was sent is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn other(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<NotTaken> for Refusal {
    fn from(error: NotTaken) -> Self {
        let status = match &error {
            NotTaken::Denied(denied) if denied.is_unauthenticated() => StatusCode::UNAUTHORIZED,
            NotTaken::Denied(_) => StatusCode::FORBIDDEN,
            NotTaken::Refused(_) => StatusCode::BAD_REQUEST,
            NotTaken::Busy | NotTaken::Failed => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self { status, message: error.to_string() }
    }
}

/// What who sends has proven. A page of another site that has a browser send proves nothing.
///
/// # Errors
/// It may not send.
pub(super) fn proven(inbox: &Inbox, headers: &HeaderMap) -> Result<Proven, Refusal> {
    if not_from_elsewhere(headers, false).is_err() {
        return Err(Refusal::other(StatusCode::FORBIDDEN, "a page of another site cannot send profiles"));
    }
    let authorization = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    Ok(inbox.proven(authorization, None)?)
}

/// The request's body, uncompressed.
///
/// # Errors
/// It does not come, or is too long.
pub(super) async fn body(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let encoding = headers.get(CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    let is_gzip = match encoding {
        "" | "identity" => false,
        "gzip" => true,
        other => {
            let message = format!("{other:?} is not understood: compress with gzip, or not at all");
            return Err(Refusal::other(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    let most = chokepoint_analysis::units::bytes(MAX_REQUEST_BYTES as u64);
    let too_long = || {
        let message = format!("this is longer than {most}, or broke off: send less at once");
        Refusal::other(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    let whole = timeout(MAX_BODY_TIME, Limited::new(body, MAX_REQUEST_BYTES).collect()).await;
    let whole = whole.map_err(|_| Refusal::other(StatusCode::REQUEST_TIMEOUT, "it did not come in time"))?;
    let whole = whole.map_err(|_| too_long())?.to_bytes();
    if !is_gzip {
        return Ok(whole.to_vec());
    }
    gunzip(&whole, MAX_REQUEST_BYTES).map_err(|fault| Refusal::other(StatusCode::BAD_REQUEST, fault.message))
}
