//! Connections, as the transport takes them.

use std::io;

use tokio::sync::mpsc;

use crate::listen::{Connection, Door};

/// Takes connections for as long as somebody receives them.
pub(super) fn accept(door: Door) -> mpsc::Receiver<io::Result<Connection>> {
    // One at a time: what waits here has a place already.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let arrival = tokio::select! {
                () = sender.closed() => return,
                arrival = door.next() => arrival,
            };
            // Handshakes take turns with the other end: they wait for each other no more than connections do.
            let sender = sender.clone();
            tokio::spawn(async move {
                if let Some(connection) = arrival.let_in().await {
                    // Where nobody takes it, the collector is stopping.
                    let _ = sender.send(Ok(connection)).await;
                }
            });
        }
    });
    receiver
}
