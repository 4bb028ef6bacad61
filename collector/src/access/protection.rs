//! What protects the listeners, as an operator says it, and as the doors use it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use chokepoint_tls::{ConfigError, HTTP_1, HTTP_2, Server, ServerFiles};
use thiserror::Error;

use super::files::{FromFiles, Refresh, Refreshed};
use super::{Access, TokensError};
use crate::ingest::{Count, Counts};

/// What protects the listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// The collector's certificate, with its chain, and its key. `None`: nothing is encrypted.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Authorities of agents' certificates. `None`: agents are not asked for any.
    pub client_ca: Option<PathBuf>,
    /// Authorities of certificates of those who ask queries. `None`: they are not asked for any.
    pub http_client_ca: Option<PathBuf>,
    /// The file of tokens. `None`: nobody is asked for one.
    pub tokens: Option<PathBuf>,
    /// Whether an agent's host has to have the name of its certificate or token.
    pub binds_hosts: bool,
    /// Whether other hosts may be listened to without protection.
    pub trusts_network: bool,
}

/// The listeners cannot be protected as they should be.
#[derive(Debug, Error)]
pub enum ProtectionError {
    /// A certificate or key is of no use.
    #[error(transparent)]
    Tls(#[from] ConfigError),
    /// The file of tokens is of no use.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// Certificates are asked for where nothing is encrypted.
    #[error("{0} takes --tls-cert and --tls-key: certificates are shown by TLS")]
    NoTls(&'static str),
    /// Other hosts reach a listener that nothing protects.
    #[error("{0}; or, where the network is to be trusted, say --trust-network")]
    Open(String),
}

impl Protection {
    /// What is missing where other hosts reach the listeners, in words for the operator: one line for each listener.
    fn missing(&self, agents: SocketAddr, queries: SocketAddr) -> Vec<String> {
        let tls = self.certificate.is_none().then_some("is not encrypted (give --tls-cert and --tls-key)");
        let nobody_asks = |client_ca: &Option<PathBuf>| self.tokens.is_none() && client_ca.is_none();
        let stream = "takes what anybody sends (give --client-ca or --tokens)";
        let read = "tells everything to anybody (give --tokens or --http-client-ca)";
        let listeners = [
            ("--listen", agents, nobody_asks(&self.client_ca).then_some(stream)),
            ("--http", queries, nobody_asks(&self.http_client_ca).then_some(read)),
        ];
        let told = |(option, address, open): (&str, SocketAddr, Option<&str>)| {
            let missing: Vec<&str> = [tls, open].into_iter().flatten().collect();
            let is_reached = !address.ip().to_canonical().is_loopback() && !missing.is_empty();
            is_reached.then(|| {
                format!("{option} {address} is reached from other hosts and {}", missing.join(", and "))
            })
        };
        listeners.into_iter().filter_map(told).collect()
    }

    /// Lets nobody listen to other hosts without protection, unless the operator wants that.
    ///
    /// # Errors
    /// [`ProtectionError::Open`], which says what is missing.
    pub fn check(&self, agents: SocketAddr, queries: SocketAddr) -> Result<(), ProtectionError> {
        let missing = self.missing(agents, queries);
        if !missing.is_empty() && !self.trusts_network {
            return Err(ProtectionError::Open(missing.join("; ")));
        }
        for missing in missing {
            tracing::warn!("NOT PROTECTED: {missing}");
        }
        Ok(())
    }
}

/// What both doors ask.
#[derive(Clone)]
pub struct Guard {
    pub(crate) access: Arc<Access>,
    /// TLS for agents; `None`: nothing is encrypted.
    pub(crate) agents: Option<Arc<FromFiles<Server>>>,
    /// TLS for queries.
    pub(crate) queries: Option<Arc<FromFiles<Server>>>,
}

impl Guard {
    /// Nobody is asked for anything, and nothing is encrypted.
    #[must_use]
    pub fn open() -> Self {
        Self { access: Arc::new(Access::open()), agents: None, queries: None }
    }

    /// Reads all files.
    ///
    /// # Errors
    /// Where one is of no use.
    pub fn new(protection: &Protection) -> Result<Self, ProtectionError> {
        let tls = |what, option, client_ca: &Option<PathBuf>, protocol: &'static [u8]| {
            let Some((cert, key)) = protection.certificate.clone() else {
                return if client_ca.is_some() { Err(ProtectionError::NoTls(option)) } else { Ok(None) };
            };
            let files = ServerFiles { cert, key, client_ca: client_ca.clone() };
            let paths = files.paths().map(ToOwned::to_owned).collect();
            let made = FromFiles::new(what, paths, move || Server::new(&files, protocol))?;
            Ok(Some(Arc::new(made)))
        };
        Ok(Self {
            access: Arc::new(Access::new(protection.tokens.as_deref(), protection.binds_hosts)?),
            agents: tls("certificates of --listen", "--client-ca", &protection.client_ca, HTTP_2)?,
            queries: tls("certificates of --http", "--http-client-ca", &protection.http_client_ca, HTTP_1)?,
        })
    }

    /// Looks at all files, and goes by those that have changed from now on. `is_told`: also by those that were written just now.
    pub(crate) fn refresh(&self, is_told: bool, counts: &Counts) {
        let tls = [&self.agents, &self.queries].into_iter().flatten().map(|tls| &**tls as &dyn Refresh);
        let tokens = self.access.tokens().map(|tokens| tokens as &dyn Refresh);
        for part in tls.chain(tokens) {
            let what = part.what();
            match part.refresh(is_told) {
                Refreshed::Same => {}
                Refreshed::New => {
                    counts.add(Count::Reloads);
                    tracing::info!(what, "read anew");
                }
                Refreshed::Failed(error) => {
                    counts.add(Count::ReloadFailures);
                    tracing::error!(what, %error, "cannot be read anew, and stay what they were");
                }
            }
        }
        if self.access.tokens().is_some_and(|tokens| tokens.get().is_empty()) && is_told {
            tracing::warn!("there is no token: nobody is let in who brings no certificate");
        }
    }
}
