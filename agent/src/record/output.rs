//! The file a recording ends in: there as a whole, or not at all.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use chokepoint_analysis::export::{self, Format};
use chokepoint_analysis::profile::Profile;
use tempfile::NamedTempFile;

use super::event::Event;
use crate::failure::{Failure, Kind};

/// Where the profile goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, replaced if it exists.
    File(PathBuf),
}

/// A destination and the format written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where.
    pub destination: Destination,
    /// In which format.
    pub format: Format,
    /// How.
    pub options: export::Options,
}

impl Output {
    /// Where each of these events' profiles goes: of one to this place, of several to files beside it.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure where several would go to standard output.
    pub fn of_events(&self, events: &[Event]) -> Result<Vec<Self>, Failure> {
        if events.len() < 2 {
            return Ok(vec![self.clone()]);
        }
        let Destination::File(path) = &self.destination else {
            let message =
                "several events cannot go to standard output: name a file with -o, or one event with -e";
            return Err(Failure::new(Kind::Usage, message));
        };
        let beside = |event: &Event| Self {
            destination: Destination::File(named_after(path, self.format, *event)),
            ..self.clone()
        };
        Ok(events.iter().map(beside).collect())
    }

    /// Finds out now, not after the recording, whether the file can be written.
    ///
    /// # Errors
    /// A [`Kind::Output`] failure that names the path.
    pub fn check(&self) -> Result<(), Failure> {
        let Destination::File(path) = &self.destination else { return Ok(()) };
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

    /// Writes the profile. A file appears under its name only when all of it is on the disk.
    ///
    /// # Errors
    /// A [`Kind::Output`] failure; nothing is left behind then.
    pub fn write(&self, profile: &Profile) -> Result<(), Failure> {
        match &self.destination {
            Destination::Stdout => {
                let mut out = io::stdout().lock();
                match export::write(profile, self.format, &self.options, &mut out) {
                    // The reader has seen enough.
                    Err(export::ExportError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                        Ok(())
                    }
                    result => Ok(result?),
                }
            }
            Destination::File(path) if is_special(path) => {
                let mut file =
                    fs::File::options().write(true).open(path).map_err(|error| unwritable(path, &error))?;
                Ok(export::write(profile, self.format, &self.options, &mut file)?)
            }
            Destination::File(path) => {
                // A link stays a link, and what it leads to keeps its permissions.
                let path = &fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let mut file = temporary_beside(path)?;
                if let Ok(replaced) = fs::metadata(path) {
                    file.as_file()
                        .set_permissions(replaced.permissions())
                        .map_err(|error| unwritable(path, &error))?;
                }
                export::write(profile, self.format, &self.options, file.as_file_mut()).map_err(|error| {
                    match error {
                        export::ExportError::Io(error) => unwritable(path, &error),
                        other => other.into(),
                    }
                })?;
                file.as_file_mut().flush().map_err(|error| unwritable(path, &error))?;
                file.as_file().sync_data().map_err(|error| unwritable(path, &error))?;
                file.persist(path).map_err(|error| unwritable(path, &error.error))?;
                Ok(())
            }
        }
    }
}

/// `out.pb.gz` becomes `out.off-cpu.pb.gz`.
fn named_after(path: &Path, format: Format, event: Event) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = format!(".{format}");
    let name = match name.strip_suffix(&end) {
        Some(start) => format!("{start}.{event}{end}"),
        None => format!("{name}.{event}"),
    };
    path.with_file_name(name)
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
