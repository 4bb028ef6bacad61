//! A recording's process: starts it, listens to it, cuts what it writes into parts, and ends it when nobody wants it any more.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chokepoint_proto::stream::command_update::What;
use chokepoint_proto::stream::{CommandUpdate, Part, Progress};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::door::Wanted;
use super::told::Told;
use super::{OnDemand, Place};

/// Bytes of a part.
const PART_BYTES: usize = 256 << 10;
/// Bytes of a recording, compressed. That of a busy host for minutes has a few million.
const MAX_BYTES: usize = 16 << 20;
/// Bytes of a line that is listened to.
const MAX_LINE: u64 = 16 << 10;
/// How much longer than its duration a recording may take: to load the kernel programs, to name what was seen, and until its parts are taken.
const GRACE: Duration = Duration::from_secs(60);

/// A recording that is to be made.
pub(super) struct Recorder {
    /// The command that it is for.
    pub(super) id: u64,
    pub(super) wanted: Wanted,
    pub(super) on_demand: Arc<OnDemand>,
    pub(super) updates: mpsc::Sender<CommandUpdate>,
    /// Given back when this ends or is dropped.
    pub(super) place: Place,
}

/// Nobody listens any more.
struct Gone;

impl Recorder {
    /// Records, and says what becomes of it. Dropped meanwhile, the process is killed.
    pub(super) async fn run(self) {
        let Self { id, wanted, on_demand, updates, place } = self;
        let telling = Telling { id, updates, on_demand: &on_demand };
        let recorded = tokio::time::timeout(wanted.duration + GRACE, telling.record(&wanted));
        let last = match recorded.await {
            Ok(Ok(last)) => What::Part(last),
            Ok(Err(Failed::Why(why))) => What::Failed(why),
            Ok(Err(Failed::Gone)) => return,
            Err(_) => What::Failed(format!("the recording did not end {} s after its time", GRACE.as_secs())),
        };
        if let What::Failed(why) = &last {
            tracing::warn!(why, "a recording on demand has failed");
            on_demand.failed.fetch_add(1, Ordering::Relaxed);
        }
        // Whoever hears the last of it may ask for the next.
        drop(place);
        let _ = telling.say(last).await;
    }
}

/// Why there is no recording.
enum Failed {
    Why(String),
    Gone,
}

impl From<Gone> for Failed {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

struct Telling<'o> {
    id: u64,
    updates: mpsc::Sender<CommandUpdate>,
    on_demand: &'o OnDemand,
}

impl Telling<'_> {
    /// Returns the last part.
    async fn record(&self, wanted: &Wanted) -> Result<Part, Failed> {
        let failed = |error: io::Error| Failed::Why(format!("cannot start the recording: {error}"));
        let mut command = self.command(wanted);
        let mut child = Counted::new(command.spawn().map_err(failed)?, self.on_demand);
        let (Some(stdout), Some(stderr)) = (child.process.stdout.take(), child.process.stderr.take()) else {
            return Err(Failed::Why("the recording cannot be listened to".to_owned()));
        };
        // Both at once: who waits for one of them may be waited for at the other.
        let (rest, said) = tokio::join!(self.pass_on(stdout), self.listen(stderr));
        let rest = rest?;
        let status = child.process.wait().await.map_err(failed)?;
        if status.success() {
            return Ok(Part { bytes: rest, is_last: true });
        }
        Err(Failed::Why(match said {
            said if said.is_empty() => format!("the recording ended with {status}"),
            said => said,
        }))
    }

    fn command(&self, wanted: &Wanted) -> Command {
        // The file that runs, whatever is at its path by now.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("chokepoint").arg("on-demand");
        command.arg("--parent").arg(std::process::id().to_string());
        command.arg("--frequency").arg(wanted.frequency_hz.to_string());
        command.arg("--duration").arg(format!("{}ms", wanted.duration.as_millis().max(1)));
        if let Some(socket) = &self.on_demand.cri_socket {
            command.arg("--cri-socket").arg(socket);
        }
        command.args(wanted.target.iter().map(AsRef::<OsStr>::as_ref));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Says each whole part; returns what is left when the process has written everything.
    async fn pass_on(&self, mut from: impl AsyncRead + Unpin) -> Result<Vec<u8>, Failed> {
        let mut part = Vec::with_capacity(PART_BYTES);
        let mut all = 0;
        loop {
            let room = PART_BYTES - part.len();
            let read = (&mut from).take(room as u64).read_buf(&mut part).await;
            match read.map_err(|error| Failed::Why(format!("cannot read the recording: {error}")))? {
                0 => return Ok(part),
                read => all += read,
            }
            if all > MAX_BYTES {
                let most = MAX_BYTES >> 20;
                return Err(Failed::Why(format!(
                    "the recording is larger than {most} MiB: record for less time, or less often, or a smaller target"
                )));
            }
            if part.len() == PART_BYTES {
                let bytes = std::mem::replace(&mut part, Vec::with_capacity(PART_BYTES));
                self.say(What::Part(Part { bytes, is_last: false })).await?;
            }
        }
    }

    /// Passes on how it goes; returns the last of what else the process has said.
    async fn listen(&self, from: impl AsyncRead + Unpin) -> String {
        let mut lines = BufReader::new(from);
        let mut last = String::new();
        loop {
            let mut line = Vec::new();
            let read = (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await;
            if !matches!(read, Ok(read) if read > 0) {
                return last;
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            match Told::read(line) {
                Some(Told::Progress { elapsed_ns, samples }) => {
                    let progress = What::Progress(Progress { samples, elapsed_ns });
                    // The next one says more.
                    let _ = self.updates.try_send(CommandUpdate { id: self.id, what: Some(progress) });
                }
                Some(Told::Ended { program_ns, tables, table_bytes }) => {
                    tracing::info!(program_ns, tables, table_bytes, "a recording on demand has ended");
                    self.on_demand.costs.add_programs(program_ns);
                }
                None if line.is_empty() => {}
                None => {
                    tracing::debug!(line, "a recording on demand");
                    last = line.strip_prefix("chokepoint: ").unwrap_or(line).to_owned();
                }
            }
        }
    }

    async fn say(&self, what: What) -> Result<(), Gone> {
        let update = CommandUpdate { id: self.id, what: Some(what) };
        self.updates.send(update).await.map_err(|_| Gone)
    }
}

/// A process whose cost is counted while it runs.
struct Counted<'o> {
    process: Child,
    pid: u32,
    on_demand: &'o OnDemand,
}

impl<'o> Counted<'o> {
    fn new(process: Child, on_demand: &'o OnDemand) -> Self {
        // It has an id until it was waited for.
        let pid = process.id().unwrap_or_default();
        on_demand.costs.begun(pid);
        Self { process, pid, on_demand }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.on_demand.costs.ended(self.pid);
    }
}
