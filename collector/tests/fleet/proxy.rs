//! The network between agents and their collector, which can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections to it go to the collector, wherever that is now.
pub struct Proxy {
    pub address: SocketAddr,
    leads_to: watch::Sender<Option<SocketAddr>>,
}

impl Proxy {
    /// Leads nowhere yet.
    pub async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (leads_to, watched) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let (agent, _) = listener.accept().await.expect("a connection");
                tokio::spawn(carry(agent, watched.clone()));
            }
        });
        Self { address, leads_to }
    }

    /// Leads there from now on. All connections end that lead elsewhere; `None`: the network is cut.
    pub fn lead_to(&self, collector: Option<SocketAddr>) {
        self.leads_to.send_if_modified(|leads_to| std::mem::replace(leads_to, collector) != collector);
    }
}

async fn carry(mut agent: TcpStream, mut leads_to: watch::Receiver<Option<SocketAddr>>) {
    let Some(collector) = *leads_to.borrow_and_update() else { return };
    let Ok(mut collector) = TcpStream::connect(collector).await else { return };
    tokio::select! {
        // Either end may break off.
        _ = tokio::io::copy_bidirectional(&mut agent, &mut collector) => {}
        _ = leads_to.changed() => {}
    }
}
