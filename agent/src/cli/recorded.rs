//! Recordings of everything that were written to files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use chokepoint_analysis::export::json;
use chokepoint_analysis::profile::Profile;

use crate::failure::{Failure, Kind, with_causes};
use crate::record::event::Event;

/// Of a file more than this is not read.
const MAX_BYTES: u64 = 1 << 30;

/// Reads a recording of everything (`record -o FILE.chokepoint`).
///
/// # Errors
/// A [`Kind::Target`] failure that names the file, where it cannot be read or is of something else.
pub fn read(path: &Path) -> Result<Profile, Failure> {
    of_bytes(&bytes(path, "recording")?, path)
}

/// A file's bytes. `what` is what it is to be.
///
/// # Errors
/// A [`Kind::Target`] failure that names the file.
pub fn bytes(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let cause = with_causes(&error).to_lowercase();
            Err(Failure::new(Kind::Target, format!("cannot read the {what} {}: {cause}", path.display())))
        }
    }
}

/// The recording of everything that a file's bytes are.
///
/// # Errors
/// A [`Kind::Target`] failure that names the file.
pub fn of_bytes(mut bytes: &[u8], path: &Path) -> Result<Profile, Failure> {
    let profile = json::read(&mut bytes).map_err(|error| {
        let message = format!("cannot read the recording {}: {}", path.display(), with_causes(&error));
        Failure::new(Kind::Target, message)
    })?;
    if profile.header.kind != Event::All.name() {
        return Err(Failure::new(
            Kind::Target,
            format!(
                "{} is a recording of {}: a verdict needs one of everything, record -e all",
                path.display(),
                profile.header.kind
            ),
        ));
    }
    Ok(profile)
}
