//! What became of the user stacks of a recording.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use chokepoint_analysis::profile::{ModuleKind, Profile};
use serde_json::{Value, json};

use crate::host_time::HostTime;
use crate::{Agent, in_vm};

/// Per cent of a program's samples that have to be complete.
const BAR_PCT: f64 = 99.5;
/// The same under emulation, where the first tables take a good part of the window.
const VM_BAR_PCT: f64 = 90.0;

/// Why a stack ends early that was taken before its file's table was there.
const NO_TABLE_YET: &str = "no unwind table yet";

/// Before the facts of one program, which `cargo xtask bench unwind` collects.
const MARK: &str = "unwound: ";

/// A recording of user stacks.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What became of them.
    pub outcomes: Outcomes,
    /// The stacks.
    pub profile: Profile,
}

/// Samples below which a share says nothing.
fn enough() -> u64 {
    if in_vm() { 40 } else { 400 }
}

/// Records samples of processes that run most of the time: where nothing else wants the CPUs, three times as many as are
/// needed. Where others take them, or the hypervisor does, it records again for longer.
#[must_use]
pub fn record(target: &[&str]) -> Recorded {
    let (frequency, first_ms) = if in_vm() { ("199", 4000) } else { ("997", 1500) };
    let mut recorded = None;
    for longer in [1, 4, 16] {
        let window = format!("{}ms", first_ms * longer);
        let host = HostTime::begin();
        let fixed = ["record", "-o", "profile.json", "--user-only", "-F", frequency, "-d", &window];
        let finished = Agent::new(fixed.iter().chain(target)).run().succeeded();
        let outcomes = Outcomes::read(&finished.file("profile.json"));
        // Where the hypervisor has the CPUs, the first tables come late: they are then a smaller part of a longer window.
        let is_late = outcomes.incomplete.contains_key(NO_TABLE_YET) && host.is_disturbed();
        let has_enough = outcomes.samples() >= enough() && !is_late;
        recorded = Some(Recorded { outcomes, profile: finished.profile("profile.json") });
        if has_enough {
            break;
        }
    }
    recorded.expect("it was recorded")
}

impl Recorded {
    /// Tells what was found of a program, and how many of its stacks contradict the truth where it is known; returns what
    /// is wrong with the outcomes.
    #[must_use]
    pub fn tell(&self, name: &str, wrong: Option<u64>) -> Option<String> {
        let outcomes = &self.outcomes;
        let (samples, complete) = (outcomes.samples(), outcomes.complete);
        let facts = json!({
            "name": name, "samples": samples, "complete": complete, "depth": self.mean_depth(),
            "wrong": wrong, "outcomes": outcomes.to_string(),
        });
        eprintln!("{MARK}{facts}");
        if samples < enough() {
            return Some(format!("{name}: {samples} samples are too few to judge"));
        }
        let bar_pct = if in_vm() { VM_BAR_PCT } else { BAR_PCT };
        (outcomes.complete_pct() < bar_pct).then(|| format!("{name}: {outcomes}"))
    }

    /// User frames in a stack.
    fn mean_depth(&self) -> f64 {
        let profile = &self.profile;
        let is_user = |module| profile.module(module).kind != ModuleKind::Kernel;
        let frames = profile.samples.iter().map(|sample| {
            let stack = profile.stack(sample.stack).iter();
            sample.count * stack.filter(|id| is_user(profile.location(**id).module)).count() as u64
        });
        frames.sum::<u64>() as f64 / profile.total_count().max(1) as f64
    }
}

/// User stacks by how their capture ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// They reach the thread's start.
    pub complete: u64,
    /// They met the depth limit.
    pub truncated: u64,
    /// They end before the start, by cause.
    pub incomplete: BTreeMap<String, u64>,
}

impl Outcomes {
    /// Reads them from a profile in the `json` format.
    #[must_use]
    pub fn read(profile: &Path) -> Self {
        let text = fs::read(profile).unwrap_or_else(|error| panic!("{}: {error}", profile.display()));
        let profile: Value = serde_json::from_slice(&text).expect("the agent's JSON can be read");
        let stacks = &profile["coverage"]["user_stacks"];
        let number = |value: &Value| {
            value.as_u64().unwrap_or_else(|| panic!("{stacks} has another form than expected"))
        };
        let incomplete = stacks["incomplete"].as_array().into_iter().flatten();
        Self {
            complete: number(&stacks["complete"]),
            truncated: number(&stacks["truncated"]),
            incomplete: incomplete
                .map(|cause| (cause["cause"].as_str().unwrap_or("?").to_owned(), number(&cause["samples"])))
                .collect(),
        }
    }

    /// Samples that have a user stack.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.complete + self.truncated + self.incomplete.values().sum::<u64>()
    }

    /// Per cent of them that are complete.
    #[must_use]
    pub fn complete_pct(&self) -> f64 {
        self.complete as f64 * 100.0 / self.samples().max(1) as f64
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} % of {} samples complete", self.complete_pct(), self.samples())?;
        let truncated = Some(("truncated", self.truncated)).filter(|(_, samples)| *samples > 0);
        let causes = self.incomplete.iter().map(|(cause, samples)| (cause.as_str(), *samples));
        for (cause, samples) in causes.chain(truncated) {
            write!(f, ", {cause} {samples}")?;
        }
        Ok(())
    }
}
