//! User stacks: how many are complete, and what they cost.

mod build_load;
mod cost;
mod host;
mod peer;
mod targets;

use std::{fmt::Write, path::Path, process::Command, time::Duration};

use anyhow::Result;

use self::{build_load::BuildLoad, targets::Target};
use super::{
    machine::{Machine, load_average},
    report::{Table, verdict},
    sides::{Sides, perf_version},
    stats::Readings,
};
use crate::workspace::{run as run_command, step};

/// Per cent of a program's samples that are complete.
const TARGET_BAR_PCT: f64 = 99.5;
/// The same of all processes during a build.
const HOST_BAR_PCT: f64 = 95.0;
/// Cost of an unwound stack, in that of one walked along frame pointers: at a rate at which caches are cold,
const COLD_BAR: f64 = 1.2;
/// and at one at which they are warm.
const WARM_BAR: f64 = 1.5;
/// CPU time of the agent, in that of `perf record --call-graph dwarf`.
const PEER_BAR: f64 = 0.2;

/// How thoroughly to measure.
pub struct Plan {
    /// Tests of which the targets are taken; `None` takes all.
    pub targets: Option<&'static str>,
    /// How long a build runs before it is recorded,
    pub build_lead: Duration,
    /// and how long it is recorded.
    pub build_window: Duration,
    /// Turns of both sides where costs are compared.
    pub turns: usize,
    /// Length of each.
    pub turn: Duration,
    /// Turns beside the peer, and their length. What a recording costs once, loading and symbolizing, counts the less the
    /// longer it is.
    pub beside_peer: Vec<(usize, Duration)>,
}

impl Plan {
    /// About twelve minutes.
    pub fn full() -> Self {
        Self {
            targets: None,
            build_lead: Duration::from_secs(60),
            build_window: Duration::from_secs(60),
            turns: 5,
            turn: Duration::from_secs(4),
            beside_peer: vec![(3, Duration::from_secs(20)), (1, Duration::from_secs(60))],
        }
    }

    /// About a minute.
    pub fn quick() -> Self {
        Self {
            targets: Some("exceptions"),
            build_lead: Duration::from_secs(5),
            build_window: Duration::from_secs(10),
            turns: 1,
            turn: Duration::from_millis(1500),
            beside_peer: vec![(1, Duration::from_secs(5))],
        }
    }
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, directory: &Path, plan: &Plan) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", Machine::this())?;
    writeln!(text, "Peer: {}. Medians, with the range in parentheses.\n", perf_version()?)?;

    let mut bars = Table::new(["bar", "measured", ""]);
    let mut details = String::new();
    measure_targets(plan, &mut bars, &mut details)?;
    measure_host(sides, directory, plan, &mut bars, &mut details)?;
    measure_cost(sides, directory, plan, &mut bars, &mut details)?;
    measure_peer(sides, plan, &mut bars, &mut details)?;
    write!(text, "{bars}\n{details}")?;
    Ok(text)
}

/// Programs one by one.
fn measure_targets(plan: &Plan, bars: &mut Table, details: &mut String) -> Result<()> {
    step(&format!("programs one by one, load average {}", load_average()));
    let targets = targets::measure(plan.targets)?;
    let below: Vec<_> = targets.iter().filter(|target| target.complete_pct() < TARGET_BAR_PCT).collect();
    let wrong: Vec<_> = targets.iter().filter(|target| target.contradicts()).collect();
    let names = |targets: &[&Target]| {
        targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let all_but = |targets: &[&Target]| match targets {
        [] => "all".to_owned(),
        _ => format!("not {}", names(targets)),
    };
    bars.row([
        format!("each of {} programs: {TARGET_BAR_PCT} % of the samples complete", targets.len()),
        all_but(&below),
        verdict(below.is_empty() && !targets.is_empty()),
    ]);
    let known = targets.iter().filter(|target| target.wrong.is_some()).count();
    bars.row([
        format!("each of {known} workloads whose chains of calls are known: every complete stack right, frame by frame"),
        all_but(&wrong),
        verdict(wrong.is_empty() && known > 0),
    ]);

    writeln!(
        details,
        "User stacks of programs, 997 samples a second for 1.5 s each, two programs at a time:\n"
    )?;
    let mut table =
        Table::new(["program", "samples", "complete", "mean depth", "contradict the truth", "incomplete"]);
    for target in &targets {
        table.row([
            target.name.clone(),
            target.samples.to_string(),
            format!("{:.2} %", target.complete_pct()),
            format!("{:.1}", target.depth),
            target.wrong.map_or_else(|| "not known".to_owned(), |wrong| wrong.to_string()),
            target.causes().to_owned(),
        ]);
    }
    writeln!(details, "{table}")?;
    Ok(())
}

/// All processes, while a build runs.
fn measure_host(
    sides: &Sides,
    directory: &Path,
    plan: &Plan,
    bars: &mut Table,
    details: &mut String,
) -> Result<()> {
    let (lead, window) = (plan.build_lead.as_secs_f64(), plan.build_window.as_secs_f64());
    step(&format!("all processes while a build runs: {lead} s, then {window} s are recorded"));
    let load = BuildLoad::start(&directory.join("build"))?;
    std::thread::sleep(plan.build_lead);
    let watch = host::Watch::start();
    let recording = sides.chokepoint_json(&[], 99, plan.build_window)?;
    let old = watch.finish();
    drop(load);
    let all = host::Completeness::of_all(&recording.profile)?;
    bars.row([
        format!("all processes over {window} s of a build, from its {lead:.0}. second on: {HOST_BAR_PCT} % complete"),
        format!("{:.1} % of {}", all.pct(), all.samples),
        verdict(all.pct() >= HOST_BAR_PCT),
    ]);
    writeln!(
        details,
        "User stacks of all processes while gcc compiles small files on every CPU and cargo builds a crate beside it, \
         at 99 Hz over {window} s. The agent starts with that window:\n"
    )?;
    let mut table = Table::new(["processes", "samples", "complete", "incomplete"]);
    let mut row = |name: String, part: &host::Completeness| {
        table.row([name, part.samples.to_string(), format!("{:.1} %", part.pct()), part.causes()]);
    };
    row("all".to_owned(), &all);
    for (name, part) in host::parts(&recording.profile, &old)? {
        row(name, &part);
    }
    writeln!(details, "{table}")?;
    if let Some(bytes) = recording.table_bytes() {
        writeln!(details, "Tables at the end of it: {bytes}.\n")?;
    }
    Ok(())
}

/// The kernel program's own time for one stack.
fn measure_cost(
    sides: &Sides,
    directory: &Path,
    plan: &Plan,
    bars: &mut Table,
    details: &mut String,
) -> Result<()> {
    let sampler = cost::Sampler::prepare(directory)?;
    writeln!(
        details,
        "What the kernel counts for one sample of a program with 45 frames on each CPU: the agent's program as a whole \
         where the stack is unwound, and small programs where the same source is compiled with frame pointers. For those, \
         frames are means over distinct stacks. Sides take turns:\n"
    )?;
    let mut table = Table::new(["rate", "side", "each sample", "samples a turn", "frames"]);
    for (frequency_hz, state, bar) in [(99, "cold", COLD_BAR), (3_999, "warm", WARM_BAR)] {
        step(&format!(
            "cost of a stack at {frequency_hz} Hz: {} turns, load average {}",
            plan.turns,
            load_average()
        ));
        let cost = sampler.measure(sides, frequency_hz, plan.turns, plan.turn)?;
        let ratio = cost.unwound.each_us.median() / cost.walked.each_us.median();
        bars.row([
            format!(
                "a stack of 45 frames by call-frame information, {frequency_hz} Hz ({state}): at most {bar} times bpf_get_stackid"
            ),
            format!("{ratio:.2} times"),
            verdict(ratio <= bar),
        ]);
        for (name, side) in [
            ("unwound by the agent", &cost.unwound),
            ("bpf_get_stackid", &cost.walked),
            ("bpf_get_stack, and sent as the agent sends it", &cost.sent),
            ("counted only", &cost.counted),
        ] {
            let depth = side.depth.median();
            let depth = if depth > 0.0 { format!("{depth:.1}") } else { String::new() };
            table.row([
                format!("{frequency_hz} Hz"),
                name.to_owned(),
                side.each_us.show(2, "µs").to_string(),
                format!("{:.0}", side.samples.median()),
                depth,
            ]);
        }
    }
    writeln!(details, "{table}")?;
    Ok(())
}

/// The whole agent beside perf.
fn measure_peer(sides: &Sides, plan: &Plan, bars: &mut Table, details: &mut String) -> Result<()> {
    writeln!(details, "CPU time of sampling the busy host at 99 Hz:\n")?;
    let mut table = Table::new(["length", "part", "chokepoint", "perf record --call-graph dwarf"]);
    for (turns, turn) in &plan.beside_peer {
        let seconds = turn.as_secs_f64();
        step(&format!(
            "beside perf: {} recordings of {seconds} s, load average {}",
            2 * turns,
            load_average()
        ));
        let peer = peer::measure(sides, *turns, *turn)?;
        let ratio = peer.chokepoint.median() / peer.perf.median();
        bars.row([
            format!(
                "CPU of sampling the busy host for {seconds} s at 99 Hz: at most {PEER_BAR} of perf record --call-graph dwarf"
            ),
            format!("{:.0} ms, {:.0} ms by perf: {ratio:.2}", peer.chokepoint.median(), peer.perf.median()),
            verdict(ratio <= PEER_BAR),
        ]);
        for (part, chokepoint, perf) in [
            ("the process", &peer.process, &peer.perf),
            ("kernel programs", &peer.programs, &Readings::default()),
            ("perf script", &Readings::default(), &peer.script),
        ] {
            let cell = |readings: &Readings| {
                if *readings == Readings::default() {
                    String::new()
                } else {
                    readings.show(0, "ms").to_string()
                }
            };
            table.row([format!("{seconds} s"), part.to_owned(), cell(chokepoint), cell(perf)]);
        }
    }
    writeln!(
        details,
        "{table}\nWhat perf does in the interrupts themselves, copying the stacks, is charged to what they interrupt and \
         not counted here; chokepoint's programs are.\n"
    )?;
    Ok(())
}

/// Compiles a workload of the tests, with further options.
fn compile(source: &str, options: &[&str], program: &Path) -> Result<()> {
    let source = crate::workspace::root().join("tests/workloads").join(source);
    let text = std::fs::read_to_string(&source)?;
    let own = text.lines().next().and_then(|line| line.strip_prefix("// options: ")).unwrap_or_default();
    run_command(
        Command::new("cc").args(own.split_whitespace()).args(options).arg("-o").arg(program).arg(&source),
    )
}
