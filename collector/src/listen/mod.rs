//! Where others connect: takes connections, speaks TLS where that is configured, and bounds what strangers may take.
//!
//! Who has connected is a **stranger** until it is known who it is: [`Door`] has so many places for strangers, fewer for those of one address, and
//! so much time for each. So nobody who merely connects, or stops in the middle of a handshake, keeps others from being heard.

mod connection;
mod strangers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chokepoint_tls::{Server, dns_names};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::connection::Wire;
use self::strangers::{Stranger, Strangers};
use crate::access::{Certificate, FromFiles};
use crate::ingest::{Count, Counts};

pub use self::connection::{Connection, Peer};

/// How long somebody may be a stranger: for the handshake of TLS, and to an agent's first stream.
const STRANGER_FOR: Duration = Duration::from_secs(10);
/// How long to wait where no connection can be taken, which the lack of file descriptors may cause.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// How long a client may take to hear why it is refused.
const FAREWELL: Duration = Duration::from_secs(1);
/// What TLS begins with: the type of a record that has a handshake.
const HANDSHAKE: u8 = 22;
/// Bytes that are read of who speaks what is not spoken here: the end of a connection with unread bytes would take the answer with it.
const FIRST_BYTES: usize = 4 << 10;
/// What is told to who speaks HTTP where TLS is spoken. To HTTP/2 nothing can be told in words.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"speak_tls\",\"message\":\"TLS is spoken here: ask https://\"}}";

/// What is told to who speaks TLS where that is not spoken: it is seen to be none.
const SPEAK_PLAINLY: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";

/// Where others connect.
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    strangers: Strangers,
    tls: Option<Arc<FromFiles<Server>>>,
    counts: Arc<Counts>,
}

impl Door {
    /// A door for `most` connections at once. `tls`: what is spoken; `None`: nothing is encrypted.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        most: usize,
        tls: Option<Arc<FromFiles<Server>>>,
        counts: Arc<Counts>,
    ) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(most)), strangers: Strangers::new(), tls, counts }
    }

    /// Where what happens here is counted.
    #[must_use]
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The next that connects. Where all places are taken, or all of strangers, the next wait in the kernel.
    pub async fn next(&self) -> Arrival {
        loop {
            // Neither is ever closed.
            let (Ok(place), Ok(room)) =
                (Arc::clone(&self.places).acquire_owned().await, self.strangers.room().await)
            else {
                std::future::pending().await
            };
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            let Some(stranger) = self.strangers.enter(address.ip(), room) else {
                self.counts.add(Count::StrangersTooMany);
                tracing::debug!(%address, "too many of this address are strangers");
                continue;
            };
            // Answers are small and waited for, or written as a whole. A connection that is gone already says so later.
            let _ = stream.set_nodelay(true);
            let tls = self.tls.as_ref().map(|tls| tls.get());
            let until = Instant::now() + STRANGER_FOR;
            let counts = Arc::clone(&self.counts);
            return Arrival { stream, address, place, stranger, until, tls, counts };
        }
    }
}

/// Somebody who has connected.
pub struct Arrival {
    stream: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    stranger: Stranger,
    until: Instant,
    tls: Option<Arc<Server>>,
    counts: Arc<Counts>,
}

impl Arrival {
    /// Speaks TLS, where that is spoken. `None`: it came to nothing, which is counted.
    pub async fn let_in(self) -> Option<Connection> {
        let Self { stream, address, place, stranger, until, tls, counts } = self;
        let wire = match timeout_at(until, handshake(stream, tls.as_deref())).await {
            Ok(Ok(wire)) => wire,
            Ok(Err(refused)) => {
                if let Some(count) = refused.count() {
                    counts.add(count);
                    tracing::info!(%address, why = %refused, "a connection is refused");
                }
                if let Refused::Handshake(_, Some(stream)) = refused {
                    let _ = timeout(FAREWELL, hear_out(stream)).await;
                }
                return None;
            }
            Err(_) => {
                counts.add(Count::StrangersSlow);
                tracing::info!(%address, "a connection ended before its handshake did");
                return None;
            }
        };
        Some(Connection::new(wire, address, place, stranger, until, counts))
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it has gone")]
    Gone,
    #[error("it does not speak TLS, which is spoken here")]
    Plaintext,
    #[error("it speaks TLS, which is not spoken here")]
    Tls,
    #[error("{0}")]
    Handshake(std::io::Error, Option<TcpStream>),
}

impl Refused {
    fn count(&self) -> Option<Count> {
        match self {
            // Checks of health connect and go.
            Self::Gone => None,
            Self::Plaintext => Some(Count::PlaintextRefused),
            Self::Tls => Some(Count::TlsRefused),
            Self::Handshake(..) => Some(Count::HandshakesFailed),
        }
    }
}

async fn handshake(mut stream: TcpStream, tls: Option<&Server>) -> Result<Wire, Refused> {
    let mut first = [0];
    if !matches!(stream.peek(&mut first).await, Ok(1)) {
        return Err(Refused::Gone);
    }
    let tls = match (first[0] == HANDSHAKE, tls) {
        (false, None) => return Ok(Wire::plain(stream)),
        (true, None) => {
            tell(&mut stream, SPEAK_PLAINLY).await;
            return Err(Refused::Tls);
        }
        (false, Some(_)) => {
            tell(&mut stream, SPEAK_TLS).await;
            return Err(Refused::Plaintext);
        }
        (true, Some(tls)) => tls,
    };
    let stream = match tls.accept(stream).await {
        Ok(stream) => stream,
        Err((error, stream)) => return Err(Refused::Handshake(error, Some(stream))),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(dns_names);
    Ok(Wire::encrypted(stream, certificate.map(Certificate::new)))
}

/// Reads what a client says that has not heard yet why it is refused: a connection that ends with unread bytes takes that with it. With
/// TLS 1.3 a client speaks before it knows.
async fn hear_out(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut said = [0; FIRST_BYTES];
    while matches!(stream.read(&mut said).await, Ok(1..)) {}
}

/// Tells what is wrong, as far as somebody hears it.
async fn tell(stream: &mut TcpStream, answer: &[u8]) {
    let mut said = [0; FIRST_BYTES];
    let _ = stream.read(&mut said).await;
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}
