//! Profiles of OpenTelemetry: what its Collector and its eBPF profiler send, over gRPC ([`grpc`]) and HTTP ([`http`]), and what is sent to
//! them ([`send`]). The signal is in development: this is version 1.10 of the protocol, `v1development`.

pub(crate) mod grpc;
pub(crate) mod http;
mod names;
mod read;
pub mod send;
mod status;
#[cfg(test)]
mod tests;

use chokepoint_proto::stream::Window;
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use prost::Message;

use self::read::{Windows, windows};
use crate::access::Proven;
use crate::clock::now_unix_ns;
use crate::ingest::{Inbox, NotTaken, Sender};

/// What agents are called that are made of who sends this.
const PROTOCOL: &str = "otlp";

/// Says which form of the messages was sent, for they are in development.
const VERSION_HEADER: &str = "otlp-profiles-development-version";
/// The form that is read here; who says nothing sends it.
const VERSION: &str = "1";

/// What is wrong with a form that is not the one that is read here.
fn other_version(said: Option<&[u8]>) -> Option<String> {
    let is_other = said.is_some_and(|said| said != VERSION.as_bytes());
    is_other.then(|| format!("{VERSION_HEADER} is not {VERSION}, which is the only one that is read here"))
}

/// An export, as a request brings it.
fn decode(bytes: &[u8]) -> Result<ExportProfilesServiceRequest, String> {
    ExportProfilesServiceRequest::decode(bytes)
        .map_err(|error| format!("this is no request to export profiles: {error}"))
}

/// The windows of what a request brings; of profiles that are not what they should be there is none.
///
/// # Errors
/// It is no export.
pub fn read(bytes: &[u8], now_unix_ns: u64) -> Result<Vec<Window>, String> {
    let Windows { windows, .. } = windows(&decode(bytes)?, now_unix_ns);
    Ok(windows.into_iter().map(|(_, window)| window).collect())
}

/// Stores what was sent. What is refused for good is told in the answer, as the protocol has it, and what else there is stored all the same.
///
/// # Errors
/// Nothing more can be stored now: all of it is to come again, and what is there is not stored twice.
async fn export(
    inbox: &Inbox,
    proven: &Proven,
    request: ExportProfilesServiceRequest,
) -> Result<ExportProfilesServiceResponse, NotTaken> {
    let read = tokio::task::spawn_blocking(move || windows(&request, now_unix_ns())).await;
    let Windows { windows, profiles, mut refused, mut why } = read.map_err(|error| {
        tracing::error!(%error, "a request was not read");
        NotTaken::Failed
    })?;
    for (of, window) in windows {
        let sender = Sender { protocol: PROTOCOL, host: of.host, labels: Vec::new() };
        match inbox.take(proven, &sender, &window, of.profiles).await {
            Ok(_) => {}
            Err(NotTaken::Refused(reason)) => {
                refused += of.profiles;
                why.get_or_insert(reason);
            }
            // Counted when it comes again.
            Err(error) => return Err(error),
        }
    }
    inbox.count(profiles, refused);
    let partial = (refused > 0).then(|| ExportProfilesPartialSuccess {
        rejected_profiles: i64::try_from(refused).unwrap_or(i64::MAX),
        error_message: why.unwrap_or_default(),
    });
    Ok(ExportProfilesServiceResponse { partial_success: partial })
}
