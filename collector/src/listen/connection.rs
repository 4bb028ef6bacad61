//! A connection, in its place, with or without TLS.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use chokepoint_tls::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::Connected;

use super::strangers::Stranger;
use crate::access::Certificate;
use crate::ingest::{Count, Counts};

/// What bytes go over.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    certificate: Option<Certificate>,
}

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { stream: Box::new(stream), certificate: None }
    }

    pub(super) fn encrypted(stream: impl Stream + 'static, certificate: Option<Certificate>) -> Self {
        Self { stream: Box::new(stream), certificate }
    }
}

/// Who is at the other end.
#[derive(Clone)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// The certificate that it showed, which was checked.
    pub certificate: Option<Certificate>,
    stranger: Arc<Mutex<Option<Stranger>>>,
}

impl Peer {
    /// It is known now who it is: it may stay.
    pub fn is_known(&self) {
        drop(self.lock().take());
    }

    fn is_stranger(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Stranger>> {
        self.stranger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, in its place.
pub struct Connection {
    stream: Box<dyn Stream>,
    peer: Peer,
    /// While the other end is a stranger.
    deadline: Option<Pin<Box<Sleep>>>,
    counts: Arc<Counts>,
    /// Another may come when it goes.
    _place: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(
        wire: Wire,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        stranger: Stranger,
        until: Instant,
        counts: Arc<Counts>,
    ) -> Self {
        let Wire { stream, certificate } = wire;
        let peer = Peer { address, certificate, stranger: Arc::new(Mutex::new(Some(stranger))) };
        Self { stream, peer, deadline: Some(Box::pin(sleep_until(until))), counts, _place: place }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the other end is a stranger for too long.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else { return false };
        if !self.peer.is_stranger() {
            self.deadline = None;
            return false;
        }
        if deadline.as_mut().poll(context).is_pending() {
            return false;
        }
        self.deadline = None;
        self.counts.add(Count::StrangersSlow);
        tracing::info!(address = %self.peer.address, "a connection ended on which nobody said who it is");
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // One that was a stranger for too long was counted as that.
        if self.deadline.is_some() && self.peer.is_stranger() {
            self.counts.add(Count::StrangersGone);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.peer.address).finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
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
