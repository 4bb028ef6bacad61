//! `chokepoint record`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chokepoint_analysis::export::{self, Format};
use chokepoint_ebpf::run_queue::QueueDetail;
use clap::Args;

use super::recording;
use super::runtime;
use super::target::TargetArguments;
use crate::amounts::parse_duration;
use crate::destination::Destination;
use crate::failure::{Failure, Kind};
use crate::host::cost::{Cost, log_phase};
use crate::load::Stacks;
use crate::record::event::Event;
use crate::record::output::Output;
use crate::record::summary::{self, Finished};
use crate::record::{DEFAULT_DURATION, DEFAULT_FREQUENCY_HZ, Options};
use crate::target::Target;
use crate::unwind::{self, CacheDirectory};

/// File that is written where none is named.
const DEFAULT_OUTPUT: &str = "flame.svg";
/// Samples kept one by one where the format shows them at their times: 64 MB, three hours of one CPU at 99 Hz.
const TIMELINE_SAMPLES: usize = 1_000_000;

/// Arguments of `chokepoint record`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint record                                 the whole host for 10 seconds, into flame.svg
  chokepoint record --pid 4242 -d 30 -o out.pb.gz   one process, for `go tool pprof`
  chokepoint record --comm postgres -F 999          every postgres process, 999 times a second
  chokepoint record -e wall -p 4242                 where its threads' time goes, running and waiting
  chokepoint record -o host.chokepoint              everything, for `chokepoint diagnose host.chokepoint`
  chokepoint record -- make -j4                     a command and its children, until it ends")]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Start this command, and profile it and its children until it ends. How it ended is told, and does not change the exit
    /// code.
    #[arg(last = true, value_name = "COMMAND", group = "target")]
    command: Vec<OsString>,

    /// What to record; separate several by commas. cpu: what threads execute; off-cpu: all time they do not; run-queue, io, lock,
    /// net: the parts of that; wall: all time of all threads, by class; offwake: waits with what ended them; retransmit: what TCP
    /// connections send again; fault: page faults; reclaim: time that threads are made to free memory; all: everything that `diagnose`
    /// needs, for a .chokepoint or .json file. Of several, each gets a file of its own, with the event's name before the end of the
    /// file's. [default: cpu; for a .chokepoint file all]
    #[arg(short, long, value_name = "EVENT", value_delimiter = ',')]
    event: Vec<Event>,
    /// How long to record: seconds, or with a unit (500ms, 30s, 5m) [default: 10s; with COMMAND: until it ends]. A COMMAND that
    /// takes longer goes on, and is waited for.
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Samples a second on each CPU.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = DEFAULT_FREQUENCY_HZ)]
    frequency: u32,
    /// Keep user frames only; time in the kernel counts for the user function that called it.
    #[arg(long, conflicts_with = "kernel_only")]
    user_only: bool,
    /// Keep kernel frames only, and only samples taken in the kernel.
    #[arg(long)]
    kernel_only: bool,
    /// Tell the threads of a process apart.
    #[arg(long)]
    per_thread: bool,
    /// Do not make inlined functions frames of their own; symbolizing is faster.
    #[arg(long)]
    no_inline: bool,

    /// Kernel memory that unwind tables may take, megabytes. The files sampled least go without when it is full.
    #[arg(long, value_name = "MB", default_value_t = default_unwind_memory_mb(), value_parser = clap::value_parser!(u32).range(1..=128))]
    unwind_memory: u32,
    /// Directory that keeps unwind tables for the next recording, or "none" to build them anew [default:
    /// /var/cache/chokepoint/unwind]
    #[arg(long, value_name = "DIR")]
    unwind_cache: Option<PathBuf>,

    /// File to write, or - for standard output. Its name's end chooses the format, see --format.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_OUTPUT)]
    output: PathBuf,
    /// Format: svg, folded, pb.gz, speedscope.json, firefox.json or json [default: by the file's name; folded for -]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

fn default_unwind_memory_mb() -> u32 {
    (unwind::Options::default().budget_bytes >> 20) as u32
}

impl Arguments {
    fn output(&self) -> Result<Output, Failure> {
        let usage = |error: export::UnknownFormat| {
            Failure::new(Kind::Usage, format!("{error}; choose one with --format"))
        };
        let destination = Destination::named(&self.output);
        let format = match &self.format {
            Some(name) => name.parse().map_err(usage)?,
            None if destination == Destination::Stdout => Format::Folded,
            None => Format::from_path(&self.output).map_err(usage)?,
        };
        Ok(Output { destination, format, options: export::Options { per_thread: self.per_thread } })
    }

    /// Each once, in the order they were asked for.
    fn events(&self) -> Vec<Event> {
        if self.event.is_empty() {
            return vec![if export::is_recording(&self.output) { Event::All } else { Event::Cpu }];
        }
        let mut events: Vec<Event> = Vec::new();
        for event in &self.event {
            if !events.contains(event) {
                events.push(*event);
            }
        }
        events
    }

    fn options(&self, target: Target, format: Format, kernel_log: bool) -> Options {
        let duration = self.duration.or(self.command.is_empty().then_some(DEFAULT_DURATION));
        let events = self.events();
        Options {
            target,
            duration,
            run_queues: if events.iter().any(|event| event.shows_run_queue()) {
                QueueDetail::WhoRan
            } else {
                QueueDetail::Nothing
            },
            sparing: false,
            events,
            frequency_hz: self.frequency,
            stacks: Stacks { user: !self.kernel_only, kernel: !self.user_only },
            timeline: if format == Format::Firefox { TIMELINE_SAMPLES } else { 0 },
            unwind: unwind::Options {
                budget_bytes: (self.unwind_memory as usize) << 20,
                cache: match &self.unwind_cache {
                    None => Some(CacheDirectory::usual()),
                    Some(directory) if directory.as_os_str() == "none" => None,
                    Some(directory) => Some(CacheDirectory::Asked(directory.clone())),
                },
            },
            inlined: !self.no_inline,
            source_lines: true,
            kernel_log,
        }
    }
}

/// Records and writes the profile.
///
/// # Errors
/// A [`Failure`] that says what to do; nothing has been written then.
pub fn run(arguments: Arguments, kernel_log: bool) -> Result<ExitCode, Failure> {
    let output = arguments.output()?;
    let outputs = output.of_events(&arguments.events())?;
    for output in &outputs {
        output.check()?;
    }
    let runtime = runtime()?;
    let target = runtime.block_on(arguments.target.target())?;
    let options = arguments.options(target, output.format, kernel_log);
    runtime.block_on(record(&arguments.command, &options, &outputs))?;
    Ok(ExitCode::SUCCESS)
}

async fn record(command: &[OsString], options: &Options, outputs: &[Output]) -> Result<(), Failure> {
    let taken = recording::take(command, options).await?;
    for ((_, profile), output) in taken.profiles.profiles.iter().zip(outputs) {
        output.write(profile)?;
    }
    log_phase("written", Cost::of_this_process().cpu);
    summary::print(&Finished {
        profiles: &taken.profiles,
        facts: taken.facts,
        outputs,
        finishing: taken.ended.elapsed(),
        cost: Cost::of_this_process(),
    });
    taken.end_command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in
            [("10", 10_000), ("0.5", 500), ("500ms", 500), ("2s", 2_000), ("1m", 60_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "0", "-1", "1x", "s", "nan", "1e30h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
