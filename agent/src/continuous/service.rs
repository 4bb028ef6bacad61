//! The thread that talks to others, so that nobody who is slow to answer keeps records waiting: the collector, the container runtime, and
//! whoever asks for metrics.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

use super::pages::{self, Pages};
use crate::containers::known::{Containers, Source};
use crate::demand::OnDemand;
use crate::failure::{Failure, Kind};
use crate::stream::connection::{SharedSpool, Status, Target, deliver};
use crate::stream::symbols::uploads::Uploads;

/// Whom the thread talks to.
pub(super) struct Talks {
    pub(super) spool: Arc<SharedSpool>,
    pub(super) status: Arc<Status>,
    pub(super) on_demand: Arc<OnDemand>,
    /// Symbols for the collector, where it names the functions of binaries.
    pub(super) symbols: Option<Uploads>,
    pub(super) target: watch::Receiver<Option<Target>>,
    pub(super) containers: Containers,
    pub(super) source: Source,
    /// Where metrics are served.
    pub(super) pages: Option<(TcpListener, Pages)>,
}

/// The thread.
pub(super) struct Service {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Listens for those who want metrics.
///
/// # Errors
/// A [`Kind::Usage`] failure where the address cannot be listened at.
pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|error: std::io::Error| {
        Failure::new(Kind::Usage, format!("metrics: cannot listen at {address}: {error}"))
    })
}

impl Service {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub(super) fn start(talks: Talks) -> Result<Self, Failure> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::unexpected(&error))?;
        let thread = std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    talks.begin();
                    // An error is a sender that is gone: then, too, it is over.
                    let _ = stopped.await;
                });
            })
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { stop, thread })
    }

    /// Whether the thread still talks.
    pub(super) fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends everything where it is.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

impl Talks {
    fn begin(self) {
        let Self { spool, status, on_demand, symbols, target, containers, source, pages } = self;
        tokio::spawn(deliver(spool, status, on_demand, symbols, target));
        tokio::spawn(containers.keep_asking(source));
        if let Some((listener, pages)) = pages {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => _ = tokio::spawn(pages::serve(listener, Arc::new(pages))),
                Err(error) => tracing::error!(%error, "no metrics"),
            }
        }
    }
}
