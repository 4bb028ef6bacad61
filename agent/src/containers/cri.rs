//! Asks a node's container runtime for its containers, by the interface that Kubernetes drives it by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chokepoint_proto::cri::runtime_service_client::RuntimeServiceClient;
use chokepoint_proto::cri::{
    ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest, ListPodSandboxRequest,
};
use thiserror::Error;
use tonic::transport::{Channel, Endpoint};

use super::{Container, Pod};

/// Where runtimes listen: containerd, CRI-O, Docker through its adapter, containerd as k3s and k0s have it.
pub const USUAL_SOCKETS: &[&str] = &[
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
];

/// For an answer. A runtime that is busy starting hundreds of containers takes some hundred milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For all containers of a node: 500 of them with long labels and annotations take about a megabyte.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Why a runtime could not be asked.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// Nothing listens there.
    #[error("cannot connect to the container runtime at {}: {reason}", .socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        reason: String,
    },
    /// What listens there does not answer as a runtime does.
    #[error("{} does not answer as a container runtime does: {reason}", .socket.display())]
    Answer {
        /// Its socket.
        socket: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// A runtime that listens.
pub struct Runtime {
    socket: PathBuf,
    client: RuntimeServiceClient<Channel>,
}

impl Runtime {
    /// Connects to the runtime at a socket.
    ///
    /// # Errors
    /// Where nothing listens there.
    pub async fn connect(socket: &Path) -> Result<Self, RuntimeError> {
        let failed = |reason: String| RuntimeError::Connect { socket: socket.to_owned(), reason };
        // The transport's own error does not say which file is missing.
        if let Err(error) = std::fs::metadata(socket) {
            return Err(failed(error.to_string()));
        }
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .map_err(|error| failed(innermost(&error)))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        let channel = endpoint.connect().await.map_err(|error| failed(innermost(&error)))?;
        let client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { socket: socket.to_owned(), client })
    }

    /// The first of the usual ones that answers; and what was heard from the others, in words.
    pub async fn usual() -> (Option<Self>, Vec<String>) {
        let mut silent = Vec::new();
        for socket in USUAL_SOCKETS.iter().map(Path::new) {
            match Self::connect(socket).await {
                Ok(runtime) => return (Some(runtime), silent),
                Err(RuntimeError::Connect { reason, .. }) if !socket.exists() => {
                    tracing::debug!(socket = %socket.display(), reason, "no container runtime");
                }
                Err(error) => silent.push(error.to_string()),
            }
        }
        if silent.is_empty() {
            silent.push("none listens at the usual sockets".to_owned());
        }
        (None, silent)
    }

    /// The containers that run.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    pub async fn containers(&mut self) -> Result<Vec<Container>, RuntimeError> {
        let pods = self.client.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await;
        let pods = pods.map_err(|status| self.refused(&status))?.into_inner();
        let pods: HashMap<String, Pod> = pods
            .items
            .into_iter()
            .map(|pod| {
                let metadata = pod.metadata.unwrap_or_default();
                (pod.id, Pod { namespace: metadata.namespace, name: metadata.name, uid: metadata.uid })
            })
            .collect();
        let running = ContainerFilter {
            state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
            ..ContainerFilter::default()
        };
        let containers = self.client.list_containers(ListContainersRequest { filter: Some(running) }).await;
        let containers = containers.map_err(|status| self.refused(&status))?.into_inner();
        let containers = containers.containers.into_iter().map(|container| Container {
            name: container.metadata.unwrap_or_default().name,
            pod: pods.get(&container.pod_sandbox_id).cloned().unwrap_or_default(),
            image: container.image.map(|image| image.image).unwrap_or_default(),
            id: container.id,
        });
        Ok(containers.collect())
    }

    fn refused(&self, status: &tonic::Status) -> RuntimeError {
        RuntimeError::Answer { socket: self.socket.clone(), reason: status.message().to_owned() }
    }
}

/// The cause that says what happened; those around it say that something did.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
