//! Profiles from the question to their end: what each has come to, and what is kept of it. Nothing here knows a clock, a network or a thread:
//! whoever calls says what the time is.
//!
//! A profile is asked for, recorded, received part by part, read, and is then there; or it fails, or is cancelled, at any point before. What an
//! agent says counts only on the stream that the command went down, and only as long as the profile waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chokepoint_analysis::names::printable;
use chokepoint_proto::stream::{Part, Progress};

use super::ask::{Wanted, described};
use super::result::Finished;
use super::{Limits, Refusal, Shown};

/// Letters of an agent's word for why it has failed.
const MAX_WHY: usize = 1000;

/// Profiles that are under way, and those that are kept.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// By the number of their command.
    all: BTreeMap<u64, Kept>,
    last_command: u64,
}

/// A profile that is to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin<'a> {
    pub(super) asker: &'a str,
    pub(super) agent: &'a str,
    pub(super) host: &'a str,
    /// The stream that the command goes down.
    pub(super) stream: u64,
    pub(super) wanted: &'a Wanted,
}

/// What becomes of a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More will come, or nobody waits for it.
    More,
    /// It was the last: here is the whole.
    All(Vec<u8>),
    /// There is no room: why.
    TooMuch(String),
}

/// How a profile ends that does not come to anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Failed(String),
    Cancelled,
}

#[derive(Clone, Debug)]
enum State {
    Asked,
    Recording,
    /// What has come so far.
    Receiving(Vec<u8>),
    /// So many bytes are being read.
    Reading(usize),
    Done(Arc<Finished>),
    Failed(String),
    Cancelled,
}

#[derive(Debug)]
struct Kept {
    id: String,
    asker: String,
    agent: String,
    host: String,
    stream: u64,
    target: String,
    frequency_hz: u32,
    duration: Duration,
    abandon_after: Option<Duration>,
    asked: Instant,
    asked_unix_ns: u64,
    looked: Instant,
    ended: Option<Instant>,
    recorded_ns: u64,
    samples: u64,
    state: State,
}

impl Profiles {
    /// A new one, if there may be one more. Returns the number of its command.
    ///
    /// # Errors
    /// Which limit is met.
    pub(super) fn begin(
        &mut self,
        begin: Begin<'_>,
        now: Instant,
        now_unix_ns: u64,
        limits: &Limits,
    ) -> Result<u64, Refusal> {
        let Begin { asker, agent, host, stream, wanted } = begin;
        let under_way = |is_one: &dyn Fn(&Kept) -> bool| {
            self.all.values().filter(|kept| kept.is_under_way() && is_one(kept)).count()
        };
        let too_many = |whose: &str, most| {
            Err(Refusal::TooMany(format!(
                "{most} profiles on demand {whose} are under way, and no more are allowed: wait for one to end, or cancel it"
            )))
        };
        if under_way(&|_| true) >= limits.at_once {
            return too_many("in all", limits.at_once);
        }
        if under_way(&|kept| kept.agent == agent) >= limits.of_an_agent {
            return too_many(&format!("of {host}"), limits.of_an_agent);
        }
        if under_way(&|kept| kept.asker == asker) >= limits.of_an_asker {
            return too_many("of yours", limits.of_an_asker);
        }
        self.last_command += 1;
        let command = self.last_command;
        let kept = Kept {
            // The number tells them apart, the rest those of a collector that ran before.
            id: format!("{command}-{:08x}", fastrand::u32(..)),
            asker: asker.to_owned(),
            agent: agent.to_owned(),
            host: host.to_owned(),
            stream,
            target: described(&wanted.target),
            frequency_hz: wanted.frequency_hz,
            duration: wanted.duration,
            abandon_after: wanted.abandon_after,
            asked: now,
            asked_unix_ns: now_unix_ns,
            looked: now,
            ended: None,
            recorded_ns: 0,
            samples: 0,
            state: State::Asked,
        };
        self.all.insert(command, kept);
        Ok(command)
    }

    /// As if it had never been.
    pub(super) fn forget(&mut self, command: u64) {
        self.all.remove(&command);
    }

    /// Forgets it if it had ended before.
    pub(super) fn forget_if_old(&mut self, command: u64, now: Instant) {
        if self.all.get(&command).is_some_and(|kept| kept.ended.is_some_and(|ended| ended < now)) {
            self.all.remove(&command);
        }
    }

    /// The number of the command of a profile.
    pub(super) fn command(&self, id: &str) -> Option<u64> {
        self.all.iter().find(|(_, kept)| kept.id == id).map(|(command, _)| *command)
    }

    /// The profile, if it waits for what is said of the command on this stream.
    fn waiting(&mut self, command: u64, stream: u64) -> Option<&mut Kept> {
        let is_waiting = |kept: &&mut Kept| {
            kept.stream == stream
                && matches!(kept.state, State::Asked | State::Recording | State::Receiving(_))
        };
        self.all.get_mut(&command).filter(is_waiting)
    }

    /// It goes on.
    pub(super) fn progress(&mut self, command: u64, stream: u64, progress: &Progress) {
        if let Some(kept) = self.waiting(command, stream) {
            kept.samples = progress.samples;
            kept.recorded_ns = progress.elapsed_ns;
            if matches!(kept.state, State::Asked) {
                kept.state = State::Recording;
            }
        }
    }

    /// The next part has come.
    pub(super) fn part(
        &mut self,
        command: u64,
        stream: u64,
        part: Part,
        now: Instant,
        limits: &Limits,
    ) -> Taken {
        if self.waiting(command, stream).is_none() {
            return Taken::More;
        }
        let has_room = self.make_room(part.bytes.len(), limits);
        let Some(kept) = self.waiting(command, stream) else { return Taken::More };
        if !has_room {
            return Taken::TooMuch(
                "the collector has no room for more recordings: try again later".to_owned(),
            );
        }
        let mut bytes = match std::mem::replace(&mut kept.state, State::Asked) {
            State::Receiving(bytes) => bytes,
            _ => Vec::new(),
        };
        if bytes.len() + part.bytes.len() > limits.recording_bytes {
            let most = limits.recording_bytes >> 20;
            return Taken::TooMuch(format!(
                "the recording is larger than {most} MiB: ask for less time, or a smaller target"
            ));
        }
        bytes.extend_from_slice(&part.bytes);
        if !part.is_last {
            kept.state = State::Receiving(bytes);
            return Taken::More;
        }
        // From here on it is no longer the agent's to hold up.
        kept.looked = kept.looked.max(now);
        kept.state = State::Reading(bytes.len());
        Taken::All(bytes)
    }

    /// The agent says that nothing will come. Whether anybody waited for it.
    pub(super) fn failed(&mut self, command: u64, stream: u64, why: &str, now: Instant) -> bool {
        let Some(kept) = self.waiting(command, stream) else { return false };
        let why: String = printable(why).chars().take(MAX_WHY).collect();
        kept.end(State::Failed(why), now);
        true
    }

    /// What was received was read.
    pub(super) fn read(&mut self, command: u64, read: Result<Finished, String>, now: Instant) {
        // It may have been cancelled meanwhile.
        let kept = self.all.get_mut(&command).filter(|kept| matches!(kept.state, State::Reading(_)));
        if let Some(kept) = kept {
            kept.end(read.map_or_else(State::Failed, |finished| State::Done(Arc::new(finished))), now);
        }
    }

    /// A stream has ended, and with it what its agent made. Returns how many profiles waited for it.
    pub(super) fn stream_ended(&mut self, stream: u64, now: Instant) -> usize {
        let commands: Vec<u64> =
            self.all.iter().filter(|(_, kept)| kept.stream == stream).map(|(command, _)| *command).collect();
        let mut ended = 0;
        for command in commands {
            if let Some(kept) = self.waiting(command, stream) {
                let why = format!(
                    "the stream of {}'s agent has ended, and the recording with it: ask again when it is back",
                    printable(&kept.host)
                );
                kept.end(State::Failed(why), now);
                ended += 1;
            }
        }
        ended
    }

    /// Ends a profile that is under way. Returns the stream of its agent, which is to be told.
    pub(super) fn end(&mut self, command: u64, end: End, now: Instant) -> Option<u64> {
        let kept = self.all.get_mut(&command).filter(|kept| kept.is_under_way())?;
        kept.end(
            match end {
                End::Failed(why) => State::Failed(why),
                End::Cancelled => State::Cancelled,
            },
            now,
        );
        Some(kept.stream)
    }

    /// Whether a profile is to end now, and how. `None`: it is over.
    pub(super) fn due(&self, command: u64, now: Instant, limits: &Limits) -> Option<Option<End>> {
        let kept = self.all.get(&command).filter(|kept| kept.is_under_way())?;
        let since = |then: Instant| now.saturating_duration_since(then);
        if kept.abandon_after.is_some_and(|after| since(kept.looked) > after) {
            return Some(Some(End::Cancelled));
        }
        let is_late = since(kept.asked) > kept.duration + limits.grace;
        // What is being read is the collector's own work, which ends by itself.
        let is_late = is_late && !matches!(kept.state, State::Reading(_));
        Some(is_late.then(|| {
            let grace_s = limits.grace.as_secs();
            End::Failed(format!("the agent has not sent the recording within {grace_s} s after its time"))
        }))
    }

    /// Forgets what ended long ago, and what there are too many of.
    pub(super) fn expire(&mut self, now: Instant, limits: &Limits) {
        self.all.retain(|_, kept| {
            kept.ended.is_none_or(|ended| now.saturating_duration_since(ended) < limits.keep)
        });
        while self.all.len() >= limits.kept && self.forget_oldest() {}
    }

    /// Forgets old recordings until there is room for so many bytes more.
    fn make_room(&mut self, wanted: usize, limits: &Limits) -> bool {
        loop {
            if self.bytes() + wanted <= limits.kept_bytes {
                return true;
            }
            if !self.forget_oldest() {
                return false;
            }
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let ended = self.all.iter().filter_map(|(command, kept)| Some((kept.ended?, *command)));
        let Some((_, oldest)) = ended.min() else { return false };
        self.all.remove(&oldest).is_some()
    }

    /// Bytes of all recordings, compressed.
    pub(super) fn bytes(&self) -> usize {
        self.all.values().map(|kept| kept.state.bytes()).sum()
    }

    /// Profiles that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.all.values().filter(|kept| kept.is_under_way()).count()
    }

    /// A profile as it is, of which it is noted that somebody waits for it.
    pub(super) fn look(&mut self, id: &str, now: Instant) -> Option<Shown> {
        let command = self.command(id)?;
        let kept = self.all.get_mut(&command)?;
        kept.looked = kept.looked.max(now);
        Some(kept.shown(now))
    }

    /// A profile as it is.
    pub(super) fn shown(&self, command: u64, now: Instant) -> Option<Shown> {
        self.all.get(&command).map(|kept| kept.shown(now))
    }

    /// All of them, the latest first.
    pub(super) fn list(&self, now: Instant) -> Vec<Shown> {
        let mut list: Vec<Shown> = self.all.values().rev().map(|kept| kept.shown(now)).collect();
        for outcome in list.iter_mut().filter_map(|shown| shown.outcome.as_mut()) {
            outcome.diagnosis = serde_json::Value::Null;
        }
        list
    }

    /// What came of a profile; the outer `None`: there is none.
    pub(super) fn finished(&mut self, id: &str, now: Instant) -> Option<Result<Arc<Finished>, Refusal>> {
        let command = self.command(id)?;
        let kept = self.all.get_mut(&command)?;
        kept.looked = kept.looked.max(now);
        Some(match &kept.state {
            State::Done(finished) => Ok(Arc::clone(finished)),
            State::Failed(why) => Err(Refusal::NotDone(format!("this profile has failed: {why}"))),
            State::Cancelled => Err(Refusal::NotDone("this profile was cancelled".to_owned())),
            _ => Err(Refusal::NotDone(
                "this profile is not there yet: ask again when its state is done".to_owned(),
            )),
        })
    }
}

impl Kept {
    fn is_under_way(&self) -> bool {
        self.ended.is_none()
    }

    fn end(&mut self, state: State, now: Instant) {
        self.state = state;
        self.ended = Some(now);
    }

    fn shown(&self, now: Instant) -> Shown {
        let taken = self.ended.unwrap_or(now).saturating_duration_since(self.asked);
        let finished = match &self.state {
            State::Done(finished) => Some(finished),
            _ => None,
        };
        Shown {
            id: self.id.clone(),
            state: self.state.name().to_owned(),
            host: self.host.clone(),
            agent: self.agent.clone(),
            target: self.target.clone(),
            frequency_hz: self.frequency_hz,
            duration_ms: self.duration.as_millis() as u64,
            asked_by: self.asker.clone(),
            asked_unix_ms: self.asked_unix_ns / 1_000_000,
            taken_ms: taken.as_millis() as u64,
            recorded_ms: finished.map_or(self.recorded_ns / 1_000_000, |finished| finished.outcome.window_ms),
            samples: finished.map_or(self.samples, |finished| finished.outcome.captured),
            bytes: self.state.bytes() as u64,
            error: match &self.state {
                State::Failed(why) => Some(why.clone()),
                _ => None,
            },
            outcome: finished.map(|finished| finished.outcome.clone()),
        }
    }
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Recording => "recording",
            Self::Receiving(_) => "receiving",
            Self::Reading(_) => "reading",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Receiving(bytes) => bytes.len(),
            Self::Reading(bytes) => *bytes,
            Self::Done(finished) => finished.bytes(),
            Self::Asked | Self::Recording | Self::Failed(_) | Self::Cancelled => 0,
        }
    }
}
