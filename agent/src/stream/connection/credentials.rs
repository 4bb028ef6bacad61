//! What of the collector is trusted, and what it is shown. All of it is in files, which are read anew for each stream: who renews a certificate
//! or a token only has to write the file.

use std::path::PathBuf;

use chokepoint_tls::{Client, ClientFiles, HTTP_2, Stamp, is_this_host, read_secret};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Uri;

/// What is trusted and shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For TLS.
    pub files: ClientFiles,
    /// The file that has the token, and nothing else.
    pub token_file: Option<PathBuf>,
}

impl Credentials {
    /// Whether they make sense for a collector, without a look at the files.
    ///
    /// # Errors
    /// Which setting does not, and what to give.
    pub fn check_for(&self, collector: &str) -> Result<(), String> {
        let uri: Option<Uri> = collector.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).filter(|host| !host.is_empty());
        let is_encrypted = match uri.as_ref().and_then(Uri::scheme_str) {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(no_address(collector)),
        };
        let host = host.ok_or_else(|| no_address(collector))?;
        let ClientFiles { ca, cert, key, server_name } = &self.files;
        if cert.is_some() != key.is_some() {
            return Err("cert: a certificate and its key go together: give both cert and key".to_owned());
        }
        if is_encrypted {
            return Ok(());
        }
        let settings =
            [("ca", ca.is_some()), ("cert", cert.is_some()), ("server-name", server_name.is_some())];
        if let Some((name, _)) = settings.iter().find(|(_, is_given)| *is_given) {
            return Err(format!("{name}: say https:// for the collector, for {collector} is not encrypted"));
        }
        if self.token_file.is_some() && !is_this_host(host) {
            return Err(format!(
                "token-file: the token would be sent to {host} for all to read: say https://"
            ));
        }
        Ok(())
    }

    /// Reads all files once, as each stream will.
    ///
    /// # Errors
    /// Which is of no use, and why.
    pub fn try_for(&self, collector: &str) -> Result<(), String> {
        self.tls(collector)?;
        self.authorization()?;
        Ok(())
    }

    /// What speaks TLS with the collector; `None`: nothing is encrypted.
    pub(super) fn tls(&self, collector: &str) -> Result<Option<Client>, String> {
        let is_encrypted = collector.starts_with("https://");
        is_encrypted.then(|| Client::new(&self.files, HTTP_2)).transpose().map_err(|error| error.to_string())
    }

    /// What says who the agent is; `None`: nothing but its certificate.
    pub(super) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let token = read_secret(path).map_err(|error| format!("token-file: {error}"))?;
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| format!("token-file: {} has no token", path.display()))?;
        // So that no log has it.
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Which versions of the files there are.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp::of(self.files.paths().chain(self.token_file.as_deref()))
    }
}

fn no_address(collector: &str) -> String {
    format!(
        "collector: {collector} is no address: give https://HOST:PORT, or http://HOST:PORT without encryption"
    )
}
