//! Which agents have a stream: each one, and no more than are accepted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The agents that have a stream.
#[derive(Clone, Debug)]
pub(super) struct Agents {
    streams: Arc<Mutex<Streams>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    of: HashMap<Vec<u8>, (u64, oneshot::Sender<()>)>,
}

/// A stream's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    agents: Agents,
    agent: Vec<u8>,
    number: u64,
    superseded: oneshot::Receiver<()>,
}

impl Agents {
    /// None yet, and `most` at once.
    pub(super) fn new(most: usize) -> Self {
        Self { streams: Arc::default(), most }
    }

    /// A place for the agent's stream, whose earlier one is told to end. `None`: there are too many.
    pub(super) fn enter(&self, agent: &[u8]) -> Option<Place> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.of.len() >= self.most && !streams.of.contains_key(agent) {
            return None;
        }
        let number = streams.next;
        streams.next += 1;
        let (supersede, superseded) = oneshot::channel();
        if let Some((_, earlier)) = streams.of.insert(agent.to_vec(), (number, supersede)) {
            // It may have ended on its own.
            let _ = earlier.send(());
        }
        Some(Place { agents: self.clone(), agent: agent.to_vec(), number, superseded })
    }
}

impl Place {
    /// Ends when the same agent begins another stream.
    pub(super) async fn superseded(&mut self) {
        // The other end goes only with this one's place.
        let _ = (&mut self.superseded).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = self.agents.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.of.get(&self.agent).is_some_and(|(number, _)| *number == self.number) {
            streams.of.remove(&self.agent);
        }
    }
}
