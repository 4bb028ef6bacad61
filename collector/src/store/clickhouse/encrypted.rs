//! Connections with TLS, by the same rules as everybody else's in Chokepoint.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use clickhouse::Client;
use hyper::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::service_fn;

/// How long a connection that nobody uses is kept. Servers close theirs after three seconds where nobody told them otherwise.
const KEEP_IDLE: Duration = Duration::from_secs(2);
/// The port where an address has none, which none does.
const PORT: u16 = 8443;

/// A client that speaks TLS to every server.
pub(super) fn client(tls: &chokepoint_tls::Client) -> Client {
    let tls = tls.clone();
    let connector = service_fn(move |to: Uri| {
        let tls = tls.clone();
        let connect = async move { connect(&tls, &to).await.map(TokioIo::new) };
        Box::pin(connect) as Pin<Box<dyn Future<Output = io::Result<TokioIo<Encrypted>>> + Send>>
    });
    let http = HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(KEEP_IDLE).build(connector);
    Client::with_http_client(http)
}

async fn connect(tls: &chokepoint_tls::Client, to: &Uri) -> io::Result<Encrypted> {
    // An address of version 6 stands in brackets in a URL, and without them elsewhere.
    let host = to.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, to.port_u16().unwrap_or(PORT))).await?;
    stream.set_nodelay(true)?;
    Ok(Encrypted(Box::pin(tls.connect(stream, host).await?)))
}

/// A connection, as the client of HTTP wants to have it.
struct Encrypted(Pin<Box<dyn chokepoint_tls::Stream>>);

impl Connection for Encrypted {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(context, into)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(context)
    }
}
