//! Asks the container runtime for its containers beside everything else: nobody who looks one up waits.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::containers::Container;
use crate::containers::cri::{Runtime, RuntimeError};
use crate::containers::groups::ContainerId;

/// Between two questions: a node that starts many containers at once asks once for all of them.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);
/// The answer is good for so long; then it is asked again if anybody still looks containers up.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// Ids that the runtime does not know, which are not asked for again until the next regular question. A node has a few hundred containers.
const MAX_UNKNOWN: usize = 10_000;

/// What the runtime has told. Clones share it.
#[derive(Clone, Default)]
pub struct Containers {
    told: Arc<Mutex<Told>>,
    wanted: Arc<Notify>,
}

#[derive(Default)]
struct Told {
    known: HashMap<String, Container>,
    unknown: HashSet<String>,
}

impl Containers {
    /// Nothing; and without [`Containers::keep_asking`] it stays so.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a container now. One that was never asked for is asked for, for the next time.
    #[must_use]
    pub fn look_up(&self, id: &ContainerId) -> Option<Container> {
        let mut told = self.told();
        let known = told.known.get(&id.id).cloned();
        if known.is_none() && told.unknown.len() < MAX_UNKNOWN && told.unknown.insert(id.id.clone()) {
            self.wanted.notify_one();
        }
        known
    }

    /// Asks whenever there is something new to ask, and now and then. Never ends.
    pub async fn keep_asking(self, socket: Option<PathBuf>) {
        loop {
            self.wanted.notified().await;
            match ask(socket.as_ref()).await {
                Ok(containers) => self.learn(containers),
                Err(error) => tracing::debug!(%error, "the names of containers are not known"),
            }
            tokio::time::sleep(SHORTEST_INTERVAL).await;
            tokio::select! {
                // Somebody new: the next turn asks.
                () = self.wanted.notified() => self.wanted.notify_one(),
                () = tokio::time::sleep(LONGEST_INTERVAL) => {
                    let mut told = self.told();
                    told.unknown.clear();
                    if !told.known.is_empty() {
                        self.wanted.notify_one();
                    }
                }
            }
        }
    }

    fn learn(&self, containers: Vec<Container>) {
        let known = containers.into_iter().map(|container| (container.id.clone(), container)).collect();
        self.told().known = known;
    }
}

async fn ask(socket: Option<&PathBuf>) -> Result<Vec<Container>, RuntimeError> {
    let runtime = match socket {
        Some(socket) => Some(Runtime::connect(socket).await?),
        // No runtime is nothing wrong: many hosts have none.
        None => Runtime::usual().await.0,
    };
    match runtime {
        Some(mut runtime) => runtime.containers().await,
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::groups::Engine;

    #[test]
    fn an_unknown_container_is_asked_for_once() {
        let containers = Containers::none();
        let id = ContainerId { id: "a".repeat(64), engine: Engine::Unknown };
        assert_eq!(containers.look_up(&id), None);
        assert_eq!(containers.told().unknown.len(), 1);
        assert_eq!(containers.look_up(&id), None);
        let web = Container { id: id.id.clone(), name: "web".into(), ..Container::default() };
        containers.learn(vec![web.clone()]);
        assert_eq!(containers.look_up(&id), Some(web));
    }
}
