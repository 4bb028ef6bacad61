//! Serves `/metrics` and `/healthz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::counts::{self, Counts};
use crate::demand::OnDemand;
use crate::stream::connection::{SharedSpool, Status};
use crate::stream::symbols;

/// Connections at a time; more wait. One collector of metrics asks, and perhaps a person.
const MAX_CONNECTIONS: usize = 16;
/// For a request's head, so that nobody holds a place without asking.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told.
pub struct Pages {
    /// Numbers of the windows.
    pub counts: Arc<Counts>,
    /// How sending goes.
    pub status: Arc<Status>,
    /// What commands came to.
    pub on_demand: Arc<OnDemand>,
    /// What waits.
    pub spool: Arc<SharedSpool>,
    /// What became of symbols, where the collector names the functions of binaries.
    pub symbols: Option<Arc<symbols::Shared>>,
    /// How long the agent may be without a window before it is ill.
    pub patience: Duration,
    /// When it began.
    pub start: Instant,
}

/// Serves the pages until it is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, for example: the next attempt may find one.
                tracing::debug!(%error, "a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = pages.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            if let Ok(Err(error)) = tokio::time::timeout(2 * PATIENCE, connection).await {
                tracing::debug!(%error, "a connection for metrics");
            }
            drop(place);
        });
    }
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match (method, path) {
            (&Method::GET, "/metrics") => {
                let mut page = self.counts.page(&self.status, &self.on_demand, self.spool.lock().fill());
                if let Some(symbols) = &self.symbols {
                    page += &counts::symbols(&symbols.counts);
                }
                (StatusCode::OK, page)
            }
            (&Method::GET, "/healthz") if self.is_healthy() => (StatusCode::OK, "ok\n".to_owned()),
            (&Method::GET, "/healthz") => {
                (StatusCode::SERVICE_UNAVAILABLE, "no window was read for too long\n".to_owned())
            }
            (_, "/metrics" | "/healthz") => {
                (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned())
            }
            _ => (StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let plain = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        response
    }

    fn is_healthy(&self) -> bool {
        let last = self.counts.last_window_s.load(Ordering::Relaxed);
        self.start.elapsed().saturating_sub(Duration::from_secs(last)) < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::spool::{Limits, Spool};

    #[test]
    fn pages_by_path_and_health_by_the_last_window() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let (spool, _) = Spool::open(directory.path(), Limits::default()).expect("it can be opened");
        let mut pages = Pages {
            counts: Arc::default(),
            status: Arc::default(),
            on_demand: Arc::default(),
            spool: Arc::new(SharedSpool::new(spool)),
            symbols: None,
            patience: Duration::from_secs(60),
            start: Instant::now(),
        };
        let status = |pages: &Pages, method, path| pages.answer(&method, path).status().as_u16();
        assert_eq!(status(&pages, Method::GET, "/metrics"), 200);
        assert_eq!(status(&pages, Method::GET, "/healthz"), 200);
        assert_eq!(status(&pages, Method::POST, "/metrics"), 405);
        assert_eq!(status(&pages, Method::GET, "/"), 404);
        pages.patience = Duration::ZERO;
        assert_eq!(status(&pages, Method::GET, "/healthz"), 503);
    }
}
