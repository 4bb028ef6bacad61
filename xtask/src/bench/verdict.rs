//! What a verdict costs by threads and by hosts: generated windows, drawn by the same code in the agent and in the collector. And how
//! soon it is there after the window of a real host.

use std::{fmt::Write, process::Command, time::Duration};

use anyhow::Result;

use super::{
    figures::{Figures, figures},
    machine::{Machine, load_average},
    report::{Table, verdict},
    sides::Sides,
    stats::Readings,
    workload::Load,
};
use crate::workspace::{cargo, run as run_command, step, target_dir};

/// A merged window of all hosts, in what their own windows cost together.
const MERGED_BAR: f64 = 1.2;
/// From the window's end to the verdict: what somebody who waits for it does not notice.
const VERDICT_BAR_MS: f64 = 300.0;
/// Threads of a host that has many.
const MANY: u32 = 10_000;
const THREADS: [u32; 4] = [10, 100, 1_000, MANY];
const HOSTS: [u32; 4] = [1, 10, 100, 1_000];
/// Of a real host.
const WINDOW: Duration = Duration::from_secs(3);

/// Measurements of each: of generated windows the best counts, of real ones the median.
pub const fn turns(is_quick: bool) -> u32 {
    if is_quick { 2 } else { 7 }
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, turns: u32) -> Result<String> {
    step("verdicts of generated windows are drawn");
    let target = ["--package", "chokepoint-analysis", "--example", "verdict_cost"];
    run_command(cargo().args(["build", "--release"]).args(target))?;
    let before = load_average();
    let program = target_dir().join("release/examples/verdict_cost");
    let measured = figures(Command::new(program).arg(turns.to_string()))?;
    let mut bars = bars(&measured)?;
    live(sides, turns, "quiet", &mut bars)?;
    let load = Load::start()?;
    live(sides, turns, "busy", &mut bars)?;
    drop(load);
    let mut text = format!("{} Load average {before} before, {} after.\n\n", Machine::this(), load_average());
    writeln!(text, "{bars}")?;
    writeln!(text, "{}\n{}", by_threads(&measured)?, by_hosts(&measured)?)?;
    Ok(text)
}

fn bars(measured: &Figures) -> Result<Table> {
    let mut bars = Table::new(["bar", "measured", ""]);
    let most = HOSTS[HOSTS.len() - 1];
    let ratio = ratio(measured, most)?;
    bars.row([
        format!("the merged window of {most} hosts: at most {MERGED_BAR} times those hosts' own windows"),
        format!("{ratio:.2}"),
        verdict(ratio <= MERGED_BAR),
    ]);
    let many = measured.number(&format!("threads_{MANY}_us"))? / 1e3;
    bars.row([
        format!("the verdict of a host with {MANY} threads: below {VERDICT_BAR_MS} ms"),
        format!("{many:.0} ms"),
        verdict(many < VERDICT_BAR_MS),
    ]);
    Ok(bars)
}

/// From the window's end to the page of `chokepoint diagnose`, its process's end included.
fn live(sides: &Sides, turns: u32, host: &str, bars: &mut Table) -> Result<()> {
    step(&format!("diagnosis of the host, {host}: {turns} turns"));
    let mut finish = Readings::default();
    for _ in 0..turns {
        finish.push(sides.diagnose(WINDOW)?.finish.as_secs_f64() * 1e3);
    }
    bars.row([
        format!("`diagnose` of the {host} host, after its window: below {VERDICT_BAR_MS} ms"),
        finish.show(0, "ms").to_string(),
        verdict(finish.median() < VERDICT_BAR_MS),
    ]);
    Ok(())
}

/// What merged windows cost in those that they are made of.
fn ratio(measured: &Figures, hosts: u32) -> Result<f64> {
    Ok(measured.number(&format!("hosts_{hosts}_us"))? / measured.number(&format!("singles_{hosts}_us"))?)
}

fn by_threads(measured: &Figures) -> Result<Table> {
    let mut table = Table::new(["threads of one host", "the verdict", "for each thread"]);
    for threads in THREADS {
        let us = measured.number(&format!("threads_{threads}_us"))?;
        table.row([
            threads.to_string(),
            format!("{:.2} ms", us / 1e3),
            format!("{:.2} µs", us / f64::from(threads)),
        ]);
    }
    Ok(table)
}

fn by_hosts(measured: &Figures) -> Result<Table> {
    let mut table =
        Table::new(["hosts", "their merged window", "their own windows, one after the other", "times"]);
    for hosts in HOSTS {
        let ms = |of: &str| Ok::<_, anyhow::Error>(measured.number(&format!("{of}_{hosts}_us"))? / 1e3);
        table.row([
            hosts.to_string(),
            format!("{:.2} ms", ms("hosts")?),
            format!("{:.2} ms", ms("singles")?),
            format!("{:.2}", ratio(measured, hosts)?),
        ]);
    }
    Ok(table)
}
