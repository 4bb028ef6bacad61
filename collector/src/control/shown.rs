//! Profiles on demand as those who asked see them.

use serde::{Deserialize, Serialize};

/// Profiles that are under way or kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profiles {
    /// The latest first, without their diagnoses.
    pub profiles: Vec<Shown>,
}

/// A profile, from the question to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// Its name.
    pub id: String,
    /// `asked`, `recording`, `receiving`, `reading`; or its end: `done`, `failed`, `cancelled`.
    pub state: String,
    /// The host.
    pub host: String,
    /// The agent's identity.
    pub agent: String,
    /// What is profiled, in words.
    pub target: String,
    /// Samples a second on each CPU.
    pub frequency_hz: u32,
    /// How long is recorded.
    pub duration_ms: u64,
    /// Who asked for it: the name of a token, or `trigger` where something crossed its level; empty where nobody says who asks.
    #[serde(default)]
    pub asked_by: String,
    /// When it was asked for.
    pub asked_unix_ms: u64,
    /// How long it has taken, or took: from the question on.
    pub taken_ms: u64,
    /// How much of it is recorded.
    pub recorded_ms: u64,
    /// Samples so far.
    pub samples: u64,
    /// Bytes of the recording that are here, compressed.
    pub bytes: u64,
    /// Why it failed.
    pub error: Option<String>,
    /// What came of it.
    pub outcome: Option<Outcome>,
}

impl Shown {
    /// Whether nothing more comes of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "cancelled")
    }
}

/// What a finished profile says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Length of what was recorded: less than was asked for where the target ended.
    pub window_ms: u64,
    /// Samples.
    pub captured: u64,
    /// Samples that were lost.
    pub lost: u64,
    /// How much was seen and what was not, in words; the first is the number of samples.
    pub coverage: Vec<String>,
    /// What limits the target.
    pub verdict: Verdict,
    /// All of the diagnosis, as `chokepoint diagnose --json` prints it; null in lists.
    pub diagnosis: serde_json::Value,
}

/// What limits a target, in short.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The constraint's code.
    pub code: String,
    /// `none`, `low`, `warning`, `critical`.
    pub severity: String,
    /// How sure it is, 0 to 1.
    pub confidence: f64,
    /// The part of the demand that it takes, 0 to 1.
    pub share: f64,
    /// In one sentence.
    pub summary: String,
    /// What to do first; empty where there is nothing.
    pub next_step: String,
}
