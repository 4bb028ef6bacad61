//! Grafana's Pyroscope: what its data source asks. A profile type of ours is one of theirs by another name ([`types`]), a query one of ours
//! ([`querier`]), and its flame graph is written as theirs ([`flame`]).

mod flame;
mod push;
mod querier;
#[cfg(test)]
mod tests;
mod types;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use prost::{Message, Name};

pub(crate) use self::push::add_to as add_pushes_to;
pub use self::push::{read_ingest, read_push};
use self::querier::Asking;
use super::connect::{Call, Codec, Fault, refusal};
use crate::api::{Answer, Door, Refused, response, too_long};
use crate::clock::now_unix_ns;
use crate::query::limits::Limits;
use crate::store::{Asker, Store};

/// Where the service is that the data source calls.
pub(crate) const QUERIER: &str = "/querier.v1.QuerierService/";
/// Bytes of a question at most: the longest selector in each of some fields.
const MAX_QUESTION_BYTES: usize = 64 << 10;

/// Adds what the data source asks.
pub(crate) fn add_queries_to(router: Router, door: &Door) -> Router {
    let door = door.clone();
    let ask = move |request: Request| {
        let door = door.clone();
        async move { answer(&door, request).await.unwrap_or_else(|fault| refusal(&fault)) }
    };
    router.route(&format!("{QUERIER}{{method}}"), any(ask))
}

/// Answers a call of this name, as its request's body has it.
///
/// # Errors
/// What who calls is told.
pub fn answer_call(
    store: &dyn Store,
    limits: &Limits,
    name: &str,
    codec: Codec,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let asking = Asking { store, limits, now_unix_ns: now_unix_ns(), asker: Asker::default() };
    let method = Method::of(name).ok_or_else(|| format!("{name:?} is not answered here"))?;
    method.answer(&asking, &Call { codec, bytes }).map_err(|fault| fault.message)
}

async fn answer(door: &Door, request: Request) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    let method = head.uri.path().strip_prefix(QUERIER).unwrap_or_default();
    let method = Method::of(method).ok_or_else(|| {
        Fault::unimplemented(format!("{method:?} is not answered here: docs/protocols.md lists what is"))
    })?;
    let call = Call::read(&head.method, &head.headers, body, MAX_QUESTION_BYTES).await?;
    let codec = call.codec;
    let (store, limits) = (door.store.clone(), door.limits.clone());
    let asker = Asker::default();
    // Until the time is over, or the client has gone.
    let _waiting = asker.wait();
    let work = move || {
        let asking =
            Asking { store: &*store, limits: &limits, now_unix_ns: now_unix_ns(), asker: asker.clone() };
        let answered = method.answer(&asking, &call);
        let bytes = match answered {
            // These messages have no place where it could be said.
            Ok(_) if !asker.missing().is_empty() => Err(Refused::Failed(asker.missing().join("; ")).into()),
            Ok(bytes) if bytes.len() > limits.max_answer_bytes => Err(too_long(&limits).into()),
            answered => answered,
        };
        // Faults are Connect's, not ours: they come back beside the answer.
        Ok(bytes)
    };
    let bytes = door.in_turn(work).await??;
    let answer = Answer { content_type: codec.content_type(), file_name: None, bytes, room: None };
    Ok(response(Ok(door.with_room(answer)?)))
}

/// What can be asked.
#[derive(Clone, Copy)]
enum Method {
    ProfileTypes,
    LabelNames,
    LabelValues,
    SelectSeries,
    SelectMergeStacktraces,
    SelectMergeSpanProfile,
}

impl Method {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "ProfileTypes" => Self::ProfileTypes,
            "LabelNames" => Self::LabelNames,
            "LabelValues" => Self::LabelValues,
            "SelectSeries" => Self::SelectSeries,
            "SelectMergeStacktraces" => Self::SelectMergeStacktraces,
            "SelectMergeSpanProfile" => Self::SelectMergeSpanProfile,
            _ => return None,
        })
    }

    fn answer(self, asking: &Asking<'_>, call: &Call) -> Result<Vec<u8>, Fault> {
        match self {
            Self::ProfileTypes => answered(asking, call, querier::profile_types),
            Self::LabelNames => answered(asking, call, querier::label_names),
            Self::LabelValues => answered(asking, call, querier::label_values),
            Self::SelectSeries => answered(asking, call, querier::select_series),
            Self::SelectMergeStacktraces => answered(asking, call, querier::select_merge_stacktraces),
            Self::SelectMergeSpanProfile => querier::select_merge_span_profile(),
        }
    }
}

fn answered<Q: Message + Name + Default, A: Message + Name>(
    asking: &Asking<'_>,
    call: &Call,
    answer: fn(&Asking<'_>, Q) -> Result<A, Fault>,
) -> Result<Vec<u8>, Fault> {
    let codec: Codec = call.codec;
    codec.write(&answer(asking, call.message()?)?)
}

impl From<crate::store::StoreError> for Fault {
    fn from(error: crate::store::StoreError) -> Self {
        Refused::Query(error.into()).into()
    }
}
