//! The end that is connected to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::explain::Worded;
use crate::{ConfigError, VERSIONS, files, provider};

/// What a server shows, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, with its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities, one of which certificates of clients must be of. `None`: clients are not asked for any.
    pub client_ca: Option<PathBuf>,
}

impl ServerFiles {
    /// The files that there are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// A server, ready for connections.
#[derive(Clone)]
pub struct Server(TlsAcceptor);

impl Server {
    /// Reads the files. `protocol` is what is spoken inside.
    ///
    /// # Errors
    /// Where one cannot be read, or they do not fit together.
    pub fn new(from: &ServerFiles, protocol: &[u8]) -> Result<Self, ConfigError> {
        let unfit = |path: &Path, reason: &dyn std::error::Error| ConfigError::Unfit {
            what: path.display().to_string(),
            reason: reason.to_string(),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| unfit(&from.cert, &error))?;
        let builder = match &from.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = Arc::new(files::authorities(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| unfit(path, &error))?)
            }
        };
        let mut config = builder
            .with_single_cert(files::certificates(&from.cert)?, files::key(&from.key)?)
            .map_err(|error| unfit(&from.cert, &Worded::new(&error)))?;
        config.alpn_protocols = vec![protocol.to_vec()];
        // Each connection proves anew who it is, by the authorities of now; connections are few and long.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Speaks TLS with a client.
    ///
    /// # Errors
    /// Where one end refuses the other; with what is left of the connection, on which the client may not have heard yet why.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, (io::Error, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(stream).into_fallible().await
    }
}

/// The names of hosts that a client's certificate is for: its `subjectAltName`s of DNS. Of a certificate that was checked.
#[must_use]
pub fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().map(str::to_ascii_lowercase).collect()
}
