//! `cargo xtask verdicts`.

use anyhow::{Context, Result, bail};

use crate::{
    build,
    packages::Purpose,
    setup,
    test::run_as_root,
    workspace::{cargo, step},
};

/// Options of the suite of verdicts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only cases whose names contain this
    filter: Option<String>,
    /// How often each case is played
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of a window; 3 are enough to prove a label
    #[arg(short, long, default_value_t = 10.0)]
    duration: f64,
    /// Measure what relieving each case's constraint gains, in place of asking the agent
    #[arg(long)]
    prove: bool,
}

/// Plays the cases; fails where verdicts are below the bar, or labels do not hold.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(&[Purpose::Test])?;
    if !args.prove {
        build::binaries(&[build::AGENT])?;
    }
    let mode = if args.prove { "prove" } else { "judge" };
    step("playing cases of known bottlenecks; other work on this machine makes the result worse");
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "chokepoint-tests", "--bin", "verdicts", "--", mode]);
    command.args([args.runs.to_string(), args.duration.to_string()]).args(args.filter.as_slice());
    run_as_root(&mut command)?;
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!(if args.prove { "labels do not hold" } else { "verdicts are below the bar" });
    }
    Ok(())
}
