//! Certificates for tests, of every kind of right and wrong.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use crate::ClientFiles;

/// An authority, with a directory for what it issues.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its certificate.
    pub ca: PathBuf,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one, with its certificate in a directory.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let ca = directory.join(format!("{name}.pem"));
        write(&ca, &certificate, 0o644);
        Self { issuer: Issuer::new(params, key), directory: directory.to_owned(), ca }
    }

    /// A certificate for these names, in files of the first of them.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names[0], params(names))
    }

    /// One that has expired.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        let mut params = params(names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue_with(&format!("{}-expired", names[0]), params)
    }

    /// One without a name.
    #[must_use]
    pub fn issue_nameless(&self) -> Issued {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, "somebody");
        self.issue_with("nameless", params)
    }

    fn issue_with(&self, file: &str, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let [cert, key_file] = ["pem", "key"].map(|end| self.directory.join(format!("{file}.{end}")));
        write(&cert, &certificate, 0o644);
        write(&key_file, &key.serialize_pem(), 0o600);
        Issued { cert, key: key_file }
    }

    /// A client that trusts this authority.
    #[must_use]
    pub fn client(&self) -> ClientFiles {
        ClientFiles { ca: Some(self.ca.clone()), ..ClientFiles::default() }
    }
}

impl Issued {
    /// A client that shows this certificate.
    #[must_use]
    pub fn shown_by(&self, client: ClientFiles) -> ClientFiles {
        ClientFiles { cert: Some(self.cert.clone()), key: Some(self.key.clone()), ..client }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of hosts");
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn write(path: &Path, text: &str, mode: u32) {
    let _ = std::fs::remove_file(path);
    let file = File::options().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("it can be written");
}
