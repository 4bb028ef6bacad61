//! What the kernel counts for one stack, unwound by the agent's program or walked along frame pointers.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chokepoint_toolchain::discover;
use serde::Deserialize;

use super::{
    super::{sides::Sides, stats::Readings},
    compile,
};
use crate::{
    build,
    workspace::{Privilege, cargo, run as run_command, shown, step, target_dir},
};

/// Readings of one side.
#[derive(Default)]
pub struct Side {
    /// Run time of the kernel program for each sample, microseconds.
    pub each_us: Readings,
    /// Samples of each turn.
    pub samples: Readings,
    /// Frames of a stack.
    pub depth: Readings,
}

impl Side {
    fn push(&mut self, run_time: Duration, samples: u64, depth: f64) {
        self.each_us.push(run_time.as_secs_f64() * 1e6 / samples.max(1) as f64);
        self.samples.push(samples as f64);
        self.depth.push(depth);
    }
}

/// All sides at one rate.
#[derive(Default)]
pub struct Cost {
    /// The agent, and a program without frame pointers.
    pub unwound: Side,
    /// `bpf_get_stackid`, and the same program with frame pointers.
    pub walked: Side,
    /// `bpf_get_stack`, and the stack sent to user space behind a header as the agent does.
    pub sent: Side,
    /// No stack at all.
    pub counted: Side,
}

/// What measures.
pub struct Sampler {
    /// The baseline's kernel programs, and what loads them.
    object: PathBuf,
    baseline: PathBuf,
    /// The workload without frame pointers and with them.
    without: PathBuf,
    with: PathBuf,
}

/// What the baseline says.
#[derive(Deserialize)]
struct Baseline {
    run_time_ns: u64,
    samples: u64,
    mean_depth: f64,
}

impl Sampler {
    /// Builds everything.
    pub fn prepare(directory: &Path) -> Result<Self> {
        step("compiling what stacks are compared with");
        let toolchain = discover()?;
        let kernel_build = build::kernel_build(&toolchain)?.baseline();
        run_command(kernel_build.command().arg("--quiet"))?;
        let mut tests = cargo();
        run_command(tests.args(["build", "--quiet", "--package", "chokepoint-tests", "--bin", "baseline"]))?;
        let sampler = Self {
            object: kernel_build.object(),
            baseline: target_dir().join("debug/baseline"),
            without: directory.join("unwind_without"),
            with: directory.join("unwind_with"),
        };
        compile("unwind.c", &[], &sampler.without)?;
        let keep = [
            "-DKEEPS_FRAME_POINTERS",
            "-fno-omit-frame-pointer",
            "-mno-omit-leaf-frame-pointer",
            "-fno-optimize-sibling-calls",
        ];
        compile("unwind.c", &keep, &sampler.with)?;
        Ok(sampler)
    }

    /// Lets the sides take turns.
    pub fn measure(&self, sides: &Sides, frequency_hz: u32, turns: usize, turn: Duration) -> Result<Cost> {
        let mut cost = Cost::default();
        for _ in 0..turns {
            let burning = Burning::start(&self.without)?;
            let recording =
                sides.chokepoint_json(&["--user-only", "--pid", &burning.pids()], frequency_hz, turn)?;
            drop(burning);
            cost.unwound.push(recording.programs, recording.attempted()?, recording.mean_depth());

            let burning = Burning::start(&self.with)?;
            for (what, side) in
                [("walk", &mut cost.walked), ("send", &mut cost.sent), ("count", &mut cost.counted)]
            {
                let baseline = self.baseline(what, frequency_hz, turn, &burning)?;
                ensure!(baseline.samples > 0, "the baseline has no samples");
                side.push(
                    Duration::from_nanos(baseline.run_time_ns),
                    baseline.samples,
                    if what == "walk" { baseline.mean_depth } else { 0.0 },
                );
            }
        }
        Ok(cost)
    }

    fn baseline(&self, what: &str, frequency_hz: u32, turn: Duration, burning: &Burning) -> Result<Baseline> {
        let mut command = Privilege::probe().command(&self.baseline);
        command
            .arg(&self.object)
            .args([what, &frequency_hz.to_string(), &turn.as_secs_f64().to_string()])
            .args(burning.0.iter().map(|child| child.id().to_string()));
        let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("{} failed: {}", shown(&command), String::from_utf8_lossy(&output.stderr).trim())
        })
    }
}

/// The workload, once on each CPU. It ends with this value.
struct Burning(Vec<Child>);

impl Burning {
    fn start(program: &Path) -> Result<Self> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let mut burning = Self(Vec::new());
        for cpu in 0..cpus {
            let mut command = Command::new("taskset");
            command.args(["-c", &cpu.to_string()]).arg(program).arg("chain");
            command.stdin(Stdio::null()).stdout(Stdio::null());
            burning.0.push(command.spawn().context("cannot start the workload")?);
        }
        thread::sleep(Duration::from_millis(100));
        Ok(burning)
    }

    fn pids(&self) -> String {
        self.0.iter().map(|child| child.id().to_string()).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
