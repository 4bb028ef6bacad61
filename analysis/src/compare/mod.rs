//! What differs between two baselines of the same target, how sure that is, and whether it is a regression.
//!
//! Every measure is compared by its mean over the windows ([`statistics`] says by which test). Where both baselines counted work, time is
//! divided by it, so that a busier hour is no regression; `decision` says what counts as one. The stacks of both are compared by
//! [`functions`] and drawn by [`flame`].

mod decision;
pub mod flame;
pub mod functions;
mod measured;
pub mod selections;
pub mod statistics;
pub mod text;

use serde::Serialize;

use crate::baseline::{Baseline, Kind, WORK};
use crate::signals::Unit;
use functions::FunctionChange;

pub use decision::{DEFAULT_THRESHOLD, Options, Outcome, Shown};

/// Version of the JSON of a comparison.
const SCHEMA: u32 = 1;

/// Two baselines compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Version of this structure. Fields may be added without a new one.
    pub schema: u32,
    /// Whether the second is worse.
    pub outcome: Outcome,
    /// Why, in sentences, the most important first.
    pub reasons: Vec<String>,
    /// The first baseline.
    pub before: Side,
    /// The second.
    pub after: Side,
    /// Whether time is compared by unit of work.
    pub per_work: bool,
    /// What was measured in either: what decides first, then by how sure the change is.
    pub measures: Vec<Change>,
    /// Functions that grew or shrank by more than the error of sampling, those that did so most first; at most 200.
    pub functions: Vec<FunctionChange>,
    /// What makes the two less comparable, in sentences.
    pub notes: Vec<String>,
}

/// One of the baselines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Name of the host.
    pub host: String,
    /// What was looked at.
    pub target: String,
    /// Its windows.
    pub windows: usize,
    /// Their length, seconds.
    pub window_s: f64,
    /// Length of all of them, seconds.
    pub duration_s: f64,
    /// Work in a second; `None` where it was not counted.
    pub work_per_s: Option<f64>,
}

/// A measure in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What kind of thing is measured.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Which one, where there are several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// What its values count, before they are divided by work.
    pub unit: Unit,
    /// Whether they are: threads at a time become seconds of threads for a unit of work, a rate what there is of it for one.
    pub per_work: bool,
    /// Mean of the first.
    pub before: f64,
    /// Mean of the second.
    pub after: f64,
    /// The second less the first.
    pub change: f64,
    /// The change by the first; `None` where that is nothing.
    pub relative: Option<f64>,
    /// What holds the true change with a confidence of 95 %; `None` of too few windows.
    pub interval: Option<[f64; 2]>,
    /// How likely so great a change is where there is none, corrected for the number of comparisons; `None` of too few windows.
    pub p: Option<f64>,
    /// How often a window of the second is above one of the first: 0.5 where they are alike.
    pub superiority: Option<f64>,
    /// What it comes to.
    pub effect: Effect,
}

/// What a change comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It is worse by more than the threshold, and decides.
    Regression,
    /// It is better by more than the threshold.
    Improvement,
    /// It has changed; whether that is good or bad does not follow, or it is too little to matter.
    Changed,
    /// The difference may be chance.
    None,
    /// There are too few windows to tell.
    Unknown,
}

/// Compares two baselines.
#[must_use]
pub fn compare(before: &Baseline, after: &Baseline, options: &Options) -> Comparison {
    let per_work = work_rate(before).is_some() && work_rate(after).is_some();
    let mut measures = measured::changes(before, after, per_work);
    let decision = decision::decide(&mut measures, before, after, per_work, options);
    Comparison {
        schema: SCHEMA,
        outcome: decision.outcome,
        reasons: decision.reasons,
        before: Side::of(before),
        after: Side::of(after),
        per_work,
        measures,
        functions: functions::changes(before, after, per_work, |class| options.shown.has(class)),
        notes: notes(before, after),
    }
}

impl Side {
    fn of(baseline: &Baseline) -> Self {
        Self {
            host: baseline.header.host.clone(),
            target: baseline.header.target.clone(),
            windows: baseline.windows.len(),
            window_s: baseline.window_seconds(),
            duration_s: baseline.seconds(),
            work_per_s: work_rate(baseline),
        }
    }
}

/// Work in a second; `None` where none was counted or none was done.
fn work_rate(baseline: &Baseline) -> Option<f64> {
    let values = &baseline.series(Kind::Work, WORK)?.values;
    let (mut work, mut seconds) = (0.0, 0.0);
    for (value, window) in values.iter().zip(&baseline.windows) {
        if let Some(value) = value {
            work += value * window.duration_ns as f64 / 1e9;
            seconds += window.duration_ns as f64 / 1e9;
        }
    }
    (work > 0.0).then(|| work / seconds)
}

/// What the times of stacks are divided by: units of work, or seconds.
fn extent(baseline: &Baseline, per_work: bool) -> f64 {
    let rate = if per_work { work_rate(baseline) } else { None };
    baseline.seconds() * rate.unwrap_or(1.0)
}

fn notes(before: &Baseline, after: &Baseline) -> Vec<String> {
    let mut notes = Vec::new();
    let (one, other) = (&before.header, &after.header);
    if one.host != other.host {
        notes.push("they are of different hosts".to_owned());
    }
    if one.cpus != other.cpus {
        notes.push(format!("the hosts have {} and {} CPUs", one.cpus, other.cpus));
    }
    if before.is_host() != after.is_host() {
        notes.push("one is of a whole host, the other is not".to_owned());
    }
    if work_rate(before).is_some() != work_rate(after).is_some() {
        notes.push("work was counted in one of them only, so that time is not compared by it".to_owned());
    }
    let lengths = [before, after].map(Baseline::window_seconds);
    if lengths[0].max(lengths[1]) > 1.5 * lengths[0].min(lengths[1]) {
        notes.push(format!(
            "their windows are {:.0} s and {:.0} s long: means can be compared, not how windows are distributed",
            lengths[0], lengths[1]
        ));
    }
    for (name, baseline) in [("A", before), ("B", after)] {
        let lost: u64 = baseline.windows.iter().map(|window| window.lost).sum();
        let samples: u64 = baseline.windows.iter().map(|window| window.samples).sum();
        // As much as a sampling profiler is off by anyway with ten thousand samples.
        if lost * 100 > samples {
            notes.push(format!("{name} lost {lost} of its samples, and has {samples}"));
        }
    }
    notes
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
