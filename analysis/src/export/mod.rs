//! Writes a profile in the formats of other tools. One format a file.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use crate::profile::Profile;

pub(crate) mod caption;
mod firefox;
mod fold;
mod folded;
pub mod json;
pub mod picture;
mod pprof;
mod speedscope;
pub(crate) mod svg;

pub use caption::utc;

/// How the name of a file ends that has a recording of everything, which is in [`Format::Json`].
const RECORDING: &str = ".chokepoint";

/// Whether a file's name says that it has a recording of everything.
#[must_use]
pub fn is_recording(path: &Path) -> bool {
    let file = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    file.ends_with(RECORDING)
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A flame graph to open in a browser.
    Svg,
    /// Folded stacks, `comm;root;...;leaf count`, as flame graph tools read them.
    Folded,
    /// Gzipped profile.proto, as `go tool pprof` and profile stores read it.
    Pprof,
    /// For <https://www.speedscope.app>.
    Speedscope,
    /// For <https://profiler.firefox.com>. Needs the profile's timeline.
    Firefox,
    /// All that the profile holds, as `docs/format-json.md` describes it.
    Json,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] =
        [Self::Svg, Self::Folded, Self::Pprof, Self::Speedscope, Self::Firefox, Self::Json];

    /// Its name, which is also how its files' names end.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Pprof => "pb.gz",
            Self::Speedscope => "speedscope.json",
            Self::Firefox => "firefox.json",
            Self::Json => "json",
        }
    }

    /// The format that the file's name asks for by its end: that of its name, or of what [is in it](is_recording).
    ///
    /// # Errors
    /// No format's files end so.
    pub fn from_path(path: &Path) -> Result<Self, UnknownFormat> {
        if is_recording(path) {
            return Ok(Self::Json);
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ends_with = |format: &Self| {
            file.strip_suffix(format.name())
                // A file may be called `speedscope.json` and nothing else; one called `svg` has no extension.
                .is_some_and(|rest| rest.ends_with('.') || (rest.is_empty() && file.contains('.')))
        };
        // `.speedscope.json` is also a `.json`: the longest name that fits is meant.
        Self::ALL
            .into_iter()
            .filter(ends_with)
            .max_by_key(|format| format.name().len())
            .ok_or_else(|| UnknownFormat::new(file, "", &Self::ALL.map(Self::name)))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "svg" => Ok(Self::Svg),
            "folded" => Ok(Self::Folded),
            "pb.gz" | "pprof" => Ok(Self::Pprof),
            "speedscope.json" | "speedscope" => Ok(Self::Speedscope),
            "firefox.json" | "firefox" => Ok(Self::Firefox),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat::new(name, "", &Self::ALL.map(Self::name))),
        }
    }
}

/// A name or file name that stands for no format, of a profile or of a report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no format for {asked:?}; the formats{whose} are {known}")]
pub struct UnknownFormat {
    asked: String,
    whose: &'static str,
    known: String,
}

impl UnknownFormat {
    pub(crate) fn new(asked: impl Into<String>, whose: &'static str, known: &[&str]) -> Self {
        Self { asked: asked.into(), whose, known: known.join(", ") }
    }
}

/// How a profile is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Tell the threads of a process apart. Formats that always do so (pprof, Firefox, JSON) take no notice.
    pub per_thread: bool,
}

/// Why a profile could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The writer failed.
    #[error("could not write the profile")]
    Io(#[from] io::Error),
    /// The format shows samples at their times, and this profile keeps only sums.
    #[error("the recording has no timeline, which {0} needs; record again in this format, or choose another")]
    NoTimeline(Format),
}

/// Writes the profile. Equal profiles give equal bytes.
///
/// # Errors
/// The writer fails, or the format needs what the profile does not hold; in the second case nothing has been written.
pub fn write(
    profile: &Profile,
    format: Format,
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut out = BufWriter::new(out);
    match format {
        Format::Svg => svg::write(profile, options, &mut out)?,
        Format::Folded => folded::write(profile, options, &mut out)?,
        Format::Pprof => pprof::write(profile, &mut out)?,
        Format::Speedscope => speedscope::write(profile, options, &mut out)?,
        Format::Firefox => firefox::write(profile, &mut out)?,
        Format::Json => json::write(profile, &mut out)?,
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_the_end_of_a_file_name() {
        for (path, format) in [
            ("flame.svg", Some(Format::Svg)),
            ("/tmp/a.b/FLAME.SVG", Some(Format::Svg)),
            ("out.folded", Some(Format::Folded)),
            ("cpu.pb.gz", Some(Format::Pprof)),
            ("a.speedscope.json", Some(Format::Speedscope)),
            ("speedscope.json", Some(Format::Speedscope)),
            ("myspeedscope.json", Some(Format::Json)),
            ("a.firefox.json", Some(Format::Firefox)),
            ("a.json", Some(Format::Json)),
            (".json", Some(Format::Json)),
            ("host.chokepoint", Some(Format::Json)),
            ("chokepoint", None),
            ("svg", None),
            ("json", None),
            ("a.gz", None),
            ("a.svg.gz", None),
            ("dir.svg/out", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(Format::from_path(Path::new(path)).ok(), format, "{path}");
        }
    }

    #[test]
    fn formats_are_known_by_name_and_errors_list_them() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("pprof".parse(), Ok(Format::Pprof));
        let error = "flame".parse::<Format>().expect_err("no such format").to_string();
        assert_eq!(
            error,
            r#"no format for "flame"; the formats are svg, folded, pb.gz, speedscope.json, firefox.json, json"#
        );
    }
}
