//! Connections: no more at once than are accepted, so that none of the other parts lacks file descriptors.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::transport::server::Connected;

/// How long to wait where no connection can be taken, which the lack of file descriptors may cause.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A connection, in its place.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Another may come when it goes.
    _place: OwnedSemaphorePermit,
}

/// Takes connections for as long as somebody receives them. When there are `most`, the next wait in the kernel.
pub(super) fn accept(listener: TcpListener, most: usize) -> mpsc::Receiver<io::Result<Connection>> {
    // One at a time: what waits here has a place already.
    let (sender, receiver) = mpsc::channel(1);
    let places = Arc::new(Semaphore::new(most));
    tokio::spawn(async move {
        loop {
            let place = tokio::select! {
                () = sender.closed() => return,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            // The semaphore is never closed.
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Answers are small and waited for. A connection that is gone already says so later.
                    let _ = stream.set_nodelay(true);
                    if sender.send(Ok(Connection { stream, _place: place })).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    });
    receiver
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.peer_addr().ok()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
