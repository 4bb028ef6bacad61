//! Makes a window's message of its profile. The message is whole: its dictionary has all that it refers to.
//!
//! Threads become subjects: those of one name, of the processes of one name, with the same labels. Numbers of processes and threads are
//! in no row, nor what a single thread waited for: a collector keeps rows by all of these names, for years. For the same reason digits
//! in the names of threads become `*` ([`group_name`]). Beside the rows stand the processes that ran most, with their numbers, which no
//! collector keeps. A message is bounded; what is over is put together, and the losses say so.

pub mod counted;
mod dictionary;
mod processes;
mod rows;

use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::profile::{Profile, Thread};
use chokepoint_analysis::signals::{self, Level, Signals};
use chokepoint_analysis::verdict::Diagnosis;
use chokepoint_analysis::verdict::finding::Severity;
use chokepoint_proto::latency::Latency;
use chokepoint_proto::stream::{Cost, Loss, Losses, Signal, Verdict, Window};

use self::counted::Instance;
use self::dictionary::Entries;
use self::rows::{Kind, Making};
pub use self::rows::{Limits, group_name, process_name};
use super::owners::Labels;

/// Signals of a window; those of a few hundred groups. The most urgent come first.
const MAX_SIGNALS: usize = 4_096;
/// Notes of a window, and the bytes of each: they are sentences.
const MAX_NOTES: usize = 64;
const MAX_NOTE_BYTES: usize = 512;

/// Everything that is known of a window.
pub struct Observed<'a> {
    /// All time of all threads, with what the host's resources did.
    pub profile: &'a Profile,
    /// Page faults by stack; `None` where there were none.
    pub faults: Option<&'a Profile>,
    /// What TCP connections sent again, by stack; `None` where they did not.
    pub retransmits: Option<&'a Profile>,
    /// How long threads queued, by whose they are.
    pub run_queues: Vec<Instance>,
    /// How long requests of block devices took.
    pub disks: Vec<Instance>,
    /// What was sent again, by peer.
    pub peers: Vec<Instance>,
    /// How long processes waited for which services.
    pub services: Vec<Instance>,
    /// What limits the host; `None` where too much is missing to say.
    pub diagnosis: Option<&'a Diagnosis>,
    /// What is missing beside what the profile says, each a sentence.
    pub notes: Vec<String>,
    /// What the agent cost.
    pub cost: Cost,
}

/// The window's message. `labels_of` are the labels of a thread beside its names.
#[must_use]
pub fn encode(
    observed: Observed<'_>,
    limits: &Limits,
    mut labels_of: impl FnMut(&Thread) -> Labels,
) -> Window {
    let Observed { profile, diagnosis, mut notes, cost, .. } = observed;
    let mut entries = Entries::default();
    let (wall, mut subjects) = rows::wall(profile, &mut entries, limits, &mut labels_of, &mut notes);
    let mut profiles = vec![wall];
    for (kind, profile) in [(Kind::Faults, observed.faults), (Kind::Retransmits, observed.retransmits)] {
        let Some(profile) = profile else { continue };
        let mut making = Making { entries: &mut entries, subjects: &mut subjects, limits, notes: &mut notes };
        profiles.push(rows::events(kind, profile, &mut making, &mut labels_of));
    }
    profiles.extend(counted::latencies(Latency::RunQueue, &observed.run_queues, &mut entries));
    profiles.extend(counted::latencies(Latency::Disk, &observed.disks, &mut entries));
    profiles.extend(counted::retransmits(&observed.peers, &mut entries));
    profiles.extend(counted::waits(&observed.services, &mut entries));
    let signals = profile.signals.iter().flat_map(|signals| self::signals(signals, &mut entries, &mut notes));
    let signals = signals.collect();
    Window {
        start_unix_ns: profile.header.start_unix_ns,
        duration_ns: profile.header.duration_ns,
        profiles,
        signals,
        verdict: diagnosis.map(verdict),
        losses: Some(losses(&profile.coverage, notes)),
        cost: Some(cost),
        processes: processes::processes(profile, &mut labels_of),
        dictionary: Some(entries.finish()),
    }
}

fn signals(signals: &Signals, entries: &mut Entries, notes: &mut Vec<String>) -> Vec<Signal> {
    notes.extend(signals.missing.iter().cloned());
    let left_out = signals.signals.len().saturating_sub(MAX_SIGNALS);
    if left_out > 0 {
        notes.push(format!("{left_out} signals left out: there are too many groups and devices"));
    }
    signals.signals.iter().take(MAX_SIGNALS).map(|signal| self::signal(signal, entries)).collect()
}

fn signal(signal: &signals::Signal, entries: &mut Entries) -> Signal {
    let mut text = |text: &str| entries.string(text);
    Signal {
        name: text(&signal.name),
        instance: text(&signal.instance),
        resource: text(&word(&signal.resource)),
        kind: text(&word(&signal.kind)),
        unit: text(&word(&signal.unit)),
        value: signal.value,
        p50: signal.steps.p50,
        p95: signal.steps.p95,
        p99: signal.steps.p99,
        p999: signal.steps.p999,
        max: signal.steps.max,
        level: match signal.level {
            Level::None => 0,
            Level::Warning => 1,
            Level::Critical => 2,
        },
    }
}

/// The name that a value has in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn verdict(diagnosis: &Diagnosis) -> Verdict {
    let found = &diagnosis.verdict;
    Verdict {
        code: found.code.name().to_owned(),
        confidence: found.confidence,
        severity: match found.severity {
            Severity::None => 0,
            Severity::Low => 1,
            Severity::Warning => 2,
            Severity::Critical => 3,
        },
        share: found.share,
        summary: found.summary.clone(),
        // Numbers and names: it cannot fail.
        diagnosis: serde_json::to_string(diagnosis).unwrap_or_default(),
    }
}

fn losses(coverage: &Coverage, notes: Vec<String>) -> Losses {
    let mut all = coverage.notes.clone();
    all.extend(notes);
    let left_out = all.len().saturating_sub(MAX_NOTES);
    all.truncate(MAX_NOTES);
    if left_out > 0 {
        all.push(format!("and {left_out} more"));
    }
    for note in &mut all {
        note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
    }
    let lost = coverage.lost.iter();
    Losses {
        captured: coverage.captured,
        lost: lost.map(|loss| Loss { cause: loss.cause.to_string(), samples: loss.samples }).collect(),
        notes: all,
    }
}

#[cfg(test)]
mod tests;
