//! A collector that serves in the test's own process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use chokepoint_collector::access::Guard;
use chokepoint_collector::ingest::{Counts, Limits};
use chokepoint_collector::pipeline::{self, Companion, Serve, Shared};
use chokepoint_collector::store::embedded::Options;
use chokepoint_collector::store::{Home, Store};
use chokepoint_collector::symbols::{self, FleetSymbols};
use tokio::sync::oneshot;

/// A collector in this process.
pub struct Collector {
    pub address: SocketAddr,
    pub store: Arc<dyn Store>,
    pub counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<Result<(), pipeline::ServeError>>,
}

impl Collector {
    pub async fn start(store: &Path, limits: Limits) -> Self {
        Self::with_symbols(store, limits, None).await
    }

    /// One that names what agents do not.
    pub async fn with_symbols(store: &Path, limits: Limits, symbols: Option<Arc<FleetSymbols>>) -> Self {
        let serve = Serve {
            store: Home::Directory(store.to_owned(), Options::default()),
            listen: "127.0.0.1:0".parse().expect("an address"),
            limits,
            guard: Guard::open(),
            control: Arc::default(),
            tap: None,
            symbols: symbols.clone(),
        };
        let (ready, address) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let (give, parts) = oneshot::channel();
        let companion: Companion = Box::new(|Shared { store, counts, mut stopping, .. }| {
            Box::pin(async move {
                let _ = give.send((store, counts));
                let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
                Ok(())
            })
        });
        let companions = [companion].into_iter().chain(symbols.map(symbols::keep_up));
        let served = tokio::spawn(pipeline::serve(
            serve,
            companions.collect(),
            |address| {
                let _ = ready.send(address);
            },
            async { drop(stopped.await) },
        ));
        let address = address.await.expect("it listens");
        let (store, counts) = parts.await.expect("the companion runs");
        Self { address, store, counts, stop: Some(stop), served }
    }

    pub async fn stop(mut self) {
        drop(self.stop.take());
        drop(self.store);
        self.served.await.expect("no panic").expect("it ends well");
    }
}
