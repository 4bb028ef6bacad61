//! What the continuous agent costs a host that is quiet, busy, stormed by short processes or full of idle ones.

mod bpf;
mod load;
mod running;

use std::{
    fmt::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::{
    load::{Busy, Idle, storm},
    running::{Cost, Running},
};
use super::{
    machine::{Machine, load_average},
    report::{Table, verdict},
    stats::Readings,
    sys,
};
use crate::{
    build,
    workspace::{Privilege, shown, step},
};

/// Per cent of one CPU, kernel programs included.
const CPU_BAR_PCT: f64 = 1.0;
/// Resident memory, the most at any time of a phase.
const MEMORY_BAR_MB: f64 = 100.0;
/// Bytes a second to the collector.
const SENT_BAR_KB_PER_S: f64 = 20.0;
/// Processes a second in the storm.
const STORM_PER_S: u32 = 1_000;
/// Processes that do nothing.
const IDLE: usize = 2_000;
/// From the command to the flame graph of a profile on demand, beyond its duration.
const ON_DEMAND_BAR_S: f64 = 2.0;
/// How long such a profile is.
const ON_DEMAND: Duration = Duration::from_secs(5);
/// Threads and programs below this share are put together, per cent of one CPU.
const SHOWN_PCT: f64 = 0.005;

/// How long is measured.
pub struct Plan {
    /// Before each phase: tables and names of what is new are made.
    settle: Duration,
    /// Each phase.
    phase: Duration,
    /// Each peer, beside the same load.
    peer: Duration,
    /// Profiles on demand.
    on_demand_turns: usize,
}

impl Plan {
    /// About nine minutes.
    pub const fn full() -> Self {
        Self {
            settle: Duration::from_secs(40),
            phase: Duration::from_secs(60),
            peer: Duration::from_secs(30),
            on_demand_turns: 3,
        }
    }

    /// About two minutes.
    pub const fn quick() -> Self {
        Self {
            settle: Duration::from_secs(10),
            phase: Duration::from_secs(20),
            peer: Duration::from_secs(10),
            on_demand_turns: 1,
        }
    }
}

/// A phase, and what it cost.
struct Phase {
    name: &'static str,
    load_average: String,
    cost: Cost,
}

/// Measures everything and says it as Markdown.
pub fn measure(directory: &Path, plan: &Plan) -> Result<String> {
    ensure!(
        Privilege::probe() == Privilege::Root,
        "what the kernel tells of the agent's programs is for root alone: run this as root"
    );
    build::binaries(&[build::AGENT, build::COLLECTOR])?;
    // Whatever the agent itself asks for.
    let statistics =
        bpf::enable_statistics().context("the kernel does not count the time of BPF programs")?;
    let directory = directory.join("agent");
    let running = Running::start(&directory)?;
    let mut phases = Vec::new();
    let mut measured = |name: &'static str| -> Result<()> {
        step(&format!("{name}: {:.0} s, load average {}", plan.phase.as_secs_f64(), load_average()));
        thread::sleep(plan.settle);
        running.forget_peak()?;
        let before = running.read()?;
        thread::sleep(plan.phase);
        phases.push(Phase { name, load_average: load_average(), cost: running.cost_since(&before)? });
        Ok(())
    };
    measured("quiet")?;
    let busy = Busy::start(&directory)?;
    measured("busy")?;
    step(&format!("profiles on demand, load average {}", load_average()));
    let on_demand = (0..plan.on_demand_turns).map(|_| running.profile(std::process::id(), ON_DEMAND));
    let on_demand = on_demand.map(|over| Ok(over?.as_secs_f64())).collect::<Result<Readings>>()?;
    drop(busy);
    let storm = storm(STORM_PER_S)?;
    measured("fork storm")?;
    drop(storm);
    let idle = Idle::start(IDLE)?;
    measured("idle processes")?;
    drop(idle);
    drop(running);

    let busy = Busy::start(&directory)?;
    let peers = peers(plan)?;
    drop(busy);
    drop(statistics);
    say(plan, &phases, &on_demand, &peers)
}

fn say(plan: &Plan, phases: &[Phase], on_demand: &Readings, peers: &Table) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", Machine::this())?;
    writeln!(
        text,
        "A phase is {:.0} s long, {:.0} s after its load began. Load averages stand beside each.\n",
        plan.phase.as_secs_f64(),
        plan.settle.as_secs_f64()
    )?;
    let mut bars = Table::new(["bar", "measured", ""]);
    let mut table = Table::new([
        "phase",
        "load",
        "switches/s",
        "processes/s",
        "user space",
        "programs",
        "resident, peak",
        "maps",
        "sent",
        "level",
    ]);
    for Phase { name, load_average, cost } in phases {
        let total = cost.total_pct();
        bars.row([
            format!("{name}: user space and kernel programs below {CPU_BAR_PCT} % of one CPU"),
            format!("{total:.2} %"),
            verdict(total < CPU_BAR_PCT),
        ]);
        bars.row([
            format!("{name}: resident memory below {MEMORY_BAR_MB} MB"),
            format!("{:.0} MB", cost.peak_mb),
            verdict(cost.peak_mb < MEMORY_BAR_MB),
        ]);
        let sent = cost.sent_bytes_per_s / 1e3;
        bars.row([
            format!("{name}: below {SENT_BAR_KB_PER_S} kB/s sent"),
            format!("{sent:.1} kB/s"),
            verdict(sent < SENT_BAR_KB_PER_S),
        ]);
        table.row([
            (*name).to_owned(),
            load_average.clone(),
            format!("{:.0}", cost.switches_per_s),
            format!("{:.0}", cost.processes_per_s),
            format!("{:.2} %", cost.user_pct()),
            format!("{:.2} %", cost.programs_pct()),
            format!("{:.0} MB, {:.0} MB", cost.resident_mb, cost.peak_mb),
            format!("{:.1} MB", cost.maps_mb),
            format!("{sent:.1} kB/s in {:.0} windows", cost.windows),
            format!("{:.0}", cost.level),
        ]);
    }
    bars.row([
        format!("busy: a profile on demand, from the command to the flame graph beyond its {} s: below {ON_DEMAND_BAR_S} s", ON_DEMAND.as_secs()),
        on_demand.show(2, "s").to_string(),
        verdict(on_demand.max() < ON_DEMAND_BAR_S),
    ]);
    write!(text, "{bars}\n{table}\nCPU by thread, and by kernel program, per cent of one CPU:\n\n")?;
    write!(text, "{}\n{}\n", by_thread(phases), by_program(phases))?;
    write!(text, "Beside the busy host's load, one after the other:\n\n{peers}")?;
    Ok(text)
}

fn by_thread(phases: &[Phase]) -> Table {
    let names = phases.iter().flat_map(|phase| phase.cost.threads_pct.keys());
    by_name(phases, "thread", names, |cost, name| {
        cost.threads_pct.get(name).filter(|pct| **pct >= SHOWN_PCT).map(|pct| format!("{pct:.2}"))
    })
}

fn by_program(phases: &[Phase]) -> Table {
    let names = phases.iter().flat_map(|phase| phase.cost.programs.keys());
    by_name(phases, "program", names, |cost, name| {
        let (pct, per_s, ns) = *cost.programs.get(name)?;
        (pct >= SHOWN_PCT).then(|| format!("{pct:.2}: {per_s:.0}/s of {:.2} µs", ns / 1e3))
    })
}

/// A row for each name of which any phase has something to show.
fn by_name<'a>(
    phases: &[Phase],
    what: &'static str,
    names: impl Iterator<Item = &'a String>,
    cell: impl Fn(&Cost, &str) -> Option<String>,
) -> Table {
    let mut table = Table { columns: vec![what], rows: Vec::new() };
    table.columns.extend(phases.iter().map(|phase| phase.name));
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let cells: Vec<_> = phases.iter().map(|phase| cell(&phase.cost, name)).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(Option::unwrap_or_default);
            table.row([name.clone()].into_iter().chain(cells));
        }
    }
    table
}

/// What others cost beside the load that runs now.
fn peers(plan: &Plan) -> Result<Table> {
    let seconds = plan.peer.as_secs().to_string();
    let mut table = Table::new(["peer", "what it tells", "its process", "its kernel programs"]);
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-F", "19", "-a", "-g", "-o", "-", "--", "sleep", &seconds]);
    let mut offcputime = Command::new("offcputime");
    offcputime.arg(&seconds);
    for (mut command, tells) in [
        (perf, "19 stacks a second on each CPU, without names; in the kernel, interrupts that nobody counts"),
        (offcputime, "all stacks of waits, without what runs and what is queued"),
    ] {
        let name = shown(&command);
        step(&format!("{name}, load average {}", load_average()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.with_context(|| format!("cannot run {name}"))?;
        let start = Instant::now();
        // Its programs are gone once it has ended.
        thread::sleep(plan.peer.mul_f64(0.9));
        let programs = bpf::programs_of(child.id())?;
        let until_then = start.elapsed();
        let (status, usage) = sys::wait(child)?;
        ensure!(status.success(), "{name} failed ({status})");
        let pct = |time: Duration, of: Duration| 100.0 * time.as_secs_f64() / of.as_secs_f64();
        let in_programs: Duration = programs.values().map(|runs| runs.time).sum();
        table.row([
            name,
            tells.to_owned(),
            format!("{:.2} %", pct(usage.cpu(), start.elapsed())),
            if programs.is_empty() {
                String::new()
            } else {
                format!("{:.2} %", pct(in_programs, until_then))
            },
        ]);
    }
    Ok(table)
}
