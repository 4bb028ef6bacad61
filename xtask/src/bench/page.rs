//! The page's first view, of a collector that has a fleet's day and was just started.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{
    machine::{Machine, load_average},
    report::{Table, verdict},
    stats::Readings,
};
use crate::{
    build,
    workspace::{cargo, root, run as run_command, step, target_dir},
};

/// From the address to the first view.
const BAR_MS: f64 = 1_000.0;

/// How much is measured.
pub struct Plan {
    hosts: u64,
    hours: u64,
    /// Times that a collector is started anew.
    rounds: usize,
}

impl Plan {
    pub const fn full() -> Self {
        Self { hosts: 200, hours: 24, rounds: 5 }
    }

    /// Some minutes, with optimized programs that are there.
    pub const fn quick() -> Self {
        Self { hosts: 20, hours: 24, rounds: 2 }
    }
}

/// What the browser saw of a view.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Seen {
    /// Until the hosts were on the screen.
    hosts_ms: f64,
    /// Until all of the view was.
    all_ms: f64,
    hosts: u64,
}

/// Measures, and says it as Markdown.
pub fn measure(directory: &Path, plan: &Plan) -> Result<String> {
    build::binaries(&[build::COLLECTOR])?;
    run_command(cargo().args(["build", "--release", "--package", build::COLLECTOR, "--example", "day"]))?;
    let store = directory.join("day");
    let _ = fs::remove_dir_all(&store);
    fs::create_dir_all(&store).with_context(|| format!("cannot make {}", store.display()))?;
    step(&format!("writing {} hours of {} hosts", plan.hours, plan.hosts));
    let mut command = Command::new(target_dir().join("release/examples/day"));
    command.arg(&store).args([plan.hosts, plan.hours].map(|number| number.to_string()));
    let written = command.stderr(Stdio::inherit()).output().context("cannot run the example day")?;
    ensure!(written.status.success(), "the example day failed ({})", written.status);
    let written = String::from_utf8_lossy(&written.stdout).into_owned();
    let number = |name: &str| -> Result<f64> {
        let found = written.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.with_context(|| format!("the example day did not tell {name}"))
    };
    let until = number("until_unix_s ")?;
    let address = |hours: f64| format!("/?from={}&until={until}", hours.mul_add(-3600.0, until));
    let views = [("the last hour", address(1.0)), ("the last 24 hours", address(24.0))];

    let before = load_average();
    let mut started = Readings::default();
    let mut seen: [Vec<Seen>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..plan.rounds {
        // Each view is the first that its collector is asked for.
        for ((_, path), seen) in views.iter().zip(&mut seen) {
            forget(&store)?;
            let collector = Collector::start(&store)?;
            started.push(collector.started_ms);
            seen.push(first_view(&collector.url, path)?);
        }
    }
    let bytes = size(&store)?;
    fs::remove_dir_all(&store)?;

    let mut bars = Table::new(["bar", "median", "worst", ""]);
    let mut rest = Table::new(["", "median", "worst"]);
    for ((what, _), seen) in views.iter().zip(&seen) {
        ensure!(seen.iter().all(|seen| seen.hosts == plan.hosts), "not all hosts are shown: {seen:?}");
        let hosts: Readings = seen.iter().map(|seen| seen.hosts_ms).collect();
        let all: Readings = seen.iter().map(|seen| seen.all_ms).collect();
        bars.row([
            format!("first view of {what}, from a cold start: below 1 s"),
            format!("{:.0} ms", hosts.median()),
            format!("{:.0} ms", hosts.max()),
            verdict(hosts.max() < BAR_MS),
        ]);
        rest.row([
            format!("all of that view, services included, of {what}"),
            format!("{:.0} ms", all.median()),
            format!("{:.0} ms", all.max()),
        ]);
    }
    rest.row([
        "from the collector's start until it listens".to_owned(),
        format!("{:.0} ms", started.median()),
        format!("{:.0} ms", started.max()),
    ]);
    let mut text = format!("{}\n", Machine::this());
    writeln!(text, "Load average before {before}, after {}.\n", load_average())?;
    writeln!(
        text,
        "{} hosts, {} hours, {:.1} million rows of samples, {:.0} MB; {} times each.\n",
        plan.hosts,
        plan.hours,
        number("rows ")? / 1e6,
        bytes as f64 / 1e6,
        plan.rounds
    )?;
    write!(text, "{bars}\n{rest}")?;
    Ok(text)
}

/// Has a browser that was never there open the view.
fn first_view(url: &str, path: &str) -> Result<Seen> {
    let ui = root().join("collector/ui");
    let mut node = Command::new("node");
    node.arg("tests/first-view.mjs").args([url, path]).current_dir(&ui).stderr(Stdio::inherit());
    let output = node.output().context("cannot run node: cargo xtask setup --test installs it")?;
    ensure!(output.status.success(), "the browser failed ({})", output.status);
    serde_json::from_slice(&output.stdout).context("the browser did not say what it saw")
}

/// Has the kernel forget what it has of the store's files, so that they are read from the disk.
fn forget(store: &Path) -> Result<()> {
    for path in files(store)? {
        let mut of = OsString::from("of=");
        of.push(&path);
        let mut command = Command::new("dd");
        run_command(command.arg(of).args([
            "oflag=nocache",
            "conv=notrunc,fdatasync",
            "count=0",
            "status=none",
        ]))?;
    }
    Ok(())
}

fn size(store: &Path) -> Result<u64> {
    files(store)?.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The real program, until this is dropped.
struct Collector {
    child: Child,
    url: String,
    /// From its start until it listens.
    started_ms: f64,
}

impl Collector {
    fn start(store: &Path) -> Result<Self> {
        let begin = Instant::now();
        let child = Command::new(build::binary_path(build::COLLECTOR))
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"])
            .arg(store)
            .env("CHOKEPOINT_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the collector")?;
        let mut collector = Self { child, url: String::new(), started_ms: 0.0 };
        let lines = BufReader::new(collector.child.stdout.take().context("it has no output")?).lines();
        for line in lines {
            if let Some(url) = line?.strip_prefix("queries on ") {
                collector.url = url.trim().to_owned();
                collector.started_ms = begin.elapsed().as_secs_f64() * 1e3;
                return Ok(collector);
            }
        }
        bail!("the collector ended before it listened")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
