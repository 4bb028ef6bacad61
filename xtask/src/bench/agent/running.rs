//! A collector, an agent that streams to it, and what the agent costs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::bpf::{self, Runs};
use crate::{build, workspace::shown};

/// How long they may take to be there.
const START: Duration = Duration::from_secs(60);
/// How long they have to end after they were told to.
const END: Duration = Duration::from_secs(20);
const METRICS: &str = "chokepoint_agent_";

/// Both, which end with this value.
pub struct Running {
    agent: Told,
    _collector: Told,
    http: SocketAddr,
    metrics: SocketAddr,
    directory: PathBuf,
}

/// What the agent has cost so far, and what the host has done.
#[derive(Clone, Debug)]
pub struct Reading {
    at: Instant,
    /// CPU time of the agent's threads, by their names.
    threads: BTreeMap<String, Duration>,
    programs: BTreeMap<String, Runs>,
    sent_bytes: f64,
    windows: f64,
    switches: u64,
    processes: u64,
}

/// What it cost between two readings, and how it was at the second.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Per cent of one CPU, by thread.
    pub threads_pct: BTreeMap<String, f64>,
    /// Per cent of one CPU, by kernel program; how often a second it ran; and nanoseconds of each run.
    pub programs: BTreeMap<String, (f64, f64, f64)>,
    /// Bytes a second to the collector.
    pub sent_bytes_per_s: f64,
    /// Windows that were read.
    pub windows: f64,
    /// Resident memory at the end, and the most at any time since the phase before.
    pub resident_mb: f64,
    pub peak_mb: f64,
    /// Memory of the programs' maps.
    pub maps_mb: f64,
    /// What the governor has given up.
    pub level: f64,
    /// Of the whole host.
    pub switches_per_s: f64,
    pub processes_per_s: f64,
}

impl Cost {
    /// Per cent of one CPU in user space and in the kernel on the agent's behalf.
    pub fn user_pct(&self) -> f64 {
        self.threads_pct.values().sum()
    }

    /// Per cent of one CPU of all kernel programs.
    pub fn programs_pct(&self) -> f64 {
        self.programs.values().map(|(pct, ..)| pct).sum()
    }

    /// Both.
    pub fn total_pct(&self) -> f64 {
        self.user_pct() + self.programs_pct()
    }
}

impl Running {
    /// Starts both with what they do by default, in a directory that is made anew.
    pub fn start(directory: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let [stream, http, metrics] = free_addresses()?;
        let mut command = Command::new(build::binary_path(build::COLLECTOR));
        command.args(["serve", "--store"]).arg(directory.join("store"));
        command.args(["--listen", &stream.to_string(), "--http", &http.to_string()]);
        let collector = Told::start(command, &directory.join("collector.log"))?;
        answers(http, "/healthz", &collector)?;
        let mut command = Command::new(build::binary_path(build::AGENT));
        command.args(["agent", "--collector", &format!("http://{stream}"), "--state-dir"]);
        command.arg(directory.join("state")).args(["--metrics", &metrics.to_string()]);
        let agent = Told::start(command, &directory.join("agent.log"))?;
        answers(metrics, "/metrics", &agent)?;
        Ok(Self { agent, _collector: collector, http, metrics, directory: directory.to_owned() })
    }

    /// Forgets the most memory that was resident so far.
    pub fn forget_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.agent.pid());
        fs::write(&path, "5").with_context(|| format!("cannot write {path}"))
    }

    /// As of now.
    pub fn read(&self) -> Result<Reading> {
        let (metrics, host) = (self.metrics()?, fs::read_to_string("/proc/stat")?);
        let counted = |name: &str| {
            let line = host.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            line.with_context(|| format!("/proc/stat does not tell {name}"))
        };
        Ok(Reading {
            at: Instant::now(),
            threads: threads_of(self.agent.pid())?,
            programs: bpf::programs_of(self.agent.pid())?,
            sent_bytes: metric(&metrics, "sent_bytes_total")?,
            windows: metric(&metrics, "windows_total")?,
            switches: counted("ctxt ")?,
            processes: counted("processes ")?,
        })
    }

    /// What came since a reading.
    pub fn cost_since(&self, before: &Reading) -> Result<Cost> {
        let now = self.read()?;
        let elapsed_s = now.at.duration_since(before.at).as_secs_f64();
        let pct = |time: Duration| 100.0 * time.as_secs_f64() / elapsed_s;
        let threads_pct = now.threads.iter().map(|(name, cpu)| {
            let earlier = before.threads.get(name).copied().unwrap_or_default();
            (name.clone(), pct(cpu.saturating_sub(earlier)))
        });
        let programs = now.programs.iter().map(|(name, runs)| {
            let runs = runs.since(before.programs.get(name).copied().unwrap_or_default());
            let (time, count) = (runs.time, runs.count as f64);
            (name.clone(), (pct(time), count / elapsed_s, time.as_nanos() as f64 / count.max(1.0)))
        });
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.pid()))?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(1));
            let kilobytes: Option<f64> = line.and_then(|number| number.parse().ok());
            kilobytes.map(|kb| kb * 1024.0 / 1e6).with_context(|| format!("no {name} of the agent"))
        };
        Ok(Cost {
            threads_pct: threads_pct.collect(),
            programs: programs.collect(),
            sent_bytes_per_s: (now.sent_bytes - before.sent_bytes) / elapsed_s,
            windows: now.windows - before.windows,
            resident_mb: megabytes("VmRSS")?,
            peak_mb: megabytes("VmHWM")?,
            maps_mb: bpf::map_bytes_of(self.agent.pid())? as f64 / 1e6,
            level: metric(&self.metrics()?, "governor_level")?,
            switches_per_s: (now.switches - before.switches) as f64 / elapsed_s,
            processes_per_s: (now.processes - before.processes) as f64 / elapsed_s,
        })
    }

    /// Has a process profiled on demand for so long. Returns how much longer it took from the command to the flame graph.
    pub fn profile(&self, pid: u32, duration: Duration) -> Result<Duration> {
        let mut command = Command::new(build::binary_path(build::COLLECTOR));
        command.args(["profile", "--url", &format!("http://{}", self.http), "--pid", &pid.to_string()]);
        command.args(["--duration", &format!("{}ms", duration.as_millis()), "--output"]);
        command.arg(self.directory.join("flame.svg"));
        let start = Instant::now();
        let output = command.output().with_context(|| format!("cannot run {}", shown(&command)))?;
        let over = start.elapsed().saturating_sub(duration);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} failed ({}): {said}", shown(&command), output.status);
        Ok(over)
    }

    fn metrics(&self) -> Result<String> {
        get(self.metrics, "/metrics").context("the agent does not tell its metrics")
    }
}

/// CPU time of a process's threads, by their names; of those that ended nothing.
fn threads_of(pid: u32) -> Result<BTreeMap<String, Duration>> {
    let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let read = |file: &str| fs::read_to_string(thread.path().join(file));
        let (Ok(name), Ok(times)) = (read("comm"), read("schedstat")) else { continue };
        let ran_ns = times.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        *threads.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(ran_ns);
    }
    Ok(threads)
}

/// A number of the page; several of one name are added up.
fn metric(page: &str, name: &str) -> Result<f64> {
    let name = format!("{METRICS}{name}");
    let values = page.lines().filter_map(|line| line.strip_prefix(&name)).filter_map(|rest| {
        let rest = rest.split_once('}').map_or(rest, |(_, value)| value);
        rest.strip_prefix(' ')?.parse::<f64>().ok()
    });
    values.reduce(|sum, value| sum + value).with_context(|| format!("the agent does not tell {name}"))
}

/// Ports that nobody listens at now.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners: Vec<_> =
        (0..N).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    let addresses: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().ok().context("each listener has an address")
}

/// Waits until it is there.
fn answers(address: SocketAddr, path: &str, who: &Told) -> Result<()> {
    let deadline = Instant::now() + START;
    while get(address, path).is_err() {
        ensure!(Instant::now() < deadline, "{} does not answer at {address}", who.name);
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("{path}: {}", answer.lines().next().unwrap_or("no answer")),
    }
}

/// A program that is told to end.
struct Told {
    child: Child,
    name: String,
}

impl Told {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = shown(&command);
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Self { child, name })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Told {
    #[expect(unsafe_code, reason = "the standard library can only kill")]
    fn drop(&mut self) {
        // SAFETY: no memory is involved, and the child has not been waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_with_and_without_labels() {
        let page = "# HELP chokepoint_agent_sent x\nchokepoint_agent_sent_total 5\n\
                    chokepoint_agent_lost_total{cause=\"a b\"} 2\nchokepoint_agent_lost_total{cause=\"c\"} 3\n";
        assert_eq!(metric(page, "sent_total").unwrap(), 5.0);
        assert_eq!(metric(page, "lost_total").unwrap(), 5.0);
        assert!(metric(page, "sent").is_err());
    }
}
