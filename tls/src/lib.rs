//! TLS as Chokepoint's agent, its collector and its command line speak it: versions 1.2 and 1.3, one provider of cryptography, secrets from
//! files, and errors that say what to do.

#![forbid(unsafe_code)]

mod client;
mod explain;
mod files;
mod server;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use thiserror::Error;

pub use client::{Client, ClientFiles};
pub use explain::explain;
pub use files::{FileError, Stamp, read_secret, read_text};
pub use server::{Server, ServerFiles, dns_names};
pub use stream::{Stream, is_this_host};

/// The protocol of gRPC, as TLS names it.
pub const HTTP_2: &[u8] = b"h2";
/// The protocol of queries.
pub const HTTP_1: &[u8] = b"http/1.1";

/// What is spoken.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates and keys that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read, or is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in the files does not fit together.
    #[error("{what}: {reason}")]
    Unfit {
        /// Which file, or which setting.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate without its key, or the other way round.
    #[error("a certificate and its key go together: give both cert and key")]
    HalfIdentity,
    /// The host has no authorities of its own.
    #[error("this host trusts no certification authority: give that of the collector as ca")]
    NoAuthorities,
}
