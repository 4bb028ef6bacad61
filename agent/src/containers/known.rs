//! Asks the container runtime for its containers beside everything else: nobody who looks one up waits.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Notify;

use super::Container;
use super::cri::{Runtime, RuntimeError};
use super::groups::ContainerId;
use super::kubelet::{Kubelet, KubeletError};

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
    /// Why nobody could be asked the last time; empty where somebody could.
    failure: String,
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
    pub async fn keep_asking(self, source: Source) {
        loop {
            self.wanted.notified().await;
            match source.ask().await {
                Ok(containers) => self.learn(containers),
                Err(error) => self.remark(&error),
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

    /// Says once what is wrong, until it is something else.
    fn remark(&self, error: &AskError) {
        let text = error.to_string();
        let mut told = self.told();
        if told.failure != text {
            tracing::warn!("the names of containers are not known: {text}");
            told.failure = text;
        }
    }

    fn learn(&self, containers: Vec<Container>) {
        let known = containers.into_iter().map(|container| (container.id.clone(), container)).collect();
        let mut told = self.told();
        told.known = known;
        told.failure.clear();
    }
}

/// Who knows containers.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The container runtime's socket; `None`: the first of the usual ones that answers.
    pub cri_socket: Option<PathBuf>,
    /// The node's kubelet, which is asked where no runtime answers.
    pub kubelet: Option<Kubelet>,
}

/// Why nobody could be asked.
#[derive(Debug, Error)]
enum AskError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
}

impl Source {
    async fn ask(&self) -> Result<Vec<Container>, AskError> {
        let runtime = match &self.cri_socket {
            Some(socket) => Runtime::connect(socket).await.map(Some),
            // No runtime is nothing wrong: many hosts have none.
            None => Ok(Runtime::usual().await.0),
        };
        match (runtime, &self.kubelet) {
            (Ok(Some(mut runtime)), _) => Ok(runtime.containers().await?),
            (Ok(None) | Err(_), Some(kubelet)) => Ok(kubelet.containers().await?),
            (Ok(None), None) => Ok(Vec::new()),
            (Err(error), None) => Err(error.into()),
        }
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

    #[tokio::test]
    async fn the_kubelet_is_asked_where_no_runtime_answers() {
        let kubelet = Kubelet { url: "http://127.0.0.1:1".to_owned(), ..Kubelet::default() };
        let nowhere = Some(PathBuf::from("/nonexistent/cri.sock"));
        let both = Source { cri_socket: nowhere.clone(), kubelet: Some(kubelet) };
        let error = both.ask().await.expect_err("nobody is there");
        assert!(matches!(error, AskError::Kubelet(KubeletError::Connect { .. })), "{error}");
        let runtime = Source { cri_socket: nowhere, kubelet: None };
        assert!(matches!(runtime.ask().await, Err(AskError::Runtime(_))));
        // It is remarked on once.
        let containers = Containers::none();
        containers.remark(&error);
        assert_eq!(containers.told().failure, error.to_string());
        containers.learn(Vec::new());
        assert!(containers.told().failure.is_empty());
    }
}
