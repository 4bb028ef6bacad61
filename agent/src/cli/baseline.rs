//! `chokepoint baseline`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chokepoint_analysis::baseline::{self, Baseline, text::page};
use chokepoint_ebpf::run_queue::QueueDetail;
use clap::{Args, Subcommand};

use super::recorded;
use super::recording::{describe_command, end_command};
use super::stopping::{Signals, Stopping, restore_signals};
use super::target::TargetArguments;
use super::{print, runtime};
use crate::amounts::parse_duration;
use crate::baseline::work::{Counted, WorkCounter};
use crate::baseline::{CaptureOptions, Ended, capture};
use crate::destination::Destination;
use crate::failure::{Failure, Kind, with_causes};
use crate::pipeline::{End, Session};
use crate::record::event::Event;
use crate::record::workload::HeldCommand;
use crate::record::{DEFAULT_FREQUENCY_HZ, Options};
use crate::target::Target;
use crate::unwind;

/// The shortest and the longest window. Longer ones come of themselves where a baseline is long.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// How long a window is where the time is long enough.
const USUAL_WINDOW: Duration = Duration::from_secs(10);
/// Windows that a short baseline is to have: of fewer, a comparison is not sure of much.
const WANTED_WINDOWS: u32 = 30;
/// How long is captured where nothing is asked for: sixty windows.
const DEFAULT_DURATION: Duration = Duration::from_secs(600);

/// Arguments of `chokepoint baseline`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record what a target does over minutes to days, window by window.
    Capture(Box<Capture>),
    /// Show how the windows of a baseline are distributed, and what limited the target.
    Show(Show),
}

/// Arguments of `chokepoint baseline capture`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint baseline capture -o monday.json                       the whole host, for ten minutes
  chokepoint baseline capture --pid 4242 -d 24h -o day.json        a process, for a day; Ctrl-C ends it early and still writes
  chokepoint baseline capture --pod shop/web-0 -o base.json \\
      --work-command 'curl -s localhost:9100/metrics' --work-metric http_requests_total
  chokepoint baseline capture --every 1 -o new.json -- ./benchmark a command, until it ends
  chokepoint compare base.json new.json                            what differs, and whether it is a regression")]
struct Capture {
    #[command(flatten)]
    target: TargetArguments,
    /// Start this command, and capture it and its children until it ends.
    #[arg(last = true, value_name = "COMMAND", group = "target")]
    command: Vec<OsString>,
    /// How long: seconds, or with a unit (90s, 30m, 24h) [default: 10m; with COMMAND: until it ends].
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How long a window is, 1s to 60s [default: 10s, or less where there would be fewer than 30].
    #[arg(long, value_name = "TIME", value_parser = parse_window)]
    every: Option<Duration>,
    /// A file that has a number which grows by one for each unit of work, read at each window's end; with --work-metric, metrics in
    /// Prometheus' text format.
    #[arg(long, value_name = "FILE", conflicts_with = "work_command")]
    work_counter: Option<PathBuf>,
    /// A command that prints such a number, or metrics; run by `sh -c` at each window's end.
    #[arg(long, value_name = "COMMAND")]
    work_command: Option<String>,
    /// The metric that counts the work: its name, and labels if only some of its series count: 'requests_total{code="200"}'. They are
    /// added up.
    #[arg(long, value_name = "METRIC")]
    work_metric: Option<String>,
    /// Samples a second on each CPU.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = DEFAULT_FREQUENCY_HZ)]
    frequency: u32,
    /// File to write, or - for standard output.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Arguments of `chokepoint baseline show`.
#[derive(Debug, Args)]
struct Show {
    /// The baseline.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show every signal, those of devices and groups that reached no level included.
    #[arg(long)]
    all: bool,
}

fn parse_window(text: &str) -> Result<Duration, String> {
    let window = parse_duration(text)?;
    if WINDOWS.contains(&window) { Ok(window) } else { Err("a window takes 1s to 60s".to_owned()) }
}

/// Captures or shows a baseline.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(arguments: &Arguments, kernel_log: bool) -> Result<ExitCode, Failure> {
    match &arguments.command {
        Command::Capture(arguments) => run_capture(arguments, kernel_log)?,
        Command::Show(arguments) => print(&page(&read(&arguments.file)?, arguments.all))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_capture(arguments: &Capture, kernel_log: bool) -> Result<(), Failure> {
    let destination = Destination::named(&arguments.output);
    destination.check()?;
    let is_there = arguments.command.is_empty();
    let work =
        arguments.work()?.map(|counted| WorkCounter::begin(counted, is_there, runtime()?)).transpose()?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let target = arguments.target.target().await?;
        arguments.capture(work, &arguments.options(target, kernel_log), &destination).await
    })
}

impl Capture {
    fn work(&self) -> Result<Option<Counted>, Failure> {
        let metric = self.work_metric.clone();
        match (&self.work_counter, &self.work_command) {
            (Some(path), _) => Ok(Some(Counted::file(path.clone(), metric))),
            (None, Some(command)) => Ok(Some(Counted::command(command.clone(), metric))),
            (None, None) if metric.is_some() => {
                let message = "--work-metric says which metric counts work: say where it is read with --work-counter or --work-command";
                Err(Failure::new(Kind::Usage, message))
            }
            (None, None) => Ok(None),
        }
    }

    fn options(&self, target: Target, kernel_log: bool) -> Options {
        Options {
            target,
            duration: self.duration.or(self.command.is_empty().then_some(DEFAULT_DURATION)),
            // All that windows tell: the time of threads with what ended their waits, connections and block devices.
            events: vec![Event::Wall, Event::OffWake, Event::Net, Event::Io],
            run_queues: QueueDetail::WhoRan,
            frequency_hz: self.frequency,
            unwind: unwind::Options::cached(),
            // Over days, lines of inlined functions cost more than they tell.
            inlined: false,
            kernel_log,
            ..Options::default()
        }
    }

    fn every(&self, duration: Option<Duration>) -> Duration {
        let usual = duration.map_or(USUAL_WINDOW, |duration| {
            (duration / WANTED_WINDOWS).clamp(*WINDOWS.start(), USUAL_WINDOW)
        });
        self.every.unwrap_or(usual)
    }

    async fn capture(
        &self,
        work: Option<WorkCounter>,
        options: &Options,
        destination: &Destination,
    ) -> Result<(), Failure> {
        let mut stops = Signals::listen()?;
        let held = if self.command.is_empty() { None } else { Some(HeldCommand::fork(&self.command)?) };
        let (session, target) = match &held {
            Some(held) => {
                (Session::load_for_command(options.clone(), held.pid())?, describe_command(&self.command))
            }
            None => (Session::load(options.clone())?, options.target.describe()),
        };
        let mut watched = session.target_processes().to_vec();
        let sampling = session.start_windows()?;
        let running = held.map(HeldCommand::release).transpose()?;
        if let Some(running) = &running {
            watched = vec![running.pid()];
        }
        let mut stop = Stopping::new(&mut stops, &watched)?;
        let how = CaptureOptions {
            target,
            every: self.every(options.duration),
            duration: options.duration,
            frequency_hz: options.frequency_hz,
        };
        let Ended { baseline, end, failure } = capture(sampling, &how, work, &mut stop).await?;
        drop(stops);
        restore_signals();
        destination.write(|out| Ok(baseline::write(&baseline, out)?))?;
        eprintln!("{}", told(&baseline, &self.output));
        if let Some(failure) = failure {
            return Err(failure);
        }
        match running {
            Some(running) => end_command(running, &self.command[0].to_string_lossy(), end),
            None => {
                if end == End::TargetEnded {
                    eprintln!("{} has ended", how.target);
                }
                Ok(())
            }
        }
    }
}

fn told(baseline: &Baseline, path: &Path) -> String {
    let missing = match baseline.missing.len() {
        0 => String::new(),
        number => format!("; notes on what is missing: {number}, see `chokepoint baseline show`"),
    };
    format!(
        "wrote {}: {} windows of {:.1} s, {} series, {} stacks{missing}",
        path.display(),
        baseline.windows.len(),
        baseline.window_seconds(),
        baseline.series.len(),
        baseline.stacks.stacks.len()
    )
}

/// Reads a baseline.
///
/// # Errors
/// A [`Kind::Target`] failure that names the file.
fn read(path: &Path) -> Result<Baseline, Failure> {
    parse(&recorded::bytes(path, "baseline")?, path)
}

/// The baseline that a file's bytes are.
///
/// # Errors
/// A [`Kind::Target`] failure that names the file.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Baseline, Failure> {
    baseline::read(bytes).map_err(|error| {
        let message = format!("cannot read the baseline {}: {}", path.display(), with_causes(&error));
        Failure::new(Kind::Target, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Capture {
        let program = Program::try_parse_from(line.split(' ')).expect("a command line");
        match program.arguments.command {
            Command::Capture(capture) => *capture,
            Command::Show(_) => panic!("{line} captures"),
        }
    }

    #[test]
    fn a_short_baseline_has_short_windows() {
        let window = |line: &str| {
            let capture = parsed(line);
            capture.every(capture.options(Target::Host, false).duration).as_millis()
        };
        assert_eq!(window("x capture -o b"), 10_000);
        assert_eq!(window("x capture -o b -d 3h"), 10_000);
        assert_eq!(window("x capture -o b -d 60"), 2_000);
        assert_eq!(window("x capture -o b -d 5"), 1_000);
        assert_eq!(window("x capture -o b -- make"), 10_000);
        assert_eq!(window("x capture -o b -d 60 --every 5"), 5_000);
    }

    #[test]
    fn a_metric_needs_a_place_to_be_read_from() {
        let failure = parsed("x capture -o b --work-metric requests").work().expect_err("no place");
        assert_eq!(failure.kind, Kind::Usage);
        assert!(parsed("x capture -o b").work().expect("nothing asked").is_none());
    }
}
