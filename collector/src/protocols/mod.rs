//! The protocols of the field: other programs ask and send as they ask and send those whose protocol it is. What they ask is answered by the
//! same queries as our own, and what they send goes the same way as what our agents send.

mod connect;
pub mod otlp;
pub mod pyroscope;
mod receive;
mod sent;

use axum::Router;
use axum::response::Response;

pub use self::connect::Codec;
use crate::access::{Denied, Role};
use crate::api::{self, Refused};
use crate::ingest::Inbox;

/// The role that a path of one of these protocols takes; `None`: it is of none of them, or asks for it itself.
pub(crate) fn role(path: &str) -> Option<Role> {
    path.starts_with(pyroscope::QUERIER).then_some(Role::Reader)
}

/// What somebody is answered who may not have what this path has, in the form of its protocol.
pub(crate) fn denied(path: &str, denied: Denied) -> Response {
    if path.starts_with(pyroscope::QUERIER) {
        return connect::denied(denied);
    }
    api::response(Err(Refused::Denied(denied)))
}

/// Adds what other programs send profiles to. Who sends is asked for what agents are asked for.
pub(crate) fn add_pushes_to(router: Router, inbox: &Inbox) -> Router {
    otlp::http::add_to(pyroscope::add_pushes_to(router, inbox), inbox)
}
