//! Asks a collector over HTTP.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::ErrorAnswer;

/// How long to wait for a connection.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long to wait for an answer: longer than a collector lets a query wait and run.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(60);
/// Bytes of an answer: more than a collector sends.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error("{0:?} is no address of a collector: write http://HOST:PORT")]
    Url(String),
    /// Nobody answers there.
    #[error("no collector answers at {url}: {reason}; start `chokepoint-collector serve`, or say --url")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The collector refuses the query, and says why.
    #[error("{0}")]
    Refused(String),
    /// The collector has no time now, or could not answer.
    #[error("the collector could not answer: {0}")]
    Failed(String),
    /// What answers is no collector, or a newer one.
    #[error("{url} does not answer as a collector does: {reason}")]
    NoCollector {
        /// Where.
        url: String,
        /// What it does instead.
        reason: String,
    },
}

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    url: String,
    host: String,
    port: u16,
    /// Before the endpoints' own: where a collector is behind a proxy.
    path: String,
}

impl Address {
    /// Reads `http://HOST:PORT`.
    ///
    /// # Errors
    /// It is none.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(url.chars().take(200).collect());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(bad());
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            // An address of version 6 stands in brackets in a URL, and without them elsewhere.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// What an endpoint answers.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        let asking = self.ask(path, parameters);
        let (status, body) = timeout(MAX_ANSWER_TIME, asking).await.unwrap_or_else(|_| {
            Err(ClientError::Failed(format!("no answer within {} s", MAX_ANSWER_TIME.as_secs())))
        })?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) if status.is_client_error() => Err(ClientError::Refused(answer.error.message)),
            Ok(answer) => Err(ClientError::Failed(answer.error.message)),
            Err(_) => Err(self.is_no_collector(&format!("it says {status}"))),
        }
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<(StatusCode, Bytes), ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { url: self.url.clone(), reason };
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match timeout(MAX_CONNECT_TIME, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => {
                return Err(unreachable(format!("no connection within {} s", MAX_CONNECT_TIME.as_secs())));
            }
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.is_no_collector(&error))?;
        // Its end is that of the answer, which is told there.
        let connection = tokio::spawn(connection);
        let parameters = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let separator = if parameters.is_empty() { "" } else { "?" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let request = Request::get(format!("{}{path}{separator}{parameters}", self.path))
            .header(HOST, format!("{host}:{}", self.port))
            .body(Empty::<Bytes>::new())
            .map_err(|error| ClientError::Refused(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| self.is_no_collector(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        connection.abort();
        let body = body.map_err(|error| self.is_no_collector(error.as_ref()))?;
        Ok((status, body.to_bytes()))
    }

    fn is_no_collector(&self, reason: &(impl std::fmt::Display + ?Sized)) -> ClientError {
        ClientError::NoCollector { url: self.url.clone(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_without_a_query() {
        let address = Address::new("http://[::1]:4041/behind/").expect("an address");
        assert_eq!((address.host.as_str(), address.port, address.path.as_str()), ("::1", 4041, "/behind"));
        assert_eq!(Address::new("http://collector").expect("an address").port, 80);
        for bad in ["", "collector:4041", "https://collector", "http://", "http://a/?b=c", "ftp://a"] {
            assert!(Address::new(bad).is_err(), "{bad}");
        }
    }
}
