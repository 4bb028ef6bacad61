//! OTLP over HTTP: a message in the body of a POST. Of its two forms that of Protocol Buffers; JSON is refused with a word on what to set.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use prost::Message;

use super::status::Told;
use super::{VERSION_HEADER, decode, export, other_version};
use crate::ingest::{Inbox, NotTaken};
use crate::protocols::receive::{Refusal, body, proven};

/// Where profiles are sent.
pub(crate) const PATH: &str = "/v1development/profiles";
const PROTOBUF: &str = "application/x-protobuf";
/// Seconds after which to send again what there is no room for.
const RETRY_AFTER_S: u64 = 5;

/// Adds it to a router.
pub(crate) fn add_to(router: Router, inbox: &Inbox) -> Router {
    let inbox = inbox.clone();
    let take = move |request: Request| {
        let inbox = inbox.clone();
        async move { answer(&inbox, request).await.unwrap_or_else(refused) }
    };
    router.route(PATH, any(take))
}

async fn answer(inbox: &Inbox, request: Request) -> Result<Response, Refusal> {
    let (head, sent) = request.into_parts();
    if head.method != Method::POST {
        return Err(Refusal::other(StatusCode::METHOD_NOT_ALLOWED, "profiles are sent with POST"));
    }
    if !is_protobuf(&head.headers) {
        let message = "send application/x-protobuf: JSON is not read here (encoding: proto)";
        return Err(Refusal::other(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let proven = proven(inbox, &head.headers)?;
    if let Some(why) = other_version(head.headers.get(VERSION_HEADER).map(HeaderValue::as_bytes)) {
        return Err(NotTaken::Refused(why).into());
    }
    let _room = inbox.room().await?;
    let bytes = body(&head.headers, sent).await?;
    let request = decode(&bytes).map_err(NotTaken::Refused)?;
    let told = export(inbox, &proven, request).await?;
    let mut response = Response::new(Body::from(told.encode_to_vec()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    Ok(response)
}

fn is_protobuf(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(PROTOBUF)
}

fn refused(refusal: Refusal) -> Response {
    let told = Told::new(refusal.message);
    let mut response = Response::new(Body::from(told.encode_to_vec()));
    *response.status_mut() = refusal.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}
