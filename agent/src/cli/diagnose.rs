//! `chokepoint diagnose`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chokepoint_analysis::report::{self, Recorded};
use chokepoint_analysis::verdict::confirm::{Confirmation, SecondLook};
use chokepoint_analysis::verdict::text::{Style, page};
use chokepoint_analysis::verdict::{Diagnosis, diagnose};
use chokepoint_ebpf::run_queue::QueueDetail;
use clap::Args;

use super::recorded;
use super::recording;
use super::report::Output;
use super::target::TargetArguments;
use super::{print, print_json, runtime};
use crate::amounts::parse_duration;
use crate::failure::Failure;
use crate::pipeline::highest_frequency_hz;
use crate::record::event::Event;
use crate::record::{DEFAULT_DURATION, Options};
use crate::target::Target;
use crate::unwind;

/// Arguments of `chokepoint diagnose`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint diagnose                               what limits this host
  chokepoint diagnose --pid 4242 -d 30              one process, for half a minute
  chokepoint diagnose --pod shop/web-0 --json       a pod, for a machine to read
  chokepoint diagnose --comm nginx --confirm        look a second time, closer, whether the verdict holds
  chokepoint diagnose -- make -j4                   a command and its children, until it ends
  chokepoint diagnose --pid 4242 -o found.html      as a page to send and to keep, with flame graphs
  chokepoint record -o host.chokepoint              a recording, and what it says, on any machine and without root:
  chokepoint diagnose host.chokepoint")]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// A recording of everything (`record -o FILE.chokepoint`) to diagnose in place of this host.
    #[arg(value_name = "FILE", group = "target")]
    recording: Option<PathBuf>,
    /// Start this command, and diagnose it and its children until it ends.
    #[arg(last = true, value_name = "COMMAND", group = "target")]
    command: Vec<OsString>,
    /// How long to look: seconds, or with a unit (500ms, 30s, 5m) [default: 10s; with COMMAND: until it ends].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "recording")]
    duration: Option<Duration>,
    /// Print the diagnosis as JSON.
    #[arg(long)]
    json: bool,
    /// Look a second time, closer and for longer, whether the verdict holds. Nothing on the host is changed.
    #[arg(long, conflicts_with_all = ["recording", "command"])]
    confirm: bool,
    /// Print every number, and where it is from.
    #[arg(long, conflicts_with = "json")]
    explain: bool,
    /// Write a report with flame graphs to this file in place of printing the verdict, or - for standard output. Its name's end
    /// chooses the format, see --format.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["json", "explain"])]
    output: Option<PathBuf>,
    /// Format of the report: md or html [default: by the file's name; md for -]
    #[arg(long, value_name = "FORMAT", requires = "output")]
    format: Option<String>,
}

/// Diagnoses, and prints the verdict to standard output or writes the report.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(arguments: &Arguments, kernel_log: bool) -> Result<ExitCode, Failure> {
    let output = arguments
        .output
        .as_deref()
        .map(|path| Output::named(path, arguments.format.as_deref()))
        .transpose()?;
    if let Some(path) = &arguments.recording {
        arguments.tell(&Recorded::of(&recorded::read(path)?), output.as_ref())?;
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = runtime()?;
    runtime.block_on(async {
        let target = arguments.target.target().await?;
        let options = Options {
            target,
            duration: arguments.duration.or(arguments.command.is_empty().then_some(DEFAULT_DURATION)),
            events: vec![Event::All],
            run_queues: QueueDetail::WhoRan,
            unwind: unwind::Options::cached(),
            // A verdict names functions, not lines, and is there at once: debug information is read for reports alone.
            inlined: false,
            source_lines: output.is_some(),
            kernel_log,
            ..Options::default()
        };
        let taken = recording::take(&arguments.command, &options).await?;
        for (_, profile) in &taken.profiles.profiles {
            let mut recorded = Recorded::of(profile);
            if arguments.confirm {
                recorded.diagnosis.confirmation = Some(confirm(&recorded.diagnosis, &options).await);
            }
            arguments.tell(&recorded, output.as_ref())?;
        }
        taken.end_command()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Looks closer at what a diagnosis says, whether it holds.
async fn confirm(diagnosis: &Diagnosis, options: &Options) -> Confirmation {
    let look = SecondLook::at(&diagnosis.verdict, options.target == Target::Host);
    eprintln!("{}: looking again, closer", diagnosis.verdict.code);
    let closer = Options {
        target: look.only.clone().map_or_else(|| options.target.clone(), Target::Comm),
        duration: options.duration.map(|first| first * look.longer),
        frequency_hz: options.frequency_hz.saturating_mul(look.more_samples).min(highest_frequency_hz()),
        ..options.clone()
    };
    match recording::take(&[], &closer).await.map(|taken| taken.profiles.profiles) {
        Ok(profiles) => match &profiles[..] {
            [(_, profile)] => look.judge(diagnosis, &diagnose(profile)),
            _ => unreachable!("one event gives one profile"),
        },
        // The target may have ended: what was found before is no less true.
        Err(failure) => Confirmation::untried(&failure.message),
    }
}

impl Arguments {
    fn tell(&self, recorded: &Recorded<'_>, output: Option<&Output>) -> Result<(), Failure> {
        if let Some(output) = output {
            return output.write(&report::diagnosis(recorded));
        }
        let diagnosis = &recorded.diagnosis;
        if self.json {
            return print_json(diagnosis);
        }
        print(&page(diagnosis, Style { colour: std::io::stdout().is_terminal(), explain: self.explain }))
    }
}
