//! Where the servers are, and how one logs on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;
use thiserror::Error;

/// What the addresses of this home begin with.
pub const SCHEME: &str = "clickhouse://";
/// The same where TLS is spoken.
pub const ENCRYPTED_SCHEME: &str = "clickhouses://";
/// Servers that a store may have: each is asked by each query.
const MAX_SERVERS: usize = 64;

/// The servers of a store, each a shard of it, and the database that they have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Host and port of each server's HTTP interface, in the order of the shards.
    pub addresses: Vec<String>,
    /// The database.
    pub database: String,
    /// Whether TLS is spoken to them.
    pub is_encrypted: bool,
}

/// An address that makes no sense.
#[derive(Debug, Error)]
#[error(
    "{0:?} is no store: {1}; give it as clickhouse://HOST:PORT,HOST:PORT/DATABASE, with the ports of HTTP, or as clickhouses://, with \
     those of HTTPS"
)]
pub struct BadAddress(String, &'static str);

impl FromStr for Servers {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = |why| BadAddress(text.to_owned(), why);
        let (rest, is_encrypted) = match (text.strip_prefix(SCHEME), text.strip_prefix(ENCRYPTED_SCHEME)) {
            (Some(rest), _) => (rest, false),
            (None, Some(rest)) => (rest, true),
            (None, None) => return Err(bad("it does not begin with clickhouse:// or clickhouses://")),
        };
        let (servers, database) = rest.split_once('/').ok_or_else(|| bad("it names no database"))?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if database.is_empty() || !database.bytes().all(is_name) {
            return Err(bad("a database is named by letters, digits and underscores"));
        }
        if servers.contains('@') {
            return Err(bad("users and passwords come from files"));
        }
        let addresses: Vec<String> = servers.split(',').map(str::to_owned).collect();
        let is_server = |address: &String| {
            address.parse::<Authority>().is_ok_and(|address| {
                address.port_u16().is_some_and(|port| port > 0) && !address.host().is_empty()
            })
        };
        if !addresses.iter().all(is_server) {
            return Err(bad("a server is a host and a port"));
        }
        if addresses.len() > MAX_SERVERS {
            return Err(bad("it has more than 64 servers"));
        }
        let mut known = addresses.clone();
        known.sort_unstable();
        known.dedup();
        if known.len() < addresses.len() {
            return Err(bad("it names a server twice"));
        }
        Ok(Self { addresses, database: database.to_owned(), is_encrypted })
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { ENCRYPTED_SCHEME } else { SCHEME };
        write!(formatter, "{scheme}{}/{}", self.addresses.join(","), self.database)
    }
}

impl Servers {
    /// Whether what is sent to all of them stays on this host.
    #[must_use]
    pub fn are_local(&self) -> bool {
        self.addresses.iter().all(|address| {
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        })
    }
}

/// How one logs on.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

impl Login {
    /// Of a file's text: the user in its first line, the password in its second.
    ///
    /// # Errors
    /// Where there is no user.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines().map(str::trim_end);
        let user = lines.next().filter(|user| !user.is_empty());
        let user =
            user.ok_or("it has no user: write the user into the first line, the password into the second")?;
        Ok(Self { user: user.to_owned(), password: lines.next().unwrap_or_default().to_owned() })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_servers_and_a_database() {
        let servers: Servers = "clickhouse://a:8123,[::1]:8124/fleet_1".parse().expect("servers");
        assert_eq!(servers.addresses, ["a:8123", "[::1]:8124"]);
        assert_eq!(servers.to_string(), "clickhouse://a:8123,[::1]:8124/fleet_1");
        assert!(!servers.are_local() && !servers.is_encrypted);
        let encrypted: Servers = "clickhouses://a:8443/fleet".parse().expect("servers");
        assert!(encrypted.is_encrypted && encrypted.to_string() == "clickhouses://a:8443/fleet");
        let local: Servers = "clickhouse://127.0.0.1:1,[::1]:2,localhost:3/d".parse().expect("servers");
        assert!(local.are_local());
        for bad in [
            "a:8123/d",
            "https://a:8123/d",
            "clickhouse://a:8123",
            "clickhouse://a:8123/",
            "clickhouse://a:8123/d;drop",
            "clickhouse://a/d",
            "clickhouse://a:0/d",
            "clickhouse://a:1,/d",
            "clickhouse://a:1,a:1/d",
            "clickhouse://me:secret@a:1/d",
        ] {
            let error = bad.parse::<Servers>().expect_err(bad).to_string();
            assert!(error.contains("give it as clickhouse://"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = Login::parse("agent\nsecret\n").expect("a login");
        assert_eq!((login.user(), login.password()), ("agent", "secret"));
        assert!(!format!("{login:?}").contains("secret"));
        assert!(Login::parse("\n").is_err());
    }
}
