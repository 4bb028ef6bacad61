//! Who may ask: everything below `/api`, and the metrics, are for readers; what a handler asks for beyond that it asks the [`Caller`], which
//! is an extension of each request.

use std::sync::Arc;

use axum::extract::{Extension, Request};
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, http};
use serde::Serialize;

use super::answer::{Answer, Refused, response};
use super::endpoints::JSON;
use crate::access::{Access, Caller, Denied, Role};
use crate::ingest::{Count, Counts};
use crate::protocols;

/// Where a caller learns who it is, and whether it has to say so.
pub(super) const PATH: &str = "/api/v1/access";

/// A router that answers only callers who may ask. Each request has its [`Caller`] from here on.
pub fn only_for_callers(router: Router, access: Arc<Access>, counts: Arc<Counts>) -> Router {
    router.layer(from_fn(move |mut request: Request, next: Next| {
        let result = caller(&access, &request);
        let (asks_for_tokens, counts) = (AsksForTokens(access.asks_for_tokens()), Arc::clone(&counts));
        async move {
            let path = request.uri().path().to_owned();
            let mut answer = match result {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    request.extensions_mut().insert(asks_for_tokens);
                    next.run(request).await
                }
                Err(denied) => protocols::denied(&path, denied),
            };
            // Here, or by a handler that asks for more.
            if let Some(denied) = answer.extensions_mut().remove::<Denied>() {
                let is_unknown = denied.is_unauthenticated();
                counts.add(if is_unknown {
                    Count::RequestsUnauthenticated
                } else {
                    Count::RequestsForbidden
                });
                tracing::debug!(path, why = %denied, "a request is refused");
            } else if answer.status().is_client_error() {
                counts.add(Count::RequestsRefused);
            }
            answer
        }
    }))
}

/// Who asks, if the path is for them.
fn caller(access: &Access, request: &Request) -> Result<Caller, Denied> {
    let path = request.uri().path();
    let authorization = request.headers().get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
    let is_answer = path == "/metrics" || path.starts_with("/metrics/") || path.starts_with("/api/");
    let caller = access.caller(authorization);
    let Some(role) = protocols::role(path).or(is_answer.then_some(Role::Reader)) else {
        // What a browser's user has given it for something else is none of this.
        return Ok(caller.unwrap_or_else(|_| Caller::nobody()));
    };
    let caller = caller?;
    if path != PATH {
        caller.require(role)?;
    }
    Ok(caller)
}

/// Whether tokens are asked for.
#[derive(Clone, Copy)]
pub(super) struct AsksForTokens(bool);

/// Who asks.
#[derive(Serialize)]
struct Told<'c> {
    /// Whether a token is asked for. Where it is not, everybody has every role.
    asks_for_tokens: bool,
    /// The name of the caller's token.
    name: Option<&'c str>,
    /// What the caller may do: `agent`, `reader`, `operator`.
    roles: Vec<Role>,
}

/// Tells a caller who it is.
pub(super) async fn answer(
    Extension(caller): Extension<Caller>,
    Extension(AsksForTokens(asks_for_tokens)): Extension<AsksForTokens>,
) -> Response {
    let roles = Role::ALL.into_iter().filter(|role| caller.may(*role)).collect();
    let told = Told { asks_for_tokens, name: caller.name(), roles };
    let bytes = serde_json::to_vec(&told).map_err(|error| Refused::Failed(error.to_string()));
    response(bytes.map(|bytes| Answer { content_type: JSON, file_name: None, bytes, room: None }))
}
