//! The protocols of the field: other programs ask and send as they ask and send those whose protocol it is. What they ask is answered by the
//! same queries as our own.

mod connect;
pub mod pyroscope;

use axum::response::Response;

use crate::access::{Denied, Role};
use crate::api::{self, Refused};

/// The role that a path of one of these protocols takes; `None`: it is of none of them.
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
