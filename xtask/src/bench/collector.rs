//! What a collector takes in, keeps and answers: a simulated fleet, beside plain Parquet and DuckDB on the same rows.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    figures::{Figures, figures},
    machine::{Machine, load_average},
    report::{Table, verdict},
};
use crate::{
    build, ui,
    workspace::{cargo, run as run_command, step, target_dir},
};

/// Agents that one collector is to serve.
const AGENTS: f64 = 2_000.0;
/// Windows of a fleet that may be late, in those of a second: more than wait for one confirmation of the disk do not catch up.
const LATE_S: f64 = 2.0;
/// Resident memory meanwhile.
const MEMORY_BAR_MB: f64 = 500.0;
/// Bytes of a row, in those of plain Parquet.
const BYTES_BAR: f64 = 0.8;
/// A day's flame graph, in the time of an hour's.
const DAY_BAR: f64 = 3.0;
/// Nodes of the largest flame graph, and how long it may take until it is JSON.
const NODES_BAR_MS: f64 = 300.0;
/// The service that is asked for, as the simulated fleet has it.
const SERVICE: &str = "rustc";
/// The peer: the library, its interpreter and what it is asked.
const PEER: &str = "duckdb";
const PEER_SCRIPT: &str = include_str!("collector/peer.py");

/// How much is measured.
pub struct Plan {
    /// How long agents stream.
    seconds: u64,
    hosts: u64,
    hours: u64,
}

impl Plan {
    /// Some twenty minutes: agents stream until long after their first windows became history, which is ten minutes later.
    pub const fn full() -> Self {
        Self { seconds: 840, hosts: 100, hours: 24 }
    }

    /// Some minutes.
    pub const fn quick() -> Self {
        Self { seconds: 60, hosts: 20, hours: 24 }
    }
}

/// Measures everything and says it as Markdown.
pub fn measure(directory: &Path, plan: &Plan) -> Result<String> {
    build::kernel_programs()?;
    ui::build()?;
    // Together: each for itself would have what both depend on with other features, and built twice.
    let targets = ["--package", build::COLLECTOR, "--bin", build::COLLECTOR, "--example", "fleet"];
    run_command(cargo().args(["build", "--release"]).args(targets))?;
    let python = peer(directory)?;
    let mut text = format!("{}\n", Machine::this());
    let before = load_average();

    step("two thousand agents stream to a collector");
    let store = fresh(directory.join("stream"))?;
    let agents = AGENTS.to_string();
    let streamed = fleet(
        &[
            "stream",
            &build::binary_path(build::COLLECTOR).to_string_lossy(),
            &store.to_string_lossy(),
            &agents,
        ],
        &[plan.seconds],
    )?;
    fs::remove_dir_all(&store)?;
    let between = load_average();

    step("the history of a fleet is written, and asked for");
    let store = fresh(directory.join("history"))?;
    let written = fleet(&["history", &store.to_string_lossy()], &[plan.hosts, plan.hours])?;
    let asked = fleet(&["ask", &store.to_string_lossy()], &[])?;
    let script = directory.join("peer.py");
    fs::write(&script, PEER_SCRIPT)?;
    let mut command = Command::new(python);
    command.arg(&script).arg(&store).arg(written.text("end_unix_ns")?).arg(SERVICE);
    let peer = figures(&mut command)?;
    fs::remove_dir_all(&store)?;
    writeln!(
        text,
        "Load average before the stream {before}, before the history {between}, after it {}.",
        load_average()
    )?;
    writeln!(text, "Peer: DuckDB {}, on as many threads as there are CPUs.\n", peer.text("duckdb_version")?)?;
    write!(
        text,
        "{}\n{}",
        bars(&streamed, &written, &asked, &peer)?,
        details(plan, &streamed, &written, &asked)?
    )?;
    Ok(text)
}

fn bars(streamed: &Figures, written: &Figures, asked: &Figures, peer: &Figures) -> Result<Table> {
    let mut bars = Table::new(["bar", "measured", ""]);
    let mut bar = |what: &str, measured: String, is_reached: bool| {
        bars.row([what.to_owned(), measured, verdict(is_reached)]);
    };
    let (late, failed) = (streamed.number("late_at_most")?, streamed.number("failed")?);
    bar(
        "the continuous streams of 2,000 agents: all are served, and no more wait than come in 2 s",
        format!("{late} windows were late at most, {failed} streams failed"),
        failed == 0.0 && late <= LATE_S * AGENTS / 10.0,
    );
    let peak = streamed.number("peak_resident_kb")? / 1e3;
    bar("resident memory meanwhile: below 500 MB", format!("{peak:.0} MB at most"), peak < MEMORY_BAR_MB);
    let own = written.number("samples-windows")? / peer.number("plain_rows")?;
    let plain = peer.number("plain_bytes")? / peer.number("plain_rows")?;
    bar(
        "bytes of a row of samples: at most 0.8 of those of plain zstd Parquet",
        format!("{own:.2}, {plain:.2} there: {:.2}", own / plain),
        own / plain <= BYTES_BAR,
    );
    let (hour, day) = (asked.number("hour_ms")?, asked.number("day_ms")?);
    let windows = peer.number("duckdb_windows_ms")?;
    bar(
        "a merged flame graph of one service over an hour, to its JSON: no slower than DuckDB's group-by over the hour's files",
        format!("{hour:.0} ms, {windows:.0} ms there"),
        hour <= windows,
    );
    let (hours, sums) = (peer.number("duckdb_hours_ms")?, asked.number("hour_sums_ms")?);
    bar(
        "what of it DuckDB does, too, filter and sum, beside DuckDB over what is read for it, the files of hours",
        format!("{sums:.1} ms, {hours:.1} ms there"),
        sums <= hours,
    );
    bar(
        "all of it, with names and JSON, of which DuckDB has none, beside the same",
        format!(
            "{hour:.1} ms, of which {:.1} are names, {hours:.1} ms there",
            asked.number("hour_frames_ms")?
        ),
        hour <= hours,
    );
    bar(
        "the same over 24 hours: at most 3 times the hour",
        format!("{day:.0} ms: {:.2}", day / hour),
        day <= DAY_BAR * hour,
    );
    let nodes = asked.number("all_nodes_ms")?;
    bar(
        "all of an hour, up to 200,000 nodes, to JSON: below 300 ms",
        format!("{nodes:.0} ms"),
        nodes < NODES_BAR_MS,
    );
    Ok(bars)
}

fn details(plan: &Plan, streamed: &Figures, written: &Figures, asked: &Figures) -> Result<String> {
    let seconds = streamed.number("seconds")?;
    let (answered, cpu_s) = (streamed.number("answered")?, streamed.number("cpu_s")?);
    let rows = written.number("rows")?;
    let mut text = String::new();
    writeln!(
        text,
        "The stream: {:.0} s, {answered:.0} windows answered, {:.0} a second; {:.2} CPUs of the collector, {:.1} ms of CPU time a window, {:.1} kB \
         of it on the wire; {:.0} MB resident at the end.\n",
        seconds,
        answered / seconds,
        cpu_s / seconds,
        cpu_s * 1e3 / answered,
        streamed.number("sent_bytes")? / answered / 1e3,
        streamed.number("resident_kb")? / 1e3,
    )?;
    writeln!(
        text,
        "The history: {} hosts, {} hours, {rows:.0} rows written in {:.0} s. All levels together take {:.2} bytes for each of them. An hour that \
         begins a moment later, so that its ends are read as windows, takes {:.0} ms. Rows of windows, minutes and hours: {:.0}, {:.0} and {:.0}.",
        plan.hosts,
        plan.hours,
        written.number("write_seconds")?,
        (written.number("samples-windows")?
            + written.number("samples-minutes")?
            + written.number("samples-hours")?)
            / rows,
        asked.number("odd_ms")?,
        written.number("samples-windows-rows")?,
        written.number("samples-minutes-rows")?,
        written.number("samples-hours-rows")?,
    )?;
    Ok(text)
}

/// An interpreter that has the peer.
fn peer(directory: &Path) -> Result<PathBuf> {
    let environment = directory.join("venv");
    let python = environment.join("bin/python");
    let has_peer = || {
        let import = format!("import {PEER}");
        let mut command = Command::new(&python);
        command.args(["-c", &import]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !has_peer() {
        step("installing DuckDB into an environment of its own");
        run_command(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run_command(Command::new(&python).args(["-m", "pip", "install", "--quiet", PEER]))?;
        ensure!(has_peer(), "DuckDB cannot be imported after it was installed");
    }
    Ok(python)
}

fn fresh(store: PathBuf) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(&store);
    fs::create_dir_all(&store).with_context(|| format!("cannot make {}", store.display()))?;
    Ok(store)
}

fn fleet(arguments: &[&str], numbers: &[u64]) -> Result<Figures> {
    let mut command = Command::new(target_dir().join("release/examples/fleet"));
    command.args(arguments).args(numbers.iter().map(u64::to_string));
    figures(&mut command)
}
