//! Profiles on demand: from what somebody asks for to a recording that an agent has just made.
//!
//! [`ask`] reads what is asked, [`whereabouts`] finds the hosts that have the target, `profiles` keeps each profile from the question to its
//! end, within [`Limits`], and knows no clock, network or thread; [`result`] reads what came of it. Here they are put together with the
//! streams of agents: a command goes down the stream of its agent, and what the agent says of it comes back on the same. A profile ends when
//! it is there, when the agent or the time says so, with the agent's stream, or when nobody waits for it any more.

pub mod ask;
mod counts;
mod numbers;
mod processes;
mod profiles;
pub mod result;
mod shown;
#[cfg(test)]
mod tests;
pub mod whereabouts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chokepoint_proto::stream::command::What;
use chokepoint_proto::stream::command_update::What as Told;
use chokepoint_proto::stream::from_collector::Message;
use chokepoint_proto::stream::{Cancel, Command, CommandUpdate, FromCollector, Hello, ProfileNow};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore};

use self::ask::Wanted;
use self::counts::Counts;
use self::profiles::{Begin, Profiles, Taken};
use self::result::Finished;
use crate::clock::now_unix_ns;
use crate::store::StoreError;

pub use self::processes::{Heard, Process, Processes};
pub use self::shown::{Outcome, Profiles as ShownProfiles, Shown, Verdict};

/// What may be asked for, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples a second on each CPU. An agent has its own limit, too.
    pub frequency_hz: u32,
    /// Length of a recording. An agent has its own limit, too.
    pub duration: Duration,
    /// How much longer than its duration a profile may take: an agent loads its kernel programs, names what it has seen, and sends it.
    pub grace: Duration,
    /// Profiles at once, of all agents together.
    pub at_once: usize,
    /// Profiles at once of one agent.
    pub of_an_agent: usize,
    /// Profiles at once for one who asks.
    pub of_an_asker: usize,
    /// Bytes of a recording as it comes, compressed. Agents send no more.
    pub recording_bytes: usize,
    /// Bytes of a recording uncompressed: JSON, which takes some times as much while it is read.
    pub uncompressed_bytes: u64,
    /// Bytes of all recordings that are kept or on their way, compressed. The oldest go.
    pub kept_bytes: usize,
    /// Profiles that are kept, failed ones included. The oldest go.
    pub kept: usize,
    /// How long a profile is kept after its end.
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frequency_hz: 10_000,
            duration: Duration::from_secs(600),
            // An agent gives up after a minute, and says so.
            grace: Duration::from_secs(70),
            at_once: 16,
            of_an_agent: 2,
            of_an_asker: 4,
            recording_bytes: 16 << 20,
            uncompressed_bytes: 128 << 20,
            kept_bytes: 128 << 20,
            kept: 256,
            keep: Duration::from_secs(3600),
        }
    }
}

/// How often it is looked whether a profile's time is over, or nobody waits for it any more.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why somebody does not get what was asked for.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It makes no sense, or is more than is allowed.
    #[error("{0}")]
    Bad(String),
    /// There is no such profile, target or host.
    #[error("{0}")]
    NotFound(String),
    /// Several hosts may be meant.
    #[error("{0}")]
    Ambiguous(String),
    /// There are too many at once.
    #[error("{0}")]
    TooMany(String),
    /// The profile is not there yet, or never will be.
    #[error("{0}")]
    NotDone(String),
    /// The agent cannot be told.
    #[error("{0}")]
    Unavailable(String),
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says something to an agent; false where there is no room for it.
pub type Say = Box<dyn Fn(FromCollector) -> bool + Send + Sync>;

/// An agent that has a stream.
struct Connected {
    agent: String,
    host: String,
    say: Say,
    /// The processes of its last window, where it told of them.
    processes: Option<Heard>,
}

#[derive(Default)]
struct State {
    next_stream: u64,
    /// By the number of their stream: of two of an agent, the later one counts.
    agents: BTreeMap<u64, Connected>,
    profiles: Profiles,
}

/// Profiles on demand, and the agents that make them.
pub struct Control {
    limits: Limits,
    state: Mutex<State>,
    /// Something has come to its end.
    ended: Notify,
    counts: Counts,
    /// Recordings are read one by one: each may take much memory meanwhile.
    reading: Semaphore,
}

impl Default for Control {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// An agent's stream, as long as it holds.
pub struct Link {
    control: Arc<Control>,
    stream: u64,
}

impl Control {
    /// Nothing yet, and nobody connected.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            ended: Notify::new(),
            counts: Counts::default(),
            reading: Semaphore::new(1),
        }
    }

    /// What is allowed.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent has begun a stream.
    pub fn connect(self: &Arc<Self>, hello: &Hello, say: Say) -> Link {
        let mut state = self.state();
        state.next_stream += 1;
        let stream = state.next_stream;
        let agent = hello.agent.iter().map(|byte| format!("{byte:02x}")).collect();
        state.agents.insert(stream, Connected { agent, host: hello.host.clone(), say, processes: None });
        Link { control: Arc::clone(self), stream }
    }

    /// The agents that have a stream: identity and host, each once.
    #[must_use]
    pub fn connected(&self) -> Vec<whereabouts::Agent> {
        let state = self.state();
        let agents: BTreeMap<&str, &str> =
            state.agents.values().map(|agent| (agent.agent.as_str(), agent.host.as_str())).collect();
        agents
            .into_iter()
            .map(|(agent, host)| whereabouts::Agent { agent: agent.to_owned(), host: host.to_owned() })
            .collect()
    }

    /// The processes that the agent with this identity told of last.
    ///
    /// # Errors
    /// It has no stream any more.
    pub fn processes(&self, agent: &whereabouts::Agent) -> Result<Processes, Refusal> {
        let state = self.state();
        let connected = state.agents.values().rev().find(|connected| connected.agent == agent.agent);
        let connected = connected.ok_or_else(|| gone(&agent.agent))?;
        let nothing = Processes { host: connected.host.clone(), ..Processes::default() };
        Ok(connected.processes.as_ref().map_or(nothing, |heard| heard.shown(&connected.host)))
    }

    /// Has an agent make a profile. `agent` is its identity, `asker` whoever wants it. Needs a tokio runtime.
    ///
    /// # Errors
    /// There are too many, or the agent has gone.
    pub fn begin(self: &Arc<Self>, wanted: &Wanted, agent: &str, asker: &str) -> Result<Shown, Refusal> {
        let begun = self.try_begin(wanted, agent, asker);
        self.counts.asked(begun.is_ok());
        let (command, shown) = begun?;
        tracing::info!(asker, host = shown.host, target = shown.target, "a profile on demand");
        tokio::spawn(Arc::clone(self).watch_over(command));
        Ok(shown)
    }

    fn try_begin(&self, wanted: &Wanted, agent: &str, asker: &str) -> Result<(u64, Shown), Refusal> {
        let now = Instant::now();
        let mut state = self.state();
        let State { agents, profiles, .. } = &mut *state;
        let gone = || gone(agent);
        let (stream, connected) =
            agents.iter().rev().find(|(_, connected)| connected.agent == agent).ok_or_else(gone)?;
        profiles.expire(now, &self.limits);
        let command = profiles.begin(
            Begin { asker, agent, host: &connected.host, stream: *stream, wanted },
            now,
            now_unix_ns(),
            &self.limits,
        )?;
        let profile = ProfileNow {
            target: Some(wanted.target.clone()),
            frequency_hz: wanted.frequency_hz,
            duration_ns: wanted.duration.as_nanos() as u64,
        };
        let message = Message::Command(Command { id: command, what: Some(What::Profile(profile)) });
        if !(connected.say)(FromCollector { message: Some(message) }) {
            profiles.forget(command);
            let host = &connected.host;
            return Err(Refusal::Unavailable(format!("the agent of {host} takes nothing now: ask again")));
        }
        let shown = profiles.shown(command, now).ok_or_else(gone)?;
        Ok((command, shown))
    }

    /// Ends a profile whose time is over, or for which nobody waits any more.
    async fn watch_over(self: Arc<Self>, command: u64) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = Instant::now();
            let mut state = self.state();
            let Some(due) = state.profiles.due(command, now, &self.limits) else { return };
            if let Some(why) = due {
                self.give_up(&mut state, command, why, now);
                return;
            }
        }
    }

    /// Ends a profile that is under way, here and at its agent.
    fn give_up(&self, state: &mut State, command: u64, why: profiles::End, now: Instant) {
        if let Some(stream) = state.profiles.end(command, why, now) {
            if let Some(agent) = state.agents.get(&stream) {
                // Without room for it the agent goes on to its own end, and what it says is passed over.
                let message = Message::Cancel(Cancel { id: command });
                let _ = (agent.say)(FromCollector { message: Some(message) });
            }
            self.has_ended();
        }
    }

    fn has_ended(&self) {
        self.ended.notify_waiters();
    }

    /// A profile as it is now, or as soon as it has ended, at most so much later. Whoever looks waits for it.
    ///
    /// # Errors
    /// There is none.
    pub async fn look(&self, id: &str, wait: Duration) -> Result<Shown, Refusal> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on, nothing that ends is missed.
            ended.as_mut().enable();
            let shown = self.state().profiles.look(id, Instant::now());
            let shown = shown.ok_or_else(|| no_profile(id))?;
            if shown.is_over() || tokio::time::timeout_at(deadline, ended).await.is_err() {
                let now = Instant::now();
                return self.state().profiles.look(id, now).ok_or_else(|| no_profile(id));
            }
        }
    }

    /// Every profile that is under way or kept, the latest first.
    #[must_use]
    pub fn list(&self) -> ShownProfiles {
        let now = Instant::now();
        let mut state = self.state();
        state.profiles.expire(now, &self.limits);
        ShownProfiles { profiles: state.profiles.list(now) }
    }

    /// Ends a profile that is under way; forgets one that is over.
    ///
    /// # Errors
    /// There is none.
    pub fn cancel(&self, id: &str) -> Result<Shown, Refusal> {
        let now = Instant::now();
        let mut state = self.state();
        let command = state.profiles.command(id).ok_or_else(|| no_profile(id))?;
        self.give_up(&mut state, command, profiles::End::Cancelled, now);
        let shown = state.profiles.look(id, now).ok_or_else(|| no_profile(id))?;
        state.profiles.forget_if_old(command, now);
        Ok(shown)
    }

    /// What came of a profile that is there.
    ///
    /// # Errors
    /// There is none, or it is not there.
    pub fn finished(&self, id: &str) -> Result<Arc<Finished>, Refusal> {
        self.state().profiles.finished(id, Instant::now()).ok_or_else(|| no_profile(id))?
    }

    /// The control stage's own metrics, as Prometheus reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        let state = self.state();
        self.counts.metrics(state.agents.len(), state.profiles.under_way(), state.profiles.bytes())
    }

    /// Reads a recording of which the last part is there, on a thread that may take its time.
    async fn read(self: Arc<Self>, command: u64, bytes: Vec<u8>) {
        let _turn = self.reading.acquire().await;
        let limit = self.limits.uncompressed_bytes;
        let read = tokio::task::spawn_blocking(move || Finished::new(bytes, limit)).await;
        let read =
            read.unwrap_or_else(|_| Err("the recording could not be read: the log says why".to_owned()));
        self.counts.ended(read.is_ok());
        if let Err(why) = &read {
            tracing::warn!(why, "what an agent sent is no recording");
        }
        self.state().profiles.read(command, read, Instant::now());
        self.has_ended();
    }
}

fn gone(agent: &str) -> Refusal {
    Refusal::Unavailable(format!("the agent {agent} has no stream any more: ask again"))
}

fn no_profile(id: &str) -> Refusal {
    let id: String = id.chars().take(40).collect();
    Refusal::NotFound(format!(
        "there is no profile {id:?}: it may be too old, or the collector was started anew"
    ))
}

impl Link {
    /// Takes note of the processes of the agent's last window.
    pub fn hear(&self, processes: Heard) {
        if let Some(connected) = self.control.state().agents.get_mut(&self.stream) {
            connected.processes = Some(processes);
        }
    }

    /// Takes note of what the agent says of a command. Needs a tokio runtime.
    pub fn take(&self, update: CommandUpdate) {
        let CommandUpdate { id: command, what: Some(what) } = update else { return };
        let (control, now) = (&self.control, Instant::now());
        let mut state = control.state();
        match what {
            Told::Progress(progress) => state.profiles.progress(command, self.stream, &progress),
            Told::Part(part) => {
                control.counts.add_bytes(part.bytes.len());
                match state.profiles.part(command, self.stream, part, now, &control.limits) {
                    Taken::More => {}
                    Taken::All(bytes) => {
                        drop(state);
                        tokio::spawn(Arc::clone(control).read(command, bytes));
                    }
                    Taken::TooMuch(why) => {
                        control.counts.ended(false);
                        control.give_up(&mut state, command, profiles::End::Failed(why), now);
                    }
                }
            }
            Told::Failed(why) => {
                if state.profiles.failed(command, self.stream, &why, now) {
                    control.counts.ended(false);
                    control.has_ended();
                }
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.control.state();
        state.agents.remove(&self.stream);
        let failed = state.profiles.stream_ended(self.stream, Instant::now());
        for _ in 0..failed {
            self.control.counts.ended(false);
        }
        if failed > 0 {
            self.control.has_ended();
        }
    }
}
