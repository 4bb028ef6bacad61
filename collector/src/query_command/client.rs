//! Asks a collector over HTTP, with TLS or without.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use chokepoint_tls::{ClientFiles, HTTP_1, Stream, explain, is_this_host, read_secret};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::api::{ErrorAnswer, ErrorShown, PARTIAL};

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
    #[error("{0:?} is no address of a collector: write http://HOST:PORT or https://HOST:PORT")]
    Url(String),
    /// Nobody answers there.
    #[error("no collector answers at {url}: {reason}; start `chokepoint-collector serve`, or say --url")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A certificate, key or token is of no use.
    #[error("{0}")]
    Credentials(String),
    /// One end does not trust the other.
    #[error("{url}: {reason}")]
    Untrusted {
        /// Where.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The collector does not let this caller do that.
    #[error("{0} (--token-file says which token is sent)")]
    Denied(String),
    /// The collector refuses the query, and says why.
    #[error("{message}")]
    Refused {
        /// The error's code, for programs.
        code: String,
        /// For people.
        message: String,
    },
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

impl ClientError {
    /// What is wrong, where it is no collector that is asked.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Url(url) => {
                format!("{url:?} is no address: write http://HOST:PORT/PATH or https://HOST:PORT/PATH")
            }
            Self::Unreachable { reason, .. }
            | Self::Untrusted { reason, .. }
            | Self::NoCollector { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }
}

/// What this client trusts, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For TLS.
    pub files: ClientFiles,
    /// The file that has the token, and nothing else.
    pub token_file: Option<PathBuf>,
}

/// Where a collector is, and how it is spoken to.
#[derive(Clone)]
pub struct Address {
    url: String,
    host: String,
    port: u16,
    /// Before the endpoints' own: where a collector is behind a proxy.
    path: String,
    /// `None`: nothing is encrypted.
    tls: Option<chokepoint_tls::Client>,
    authorization: Option<HeaderValue>,
}

/// What a request brings.
pub(crate) struct Content {
    of_type: &'static str,
    encoding: Option<&'static str>,
    bytes: Vec<u8>,
}

impl Content {
    fn json(bytes: Vec<u8>) -> Self {
        Self { of_type: "application/json", encoding: None, bytes }
    }

    /// Bytes that were compressed, of a type.
    pub(crate) fn gzipped(of_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { of_type, encoding: Some("gzip"), bytes }
    }
}

impl Address {
    /// Reads `http://HOST:PORT` or `https://HOST:PORT`, and the files.
    ///
    /// # Errors
    /// It is none, a file is of no use, or the token would be sent to another host without encryption.
    pub fn new(url: &str, credentials: &Credentials) -> Result<Self, ClientError> {
        Self::of(url, credentials, HTTP_1)
    }

    /// The same of what speaks this protocol inside TLS.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(crate) fn of(url: &str, credentials: &Credentials, protocol: &[u8]) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(url.chars().take(200).collect());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
        let (tls, usual_port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let tls = chokepoint_tls::Client::new(&credentials.files, protocol);
                (Some(tls.map_err(|error| ClientError::Credentials(error.to_string()))?), 443)
            }
            _ => return Err(bad()),
        };
        if uri.query().is_some() {
            return Err(bad());
        }
        // An address of version 6 stands in brackets in a URL, and without them elsewhere.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authorization = credentials.token_file.as_ref().map(|path| {
            if tls.is_none() && !is_this_host(&host) {
                let message = format!("the token would be sent to {host} for all to read: say https://");
                return Err(ClientError::Credentials(message));
            }
            let token = read_secret(path).map_err(|error| ClientError::Credentials(error.to_string()))?;
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| ClientError::Credentials(format!("{} has no token", path.display())))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            host,
            port: uri.port_u16().unwrap_or(usual_port),
            path: uri.path().trim_end_matches('/').to_owned(),
            tls,
            authorization: authorization.transpose()?,
        })
    }

    /// What an endpoint answers.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, path, parameters, None).await
    }

    /// What is answered to JSON that something is to be done by.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn post(&self, path: &str, json: Vec<u8>) -> Result<Bytes, ClientError> {
        self.ask(Method::POST, path, &[], Some(Content::json(json))).await
    }

    /// What is answered when something is to go.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn delete(&self, path: &str) -> Result<Bytes, ClientError> {
        self.ask(Method::DELETE, path, &[], None).await
    }

    /// Sends JSON to the address itself, of whatever it is. Only the status of what is answered counts.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn deliver(&self, json: Vec<u8>) -> Result<StatusCode, ClientError> {
        let exchange = self.exchange(Method::POST, "", &[], Some(Content::json(json)));
        match timeout(MAX_CONNECT_TIME * 2, exchange).await {
            Ok(answered) => Ok(answered?.0),
            Err(_) => Err(ClientError::Failed("it does not answer in time".to_owned())),
        }
    }

    /// What is answered to what is sent to an endpoint, of whatever it is.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn send(
        &self,
        path: &str,
        content: Content,
    ) -> Result<(StatusCode, HeaderMap, Bytes), ClientError> {
        self.exchange(Method::POST, path, &[], Some(content)).await
    }

    /// What is shown to the other end.
    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// A connection, with TLS or without.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { url: self.url.clone(), reason };
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match timeout(MAX_CONNECT_TIME, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => {
                return Err(unreachable(format!("no connection within {} s", MAX_CONNECT_TIME.as_secs())));
            }
        };
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => match timeout(MAX_CONNECT_TIME, tls.connect(stream, &self.host)).await {
                Ok(Ok(stream)) => Ok(Box::new(stream)),
                Ok(Err(error)) => Err(self.untrusted(error.to_string())),
                Err(_) => Err(unreachable("its handshake of TLS does not end".to_owned())),
            },
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        content: Option<Content>,
    ) -> Result<Bytes, ClientError> {
        let asking = self.exchange(method, path, parameters, content);
        let (status, _, body) = timeout(MAX_ANSWER_TIME, asking).await.unwrap_or_else(|_| {
            Err(ClientError::Failed(format!("no answer within {} s", MAX_ANSWER_TIME.as_secs())))
        })?;
        if status.is_success() {
            return Ok(body);
        }
        let is_denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        match serde_json::from_slice::<ErrorAnswer>(&body) {
            Ok(answer) if is_denied => Err(ClientError::Denied(answer.error.message)),
            Ok(ErrorAnswer { error: ErrorShown { code, message } }) if status.is_client_error() => {
                Err(ClientError::Refused { code, message })
            }
            Ok(answer) => Err(ClientError::Failed(answer.error.message)),
            Err(_) => Err(self.is_no_collector(&format!("it says {status}"))),
        }
    }

    /// Where it is, as it was written.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Writes what is answered to a file, where it is well: of `limit` bytes at most.
    ///
    /// # Errors
    /// There is no answer, it is longer, or the file does not take it.
    pub(crate) async fn fetch(
        &self,
        path: &str,
        limit: u64,
        mut to: File,
    ) -> Result<StatusCode, ClientError> {
        let (mut response, connection) = self.begin(Method::GET, path, &[], None).await?;
        let status = response.status();
        let mut left = limit;
        while status.is_success()
            && let Some(frame) = response.body_mut().frame().await
        {
            let frame = frame.map_err(|error| self.broken(&error))?;
            let Some(bytes) = frame.data_ref() else { continue };
            left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| ClientError::Failed(format!("it is longer than {limit} bytes")))?;
            to.write_all(bytes).map_err(|error| ClientError::Failed(error.to_string()))?;
        }
        connection.abort();
        Ok(status)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        content: Option<Content>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), ClientError> {
        let (response, connection) = self.begin(method, path, parameters, content).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if let Some(missing) = headers.get(&PARTIAL) {
            tracing::warn!(?missing, "the answer is partial: a part of the store did not answer");
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        connection.abort();
        let body = body.map_err(|error| self.is_no_collector(error.as_ref()))?;
        Ok((status, headers, body.to_bytes()))
    }

    /// The head of an answer, whose body comes with the connection that goes on beside it.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        content: Option<Content>,
    ) -> Result<(Response<Incoming>, JoinHandle<()>), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Its end is that of the answer, which is told there.
        let connection = tokio::spawn(async move { drop(connection.await) });
        let parameters = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let separator = if parameters.is_empty() { "" } else { "?" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(method)
            .uri(match format!("{}{path}{separator}{parameters}", self.path) {
                whole if whole.starts_with('/') => whole,
                whole => format!("/{whole}"),
            })
            .header(HOST, format!("{host}:{}", self.port));
        if let Some(content) = &content {
            request = request.header(CONTENT_TYPE, content.of_type);
            if let Some(encoding) = content.encoding {
                request = request.header(CONTENT_ENCODING, encoding);
            }
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request
            .body(Full::new(Bytes::from(content.map(|content| content.bytes).unwrap_or_default())))
            .map_err(|error| ClientError::Failed(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        Ok((response, connection))
    }

    /// Of a connection that broke: the other end may have refused this one's certificate.
    fn broken(&self, error: &hyper::Error) -> ClientError {
        let reason = explain(error);
        if reason == error.to_string() { self.is_no_collector(&reason) } else { self.untrusted(reason) }
    }

    fn untrusted(&self, reason: String) -> ClientError {
        ClientError::Untrusted { url: self.url.clone(), reason }
    }

    fn is_no_collector(&self, reason: &(impl std::fmt::Display + ?Sized)) -> ClientError {
        ClientError::NoCollector { url: self.url.clone(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, ClientError> {
        Address::new(url, &Credentials::default())
    }

    #[test]
    fn addresses_are_urls_without_a_query() {
        let parsed = address("http://[::1]:4041/behind/").expect("an address");
        assert_eq!((parsed.host.as_str(), parsed.port, parsed.path.as_str()), ("::1", 4041, "/behind"));
        assert_eq!(address("http://collector").expect("an address").port, 80);
        for bad in ["", "collector:4041", "http://", "http://a/?b=c", "ftp://a"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_goes_to_this_host_or_encrypted() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b" chokepoint_abc\n").expect("it can be written");
        let credentials = Credentials { token_file: Some(file.path().to_owned()), ..Credentials::default() };
        for url in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            let address = Address::new(url, &credentials).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(address.authorization.expect("a token"), "Bearer chokepoint_abc", "{url}");
        }
        for url in ["http://collector:1", "http://10.0.0.1:1", "http://localhost.example:1"] {
            let error = Address::new(url, &credentials).err().expect(url).to_string();
            assert!(error.contains("say https://"), "{error}");
        }
    }
}
