//! Certificates, keys and tokens in files.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Bytes of a file at most: a host's bundle of authorities has a quarter of it.
const MAX_BYTES: u64 = 1 << 20;
/// Permission of everybody to read. A group may: that is how certificates are shared with services on many hosts.
const OTHERS_READ: u32 = 0o004;
/// A file that was written less than this ago may be written still.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Everybody on the host may read what only its owner should.
    #[error("{} is a secret that everybody may read: chmod 600 it", .0.display())]
    Exposed(PathBuf),
    /// It is not what it should be.
    #[error("{} {reason}", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl FileError {
    fn unfit(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unfit { path: path.to_owned(), reason: reason.into() }
    }
}

/// The text of a file.
///
/// # Errors
/// [`FileError`], which names the file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    text(path, read(path, false)?)
}

/// The text of a file that only its owner may read, without the white space around it.
///
/// # Errors
/// [`FileError`], which names the file and no part of what is in it.
pub fn read_secret(path: &Path) -> Result<String, FileError> {
    let secret = text(path, read(path, true)?)?.trim().to_owned();
    if secret.is_empty() {
        return Err(FileError::unfit(path, "is empty"));
    }
    Ok(secret)
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, FileError> {
    String::from_utf8(bytes).map_err(|_| FileError::unfit(path, "is no text"))
}

fn read(path: &Path, is_secret: bool) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let facts = std::fs::metadata(path).map_err(unreadable)?;
    // Opening a pipe would wait for whoever writes it.
    if !facts.is_file() {
        return Err(FileError::unfit(path, "is no file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    if is_secret && file.metadata().map_err(unreadable)?.mode() & OTHERS_READ != 0 {
        return Err(FileError::Exposed(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::unfit(path, format!("has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// A chain of certificates, the owner's first.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path, false)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| damaged(path, &error))?;
    if chain.is_empty() {
        return Err(FileError::unfit(
            path,
            "has no certificate: PEM is expected, -----BEGIN CERTIFICATE-----",
        ));
    }
    Ok(chain)
}

/// A private key, which only its owner may read.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read(path, true)?).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::unfit(
            path,
            "has no private key: PEM without a password is expected, -----BEGIN PRIVATE KEY-----",
        ),
        error => damaged(path, &error),
    })
}

/// Authorities that are trusted.
pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| FileError::unfit(path, format!("has no authority: {error}")))?;
    }
    Ok(store)
}

/// What is damaged may be a secret: nothing of it is told.
fn damaged(path: &Path, error: &pem::Error) -> FileError {
    let reason = match error {
        pem::Error::MissingSectionEnd { .. } => "ends within a section of PEM",
        _ => "is no PEM",
    };
    FileError::unfit(path, reason)
}

/// Which versions of files there are, to see that one has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<Version>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
}

impl Stamp {
    /// That of the files as they are now.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let version = |path: &Path| {
            let facts = std::fs::metadata(path).ok()?;
            let modified_ns = i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec());
            Some(Version { device: facts.dev(), inode: facts.ino(), bytes: facts.len(), modified_ns })
        };
        Self(paths.into_iter().map(version).collect())
    }

    /// Whether nobody seems to be writing any of them.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before_ns = now.saturating_sub(SETTLED_AFTER).as_nanos() as i128;
        let now_ns = now.as_nanos() as i128;
        // A time to come is no sign of a writer.
        self.0.iter().flatten().all(|version| !(before_ns..=now_ns).contains(&version.modified_ns))
    }
}
