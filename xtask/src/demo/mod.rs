//! `cargo xtask demo`.

mod fleet;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    build,
    workspace::{Privilege, root, run as run_command, step},
};

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many seconds to profile
    #[arg(short, long, default_value_t = 5)]
    duration: u32,
    /// Where to leave the flame graph [default: flame.svg in the workspace]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only the flame graph: no collector is built
    #[arg(long)]
    flame_only: bool,
}

/// Builds, and profiles the host while a workload burns its CPU; then has an agent stream a host that is short of CPUs to a collector.
pub fn run(args: &Args) -> Result<()> {
    build::binaries(&[build::AGENT])?;
    let output = args.output.clone().unwrap_or_else(|| root().join("flame.svg"));

    let workload = Workload::start()?;
    step(&format!(
        "profiling this host for {} s; process {} burns 70, 20 and 10 % in match_orders, price_orders, \
         write_receipts",
        args.duration,
        workload.0.id()
    ));
    record(args.duration, &output)?;
    drop(workload);
    println!("{}", output.display());
    if args.flame_only { Ok(()) } else { fleet::show() }
}

fn record(duration: u32, output: &Path) -> Result<()> {
    let privilege = Privilege::probe();
    let mut command = privilege.command(build::binary_path(build::AGENT));
    command.args(["record", "--duration", &duration.to_string(), "--output"]).arg(output);
    let outcome = run_command(&mut command);
    if privilege == Privilege::User {
        return outcome.context("profiling the host needs root: run `sudo -v` first, or the demo as root");
    }
    outcome
}

/// The running workload. It ends with this value, and also when this process dies: its standard input
/// closes.
struct Workload(Child);

impl Workload {
    fn start() -> Result<Self> {
        let program = env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(program)
            .arg("burn")
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start the demo's workload")?;
        Ok(Self(child))
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
