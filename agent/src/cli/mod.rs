//! The command line: arguments in, one exit code out.

pub mod agent;
pub mod baseline;
pub mod compare;
pub mod diagnose;
pub mod doctor;
pub mod log;
pub mod on_demand;
pub mod record;
pub mod recorded;
pub mod recording;
pub mod report;
pub mod signals;
pub mod stopping;
pub mod target;
pub mod top;

use std::io::{ErrorKind, IsTerminal, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Kind};

/// Exit codes, shown at the end of `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something unexpected
  2  the command line makes no sense
  3  a privilege is missing
  4  this kernel or host lacks something that profiling needs
  5  the target does not exist, or the command cannot be started
  6  the output cannot be written
  7  compare: there is a regression
  8  compare: it cannot be told whether there is";

/// What aya warns of is in the failure that follows, with what to do.
const DEFAULT_LOG: &str = "warn,aya=error";

/// Profiles a Linux host with eBPF and names the constraint that limits it.
#[derive(Debug, Parser)]
#[command(name = "chokepoint", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error, as for the environment variable RUST_LOG: `debug`, `chokepoint=trace`.
    #[arg(long, global = true, value_name = "FILTER", default_value = DEFAULT_LOG, display_order = 100)]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name what limits the host, a process or a pod now, prove it, and say what to do next.
    Diagnose(Box<diagnose::Arguments>),
    /// Record what is usual for a target over minutes to days, or show it.
    Baseline(baseline::Arguments),
    /// Tell what differs between two baselines, and whether it is a regression.
    Compare(compare::Arguments),
    /// Sample stacks for a while and write a flame graph or another profile.
    Record(Box<record::Arguments>),
    /// Watch every resource of the host for a while: utilization, saturation, errors, and what of it is a warning or critical.
    Signals(signals::Arguments),
    /// Write what a recording says as an audit report: scope, baseline, constraint, hypotheses, next steps, what was not looked at.
    Report(report::Arguments),
    /// Show where the time of threads goes, window after window, on the terminal.
    Top(Box<top::Arguments>),
    /// Follow this host for as long as it runs, and send what limits it to a collector.
    Agent(Box<agent::Arguments>),
    /// Tell what profiling on this host needs and whether it is there.
    Doctor(doctor::Arguments),
    /// Record what the agent's collector asks for: `agent` runs it.
    #[command(hide = true)]
    OnDemand(Box<on_demand::Arguments>),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|error| {
        eprintln!("chokepoint: ignoring --log {}: {error}", arguments.log);
        EnvFilter::new(DEFAULT_LOG)
    });
    let kernel_log =
        filter.max_level_hint().is_some_and(|level| level >= tracing::level_filters::LevelFilter::DEBUG);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(|| log::Log)
        .init();
    let result = match arguments.command {
        Command::Diagnose(arguments) => diagnose::run(&arguments, kernel_log),
        Command::Baseline(arguments) => baseline::run(&arguments, kernel_log),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Record(arguments) => record::run(*arguments, kernel_log),
        Command::Signals(arguments) => signals::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Top(arguments) => top::run(&arguments, kernel_log),
        Command::Agent(arguments) => agent::run(&arguments, kernel_log),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::OnDemand(arguments) => on_demand::run(&arguments, kernel_log),
    };
    result.unwrap_or_else(|failure: Failure| {
        eprintln!("chokepoint: {failure}");
        ExitCode::from(failure.exit_code())
    })
}

/// What a command that waits runs on: a thread of its own would cost more than it brings.
fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unexpected(&error))
}

/// Prints to standard output, as far as anybody reads it.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Output, format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string_pretty(value).map_err(|error| Failure::unexpected(&error))? + "\n"))
}
