//! `chokepoint top`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use chokepoint_ebpf::run_queue::QueueDetail;
use clap::{Args, ValueEnum};

use super::runtime;
use super::stopping::{Signals, Stopping};
use super::target::TargetArguments;
use crate::amounts::parse_duration;
use crate::containers::known::{Containers, Source};
use crate::failure::{Failure, Kind};
use crate::pipeline::{End, Session};
use crate::record::event::Event;
use crate::record::{DEFAULT_FREQUENCY_HZ, Options};
use crate::target::Target;
use crate::top::app::{App, Page};
use crate::top::columns::Column;
use crate::top::latencies::By;
use crate::top::plain::Table;
use crate::top::rows::{Level, Query};
use crate::top::run::{Pace, in_batches, on_screen};
use crate::unwind;

/// The shortest and the longest window.
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(60);

/// What is listed first.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum View {
    /// A row for each process.
    Processes,
    /// A row for each cgroup.
    Cgroups,
    /// A row for each thread.
    Threads,
    /// TCP peers that something was lost with.
    Peers,
    /// How long threads queue for a CPU.
    Queue,
    /// Requests of block devices.
    Disks,
}

/// Arguments of `chokepoint top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint top                       the whole host; ? shows the keys
  chokepoint top --cgroup system.slice a cgroup and those below it
  chokepoint top -b -n 5 --sort i/o    five windows as text, for pipes and logs

Numbers are per cent of a window: what part of it the threads of a row spent on a CPU, waiting for one, for a device and so on.")]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,

    /// How long a window is, 200ms to 60s: seconds, or with a unit.
    #[arg(short = 'd', long, value_name = "TIME", value_parser = parse_window, default_value = "1s")]
    interval: Duration,
    /// End after so many windows.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    windows: Option<u64>,
    /// Write each window as plain text to standard output, with all columns.
    #[arg(short, long)]
    batch: bool,
    /// With --batch, rows of a window.
    #[arg(long, value_name = "COUNT", default_value_t = 20, requires = "batch")]
    rows: usize,
    /// What to begin with.
    #[arg(long, value_enum, default_value_t = View::Processes)]
    view: View,
    /// The column to sort by, as it is headed: cpu, runq, i/o, ...
    #[arg(long, value_name = "COLUMN", value_parser = parse_column, default_value = "cpu")]
    sort: Column,
    /// Show only what has this in its name.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Samples a second on each CPU.
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = DEFAULT_FREQUENCY_HZ)]
    frequency: u32,
}

fn parse_window(text: &str) -> Result<Duration, String> {
    let window = parse_duration(text)?;
    if WINDOWS.contains(&window) { Ok(window) } else { Err("a window takes 200ms to 60s".to_owned()) }
}

fn parse_column(text: &str) -> Result<Column, String> {
    Column::ALL.into_iter().find(|column| column.title().eq_ignore_ascii_case(text)).ok_or_else(|| {
        let titles = Column::ALL.map(|column| column.title().to_lowercase());
        format!("the columns are {}", titles.join(", "))
    })
}

impl Arguments {
    fn options(&self, target: Target, kernel_log: bool) -> Options {
        Options {
            target,
            duration: None,
            events: vec![Event::Wall, Event::Retransmit, Event::Io],
            run_queues: QueueDetail::Latencies,
            frequency_hz: self.frequency,
            unwind: unwind::Options::cached(),
            kernel_log,
            ..Options::default()
        }
    }

    fn page(&self) -> Page {
        match self.view {
            View::Processes => Page::Rows(Level::Processes),
            View::Cgroups => Page::Rows(Level::Cgroups),
            View::Threads => Page::Rows(Level::Threads),
            View::Peers => Page::Peers,
            View::Queue => Page::Queues(By::Process),
            View::Disks => Page::Disks(By::Device),
        }
    }

    fn table(&self) -> Table {
        match self.view {
            View::Processes => Table::Rows(self.query(Level::Processes)),
            View::Cgroups => Table::Rows(self.query(Level::Cgroups)),
            View::Threads => Table::Rows(self.query(Level::Threads)),
            View::Peers => Table::Peers,
            View::Queue => Table::Queues(By::Process),
            View::Disks => Table::Disks(By::Device),
        }
    }

    fn query(&self, level: Level) -> Query {
        Query {
            level,
            scope: None,
            filter: self.filter.clone(),
            sort: self.sort,
            ascending: false,
            tree: false,
            by_name: false,
        }
    }
}

/// Shows where the time of threads goes until it is told to end.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn run(arguments: &Arguments, kernel_log: bool) -> Result<ExitCode, Failure> {
    let has_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !arguments.batch && !has_terminal {
        let message =
            "there is no terminal to draw on: pass --batch for plain text, with -n for a number of windows";
        return Err(Failure::new(Kind::Usage, message));
    }
    let runtime = runtime()?;
    let target = runtime.block_on(arguments.target.target())?;
    let described = target.describe();
    let end = runtime.block_on(top(arguments, arguments.options(target, kernel_log)))?;
    if end == Some(End::TargetEnded) {
        eprintln!("{described} has ended");
    }
    Ok(ExitCode::SUCCESS)
}

async fn top(arguments: &Arguments, options: Options) -> Result<Option<End>, Failure> {
    let mut signals = Signals::listen()?;
    let session = Session::load(options.clone())?;
    let watched = session.target_processes().to_vec();
    let sampling = session.start_windows()?;
    let mut stop = Stopping::new(&mut signals, &watched)?;
    let containers = Containers::none();
    // Ends with the runtime.
    let source = Source { cri_socket: arguments.target.socket(), kubelet: None };
    drop(tokio::spawn(containers.clone().keep_asking(source)));
    let pace = Pace { window: arguments.interval, windows: arguments.windows };
    if arguments.batch {
        return in_batches(sampling, containers, &arguments.table(), arguments.rows, pace, &mut stop).await;
    }
    let mut app = App::new(options.target.describe());
    app.page = arguments.page();
    app.sort = arguments.sort;
    app.filter.clone_from(&arguments.filter);
    on_screen(sampling, containers, app, pace, &mut stop).await
}
