//! The file of a baseline: JSON that `docs/baselines.md` describes.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::{Baseline, MAX_SERIES, MAX_WINDOWS};

const SCHEMA: &str = "chokepoint-baseline";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File<'b> {
    schema: Cow<'b, str>,
    version: u32,
    baseline: Cow<'b, Baseline>,
}

/// What tells a file's format.
#[derive(Deserialize)]
struct Mark {
    schema: String,
    version: u32,
}

/// Why a file could not be read as a baseline.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no JSON, or lacks a field.
    #[error("not a baseline in Chokepoint's JSON format")]
    Json(#[from] serde_json::Error),
    /// It holds something else, or comes from a later version.
    #[error("the file is {schema:?} version {version}; this program reads \"{SCHEMA}\" version {VERSION}")]
    Version {
        /// What the file says that it is.
        schema: String,
        /// The version that the file says it has.
        version: u32,
    },
    /// Its parts do not fit each other.
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
}

/// Whether a file says that it is a baseline, of whatever version.
#[must_use]
pub fn is_baseline(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Mark>(bytes).is_ok_and(|mark| mark.schema == SCHEMA)
}

/// Writes a baseline. Equal ones give equal bytes.
///
/// # Errors
/// The writer fails.
pub fn write(baseline: &Baseline, out: &mut dyn Write) -> io::Result<()> {
    let file = File { schema: Cow::Borrowed(SCHEMA), version: VERSION, baseline: Cow::Borrowed(baseline) };
    Ok(serde_json::to_writer(out, &file)?)
}

/// Reads a baseline back. The file may come from anyone: whatever it refers to is checked.
///
/// # Errors
/// It is not what [`write`] writes.
pub fn read(bytes: &[u8]) -> Result<Baseline, ReadError> {
    let Mark { schema, version } = serde_json::from_slice(bytes)?;
    if (schema.as_str(), version) != (SCHEMA, VERSION) {
        return Err(ReadError::Version { schema, version });
    }
    let baseline = serde_json::from_slice::<File<'_>>(bytes)?.baseline.into_owned();
    let windows = baseline.windows.len();
    if windows == 0 || windows > MAX_WINDOWS + 1 || baseline.series.len() > MAX_SERIES {
        return Err(ReadError::Damaged("it has no windows, or too many windows or series"));
    }
    if baseline.series.iter().any(|series| series.values.len() != windows) {
        return Err(ReadError::Damaged("a series has not one value for each window"));
    }
    if baseline.windows.iter().any(|window| window.duration_ns == 0) {
        return Err(ReadError::Damaged("a window has no length"));
    }
    let names = baseline.stacks.names.len();
    let mut stacks = baseline.stacks.stacks.iter();
    if stacks.any(|stack| stack.names.is_empty() || stack.names.iter().any(|name| *name as usize >= names)) {
        return Err(ReadError::Damaged("a stack refers to a name that is not there"));
    }
    let times = baseline.stacks.stacks.iter().try_fold(0_u64, |sum, stack| sum.checked_add(stack.time_ns));
    let counts = baseline.stacks.stacks.iter().try_fold(0_u64, |sum, stack| sum.checked_add(stack.count));
    let lengths = baseline.windows.iter().try_fold(0_u64, |sum, window| sum.checked_add(window.duration_ns));
    if times.is_none() || counts.is_none() || lengths.is_none() {
        return Err(ReadError::Damaged("its times add up to more than 2^64"));
    }
    Ok(baseline)
}
