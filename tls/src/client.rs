//! The end that connects.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::explain::Worded;
use crate::{ConfigError, VERSIONS, explain, files, provider};

/// What a client trusts, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities, one of which the collector's certificate is of. `None`: those that the host trusts.
    pub ca: Option<PathBuf>,
    /// The own certificate, with its chain.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The name in the collector's certificate, where it is not the one that is connected to.
    pub server_name: Option<String>,
}

impl ClientFiles {
    /// The files that there are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// A client, ready to connect.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl Client {
    /// Reads the files. `protocol` is what is spoken inside.
    ///
    /// # Errors
    /// Where one cannot be read, or they do not fit together.
    pub fn new(from: &ClientFiles, protocol: &[u8]) -> Result<Self, ConfigError> {
        let authorities = match &from.ca {
            Some(path) => files::authorities(path)?,
            None => of_this_host()?,
        };
        let unfit = |what: &str, reason: &dyn std::error::Error| ConfigError::Unfit {
            what: what.to_owned(),
            reason: reason.to_string(),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider())
            .build()
            .map_err(|error| unfit("ca", &error))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .map_err(|error| unfit("TLS", &error))?
            .with_webpki_verifier(verifier);
        let mut config = match (&from.cert, &from.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(files::certificates(cert)?, files::key(key)?)
                .map_err(|error| unfit(&cert.display().to_string(), &Worded::new(&error)))?,
            _ => return Err(ConfigError::HalfIdentity),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        if let Some(name) = &from.server_name {
            ServerName::try_from(name.as_str()).map_err(|error| unfit("server-name", &error))?;
        }
        Ok(Self { config: Arc::new(config), server_name: from.server_name.clone() })
    }

    /// Speaks TLS with the host at the other end of a connection.
    ///
    /// # Errors
    /// Where one end refuses the other: in words that say why, and what to do.
    pub async fn connect<S>(&self, stream: S, host: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| io::Error::other(format!("{host} is no name that a certificate can have")))?;
        let connecting = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        connecting.await.map_err(|error| io::Error::other(explain(&error)))
    }
}

/// The authorities that the host trusts.
fn of_this_host() -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    // Of a bundle some may be of a kind that is not known here.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(ConfigError::NoAuthorities) } else { Ok(store) }
}
