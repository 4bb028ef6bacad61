//! `chokepoint compare`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chokepoint_analysis::baseline::{self, Baseline, of_recording};
use chokepoint_analysis::compare::text::{Style, page};
use chokepoint_analysis::compare::{self, DEFAULT_THRESHOLD, Outcome, Shown, flame};
use clap::{Args, ValueEnum};

use super::baseline::parse;
use super::recorded;
use super::{print, print_json};
use crate::destination::Destination;
use crate::failure::{Failure, INCONCLUSIVE, Kind, REGRESSION};

/// Time that functions and the flame graph show.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Time {
    /// On CPUs.
    Cpu,
    /// All other.
    OffCpu,
    /// All of it.
    Wall,
}

/// Arguments of `chokepoint compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint compare base.json new.json                 what differs, and whether it is a regression
  chokepoint compare base.json new.json -o diff.svg     and a flame graph of what grew and shrank
  chokepoint compare base.json new.json --json --threshold 10

Exit codes: 0 no regression, 7 a regression, 8 it cannot be told; others are failures, as of every command.

Both may also be recordings of everything (record -o FILE.chokepoint). Those are a single window: what differs is shown, but
not whether it is chance.")]
pub struct Arguments {
    /// The baseline to compare with.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The baseline that may be worse.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// Per cent by which demand must grow to be a regression.
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent, default_value_t = DEFAULT_THRESHOLD * 100.0)]
    threshold: f64,
    /// Time that functions and the flame graph show.
    #[arg(long, value_enum, default_value_t = Time::Cpu)]
    show: Time,
    /// Write a differential flame graph (SVG) to this file, or - for standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
    /// Print every measure and function.
    #[arg(long, conflicts_with = "json")]
    all: bool,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent),
        _ => Err("give a number of per cent, 0 or more".to_owned()),
    }
}

/// Compares and prints to standard output. The exit code says whether there is a regression.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let destination = arguments.output.as_deref().map(Destination::named);
    if destination == Some(Destination::Stdout) && arguments.json {
        let message = "the flame graph and the JSON cannot both go to standard output: name a file with -o";
        return Err(Failure::new(Kind::Usage, message));
    }
    if let Some(destination) = &destination {
        destination.check()?;
    }
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let shown = match arguments.show {
        Time::Cpu => Shown::Cpu,
        Time::OffCpu => Shown::OffCpu,
        Time::Wall => Shown::Wall,
    };
    let options = compare::Options { threshold: arguments.threshold / 100.0, shown };
    let comparison = compare::compare(&before, &after, &options);
    if let Some(destination) = &destination {
        destination.write(|out| Ok(flame::write(&before, &after, &comparison, shown, out)?))?;
    }
    if destination != Some(Destination::Stdout) {
        if arguments.json {
            print_json(&comparison)?;
        } else {
            print(&page(&comparison, Style { colour: std::io::stdout().is_terminal(), all: arguments.all }))?;
        }
    }
    Ok(match comparison.outcome {
        Outcome::NoRegression => ExitCode::SUCCESS,
        Outcome::Regression => ExitCode::from(REGRESSION),
        Outcome::Inconclusive => ExitCode::from(INCONCLUSIVE),
    })
}

/// A baseline, or a recording as one.
fn read(path: &Path) -> Result<Baseline, Failure> {
    let bytes = recorded::bytes(path, "baseline")?;
    if baseline::is_baseline(&bytes) {
        parse(&bytes, path)
    } else {
        Ok(of_recording(&recorded::of_bytes(&bytes, path)?))
    }
}
