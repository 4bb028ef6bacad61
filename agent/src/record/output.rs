//! The files a recording ends in.

use std::path::{Path, PathBuf};

use chokepoint_analysis::export::{self, Format};
use chokepoint_analysis::profile::Profile;

use super::event::Event;
use crate::destination::Destination;
use crate::failure::{Failure, Kind};

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
        self.destination.check()
    }

    /// Writes the profile.
    ///
    /// # Errors
    /// A [`Kind::Output`] failure; nothing is left behind then.
    pub fn write(&self, profile: &Profile) -> Result<(), Failure> {
        self.destination.write(|out| export::write(profile, self.format, &self.options, out))
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
