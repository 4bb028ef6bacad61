//! Takes connections and has the router answer them, within bounds that a slow or greedy client cannot exceed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::impatient::Impatient;

/// How long a client may take to send a request's head, and a connection may idle between requests.
const MAX_HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head: the longest parameters and some headers.
const MAX_HEAD_BYTES: usize = super::parameters::MAX_BYTES + (16 << 10);
/// How long a client may take none of its answer.
const MAX_WRITE_TIME: Duration = Duration::from_secs(30);
/// How long requests that are under way may take to end when the server does.
const MAX_FAREWELL: Duration = Duration::from_secs(5);
/// How long to wait where no connection can be taken, which the lack of file descriptors may cause.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` ends, then lets requests under way end.
///
/// # Errors
/// The listener has no address any more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    max_connections: usize,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.local_addr()?;
    let places = Arc::new(Semaphore::new(max_connections));
    let connections = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, place))
        };
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            next = next => match next {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    sleep(AFTER_FAILURE).await;
                    continue;
                }
            },
        };
        // Answers are written as a whole.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(MAX_HEAD_TIME)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(
                TokioIo::new(Impatient::new(stream, MAX_WRITE_TIME)),
                TowerToHyperService::new(router.clone()),
            );
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    if timeout(MAX_FAREWELL, connections.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}
