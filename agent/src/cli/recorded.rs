//! Recordings of everything that were written to files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use chokepoint_analysis::export::json;
use chokepoint_analysis::profile::Profile;

use crate::failure::{Failure, Kind, with_causes};
use crate::record::event::Event;

/// Of a recording more than this is not read.
const MAX_RECORDING_BYTES: u64 = 1 << 30;

/// Reads a recording of everything (`record -e all -o FILE.json`).
///
/// # Errors
/// A [`Kind::Target`] failure that names the file, where it cannot be read or is of something else.
pub fn read(path: &Path) -> Result<Profile, Failure> {
    let refused = |cause: String| {
        Failure::new(Kind::Target, format!("cannot read the recording {}: {cause}", path.display()))
    };
    let file = File::open(path).map_err(|error| refused(with_causes(&error).to_lowercase()))?;
    let profile =
        json::read(&mut file.take(MAX_RECORDING_BYTES)).map_err(|error| refused(with_causes(&error)))?;
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
