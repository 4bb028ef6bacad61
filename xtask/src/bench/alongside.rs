//! Measures an operation while a tool runs beside it.

use std::{
    fmt::Write,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::machine::{Machine, load_average};
use crate::workspace::{shown, step};

/// By when every tool has attached.
const ATTACHED: Duration = Duration::from_millis(1_500);
/// How long the tools run, seconds: as long as attaching and the slowest of the measurements take.
pub const TOOL_S: &str = "7";

/// What stands above the figures.
pub fn heading() -> Result<String> {
    let mut text = String::new();
    writeln!(text, "{}", Machine::this())?;
    writeln!(
        text,
        "Medians, with the range in parentheses; the sides took turns. Load average before: {}.\n",
        load_average()
    )?;
    Ok(text)
}

/// So many turns of all sides, each announced.
pub fn turns(number: usize) -> impl Iterator<Item = usize> {
    (1..=number)
        .inspect(move |turn| step(&format!("turn {turn} of {number}, load average {}", load_average())))
}

/// What is measured while a tool runs, and what the tool says on standard error. It is to end by itself, after the measurement.
pub fn alongside<T>(mut tool: Command, measured: impl FnOnce() -> Result<T>) -> Result<(T, String)> {
    let child = tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {}", shown(&tool)))?;
    thread::sleep(ATTACHED);
    let ended_early = child.try_wait()?.is_some();
    let result = measured();
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{} failed ({}): {said}", shown(&tool), output.status);
    ensure!(!ended_early, "{} ended before the measurement: {said}", shown(&tool));
    Ok((result?, said))
}

/// The time of chokepoint's kernel programs, from its closing summary.
pub fn program_time(summary: &str) -> Result<Duration> {
    let found = || {
        let (_, rest) = summary.split_once("cost: kernel programs ")?;
        let ms: f64 = rest.split_once(" ms")?.0.parse().ok()?;
        Duration::try_from_secs_f64(ms / 1e3).ok()
    };
    found().with_context(|| format!("no cost in {summary}"))
}

/// How chokepoint is to log for [`programs`] to know what each program cost.
pub const COST_LOG: &str = "warn,chokepoint::cost=debug";

/// What one of chokepoint's kernel programs cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// How long, by the kernel's own count.
    pub run_ns: u64,
}

/// The programs that ran, from what chokepoint logs: `… chokepoint::cost: block_rq_issue runs=12 run_ns=3456`.
pub fn programs(said: &str) -> Result<Vec<Program>> {
    let program = |line: &str| {
        let (_, told) = line.split_once("chokepoint::cost: ")?;
        let (name, numbers) = told.split_once(" runs=")?;
        let (runs, run_ns) = numbers.split_once(" run_ns=")?;
        Some(Program { name: name.to_owned(), runs: runs.parse().ok()?, run_ns: run_ns.trim().parse().ok()? })
    };
    let programs: Vec<_> = said.lines().filter_map(program).collect();
    ensure!(!programs.is_empty(), "chokepoint does not tell what its programs cost: {said}");
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_program_cost_is_found_in_the_log() {
        let log = "2026-01-01T10:00:00.123456Z DEBUG chokepoint::cost: block_rq_issue runs=12 run_ns=3456\n\
                   wrote io.folded\n2026-01-01T10:00:00.123456Z DEBUG chokepoint::cost: sched_switch runs=1 run_ns=2\n";
        let issue = Program { name: "block_rq_issue".to_owned(), runs: 12, run_ns: 3_456 };
        let switch = Program { name: "sched_switch".to_owned(), runs: 1, run_ns: 2 };
        assert_eq!(programs(log).unwrap(), [issue, switch]);
        assert!(programs("wrote io.folded\n").is_err());
    }

    #[test]
    fn the_time_of_programs_is_found_in_the_summary() {
        let summary = "wrote fault.folded\ncost: kernel programs 89.6 ms (2.24% of one CPU, 0.2 µs a tick), agent 679 ms CPU\n";
        assert_eq!(program_time(summary).unwrap(), Duration::from_micros(89_600));
        assert!(program_time("").is_err());
    }

    #[test]
    fn a_tool_that_does_not_run_as_long_as_the_measurement_is_an_error() {
        let error = |tool: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", tool]);
            alongside(command, || Ok(())).unwrap_err().to_string()
        };
        assert!(error("echo why >&2; exit 3").contains("why"));
        assert!(error("true").contains("ended before"));
    }
}
