//! `chokepoint-collector profile`: has a pod, a container, a group, a process or a host profiled now, shows how it goes, and writes the flame
//! graph or what else is wanted of it.

mod summary;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chokepoint_analysis::export::Format;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::BASE;
use crate::control::Shown;
use crate::control::ask::Ask;
use crate::query_command::client::{Address, ClientError};
use crate::query_command::failure::{Failure, Kind};
use crate::query_command::{DEFAULT_URL, Security, made_by, print, write_whole};

/// How long an answer waits for the end of the profile. On a terminal progress is shown as often.
const LOOK: &str = "500ms";
/// The collector cancels what nobody has looked at for so long: this command was killed, or its host.
const ABANDON_AFTER: &str = "15s";
/// How long the collector may be away before this command gives up.
const MAX_FAILURES: usize = 5;
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The files of a profile.
const FILES: [(Format, &str); 5] = [
    (Format::Svg, "flame.svg"),
    (Format::Folded, "folded"),
    (Format::Pprof, "profile.pb.gz"),
    (Format::Speedscope, "speedscope"),
    (Format::Json, "profile.json"),
];
/// File that is written where none is named.
const DEFAULT_OUTPUT: &str = "flame.svg";

/// Have an agent profile something now: only that is sampled, and the result is a flame graph and a verdict
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  chokepoint-collector profile --pod shop/web-0 -F 999 -d 30s            its CPU time, into flame.svg
  chokepoint-collector profile --pod shop/web-0 -e off-cpu -o off.svg    what its threads wait for
  chokepoint-collector profile --host web-7 --pid 4242 -o cpu.pb.gz      a process of a host, for `go tool pprof`
  chokepoint-collector profile --host web-7 -o web-7.json                everything, for `chokepoint diagnose web-7.json`

Ctrl-C cancels it, down to the agent.")]
pub struct Arguments {
    /// A Kubernetes pod. The collector knows which host has it
    #[arg(long, value_name = "NAMESPACE/NAME", group = "target")]
    pod: Option<String>,
    /// A container, by its name in its pod or by the beginning of its id
    #[arg(long, value_name = "NAME", group = "target")]
    container: Option<String>,
    /// A control group and those below it
    #[arg(long, value_name = "PATH", group = "target")]
    cgroup: Option<String>,
    /// A process of the host
    #[arg(short, long, value_name = "PID", group = "target")]
    pid: Option<u32>,
    /// The host, where several have the target; alone, all of it. An agent's identity is understood, too
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Samples a second on each CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99)]
    frequency: u32,
    /// How long: 30s, 2m
    #[arg(short, long, value_name = "TIME", default_value = "10s")]
    duration: String,
    /// What the file shows: cpu, off-cpu, wall (all time by what it goes into), or one part of that: run-queue, io, memory, lock, net, wait.
    /// Everything is recorded in any case, and a .json file has all of it
    #[arg(short, long, value_name = "EVENT", default_value = "cpu")]
    event: String,
    /// File to write, or - for folded stacks on standard output. Its end says what: .svg, .folded, .pb.gz, .speedscope.json, .json
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_OUTPUT)]
    output: PathBuf,
    /// Where the collector is
    #[arg(
        long,
        visible_alias = "collector",
        value_name = "URL",
        default_value = DEFAULT_URL,
        env = "CHOKEPOINT_URL"
    )]
    url: String,
    #[command(flatten)]
    security: Security,
}

/// Asks, waits, and writes.
///
/// # Errors
/// There is no profile, or no place for it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = made_by(&arguments.output, &FILES)?;
    check(&arguments.output)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Unexpected, error.to_string()))?;
    let (shown, bytes) = runtime.block_on(profile(arguments, file))?;
    let is_printed = arguments.output.as_os_str() == "-";
    if is_printed {
        print(&bytes)?;
    } else {
        write_whole(&arguments.output, &bytes)?;
    }
    let written = (!is_printed).then_some(arguments.output.as_path());
    // Nobody may read it.
    let _ = std::io::stderr().write_all(summary::page(&shown, written).as_bytes());
    Ok(())
}

async fn profile(arguments: &Arguments, file: &str) -> Result<(Shown, Vec<u8>), Failure> {
    let collector = Address::new(&arguments.url, &arguments.security.credentials())?;
    let listen = |kind| signal(kind).map_err(|error| Failure::new(Kind::Unexpected, error.to_string()));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let ask = serde_json::to_vec(&arguments.ask())
        .map_err(|error| Failure::new(Kind::Unexpected, error.to_string()))?;
    let begun = collector.post(&format!("{BASE}/profile"), ask).await.map_err(refused)?;
    let path = format!("{BASE}/profile/{}", read(&begun)?.id);
    let done = tokio::select! {
        done = wait(&collector, &path) => done,
        _ = interrupt.recv() => Err(cancelled(&collector, &path).await),
        _ = terminate.recv() => Err(cancelled(&collector, &path).await),
    }?;
    let parameters = [("type", arguments.event.as_str())];
    let parameters = if file == "profile.json" { &[][..] } else { &parameters };
    let bytes = collector.get(&format!("{path}/{file}"), parameters).await?;
    Ok((done, bytes.to_vec()))
}

impl Arguments {
    fn ask(&self) -> Ask {
        Ask {
            host: self.host.clone(),
            pod: self.pod.clone(),
            container: self.container.clone(),
            cgroup: self.cgroup.clone(),
            pid: self.pid,
            frequency: Some(self.frequency),
            // A number alone is seconds, as `chokepoint record -d` has it.
            duration: Some(match self.duration.parse::<u32>() {
                Ok(seconds) => format!("{seconds}s"),
                Err(_) => self.duration.clone(),
            }),
            abandon_after: Some(ABANDON_AFTER.to_owned()),
        }
    }
}

/// Waits for the end of the profile, and shows how it goes.
async fn wait(collector: &Address, path: &str) -> Result<Shown, Failure> {
    let progress = Progress::default();
    let mut failures = 0;
    loop {
        let shown = match collector.get(path, &[("wait", LOOK)]).await {
            Ok(answer) => read(&answer)?,
            // It may be back in a moment. What it made is gone if it was started anew, and it says so.
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Failed(_))) => {
                failures += 1;
                if failures > MAX_FAILURES {
                    return Err(error.into());
                }
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
            Err(error) => return Err(refused(error)),
        };
        failures = 0;
        let words = || shown.error.clone().unwrap_or_else(|| "it was cancelled".to_owned());
        match shown.state.as_str() {
            "done" => return Ok(shown),
            "failed" => return Err(Failure::new(Kind::Target, safe(&words()))),
            "cancelled" => return Err(Failure::new(Kind::Cancelled, safe(&words()))),
            _ => progress.show(&shown),
        }
    }
}

async fn cancelled(collector: &Address, path: &str) -> Failure {
    match collector.delete(path).await {
        Ok(_) => Failure::new(Kind::Cancelled, "cancelled; the agent is told"),
        Err(error) => Failure::new(
            Kind::Cancelled,
            safe(&format!(
                "cancelled; the collector ends it in {ABANDON_AFTER}, since it cannot be told: {error}"
            )),
        ),
    }
}

/// A target that is not there, or that is on several hosts, is no error of the command line.
fn refused(error: ClientError) -> Failure {
    let is_of_target = matches!(&error, ClientError::Refused { code, .. } if code != "bad_request");
    let failure = Failure::from(error);
    if is_of_target { Failure { kind: Kind::Target, ..failure } } else { failure }
}

fn read(answer: &[u8]) -> Result<Shown, Failure> {
    serde_json::from_slice(answer).map_err(|error| {
        Failure::new(Kind::Target, format!("the collector answers what is not understood here: {error}"))
    })
}

fn safe(text: &str) -> String {
    chokepoint_analysis::names::printable(text)
}

/// Finds out now, not after the recording, whether there is a place for the file.
fn check(path: &Path) -> Result<(), Failure> {
    if path.as_os_str() == "-" || path.metadata().is_ok_and(|facts| !facts.is_file() && !facts.is_dir()) {
        return Ok(());
    }
    let failed = |why: String| Failure::new(Kind::Output, format!("cannot write {}: {why}", path.display()));
    if path.is_dir() {
        return Err(failed("it is a directory".to_owned()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(folder).map(drop).map_err(|error| failed(error.to_string()))
}

/// A line on a terminal, taken away when it is over.
struct Progress {
    is_shown: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { is_shown: std::io::stderr().is_terminal() }
    }
}

impl Progress {
    fn show(&self, shown: &Shown) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", safe(&summary::progress(shown)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
