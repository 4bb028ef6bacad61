//! A recording that an agent has sent: what it says, and what is made of it. It is as hostile as anything else that comes from outside.

use std::io::Read;

use chokepoint_analysis::export::{self, Format, Options, json};
use chokepoint_analysis::part;
use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::verdict::{Diagnosis, diagnose};

use super::Refusal;
use super::numbers;
use super::shown::{Outcome, Verdict};
use crate::query::profile_type::ProfileType;
use crate::query::selector;

/// The kind of a recording of everything.
const ALL: &str = "all";

/// A recording that was read once, and can be read again.
#[derive(Debug)]
pub struct Finished {
    /// As it came, compressed.
    compressed: Vec<u8>,
    uncompressed_limit: u64,
    /// What it says.
    pub(super) outcome: Outcome,
}

impl Finished {
    /// Reads a recording, and draws the verdict from it.
    ///
    /// # Errors
    /// It is none, or larger than `limit` bytes uncompressed.
    pub fn new(compressed: Vec<u8>, limit: u64) -> Result<Self, String> {
        let profile = read(&compressed, limit)?;
        if profile.header.kind != ALL {
            return Err("the agent has sent another kind of recording than was asked for".to_owned());
        }
        let outcome = outcome(&profile, &diagnose(&profile))?;
        Ok(Self { compressed, uncompressed_limit: limit, outcome })
    }

    /// Bytes that it takes, compressed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.compressed.len()
    }

    /// The recording's JSON, as the agent has sent it.
    ///
    /// # Errors
    /// It cannot be read again, which should not happen.
    pub fn json(&self) -> Result<Vec<u8>, Refusal> {
        uncompressed(&self.compressed, self.uncompressed_limit).map_err(Refusal::NotDone)
    }

    /// The part of it that a type of profile has (`cpu`, `offcpu`, `wall`, `lock`, ...), in a format of other tools.
    ///
    /// # Errors
    /// There is no such type or format of a recording.
    pub fn export(&self, profile_type: &str, format: Format) -> Result<Vec<u8>, Refusal> {
        let asked = type_of(profile_type)?;
        let profile = part::of_classes(self.profile()?, &asked.name, &asked.title, |class| asked.has(class));
        let mut file = Vec::new();
        export::write(&profile, format, &Options::default(), &mut file)
            .map_err(|error| Refusal::Bad(error.to_string()))?;
        Ok(file)
    }

    /// All of it.
    ///
    /// # Errors
    /// It cannot be read again, which should not happen.
    pub fn profile(&self) -> Result<Profile, Refusal> {
        read(&self.compressed, self.uncompressed_limit).map_err(Refusal::NotDone)
    }
}

/// A part that recordings have: a type of thread time.
///
/// # Errors
/// There is no such type, or it is of no time.
pub fn type_of(name: &str) -> Result<ProfileType, Refusal> {
    let selector = selector::parse(name).map_err(|error| Refusal::Bad(format!("bad type: {error}")))?;
    let asked = ProfileType::of(&selector).map_err(|error| Refusal::Bad(error.to_string()))?;
    if !asked.is_of_time() || !selector.matchers.is_empty() {
        return Err(Refusal::Bad(format!(
            "type={name:?}: a recording has wall, cpu, offcpu, blocked, queue, io, memory, lock, net, wait and idle"
        )));
    }
    Ok(asked)
}

fn read(compressed: &[u8], limit: u64) -> Result<Profile, String> {
    let bytes = uncompressed(compressed, limit)?;
    if !numbers::are_bounded(&bytes) {
        return Err(
            "what the agent has sent is no recording: its numbers are larger than any recording's".to_owned()
        );
    }
    json::read(&mut &bytes[..]).map_err(|error| format!("what the agent has sent is no recording: {error}"))
}

fn uncompressed(compressed: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let damaged = |error: std::io::Error| format!("what the agent has sent cannot be uncompressed: {error}");
    let mut bytes = Vec::new();
    let decoder = zstd::Decoder::new(compressed).map_err(damaged)?;
    // One more, to tell what is larger.
    decoder.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(damaged)?;
    if bytes.len() as u64 > limit {
        let most = limit >> 20;
        return Err(format!(
            "the recording is larger than {most} MiB: ask for less time, or a smaller target"
        ));
    }
    Ok(bytes)
}

fn outcome(profile: &Profile, diagnosis: &Diagnosis) -> Result<Outcome, String> {
    let finding = &diagnosis.verdict;
    let coverage = &profile.coverage;
    let mut statements = coverage.statements();
    statements.extend(diagnosis.coverage.missing.iter().cloned());
    let json = serde_json::to_value(diagnosis).map_err(|error| error.to_string())?;
    Ok(Outcome {
        window_ms: profile.header.duration_ns / 1_000_000,
        captured: coverage.captured,
        lost: coverage.total_lost(),
        coverage: statements,
        verdict: Verdict {
            code: finding.code.to_string(),
            severity: json["verdict"]["severity"].as_str().unwrap_or_default().to_owned(),
            confidence: finding.confidence,
            share: finding.share,
            summary: finding.summary.clone(),
            next_step: finding.next_steps.first().map(|step| step.action.clone()).unwrap_or_default(),
        },
        diagnosis: json,
    })
}
