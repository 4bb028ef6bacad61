//! The way to the collector: a connection, with TLS or without, and what went wrong on it in words that help.
//!
//! With TLS 1.3 a client is through with its handshake before the collector has looked at its certificate: that it is refused is in what is
//! read later, and comes out of the layers above as a broken connection. So the connection itself takes note of the first thing that goes wrong.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use chokepoint_tls::{Client, Stream, explain};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::{Ended, KEEP_ALIVE, PATIENCE, Target};
use crate::failure::with_causes;

/// Who speaks HTTP/1 speaks no gRPC: the collector says so at its own door, if it is not spoken to by TLS.
const HTTP_1: &[u8] = b"HTTP/1.";

/// A connection to the collector, and what is shown on it.
pub(super) struct Way {
    pub(super) channel: Channel,
    authorization: Option<MetadataValue<Ascii>>,
    trouble: Trouble,
}

/// Connects.
pub(super) async fn connect(to: &Target) -> Result<Way, Ended> {
    let tls = to.credentials.tls(&to.collector).map_err(Ended::Connect)?;
    let authorization = to.credentials.authorization().map_err(Ended::Connect)?;
    let trouble = Trouble::default();
    let failed = |error: tonic::transport::Error| {
        Ended::Connect(trouble.told().unwrap_or_else(|| with_causes(&error)))
    };
    let noting = trouble.clone();
    let connector = service_fn(move |uri: Uri| {
        let (tls, trouble) = (tls.clone(), noting.clone());
        async move { open(&uri, tls.as_ref(), trouble).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_shared(to.collector.clone())
        .map_err(failed)?
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(failed)?;
    Ok(Way { channel, authorization, trouble })
}

impl Way {
    /// The call that begins a stream.
    pub(super) fn request<M>(&self, messages: M) -> Request<M> {
        let mut request = Request::new(messages);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Why a stream has ended: what went wrong on the connection, else what the collector says.
    pub(super) fn ended(&self, status: &tonic::Status) -> Ended {
        match self.trouble.told() {
            Some(trouble) => Ended::Connect(trouble),
            None => Ended::Status(format!("{}: {}", status.code(), status.message())),
        }
    }
}

async fn open(uri: &Uri, tls: Option<&Client>, trouble: Trouble) -> io::Result<Noting> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let usual_port = if tls.is_some() { 443 } else { 80 };
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(usual_port))).await?;
    // Answers are small and waited for.
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Noting { stream: Box::new(stream), trouble, is_first: true });
    };
    let stream = tls.connect(stream, host).await.inspect_err(|error| trouble.note(error.to_string()))?;
    Ok(Noting { stream: Box::new(stream), trouble, is_first: false })
}

/// The first thing that went wrong.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
    }

    fn told(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A connection that takes note of what goes wrong.
struct Noting {
    stream: Box<dyn Stream>,
    trouble: Trouble,
    /// Whether nothing was read yet that tells what the other end speaks.
    is_first: bool,
}

impl Noting {
    fn noted<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            self.trouble.note(explain(error));
        }
        result
    }

    /// Of a write that failed: the other end may have said why before it hung up.
    fn heard<T>(&mut self, result: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Err(_))) {
            let mut said = [0; 512];
            let read = Pin::new(&mut self.stream).poll_read(context, &mut ReadBuf::new(&mut said));
            let _ = self.noted(read);
        }
        self.noted(result)
    }
}

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let new = &buffer.filled()[before..];
        if self.is_first && !new.is_empty() {
            self.is_first = false;
            if new.starts_with(HTTP_1) {
                let what =
                    "what listens there speaks HTTP/1: is it https:// there, or the address of queries?";
                self.trouble.note(what.to_owned());
            }
        }
        self.noted(read)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.heard(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.heard(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.heard(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
