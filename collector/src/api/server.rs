//! Takes connections and has the router answer them, within bounds that a slow or greedy client cannot exceed.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::caller::Peer;
use super::impatient::Impatient;
use crate::ingest::Count;
use crate::listen::Door;

/// How long a client may take to send a request's head, and a connection may idle between requests.
const MAX_HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head: the longest parameters and some headers.
const MAX_HEAD_BYTES: usize = super::parameters::MAX_BYTES + (16 << 10);
/// How long a client may take none of its answer.
const MAX_WRITE_TIME: Duration = Duration::from_secs(30);
/// How long requests that are under way may take to end when the server does.
const MAX_FAREWELL: Duration = Duration::from_secs(5);
/// Serves until `shutdown` ends, then lets requests under way end.
pub async fn serve(door: Door, router: Router, shutdown: impl Future<Output = ()>) {
    let counts = Arc::clone(door.counts());
    let connections = GracefulShutdown::new();
    let mut handshakes = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let connection = tokio::select! {
            () = &mut shutdown => break,
            arrival = door.next() => {
                handshakes.spawn(arrival.let_in());
                continue;
            }
            Some(ended) = handshakes.join_next() => match ended {
                Ok(Some(connection)) => connection,
                Ok(None) | Err(_) => continue,
            },
        };
        // Each request says for itself who asks; a connection has so much time for its head.
        connection.peer().is_known();
        let peer = Peer(connection.peer().address.ip());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Who has said all may close that half, and still hear the answer.
            .half_close(true)
            .header_read_timeout(MAX_HEAD_TIME)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(Impatient::new(connection, MAX_WRITE_TIME)),
                TowerToHyperService::new(router.clone().layer(Extension(peer))),
            );
        let (connection, counts) = (connections.watch(connection), Arc::clone(&counts));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                if error.is_parse() {
                    counts.add(Count::RequestsMalformed);
                }
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(door);
    if timeout(MAX_FAREWELL, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}
