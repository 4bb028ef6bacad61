//! What accounting for every switch costs, beside Debian's libbpf-tools.

use std::{
    fmt::Write,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    machine::{Machine, load_average},
    report::{Table, verdict},
    sides::Sides,
    stats::Readings,
};
use crate::workspace::{shown, step};

/// What accounting and stacks add to an operation, in what offcputime adds.
const PEER_BAR: f64 = 0.25;
/// Per cent of a CPU at this many switches a second.
const COST_BAR_PCT: f64 = 0.5;
const SWITCHES_PER_S: f64 = 10_000.0;
/// Operations of one measurement, two switches and two wake-ups each.
const OPERATIONS: &str = "200000";
/// The CPU that both ends of the pipe run on.
const CPU: &str = "1";
/// By when every tool has attached.
const ATTACHED: Duration = Duration::from_millis(1_500);
/// How long the tools run: as long as attaching and the slowest of the measurements take.
const TOOL_S: &str = "7";

/// How thoroughly to measure.
pub struct Plan {
    /// Turns of all sides.
    pub turns: usize,
}

impl Plan {
    /// About three minutes.
    pub fn full() -> Self {
        Self { turns: 7 }
    }

    /// About a minute.
    pub fn quick() -> Self {
        Self { turns: 2 }
    }
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, plan: &Plan) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", Machine::this())?;
    writeln!(
        text,
        "Medians, with the range in parentheses; the sides took turns. Load average before: {}.\n",
        load_average()
    )?;

    let (mut bare, mut chokepoint, mut offcputime, mut runqlat) =
        (Readings::default(), Readings::default(), Readings::default(), Readings::default());
    let mut switch_ns = Readings::default();
    for turn in 0..plan.turns {
        step(&format!("turn {} of {}, load average {}", turn + 1, plan.turns, load_average()));
        bare.push(pipe()?);
        let (operation, own) = with_chokepoint(sides)?;
        chokepoint.push(operation);
        switch_ns.push(own.ns_per_switch());
        offcputime.push(with(sides.privileged("offcputime").arg(TOOL_S))?);
        runqlat.push(with(sides.privileged("runqlat").args([TOOL_S, "1"]))?);
    }
    let added = |side: &Readings| side.less(&bare);
    let ratio = added(&chokepoint).median() / added(&offcputime).median();
    let pct = switch_ns.map(|ns| ns * SWITCHES_PER_S / 1e9 * 100.0);

    let mut bars = Table::new(["bar", "measured", ""]);
    bars.row([
        format!("perf bench sched pipe on one CPU: every switch accounted for, and stacks, add at most {PEER_BAR} of what offcputime adds"),
        format!("{ratio:.2}"),
        verdict(ratio <= PEER_BAR),
    ]);
    bars.row([
        format!("kernel programs at {SWITCHES_PER_S} switches a second: below {COST_BAR_PCT} % of a CPU"),
        pct.show(2, "%").to_string(),
        verdict(pct.median() < COST_BAR_PCT),
    ]);
    let mut table = Table::new(["side", "an operation (two switches, two wake-ups)", "added"]);
    for (name, side) in [
        ("bare", &bare),
        ("chokepoint record -e off-cpu, the whole host", &chokepoint),
        ("offcputime", &offcputime),
        ("runqlat", &runqlat),
    ] {
        let added = if name == "bare" { String::new() } else { added(side).show(2, "µs").to_string() };
        table.row([name.to_owned(), side.show(2, "µs").to_string(), added]);
    }
    write!(text, "{bars}\n{table}\n")?;
    writeln!(
        text,
        "The kernel's own count of what chokepoint's programs take, for a switch with its wake-up and its share of stacks: {}. It \
         is measured while the kernel keeps that count, which itself costs some of what is added above.",
        switch_ns.show(0, "ns")
    )?;
    Ok(text)
}

/// What chokepoint says of itself.
struct Own {
    programs: Duration,
    switches: u64,
}

impl Own {
    fn ns_per_switch(&self) -> f64 {
        self.programs.as_nanos() as f64 / self.switches.max(1) as f64
    }

    /// From the closing summary.
    fn parse(summary: &str) -> Option<Self> {
        let (_, rest) = summary.split_once("cost: kernel programs ")?;
        let ms: f64 = rest.split_once(" ms")?.0.parse().ok()?;
        let (before, _) = summary.split_once(" switches")?;
        let switches = before.rsplit(' ').next()?.parse().ok()?;
        Some(Self { programs: Duration::try_from_secs_f64(ms / 1e3).ok()?, switches })
    }
}

fn with_chokepoint(sides: &Sides) -> Result<(f64, Own)> {
    let mut command = sides.chokepoint_record("off-cpu", TOOL_S);
    let child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn();
    let child = child.with_context(|| format!("cannot run {}", shown(&command)))?;
    thread::sleep(ATTACHED);
    let operation = pipe();
    let output = child.wait_with_output()?;
    let summary = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {summary}", shown(&command));
    let own = Own::parse(&summary).with_context(|| format!("no cost in {summary}"))?;
    Ok((operation?, own))
}

/// Time of an operation while a tool runs.
fn with(tool: &mut Command) -> Result<f64> {
    let child = tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.with_context(|| format!("cannot run {}", shown(tool)))?;
    thread::sleep(ATTACHED);
    let ended_early = child.try_wait()?;
    let operation = pipe();
    let status = child.wait()?;
    if let Some(status) = ended_early.or((!status.success()).then_some(status)) {
        bail!("{} failed ({status})", shown(tool));
    }
    operation
}

/// Time of an operation of `perf bench sched pipe`, µs.
fn pipe() -> Result<f64> {
    let mut command = Command::new("taskset");
    command.args(["-c", CPU, "perf", "bench", "-f", "simple", "sched", "pipe", "-l", OPERATIONS]);
    let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let seconds: f64 = said.trim().parse().with_context(|| format!("{} says {said:?}", shown(&command)))?;
    Ok(seconds * 1e6 / OPERATIONS.parse::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_found_in_the_summary() {
        let summary = " 100.0%  410.918 s  of 410.918 s that 142 threads lived; 2000 switches\n\
                       cost: kernel programs 4.0 ms (1.46% of one CPU, 8.8 µs a tick), agent 781 ms CPU\n";
        assert_eq!(Own::parse(summary).unwrap().ns_per_switch(), 2_000.0);
        assert!(Own::parse("").is_none());
    }
}
