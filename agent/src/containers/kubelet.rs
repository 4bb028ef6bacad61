//! Asks a node's kubelet for its pods: the second way to their names, where the container runtime's socket is out of reach.
//!
//! It is asked over HTTP, at its read-only port or with a token at its own. What it tells are Kubernetes' pods; a container's id is in its
//! status, behind the name of its runtime.

use std::path::PathBuf;
use std::time::Duration;

use chokepoint_tls::{ClientFiles, HTTP_1, explain, is_this_host, read_text};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Container, Pod};

/// For an answer, and for a connection. It lists its pods from memory.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For all pods of a node: 500 of them with long labels and annotations take some ten megabytes.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// The port that it serves pods at to everybody, where it does.
const READ_ONLY_PORT: u16 = 10_255;
/// The one where it asks who asks.
const PORT: u16 = 10_250;

/// Where the kubelet is, and how it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub url: String,
    /// A file with a bearer token. It is read each time, for Kubernetes replaces it now and then.
    pub token_file: Option<PathBuf>,
    /// Authorities (PEM) of which its certificate is one; those that the host trusts where there are none.
    pub ca: Option<PathBuf>,
    /// The name in its certificate, where that is not the host of the address.
    pub server_name: Option<String>,
}

/// Why a kubelet could not be asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KubeletError {
    /// It is no address.
    #[error("{0:?} is no address of a kubelet: write http://HOST:10255 or https://HOST:10250")]
    Url(String),
    /// The token or the authorities cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// Nothing listens there, or it is not trusted.
    #[error("cannot connect to the kubelet at {url}: {reason}")]
    Connect {
        /// Where.
        url: String,
        /// Why not.
        reason: String,
    },
    /// It wants to know who asks.
    #[error(
        "the kubelet at {url} says {status}: give it a token that may get nodes/proxy, as kubelet-token-file"
    )]
    Denied {
        /// Where.
        url: String,
        /// What it said.
        status: u16,
    },
    /// What listens there does not answer as a kubelet does.
    #[error("{url} does not answer as a kubelet does: {reason}")]
    Answer {
        /// Where.
        url: String,
        /// What it said.
        reason: String,
    },
}

impl Kubelet {
    /// Whether it is an address, at which a token may be sent, whatever is in the files now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_address(&self) -> Result<(), KubeletError> {
        let (host, _, is_encrypted) = self.parts()?;
        if self.token_file.is_some() && !is_encrypted && !is_this_host(&host) {
            let message =
                format!("the kubelet's token would be sent to {host} for all to read: say https://");
            return Err(KubeletError::Credentials(message));
        }
        Ok(())
    }

    /// The containers that run.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn containers(&self) -> Result<Vec<Container>, KubeletError> {
        let place = self.place()?;
        let authorization = self.authorization()?;
        let asking = self.get_pods(&place, authorization);
        let late = || self.unreachable(format!("no answer within {} s", TIMEOUT.as_secs()));
        let (status, body) = timeout(2 * TIMEOUT, asking).await.unwrap_or_else(|_| Err(late()))?;
        match status {
            StatusCode::OK => containers(&body).map_err(|error| self.is_none(error.to_string())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(KubeletError::Denied { url: self.url.clone(), status: status.as_u16() })
            }
            other => Err(self.is_none(format!("it says {other}"))),
        }
    }

    /// Host, port, and whether what is said is encrypted.
    fn parts(&self) -> Result<(String, u16, bool), KubeletError> {
        let bad = || KubeletError::Url(self.url.chars().take(200).collect());
        let uri: Uri = self.url.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return Err(bad());
        }
        let (is_encrypted, usual_port) = match uri.scheme_str() {
            Some("http") => (false, READ_ONLY_PORT),
            Some("https") => (true, PORT),
            _ => return Err(bad()),
        };
        // An address of version 6 stands in brackets in a URL, and without them elsewhere.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok((host, uri.port_u16().unwrap_or(usual_port), is_encrypted))
    }

    fn place(&self) -> Result<Place, KubeletError> {
        self.check_address()?;
        let (host, port, is_encrypted) = self.parts()?;
        let tls = is_encrypted.then(|| {
            let files = ClientFiles {
                ca: self.ca.clone(),
                server_name: self.server_name.clone(),
                ..ClientFiles::default()
            };
            chokepoint_tls::Client::new(&files, HTTP_1)
                .map_err(|error| KubeletError::Credentials(error.to_string()))
        });
        Ok(Place { host, port, tls: tls.transpose()? })
    }

    /// What proves who asks. Other than secrets of Chokepoint's own, a token that Kubernetes mounts may be readable for everybody in there.
    fn authorization(&self) -> Result<Option<HeaderValue>, KubeletError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let token = read_text(path).map_err(|error| KubeletError::Credentials(error.to_string()))?;
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let no_token = |_| KubeletError::Credentials(format!("{} has no token", path.display()));
        let mut value = value.map_err(no_token)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn get_pods(
        &self,
        place: &Place,
        authorization: Option<HeaderValue>,
    ) -> Result<(StatusCode, Bytes), KubeletError> {
        let connected = TcpStream::connect((place.host.as_str(), place.port)).await;
        let stream = connected.map_err(|error| self.unreachable(error.to_string()))?;
        let stream: Box<dyn chokepoint_tls::Stream> = match &place.tls {
            None => Box::new(stream),
            Some(tls) => {
                let secured = tls.connect(stream, &place.host).await;
                // The words are those for the collector's connection.
                let untrusted =
                    |error| self.unreachable(format!("{error} (here: kubelet-ca, kubelet-server-name)"));
                Box::new(secured.map_err(untrusted)?)
            }
        };
        let broken = |error: hyper::Error| self.is_none(explain(&error));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its end is that of the answer, which is told there.
        let connection = tokio::spawn(connection);
        let host = if place.host.contains(':') { format!("[{}]", place.host) } else { place.host.clone() };
        let mut request = Request::builder().uri("/pods").header(HOST, format!("{host}:{}", place.port));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|error| self.unreachable(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        connection.abort();
        Ok((status, body.map_err(|error| self.is_none(error.to_string()))?.to_bytes()))
    }

    fn unreachable(&self, reason: String) -> KubeletError {
        KubeletError::Connect { url: self.url.clone(), reason }
    }

    fn is_none(&self, reason: String) -> KubeletError {
        KubeletError::Answer { url: self.url.clone(), reason }
    }
}

/// Where it is asked.
struct Place {
    host: String,
    port: u16,
    /// `None`: nothing is encrypted.
    tls: Option<chokepoint_tls::Client>,
}

/// What is read of Kubernetes' list of pods. Everything may be absent, as it is of pods that do not run yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodList {
    kind: String,
    #[serde(default)]
    items: Option<Vec<PodEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodEntry {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    image: String,
    /// `containerd://ID`.
    #[serde(rename = "containerID")]
    container_id: String,
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<serde::de::IgnoredAny>,
}

/// The containers that run, of a list of pods.
fn containers(list: &[u8]) -> Result<Vec<Container>, Box<dyn std::error::Error>> {
    let list: PodList = serde_json::from_slice(list)?;
    if list.kind != "PodList" {
        return Err(format!("it answers with {:?}, not with a PodList", list.kind).into());
    }
    let mut found = Vec::new();
    for PodEntry { metadata: Metadata { name, namespace, uid }, status } in list.items.into_iter().flatten() {
        let pod = Pod { namespace, name, uid };
        let all =
            [status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses];
        for container in all.into_iter().flatten().filter(|container| container.state.running.is_some()) {
            let Some((_, id)) = container.container_id.split_once("://") else { continue };
            found.push(Container {
                id: id.to_owned(),
                name: container.name,
                pod: pod.clone(),
                image: container.image,
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
