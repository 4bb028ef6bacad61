//! Reports: a verdict and what it rests on, as one document to send and to keep.
//!
//! [`diagnosis`] is for who has to act now: the answer, what to do, and flame graphs to look into it. [`audit`] is for the record: what
//! was measured, what is claimed of it and what is not, and what has changed since. Both are put together from the same parts, a
//! subject a file, into a [`Document`], which [`write()`] writes in the [`Format`] that is asked for. Equal
//! recordings give equal bytes.

mod audit;
mod before_after;
pub mod comparison;
mod coverage;
mod diagnosis;
pub mod document;
mod finding;
mod flames;
mod html;
mod latencies;
mod markdown;
mod signals;
mod time;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use crate::export::UnknownFormat;
use crate::profile::Profile;
use crate::verdict::{Diagnosis, diagnose};
use document::Document;

pub use audit::audit;
pub use diagnosis::diagnosis;

/// A recording of everything, and what it says.
#[derive(Clone, Debug)]
pub struct Recorded<'p> {
    /// The recording.
    pub profile: &'p Profile,
    /// Its verdict.
    pub diagnosis: Diagnosis,
}

impl<'p> Recorded<'p> {
    /// Draws the verdict of a recording.
    #[must_use]
    pub fn of(profile: &'p Profile) -> Self {
        Self { profile, diagnosis: diagnose(profile) }
    }
}

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// For forges and mail.
    Markdown,
    /// One page for a browser, with flame graphs that can be zoomed into.
    Html,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Markdown, Self::Html];

    /// Its name, which is also how its files' names end.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Markdown => "md",
            Self::Html => "html",
        }
    }

    /// The format that the file's name asks for by its end.
    ///
    /// # Errors
    /// No format's files end so.
    pub fn from_path(path: &Path) -> Result<Self, UnknownFormat> {
        let end = path.extension().unwrap_or_default().to_string_lossy();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        end.parse().map_err(|_| Self::unknown(&file))
    }

    fn unknown(asked: &str) -> UnknownFormat {
        UnknownFormat::new(asked, " of a report", &Self::ALL.map(Self::name))
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
        match name.to_ascii_lowercase().as_str() {
            "md" | "markdown" => Ok(Self::Markdown),
            "html" | "htm" => Ok(Self::Html),
            _ => Err(Self::unknown(name)),
        }
    }
}

/// Writes a report.
///
/// # Errors
/// The writer fails.
pub fn write(document: &Document<'_>, format: Format, out: &mut dyn Write) -> io::Result<()> {
    let text = match format {
        Format::Markdown => markdown::render(document),
        Format::Html => html::render(document)?,
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_the_end_of_a_file_name() {
        for (path, format) in [
            ("report.md", Some(Format::Markdown)),
            ("a.b/REPORT.HTML", Some(Format::Html)),
            ("page.htm", Some(Format::Html)),
            ("html", None),
            ("report.html.gz", None),
            ("", None),
        ] {
            assert_eq!(Format::from_path(Path::new(path)).ok(), format, "{path}");
        }
        assert_eq!("markdown".parse(), Ok(Format::Markdown));
        let error = Format::from_path(Path::new("/tmp/report")).expect_err("no such format").to_string();
        assert_eq!(error, r#"no format for "report"; the formats of a report are md, html"#);
        let error = "pdf".parse::<Format>().expect_err("no such format").to_string();
        assert_eq!(error, r#"no format for "pdf"; the formats of a report are md, html"#);
    }
}
