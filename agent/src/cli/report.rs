//! `chokepoint report`, and where reports are written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chokepoint_analysis::report::document::Document;
use chokepoint_analysis::report::{self, Format, Recorded};
use clap::Args;

use super::recorded;
use crate::destination::Destination;
use crate::failure::{Failure, Kind};

/// Where a report goes if no file is named.
const STDOUT: &str = "-";

/// Arguments of `chokepoint report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint record -o before.chokepoint            a recording of everything
  chokepoint report before.chokepoint               its audit, as Markdown
  chokepoint report before.chokepoint -o audit.html or as a page, with flame graphs
  chokepoint report before.chokepoint after.chokepoint
                                                    with what has changed since

It needs no privileges, and gives the same report on any machine. `diagnose -o` writes a shorter one, for who has to act now.")]
pub struct Arguments {
    /// A recording of everything (`record -o FILE.chokepoint`).
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// Another, made after something was changed.
    #[arg(value_name = "AFTER")]
    after: Option<PathBuf>,
    /// File to write, or - for standard output. Its name's end chooses the format, see --format.
    #[arg(short, long, value_name = "FILE", default_value = STDOUT)]
    output: PathBuf,
    /// Format: md or html [default: by the file's name; md for -]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Writes the audit report.
///
/// # Errors
/// A [`Failure`] that says what to do; nothing has been written then.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let output = Output::named(&arguments.output, arguments.format.as_deref())?;
    let before = recorded::read(&arguments.recording)?;
    let after = arguments.after.as_deref().map(recorded::read).transpose()?;
    let before = Recorded::of(&before);
    let after = after.as_ref().map(Recorded::of);
    output.write(&report::audit(&before, after.as_ref()))?;
    Ok(ExitCode::SUCCESS)
}

/// A destination and the format written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    destination: Destination,
    format: Format,
}

impl Output {
    /// What the command line names, after finding out whether it can be written.
    ///
    /// # Errors
    /// A [`Kind::Usage`] failure where there is no such format; a [`Kind::Output`] one that names the path.
    pub fn named(path: &Path, format: Option<&str>) -> Result<Self, Failure> {
        let destination = Destination::named(path);
        let format = match format {
            Some(name) => name.parse(),
            None if destination == Destination::Stdout => Ok(Format::Markdown),
            None => Format::from_path(path),
        };
        let format = format
            .map_err(|error| Failure::new(Kind::Usage, format!("{error}; choose one with --format")))?;
        destination.check()?;
        Ok(Self { destination, format })
    }

    /// Writes a report there, and says so where it is a file.
    ///
    /// # Errors
    /// A [`Kind::Output`] failure; nothing is left behind then.
    pub fn write(&self, document: &Document<'_>) -> Result<(), Failure> {
        self.destination.write(|out| Ok(report::write(document, self.format, out)?))?;
        if let Destination::File(path) = &self.destination {
            eprintln!("wrote {} ({})", path.display(), self.format);
        }
        Ok(())
    }
}
