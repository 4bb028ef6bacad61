//! The demo's second half: a collector, an agent that streams this host to it, and what the collector answers.

use std::{
    fs,
    io::{self, BufRead, BufReader, IsTerminal},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::Workload;
use crate::{
    build,
    workspace::{Privilege, run as run_command, step, target_dir},
};

/// Short, so that there is something to see soon. Two of them make a verdict.
const WINDOW: &str = "5s";
const ENOUGH_WINDOWS: u64 = 2;
/// For these windows, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// Any port that is free.
const ANY_PORT: &str = "127.0.0.1:0";

/// Starts both and something to see, and prints what limits this host and where to see it. In a terminal all of it runs on until Ctrl-C.
pub fn show() -> Result<()> {
    build::binaries(&[build::COLLECTOR])?;
    let directory = target_dir().join("demo");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;

    let collector = Collector::start(&directory.join("store"))?;
    let cpus = thread::available_parallelism()?.get();
    // One has to wait.
    let _workloads = (0..=cpus).map(|_| Workload::start()).collect::<Result<Vec<_>>>()?;
    step(&format!(
        "an agent streams this host to a collector at {}, a window each {WINDOW}, while {} processes burn its {cpus} CPUs",
        collector.grpc,
        cpus + 1
    ));
    let agent = follow(&collector, &directory.join("state"))?;
    collector.wait_for_windows()?;
    run_command(collector.query().arg("constraints"))?;
    println!("http://{}/", collector.http);
    if io::stdout().is_terminal() {
        step("open that in a browser; Ctrl-C ends the collector and the agent");
        agent.wait()?;
    }
    Ok(())
}

fn follow(collector: &Collector, state: &Path) -> Result<Running> {
    let mut command = Privilege::probe().command(build::binary_path(build::AGENT));
    command.args(["agent", "--collector", &format!("http://{}", collector.grpc), "--window", WINDOW]);
    command.arg("--state-dir").arg(state).stdin(Stdio::null());
    Ok(Running(command.spawn().context("cannot start the agent")?))
}

/// A program that is told to end when this goes.
struct Running(Child);

impl Running {
    fn wait(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "the agent failed ({status})");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not killed: sudo would leave what it started behind.
        let _ = Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

struct Collector {
    /// Where agents are listened to.
    grpc: String,
    /// Where queries are.
    http: String,
    _running: Running,
}

impl Collector {
    fn start(store: &Path) -> Result<Self> {
        let mut command = Command::new(build::binary_path(build::COLLECTOR));
        command.args(["serve", "--listen", ANY_PORT, "--http", ANY_PORT, "--store"]).arg(store);
        // It says in two lines where it listens; what it logs is for others.
        command.env("CHOKEPOINT_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running(command.spawn().context("cannot start the collector")?);
        let stdout = running.0.stdout.take().context("the collector has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut told = |before: &str| -> Result<String> {
            let line = lines.next().context("the collector ended at once")??;
            Ok(line.strip_prefix(before).with_context(|| format!("the collector says {line:?}"))?.to_owned())
        };
        let (grpc, http) = (told("listening on ")?, told("queries on http://")?);
        Ok(Self { grpc, http, _running: running })
    }

    /// `chokepoint-collector query`, to be asked something.
    fn query(&self) -> Command {
        let mut command = Command::new(build::binary_path(build::COLLECTOR));
        command.args(["query", "--url", &format!("http://{}", self.http)]);
        command
    }

    fn wait_for_windows(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let output = self.query().args(["agents", "--json"]).output()?;
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if answer["agents"][0]["batches"].as_u64().is_some_and(|batches| batches >= ENOUGH_WINDOWS) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500));
        }
        bail!("the agent sent no window in {} s: see what it says above", PATIENCE.as_secs())
    }
}
