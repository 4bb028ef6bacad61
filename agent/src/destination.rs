//! Where output goes: there as a whole, or not at all.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chokepoint_analysis::export::ExportError;
use tempfile::NamedTempFile;

use crate::failure::{Failure, Kind};

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, replaced if it exists.
    File(PathBuf),
}

impl Destination {
    /// What the command line names: `-` is standard output.
    #[must_use]
    pub fn named(path: &Path) -> Self {
        if path.as_os_str() == "-" { Self::Stdout } else { Self::File(path.to_owned()) }
    }

    /// Finds out now, not after the recording, whether the file can be written.
    ///
    /// # Errors
    /// A [`Kind::Output`] failure that names the path.
    pub fn check(&self) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        match fs::metadata(path) {
            Ok(facts) if facts.is_dir() => {
                return Err(unwritable(path, &io::Error::other("it is a directory")));
            }
            // A pipe or a device such as /dev/null is written in place.
            Ok(facts) if !facts.is_file() => return Ok(()),
            _ => {}
        }
        temporary_beside(path).map(drop)
    }

    /// Has `write` write there. A file appears under its name only when all of it is on the disk.
    ///
    /// # Errors
    /// A [`Kind::Output`] failure; nothing is left behind then.
    pub fn write(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
    ) -> Result<(), Failure> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                match write(&mut out) {
                    // The reader has seen enough.
                    Err(ExportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    result => Ok(result?),
                }
            }
            Self::File(path) if is_special(path) => {
                let mut file =
                    fs::File::options().write(true).open(path).map_err(|error| unwritable(path, &error))?;
                Ok(write(&mut file)?)
            }
            Self::File(path) => {
                // A link stays a link, and what it leads to keeps its permissions.
                let path = &fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let mut file = temporary_beside(path)?;
                if let Ok(replaced) = fs::metadata(path) {
                    file.as_file()
                        .set_permissions(replaced.permissions())
                        .map_err(|error| unwritable(path, &error))?;
                }
                write(file.as_file_mut()).map_err(|error| match error {
                    ExportError::Io(error) => unwritable(path, &error),
                    other => other.into(),
                })?;
                file.as_file_mut().flush().map_err(|error| unwritable(path, &error))?;
                file.as_file().sync_data().map_err(|error| unwritable(path, &error))?;
                file.persist(path).map_err(|error| unwritable(path, &error.error))?;
                Ok(())
            }
        }
    }
}

fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| !facts.is_file())
}

/// A file in the same directory, removed when dropped, so that renaming it is atomic.
fn temporary_beside(path: &Path) -> Result<NamedTempFile, Failure> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".chokepoint-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .map_err(|error| unwritable(path, &error))?;
    Ok(file)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another place with -o"
        }
        _ => "choose another place with -o",
    };
    let cause = error.to_string();
    let cause =
        cause.split(" (os error").next().unwrap_or_default().split(" at path").next().unwrap_or_default();
    Failure::new(Kind::Output, format!("cannot write {}: {}: {advice}", path.display(), cause.to_lowercase()))
}
