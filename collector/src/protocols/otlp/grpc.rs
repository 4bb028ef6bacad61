//! OTLP over gRPC, at the address of agents.

use std::convert::Infallible;
use std::task::{Context, Poll};

use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_server::{
    ProfilesService, ProfilesServiceServer,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::HeaderValue;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};

use super::{VERSION_HEADER, export, other_version};
use crate::access::Proven;
use crate::ingest::{Inbox, MAX_REQUEST_BYTES, NotTaken};
use crate::listen::Peer;

/// How calls end whose message could be read.
const OF_THE_SERVICE: [Code; 4] =
    [Code::Ok, Code::Unavailable, Code::Unauthenticated, Code::PermissionDenied];

/// Takes in what is exported.
pub(crate) fn service(inbox: Inbox) -> Admitting<ProfilesServiceServer<impl ProfilesService>> {
    let profiles = ProfilesServiceServer::new(Profiles(inbox.clone()))
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .accept_compressed(CompressionEncoding::Gzip);
    Admitting { inbox, inner: profiles }
}

/// Asks who is there, and waits for room, before a message is read: that is done before the service itself learns of a call.
#[derive(Clone)]
pub(crate) struct Admitting<S> {
    inbox: Inbox,
    inner: S,
}

impl<S: NamedService> NamedService for Admitting<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Admitting<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let inbox = self.inbox.clone();
        // The one that is ready, and another for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let proven = match who(&inbox, &request) {
                Ok(proven) => proven,
                Err(error) => return Ok(status(error).into_http()),
            };
            request.extensions_mut().insert(proven);
            match inbox.room().await {
                // It is kept until the answer is there.
                Ok(_room) => {
                    let answer = inner.call(request).await?;
                    // The service refuses nothing by this: it tells what it refuses in its answer.
                    let status = Status::from_header_map(answer.headers());
                    if status.is_some_and(|status| !OF_THE_SERVICE.contains(&status.code())) {
                        inbox.refuse_message();
                    }
                    Ok(answer)
                }
                Err(error) => Ok(status(error).into_http()),
            }
        })
    }
}

/// What who calls has proven.
fn who(inbox: &Inbox, request: &http::Request<Body>) -> Result<Proven, NotTaken> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let peer = request.extensions().get::<Peer>();
    let proven = inbox.proven(header("authorization"), peer)?;
    if let Some(peer) = peer {
        peer.is_known();
    }
    if let Some(why) = other_version(header(VERSION_HEADER)) {
        return Err(NotTaken::Refused(why));
    }
    Ok(proven)
}

/// The service.
struct Profiles(Inbox);

#[tonic::async_trait]
impl ProfilesService for Profiles {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let proven =
            extensions.get::<Proven>().ok_or_else(|| Status::internal("nobody was asked who is there"))?;
        export(&self.0, proven, request).await.map(Response::new).map_err(status)
    }
}

/// A status by which senders know whether to send again.
fn status(error: NotTaken) -> Status {
    match &error {
        NotTaken::Denied(denied) if denied.is_unauthenticated() => Status::unauthenticated(format!(
            "{denied}: send one of the role agent as \"authorization: Bearer TOKEN\""
        )),
        NotTaken::Denied(denied) => Status::permission_denied(denied.to_string()),
        NotTaken::Refused(why) => Status::invalid_argument(why.clone()),
        NotTaken::Busy | NotTaken::Failed => Status::unavailable(error.to_string()),
    }
}
