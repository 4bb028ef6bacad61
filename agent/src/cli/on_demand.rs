//! `chokepoint on-demand`: what the agent runs beside itself for a command of its collector. It records everything of one target, writes the
//! recording's JSON to standard output, compressed, and how it goes to standard error ([`Told`]).

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chokepoint_analysis::export::{self, Format};
use chokepoint_analysis::profile::Profile;
use chokepoint_ebpf::run_queue::QueueDetail;
use clap::Args;

use super::recording;
use super::runtime;
use super::target::TargetArguments;
use crate::amounts::parse_duration;
use crate::demand::told::Told;
use crate::failure::{Failure, Kind};
use crate::record::Options;
use crate::record::event::Event;
use crate::unwind;

/// How often it tells how it goes.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// Samples that the recording has with their times: 13 MB here, some 16 MB of JSON and 3 MB of it compressed, below what collectors take.
const TIMELINE_SAMPLES: usize = 200_000;
/// What zstd offers its best ratio of time to size at.
const COMPRESSION: i32 = 3;

/// Arguments of `chokepoint on-demand`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Samples a second on each CPU.
    #[arg(long, value_name = "HZ")]
    frequency: u32,
    /// How long to record.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Duration,
    /// The agent's process: this one ends with it.
    #[arg(long, value_name = "PID")]
    parent: u32,
}

/// Records, and writes the recording.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(arguments: &Arguments, kernel_log: bool) -> Result<ExitCode, Failure> {
    end_with(arguments.parent)?;
    give_way();
    let runtime = runtime()?;
    let target = runtime.block_on(arguments.target.target())?;
    let options = Options {
        target,
        duration: Some(arguments.duration),
        events: vec![Event::All],
        frequency_hz: arguments.frequency,
        timeline: TIMELINE_SAMPLES,
        run_queues: QueueDetail::WhoRan,
        unwind: unwind::Options::cached(),
        // Reading these takes as much memory as there is debug information, and seconds where the target has all CPUs.
        inlined: false,
        source_lines: false,
        kernel_log,
        ..Options::default()
    };
    let mut told = Instant::now();
    let progress = |elapsed: Duration, samples| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell(Told::Progress { elapsed_ns: elapsed.as_nanos() as u64, samples });
        }
    };
    let taken = runtime.block_on(recording::take_telling(&[], &options, progress))?;
    let tables = &taken.facts.unwind_tables;
    tell(Told::Ended {
        program_ns: taken.facts.program_cost.map_or(0, |cost| cost.run_time.as_nanos() as u64),
        tables: tables.tables as u64,
        table_bytes: tables.row_bytes as u64,
    });
    for (_, profile) in &taken.profiles.profiles {
        write(profile)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the kernel kill this process when the agent has ended, however it does.
fn end_with(parent: u32) -> Result<(), Failure> {
    // SAFETY: neither has preconditions.
    let is_orphan = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        u32::try_from(libc::getppid()) != Ok(parent)
    };
    if is_orphan {
        return Err(Failure::new(
            Kind::Usage,
            "this is what the agent runs by itself: use `chokepoint record`",
        ));
    }
    Ok(())
}

/// Gets the agent's name in lists of processes, and is the one to go where the agent's memory is full.
fn give_way() {
    // SAFETY: the name is a string that ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"chokepoint".as_ptr()) };
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        tracing::debug!(%error, "oom_score_adj");
    }
}

fn tell(told: Told) {
    // The agent may have gone; then this process goes, too.
    let _ = writeln!(io::stderr(), "{}", told.line());
}

fn write(profile: &Profile) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Kind::Output, format!("cannot write the recording: {error}"));
    let mut encoder = zstd::Encoder::new(io::stdout().lock(), COMPRESSION).map_err(failed)?;
    encoder.include_checksum(true).map_err(failed)?;
    export::write(profile, Format::Json, &export::Options::default(), &mut encoder)?;
    encoder.finish().and_then(|mut out| out.flush()).map_err(failed)
}
