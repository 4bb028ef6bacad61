//! `cargo xtask bench`: the project's figures beside its peers', both measured in the same run.

mod agent;
mod alongside;
mod collector;
mod events;
mod figures;
pub mod gauge;
pub mod lossy;
mod machine;
mod page;
mod record;
mod report;
mod requests;
mod sched;
mod sides;
mod stats;
mod sys;
mod tables;
mod unwind;
mod verdict;
mod workload;

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};

use self::{record::Plan, sides::Sides};
use crate::{
    build,
    packages::Purpose,
    setup,
    workspace::{Privilege, root, step, target_dir},
};

/// Options of the benchmarks.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only this one
    #[arg(value_enum)]
    only: Option<Subject>,
    /// Take a minute for it, and leave docs/benchmarks.md as it is
    #[arg(long)]
    quick: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// `chokepoint record` against `perf record` and `perf script`
    Record,
    /// User stacks: how many are complete, and what they cost
    Unwind,
    /// Unwind tables of large files: their size, and the time to build them
    Tables,
    /// Accounting for every switch against libbpf-tools
    Sched,
    /// Page faults and TCP retransmits, thousands a second, against bpftrace
    Events,
    /// Requests of block devices and new processes, thousands a second, against libbpf-tools and bpftrace
    Requests,
    /// A collector of two thousand agents; what history takes beside plain Parquet, and what it answers beside DuckDB
    Collector,
    /// The page's first view of a fleet's day, from a collector that was just started
    Page,
    /// Verdicts of generated windows: by threads, and the merged window of a thousand hosts
    Verdict,
    /// The continuous agent on a quiet and a busy host, in a storm of processes and among idle ones
    Agent,
}

/// Measures, prints the tables, and puts them into the documentation.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Bench])?;
    // A collector is measured without one.
    if args.only != Some(Subject::Collector) {
        build::binaries(&[build::AGENT])?;
    }
    ensure!(Privilege::probe() != Privilege::User, "profiling the host needs root: run `sudo -v` first");
    let started = Instant::now();
    let directory = target_dir().join("bench");
    let sides = Sides::new(directory.clone())?;
    let all = || {
        use Subject::{Agent, Collector, Events, Page, Record, Requests, Sched, Tables, Unwind, Verdict};
        vec![Record, Unwind, Tables, Sched, Events, Requests, Collector, Page, Verdict, Agent]
    };
    for subject in args.only.map_or_else(all, |only| vec![only]) {
        let (section, text) = match subject {
            Subject::Record => {
                let plan = if args.quick { Plan::quick() } else { Plan::full() };
                ("record", record::measure(&sides, &plan)?)
            }
            Subject::Unwind => {
                let plan = if args.quick { unwind::Plan::quick() } else { unwind::Plan::full() };
                ("unwind", unwind::measure(&sides, &directory, &plan)?)
            }
            Subject::Tables => ("tables", tables::measure()?),
            Subject::Sched => ("sched", sched::measure(&sides, sched::turns(args.quick))?),
            Subject::Events => ("events", events::measure(&sides, events::turns(args.quick))?),
            Subject::Requests => {
                ("requests", requests::measure(&sides, &directory, requests::turns(args.quick))?)
            }
            Subject::Collector => {
                let plan = if args.quick { collector::Plan::quick() } else { collector::Plan::full() };
                ("collector", collector::measure(&directory, &plan)?)
            }
            Subject::Page => {
                let plan = if args.quick { page::Plan::quick() } else { page::Plan::full() };
                ("page", page::measure(&directory, &plan)?)
            }
            Subject::Verdict => ("verdict", verdict::measure(&sides, verdict::turns(args.quick))?),
            Subject::Agent => {
                let plan = if args.quick { agent::Plan::quick() } else { agent::Plan::full() };
                ("agent", agent::measure(&directory, &plan)?)
            }
        };
        print!("{text}");
        if !args.quick {
            keep(section, &text)?;
        }
    }
    step(&format!("measured in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Puts the figures into their section of the documentation.
fn keep(section: &str, text: &str) -> Result<()> {
    let path = root().join("docs/benchmarks.md");
    let document = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let document = report::replace_section(&document, section, text)
        .with_context(|| format!("{} has no section {section}", path.display()))?;
    fs::write(&path, document).with_context(|| format!("cannot write {}", path.display()))
}
