//! `--store`: a directory, or servers.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use chokepoint_tls::read_secret;
use clap::Args;

use super::{Failure, Kind};
use crate::store::clickhouse::{self, BadAddress, ENCRYPTED_SCHEME, Login, SCHEME, Servers};
use crate::store::{Home, embedded};

/// Where a store is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Servers(Servers),
}

impl FromStr for Place {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if [SCHEME, ENCRYPTED_SCHEME].iter().any(|scheme| text.starts_with(scheme)) {
            text.parse().map(Self::Servers)
        } else {
            Ok(Self::Directory(text.into()))
        }
    }
}

/// How servers are spoken to.
#[derive(Debug, Default, Args)]
pub(super) struct Access {
    /// For servers, a file with the user in its first line and the password in its second; only its owner may read it
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_STORE_LOGIN")]
    store_login: Option<PathBuf>,
    /// For servers with TLS, the authority of their certificates (PEM), where the host does not trust it
    #[arg(long, value_name = "FILE", env = "CHOKEPOINT_STORE_CA")]
    store_ca: Option<PathBuf>,
}

impl Place {
    /// The store there, with these options. What is not encrypted stays on this host, or the network is trusted.
    ///
    /// # Errors
    /// Where a file is of no use, or the network would have to be trusted.
    pub(super) fn home(
        self,
        directory: embedded::Options,
        servers: clickhouse::Options,
        access: Access,
        trusts_network: bool,
    ) -> Result<Home, Failure> {
        let usage = |message: String| Failure { kind: Kind::Usage, message };
        let Access { store_login, store_ca } = access;
        match self {
            Self::Directory(_) if store_login.is_some() => {
                Err(usage("--store-login is for servers: leave it out for a store in a directory".to_owned()))
            }
            Self::Directory(_) if store_ca.is_some() => {
                Err(usage("--store-ca is for servers: leave it out for a store in a directory".to_owned()))
            }
            Self::Directory(path) => Ok(Home::Directory(path, directory)),
            Self::Servers(places) if store_ca.is_some() && !places.is_encrypted => Err(usage(format!(
                "nothing that is sent to {places} is encrypted, so --store-ca says nothing: write {ENCRYPTED_SCHEME}"
            ))),
            Self::Servers(places) if !(places.is_encrypted || places.are_local() || trusts_network) => {
                Err(usage(format!(
                    "what is sent to {places} is not encrypted: write {ENCRYPTED_SCHEME} where servers speak TLS, give addresses of this \
                     host, as the near ends of tunnels have, or --trust-network"
                )))
            }
            Self::Servers(places) => {
                let login = store_login.as_deref().map(read_login).transpose().map_err(usage)?;
                Ok(Home::Servers(places, clickhouse::Options { login, ca: store_ca, ..servers }))
            }
        }
    }
}

fn read_login(path: &Path) -> Result<Login, String> {
    let text = read_secret(path).map_err(|error| error.to_string())?;
    Login::parse(&text).map_err(|why| format!("{} is no login: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_not_encrypted_stays_on_the_host_or_is_trusted() {
        let home = |store: &str, trusts| {
            let place: Place = store.parse().expect("a place");
            let (directory, servers) = (embedded::Options::default(), clickhouse::Options::default());
            place.home(directory, servers, Access::default(), trusts)
        };
        assert!(matches!(home("/var/lib/x", false), Ok(Home::Directory(..))));
        assert!(matches!(home("clickhouse://127.0.0.1:8123/d", false), Ok(Home::Servers(..))));
        assert!(matches!(home("clickhouse://db:8123/d", true), Ok(Home::Servers(..))));
        assert!(matches!(home("clickhouses://db:8443/d", false), Ok(Home::Servers(..))));
        let refused = home("clickhouse://db:8123/d", false).expect_err("it is refused");
        assert!(refused.kind == Kind::Usage && refused.message.contains("--trust-network"));
        assert!("clickhouse://db/d".parse::<Place>().is_err());
    }

    #[test]
    fn a_login_comes_from_a_file_that_is_a_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("login");
        let write = |text: &str, mode| {
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        };
        write("me\nsecret\n", 0o600);
        assert!(read_login(&path).is_ok());
        write("me\nsecret\n", 0o644);
        let error = read_login(&path).expect_err("everybody may read it");
        assert!(error.contains("chmod 600") && !error.contains("secret\n"), "{error}");
        write("", 0o600);
        assert!(read_login(&path).is_err());
    }

    #[test]
    fn what_is_for_others_is_refused() {
        let home = |store: &str, access| {
            let place: Place = store.parse().expect("a place");
            place.home(embedded::Options::default(), clickhouse::Options::default(), access, true)
        };
        let ca = || Access { store_ca: Some("ca.pem".into()), ..Access::default() };
        let refused = |store: &str, access| home(store, access).expect_err("it is refused").message;
        assert!(refused("/var/lib/x", ca()).contains("--store-ca"));
        assert!(refused("clickhouse://db:8123/d", ca()).contains("clickhouses://"));
        assert!(matches!(home("clickhouses://db:8443/d", ca()), Ok(Home::Servers(..))));
    }
}
