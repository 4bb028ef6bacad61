//! What accounting for every switch costs, beside Debian's libbpf-tools.

use std::{
    fmt::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    alongside::{self, TOOL_S, alongside, program_time},
    report::{Table, verdict},
    sides::Sides,
    stats::Readings,
    sys,
};
use crate::workspace::shown;

/// What accounting and stacks add to an operation, in what offcputime adds.
const PEER_BAR: f64 = 0.25;
/// Per cent of a CPU at this many switches a second.
const COST_BAR_PCT: f64 = 0.5;
const SWITCHES_PER_S: f64 = 10_000.0;
/// Operations of one measurement, two switches and two wake-ups each.
const OPERATIONS: &str = "200000";
/// The CPU that both ends of the pipe run on.
const CPU: &str = "1";

/// Turns of all sides: about three minutes, or one.
pub const fn turns(quick: bool) -> usize {
    if quick { 2 } else { 7 }
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, turns: usize) -> Result<String> {
    let mut text = alongside::heading()?;
    let (mut bare, mut chokepoint, mut offcputime, mut runqlat) =
        (Readings::default(), Readings::default(), Readings::default(), Readings::default());
    let mut switch_ns = Readings::default();
    for _ in alongside::turns(turns) {
        bare.push(pipe()?);
        let (operation, summary) = alongside(sides.chokepoint_record("off-cpu", TOOL_S), pipe)?;
        chokepoint.push(operation);
        switch_ns.push(ns_per_switch(&summary)?);
        for (name, arguments, side) in
            [("offcputime", &[TOOL_S][..], &mut offcputime), ("runqlat", &[TOOL_S, "1"][..], &mut runqlat)]
        {
            let mut peer = sides.privileged(name);
            peer.args(arguments);
            side.push(alongside(peer, pipe)?.0);
        }
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

/// What chokepoint's kernel programs took for each switch, from its closing summary.
fn ns_per_switch(summary: &str) -> Result<f64> {
    let switches = || summary.split_once(" switches")?.0.rsplit(' ').next()?.parse::<u64>().ok();
    let switches = switches().with_context(|| format!("no switches in {summary}"))?;
    Ok(program_time(summary)?.as_nanos() as f64 / switches.max(1) as f64)
}

/// CPU time of an operation of `perf bench sched pipe`, µs. A switch is the time of the thread that comes, so programs that run at it
/// are in there; what others want of the CPU meanwhile, or the hypervisor takes of it, is not.
fn pipe() -> Result<f64> {
    let mut command = Command::new("taskset");
    command.args(["-c", CPU, "perf", "bench", "-f", "simple", "sched", "pipe", "-l", OPERATIONS]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.with_context(|| format!("cannot run {}", shown(&command)))?;
    let (status, usage) = sys::wait(child)?;
    ensure!(status.success(), "{} failed ({status})", shown(&command));
    Ok(usage.cpu().as_secs_f64() * 1e6 / OPERATIONS.parse::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_found_in_the_summary() {
        let summary = " 100.0%  410.918 s  of 410.918 s that 142 threads lived; 2000 switches\n\
                       cost: kernel programs 4.0 ms (1.46% of one CPU, 8.8 µs a tick), agent 781 ms CPU\n";
        assert_eq!(ns_per_switch(summary).unwrap(), 2_000.0);
        assert!(ns_per_switch("").is_err());
    }
}
