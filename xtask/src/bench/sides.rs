//! The two sides, each run once.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::{
    alongside::COST_LOG,
    gauge::Reading,
    sys::{self, Usage},
};
use crate::{
    build,
    workspace::{Privilege, shown},
};

/// The phases of a recording, as the agent names them in its log.
const PHASE_TARGET: &str = "chokepoint::phase";
/// The CPU that the gauge runs on.
const GAUGE_CPU: &str = "0";

/// Runs the sides.
pub struct Sides {
    privilege: Privilege,
    chokepoint: PathBuf,
    /// What they write goes here.
    directory: PathBuf,
}

/// How to profile.
#[derive(Clone, Copy, Debug)]
pub struct Profiling {
    /// How long.
    pub duration: Duration,
    /// Ticks a second on each CPU.
    pub frequency_hz: u32,
}

/// What a side did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What it used; for perf without what `perf script` used.
    pub usage: Usage,
    /// What making the profile readable used on top of that, where that is another program.
    pub script: Usage,
    /// Time from the end of the window to the readable result.
    pub finish: Duration,
    /// CPU time by phase, where the side tells.
    pub phases: Vec<(String, Duration)>,
    /// Run time of the kernel programs as the kernel counts it.
    pub programs: Duration,
}

/// A profile in the agent's own format, and what the agent says of it.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The profile.
    pub profile: serde_json::Value,
    /// Run time of the kernel programs as the kernel counts it.
    pub programs: Duration,
    said: String,
}

impl Recording {
    /// Samples that were to be taken.
    pub fn attempted(&self) -> Result<u64> {
        self.profile["coverage"]["attempted"].as_u64().context("the profile does not tell its samples")
    }

    /// Frames of a stack.
    pub fn mean_depth(&self) -> f64 {
        let depth = |sample: &serde_json::Value| {
            let stack = sample["stack"].as_u64()? as usize;
            let frames = self.profile["stacks"][stack].as_array()?.len() as u64;
            Some((sample["count"].as_u64()?, frames))
        };
        let samples = self.profile["samples"].as_array().into_iter().flatten().filter_map(depth);
        let (count, frames) =
            samples.fold((0, 0), |sum, (count, frames)| (sum.0 + count, sum.1 + count * frames));
        frames as f64 / (count as f64).max(1.0)
    }

    /// What the agent says of the memory that tables take.
    pub fn table_bytes(&self) -> Option<String> {
        let cost = self.said.lines().find(|line| line.contains(" unwind tables, "))?;
        cost.split_once("; ").map(|(_, tables)| tables.to_owned())
    }
}

impl Outcome {
    /// CPU time that the process had used by the end of a phase.
    pub fn cpu_at(&self, phase: &str) -> Duration {
        self.phases.iter().find(|(name, _)| name == phase).map_or(Duration::ZERO, |(_, cpu)| *cpu)
    }
}

impl Sides {
    /// Needs the release binary.
    pub fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self { privilege: Privilege::probe(), chokepoint: build::binary_path(build::AGENT), directory })
    }

    /// `chokepoint record` into a flame graph.
    pub fn chokepoint(&self, profiling: Profiling) -> Result<Outcome> {
        Self::run_chokepoint(self.chokepoint_command(profiling, "flame.svg"), |_| Ok(()))
    }

    /// `chokepoint diagnose` of the host.
    pub fn diagnose(&self, duration: Duration) -> Result<Outcome> {
        let mut command = self.privilege.command(&self.chokepoint);
        command
            .args(["--log", &format!("warn,{PHASE_TARGET}=info"), "diagnose"])
            .args(["--duration", &format!("{}ms", duration.as_millis())])
            .stdout(Stdio::null());
        Self::run_chokepoint(command, |_| Ok(()))
    }

    fn run_chokepoint(mut command: Command, mut at_phase: impl FnMut(&str) -> Result<()>) -> Result<Outcome> {
        command.stderr(Stdio::piped());
        let mut child = spawn(&mut command)?;
        let stderr = BufReader::new(child.stderr.take().context("no standard error")?);
        let mut outcome = Outcome::default();
        let mut window_over = None;
        let mut last_line = String::new();
        for line in stderr.lines() {
            let line = line.context("cannot read what chokepoint says")?;
            if let Some((phase, cpu)) = parse_phase(&line) {
                if phase == "sampled" {
                    window_over = Some(Instant::now());
                }
                at_phase(&phase)?;
                outcome.phases.push((phase, cpu));
            } else if let Some(programs) = parse_programs(&line) {
                outcome.programs = programs;
            } else {
                last_line = line;
            }
        }
        outcome.usage = finished(child, &command, &last_line)?;
        outcome.finish = window_over.context("chokepoint does not tell its phases")?.elapsed();
        Ok(outcome)
    }

    /// `chokepoint record` into its own format.
    pub fn chokepoint_json(
        &self,
        target: &[&str],
        frequency_hz: u32,
        duration: Duration,
    ) -> Result<Recording> {
        let mut command = self.chokepoint_command(Profiling { duration, frequency_hz }, "profile.json");
        command.args(target).stderr(Stdio::piped());
        let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("{} failed ({}) {said}", shown(&command), output.status);
        }
        let profile =
            fs::read(self.directory.join("profile.json")).context("cannot read chokepoint's profile")?;
        Ok(Recording {
            profile: serde_json::from_slice(&profile)?,
            programs: said.lines().find_map(parse_programs).context("chokepoint does not tell its cost")?,
            said,
        })
    }

    /// `perf record` and `perf script`.
    pub fn perf(&self, profiling: Profiling) -> Result<Outcome> {
        self.run_perf(profiling, &["-g"])
    }

    /// The same with user stacks unwound by call-frame information, from copies of the stacks.
    pub fn perf_unwinding(&self, profiling: Profiling) -> Result<Outcome> {
        self.run_perf(profiling, &["--call-graph", "dwarf"])
    }

    fn run_perf(&self, profiling: Profiling, stacks: &[&str]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        // It says when it ends, on the pipe; perf looks after that.
        let window = format!("sleep {}; echo over", profiling.duration.as_secs_f64());
        let mut record = self.perf_record(profiling, stacks, &["sh", "-c", &window]);
        record.stdout(Stdio::piped());
        let mut child = spawn(&mut record)?;
        let mut said = String::new();
        let stdout = child.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut said).context("cannot read what perf's command says")?;
        let window_over = Instant::now();
        outcome.usage = finished(child, &record, "")?;

        let text = self.directory.join("perf.txt");
        let mut script = self.perf_script();
        script.stdout(fs::File::create(&text).with_context(|| format!("cannot write {}", text.display()))?);
        outcome.script = finished(spawn(&mut script)?, &script, "")?;
        outcome.finish = window_over.elapsed();
        Ok(outcome)
    }

    /// Time from starting chokepoint to its first sample.
    pub fn chokepoint_start(&self, profiling: Profiling) -> Result<Duration> {
        let output = "start.firefox.json";
        let mut command = self.chokepoint_command(profiling, output);
        let started = SystemTime::UNIX_EPOCH.elapsed().context("the clock is before 1970")?;
        finished(spawn(&mut command)?, &command, "")?;
        let profile = fs::read(self.directory.join(output)).context("cannot read chokepoint's profile")?;
        let first = first_firefox_sample(&serde_json::from_slice(&profile)?)?;
        Ok(first.saturating_sub(started))
    }

    /// The same of perf.
    pub fn perf_start(&self, profiling: Profiling) -> Result<Duration> {
        let duration = profiling.duration.as_secs_f64().to_string();
        let mut record = self.perf_record(profiling, &["-g"], &["sleep", &duration]);
        let started = sys::monotonic();
        finished(spawn(&mut record)?, &record, "")?;
        let mut script = self.perf_script();
        script.args(["-F", "time"]).stdout(Stdio::piped());
        let mut child = spawn(&mut script)?;
        let mut times = String::new();
        child.stdout.take().context("no standard output")?.read_to_string(&mut times)?;
        finished(child, &script, "")?;
        let first = first_perf_sample(&times).context("perf has no sample")?;
        Ok(first.saturating_sub(started))
    }

    /// The gauge alone.
    pub fn gauge(&self, duration: Duration) -> Result<Reading> {
        let mut command = gauge_command(duration)?;
        let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The gauge while chokepoint samples.
    pub fn gauge_with_chokepoint(&self, frequency_hz: u32, duration: Duration) -> Result<Reading> {
        let profiling = Profiling { duration: duration + Duration::from_secs(1), frequency_hz };
        let mut reading = None;
        Self::run_chokepoint(self.chokepoint_command(profiling, "flame.svg"), |phase| {
            // Whatever chokepoint does at its start is over then.
            if phase == "kernel symbols" {
                reading = Some(self.gauge(duration)?);
            }
            Ok(())
        })?;
        reading.context("chokepoint does not tell its phases")
    }

    /// The gauge while perf samples.
    pub fn gauge_with_perf(&self, frequency_hz: u32, duration: Duration) -> Result<Reading> {
        let gauge = gauge_command(duration)?;
        let mut words = vec![gauge.get_program().to_string_lossy().into_owned()];
        words.extend(gauge.get_args().map(|word| word.to_string_lossy().into_owned()));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut record = self.perf_record(Profiling { duration, frequency_hz }, &["-g"], &words);
        record.stdout(Stdio::piped());
        let mut child = spawn(&mut record)?;
        let mut said = String::new();
        child.stdout.take().context("no standard output")?.read_to_string(&mut said)?;
        finished(child, &record, "")?;
        Ok(serde_json::from_str(&said)?)
    }

    /// A program with the rights that profiling needs.
    pub fn privileged(&self, program: &str) -> Command {
        self.privilege.command(program)
    }

    /// `chokepoint record -e EVENT` of the whole host, for some seconds. It tells what each of its programs cost.
    pub fn chokepoint_record(&self, event: &str, seconds: &str) -> Command {
        let mut command = self.privilege.command(&self.chokepoint);
        command
            .args(["--log", COST_LOG, "record", "-e", event, "--duration", seconds, "--output"])
            .arg(self.directory.join(format!("{event}.folded")));
        command
    }

    fn chokepoint_command(&self, profiling: Profiling, output: &str) -> Command {
        let mut command = self.privilege.command(&self.chokepoint);
        command
            .args(["--log", &format!("warn,{PHASE_TARGET}=info"), "record"])
            .args(["--duration", &format!("{}ms", profiling.duration.as_millis())])
            .args(["--frequency", &profiling.frequency_hz.to_string(), "--output"])
            .arg(self.directory.join(output))
            .stderr(Stdio::null());
        command
    }

    fn perf_record(&self, profiling: Profiling, stacks: &[&str], workload: &[&str]) -> Command {
        let mut command = self.privilege.command("perf");
        command
            .args(["record", "-q", "-k", "monotonic", "-F", &profiling.frequency_hz.to_string(), "-a"])
            .args(stacks)
            .arg("-o")
            .arg(self.perf_data())
            .arg("--")
            .args(workload)
            .stderr(Stdio::null());
        command
    }

    fn perf_script(&self) -> Command {
        let mut command = self.privilege.command("perf");
        command.arg("script").arg("-i").arg(self.perf_data()).stderr(Stdio::null());
        command
    }

    fn perf_data(&self) -> PathBuf {
        self.directory.join("perf.data")
    }
}

fn gauge_command(duration: Duration) -> Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new("taskset");
    command.args(["-c", GAUGE_CPU]).arg(program).args(["gauge", &duration.as_millis().to_string()]);
    Ok(command)
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {}", shown(command)))
}

/// Waits until it ends, which has to be well.
fn finished(child: Child, command: &Command, said: &str) -> Result<Usage> {
    let (status, usage) = sys::wait(child).with_context(|| format!("cannot wait for {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status}) {said}", shown(command));
    }
    Ok(usage)
}

/// `… chokepoint::phase: sampled cpu_us=1234`.
fn parse_phase(line: &str) -> Option<(String, Duration)> {
    let (_, phase) = line.split_once(PHASE_TARGET)?;
    let (name, cpu_us) = phase.strip_prefix(": ")?.rsplit_once(" cpu_us=")?;
    Some((name.to_owned(), Duration::from_micros(cpu_us.parse().ok()?)))
}

/// `cost: kernel programs 1.4 ms (…`.
fn parse_programs(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("cost: kernel programs ")?;
    let (ms, _) = rest.split_once(" ms")?;
    Duration::try_from_secs_f64(ms.parse::<f64>().ok()? / 1e3).ok()
}

/// Time since 1970 of the first sample in any thread.
fn first_firefox_sample(profile: &serde_json::Value) -> Result<Duration> {
    let start_ms = profile["meta"]["startTime"].as_f64().context("the profile has no start")?;
    let threads = profile["threads"].as_array().context("the profile has no threads")?;
    let first_ms = threads
        .iter()
        .filter_map(|thread| thread["samples"]["timeDeltas"][0].as_f64())
        .min_by(f64::total_cmp)
        .context("the profile has no samples")?;
    Ok(Duration::try_from_secs_f64((start_ms + first_ms) / 1e3)?)
}

/// Time of the first sample that `perf script -F time` lists.
fn first_perf_sample(times: &str) -> Option<Duration> {
    let seconds = times.lines().filter_map(|line| line.trim().trim_end_matches(':').parse::<f64>().ok());
    Duration::try_from_secs_f64(seconds.min_by(f64::total_cmp)?).ok()
}

/// What perf says its version is.
pub fn perf_version() -> Result<String> {
    let output = Command::new("perf").arg("--version").output().context("cannot run perf")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn phases() {
        let line = "2026-01-01T10:00:00.123456Z  INFO chokepoint::phase: kernel symbols cpu_us=31250";
        assert_eq!(parse_phase(line), Some(("kernel symbols".to_owned(), Duration::from_micros(31_250))));
        for line in
            ["", "wrote x.svg", "INFO chokepoint::phase: sampled cpu_us=", "INFO chokepoint::phase: x"]
        {
            assert_eq!(parse_phase(line), None, "{line}");
        }
    }

    #[test]
    fn the_programs_run_time() {
        let line = "cost: kernel programs 41.4 ms (0.14% of one CPU, 7.2 µs a tick), agent 164 ms CPU, 60 MB";
        assert_eq!(parse_programs(line), Some(Duration::from_micros(41_400)));
        assert_eq!(parse_programs("cost: kernel programs not measured (needs CAP_SYS_ADMIN), agent"), None);
    }

    #[test]
    fn first_samples() {
        let profile = json!({
            "meta": { "startTime": 5_000.5 },
            "threads": [
                { "samples": { "timeDeltas": [30.25, 10.0] } },
                { "samples": { "timeDeltas": [] } },
                { "samples": { "timeDeltas": [9.5] } },
            ],
        });
        assert_eq!(first_firefox_sample(&profile).unwrap(), Duration::from_millis(5_010));
        assert!(first_firefox_sample(&json!({ "meta": { "startTime": 1.0 }, "threads": [] })).is_err());
        assert_eq!(first_perf_sample(" 12.500000: \n\n 12.250000: \n"), Some(Duration::from_millis(12_250)));
        assert_eq!(first_perf_sample(""), None);
    }
}
