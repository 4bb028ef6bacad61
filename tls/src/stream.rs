//! What bytes go over, and whether they leave the host.

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Whether what is sent to a host, by name or address, does not leave this one: a token may go there without TLS.
#[must_use]
pub fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}
