//! Completeness of one program at a time. The live tests know the programs and what their stacks should be; this
//! collects what they tell.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::workspace::cargo;

/// Before each program's facts.
const MARK: &str = "unwound: ";

/// What was found of a program.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Target {
    pub name: String,
    /// Samples with a user stack,
    pub samples: u64,
    /// and those whose stack reaches the thread's start.
    pub complete: u64,
    /// Mean number of user frames.
    pub depth: f64,
    /// Samples whose stacks are said to be complete and contradict the truth, where it is known.
    pub wrong: Option<u64>,
    /// How stacks ended, in words.
    outcomes: String,
}

impl Target {
    pub fn complete_pct(&self) -> f64 {
        self.complete as f64 * 100.0 / self.samples.max(1) as f64
    }

    /// Whether stacks that are said to be complete are wrong.
    pub fn contradicts(&self) -> bool {
        self.wrong.is_some_and(|wrong| wrong > 0)
    }

    /// Why stacks are incomplete.
    pub fn causes(&self) -> &str {
        self.outcomes.split_once(", ").map_or("", |(_, causes)| causes)
    }
}

/// Runs the tests that tell; a bar they miss fails them, and is shown here by its figures.
pub fn measure(filter: Option<&str>) -> Result<Vec<Target>> {
    let mut command = cargo();
    command
        .args(["test", "--quiet", "--package", "chokepoint-tests"])
        .args(["--test", "unwind", "--test", "unwind_installed", "--no-fail-fast", "--"])
        .args(filter)
        .args(["--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0");
    crate::test::run_as_root(&mut command)?;
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot run cargo")?;
    drop(command);
    let mut targets = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("cannot read the tests' output")?;
        targets.extend(parse(&String::from_utf8_lossy(&line)));
    }
    child.wait().context("cannot wait for cargo")?;
    ensure!(!targets.is_empty(), "the tests tell of no program; run `cargo xtask test unwind`");
    Ok(targets)
}

/// The facts in a line, which the test runner may have begun.
fn parse(line: &str) -> Option<Target> {
    serde_json::from_str(line.split_once(MARK)?.1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_found_behind_what_the_runner_has_said() {
        let line = r#"test c ... unwound: {"name":"chain","samples":1000,"complete":995,"depth":44.5,"wrong":5,
            "outcomes":"99.50 % of 1000 samples complete, no rule 5"}"#;
        let target = parse(line).unwrap();
        assert_eq!((target.complete_pct(), target.causes()), (99.5, "no rule 5"));
        assert!(target.contradicts() && !Target { wrong: Some(0), ..target }.contradicts());
        assert_eq!(parse("test c ... ok"), None);
        assert_eq!(parse("unwound: {}"), None);
    }
}
