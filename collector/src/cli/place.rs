//! `--store`: a directory, or servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Failure, Kind};
use crate::store::clickhouse::{self, BadAddress, Login, SCHEME, Servers};
use crate::store::{Home, embedded};

/// Bytes of a file with a user and a password.
const MAX_LOGIN_BYTES: u64 = 4 << 10;

/// Where a store is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Servers(Servers),
}

impl FromStr for Place {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if text.starts_with(SCHEME) {
            text.parse().map(Self::Servers)
        } else {
            Ok(Self::Directory(text.into()))
        }
    }
}

impl Place {
    /// The store there, with these options, by the user of this file. What is sent to servers is not encrypted: they are on this host, or
    /// the network is trusted.
    ///
    /// # Errors
    /// Where the file is none, or the network would have to be trusted.
    pub(super) fn home(
        self,
        directory: embedded::Options,
        servers: clickhouse::Options,
        login: Option<&Path>,
        trusts_network: bool,
    ) -> Result<Home, Failure> {
        let usage = |message: String| Failure { kind: Kind::Usage, message };
        match self {
            Self::Directory(path) if login.is_none() => Ok(Home::Directory(path, directory)),
            Self::Directory(_) => {
                Err(usage("--store-login is for servers: leave it out for a store in a directory".to_owned()))
            }
            Self::Servers(places) => {
                if !(places.are_local() || trusts_network) {
                    return Err(usage(format!(
                        "what is sent to {places} is not encrypted: give addresses of this host, as the near ends of tunnels have, or \
                         --trust-network"
                    )));
                }
                let login = login.map(read_login).transpose().map_err(usage)?;
                Ok(Home::Servers(places, clickhouse::Options { login, ..servers }))
            }
        }
    }
}

fn read_login(path: &Path) -> Result<Login, String> {
    let shown = path.display();
    let bytes = fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
    if bytes > MAX_LOGIN_BYTES {
        return Err(format!("{shown} is no login: it is longer than {MAX_LOGIN_BYTES} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Login::parse(&text).map_err(|why| format!("{shown} is no login: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_encrypted_stays_on_the_host_or_is_trusted() {
        let home = |store: &str, trusts| {
            let place: Place = store.parse().expect("a place");
            place.home(embedded::Options::default(), clickhouse::Options::default(), None, trusts)
        };
        assert!(matches!(home("/var/lib/x", false), Ok(Home::Directory(..))));
        assert!(matches!(home("clickhouse://127.0.0.1:8123/d", false), Ok(Home::Servers(..))));
        assert!(matches!(home("clickhouse://db:8123/d", true), Ok(Home::Servers(..))));
        let refused = home("clickhouse://db:8123/d", false).expect_err("it is refused");
        assert!(refused.kind == Kind::Usage && refused.message.contains("--trust-network"));
        assert!("clickhouse://db/d".parse::<Place>().is_err());
    }

    #[test]
    fn a_login_comes_from_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("login");
        fs::write(&path, "me\nsecret\n").expect("a file");
        assert!(read_login(&path).is_ok());
        fs::write(&path, "").expect("a file");
        assert!(read_login(&path).expect_err("no user").contains("first line"));
        fs::write(&path, "x".repeat(5000)).expect("a file");
        assert!(read_login(&path).expect_err("too long").contains("longer"));
    }
}
