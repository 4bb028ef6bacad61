//! Whether a comparison is a regression.
//!
//! What decides is the **demand**: time of the target's threads that somebody wants shorter ([`crate::verdict`] says which that is),
//! without what the hypervisor took. With work counted, its sum for a unit of work decides alone: parts may change places. Without, each part
//! does, since threads that always have something to do spend the same time in all on less work. Of a whole host, a signal
//! decides too where it reaches a level that it had not. A change decides where chance is excluded and where it is above the threshold:
//! long series find changes that nobody wants to know of.

use serde::Serialize;

use super::measured::Family;
use super::statistics::LEAST_WINDOWS;
use super::{Change, Effect};
use crate::activity::{Class, Group};
use crate::baseline::{ALL_DEMAND, Baseline, Kind};
use crate::signals::display::shortened;
use crate::signals::{self, Resource, definition};

/// The same program, linked in another order or started with another environment, runs several per cent faster or slower (Mytkowicz et
/// al., "Producing Wrong Data Without Doing Anything Obviously Wrong!", 2009): less is no regression of the program.
pub const DEFAULT_THRESHOLD: f64 = 0.05;
/// The chance that anything decides where nothing differs. Where signals decide too, they and demand have half of it each.
const LEVEL: f64 = 0.05;
/// A part of the demand decides from this part of all of it on: were it gone, nobody would notice.
const LEAST_PART: f64 = 0.01;
/// Demand that changes by less than this part of one thread's time is no matter, however little there was.
const LEAST_THREADS: f64 = 0.01;

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Changes of less than this part are none: 0.05 is five per cent.
    pub threshold: f64,
    /// What is shown of functions and in the flame graph.
    pub shown: Shown,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: DEFAULT_THRESHOLD, shown: Shown::Cpu }
    }
}

/// Which time of threads is shown by function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// On CPUs.
    #[default]
    Cpu,
    /// All other.
    OffCpu,
    /// All of it.
    Wall,
}

impl Shown {
    /// Whether time of this class is.
    #[must_use]
    pub fn has(self, class: Class) -> bool {
        match self {
            Self::Cpu => class.group() == Group::Cpu,
            Self::OffCpu => class.group() != Group::Cpu,
            Self::Wall => true,
        }
    }
}

/// Whether the second baseline is worse than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing says that it is.
    NoRegression,
    /// It is.
    Regression,
    /// It cannot be told.
    Inconclusive,
}

/// What was decided.
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    pub(super) reasons: Vec<String>,
}

/// Says of each change what it comes to, orders them, and decides.
pub(super) fn decide(
    changes: &mut [Change],
    before: &Baseline,
    after: &Baseline,
    per_work: bool,
    options: &Options,
) -> Decision {
    let is_host = before.is_host() && after.is_host();
    let total = |of: fn(&Change) -> f64| changes.iter().find(|change| is_total(change)).map_or(0.0, of);
    let most_demand = total(|change| change.before).max(total(|change| change.after));
    for change in changes.iter_mut() {
        change.effect = effect(change, most_demand, per_work, is_host, options);
    }
    let rank = |change: &Change| {
        let of_effect = match change.effect {
            Effect::Regression => 0,
            Effect::Improvement => 1,
            _ if change.kind == Kind::Demand || change.kind == Kind::Work => 2,
            Effect::Changed => 3,
            Effect::None | Effect::Unknown => 4,
        };
        (of_effect, change.kind, !is_total(change))
    };
    // Stable: of equal rank by name.
    changes.sort_by(|one, other| {
        let p = |change: &Change| change.p.unwrap_or(1.0);
        rank(one).cmp(&rank(other)).then(p(one).total_cmp(&p(other)))
    });
    outcome(changes, per_work, options)
}

fn is_total(change: &Change) -> bool {
    change.kind == Kind::Demand && change.name == ALL_DEMAND
}

fn effect(change: &Change, most_demand: f64, per_work: bool, is_host: bool, options: &Options) -> Effect {
    let family = Family::of(change.kind, &change.name, per_work);
    // Of a host, two families decide.
    let level = if family != Family::Told && is_host { LEVEL / 2.0 } else { LEVEL };
    let Some(p) = change.p else { return Effect::Unknown };
    if p >= level {
        return Effect::None;
    }
    let is_large = change.relative.is_none_or(|relative| relative.abs() >= options.threshold);
    let matters = is_large
        && match family {
            Family::Demand => {
                let is_felt = per_work || change.change.abs() >= LEAST_THREADS;
                is_felt && change.change.abs() >= LEAST_PART * most_demand
            }
            Family::Levels => is_host && changes_level(change),
            Family::Told => false,
        };
    match (matters, change.change > 0.0) {
        (false, _) => Effect::Changed,
        (true, true) => Effect::Regression,
        (true, false) => Effect::Improvement,
    }
}

/// Whether a signal's mean comes to a level in one of them that it has not in the other.
fn changes_level(change: &Change) -> bool {
    let Some(definition) = definition(&change.name) else { return false };
    let is_bad = definition.kind != signals::Kind::Utilization;
    let level = |value| definition.thresholds.map(|thresholds| thresholds.level(value));
    is_bad && level(change.before) != level(change.after)
}

fn outcome(changes: &[Change], per_work: bool, options: &Options) -> Decision {
    let regressions: Vec<&Change> =
        changes.iter().filter(|change| change.effect == Effect::Regression).collect();
    let is_told = changes.iter().any(|change| is_total(change) && change.p.is_some());
    let mut reasons: Vec<String> = regressions.iter().map(|change| sentence(change)).collect();
    let load = if per_work { None } else { grown_load(changes, options) };
    let outcome = match (is_told, regressions.is_empty(), load) {
        (true, true, _) => {
            reasons.push(seen(changes));
            Outcome::NoRegression
        }
        (true, false, None) => Outcome::Regression,
        (true, false, Some(load)) => {
            reasons.insert(0, format!("{load}, so more time may be more work: count it with --work-counter"));
            Outcome::Inconclusive
        }
        (false, _, _) => {
            reasons.insert(
                0,
                format!("there are fewer than {LEAST_WINDOWS} windows: capture for longer, or with shorter ones (--every)"),
            );
            Outcome::Inconclusive
        }
    };
    Decision { outcome, reasons }
}

/// Load that is greater in the second, by what the network brings.
fn grown_load(changes: &[Change], options: &Options) -> Option<String> {
    let is_load = |change: &&Change| {
        let resource = definition(&change.name).map(|signal| (signal.resource, signal.kind));
        change.kind == Kind::Signal
            && matches!(resource, Some((Resource::Network | Resource::Tcp, signals::Kind::Utilization)))
            && change.unit != signals::Unit::Percent
    };
    let has_grown = |change: &&Change| {
        change.effect == Effect::Changed
            && change.relative.is_some_and(|relative| relative >= options.threshold)
    };
    changes.iter().find(|change| is_load(change) && has_grown(change)).map(sentence)
}

/// What a change is, in words.
fn sentence(change: &Change) -> String {
    let what = match change.kind {
        Kind::Demand if is_total(change) => "time that is wanted shorter".to_owned(),
        Kind::Demand => format!("time spent on {}", change.name),
        _ if change.instance.is_empty() => change.name.clone(),
        _ => format!("{} of {}", change.name, shortened(&change.instance)),
    };
    let work = if change.per_work { " for a unit of work" } else { "" };
    match change.relative {
        Some(relative) => {
            let verb = if relative > 0.0 { "grew" } else { "shrank" };
            format!("{what}{work} {verb} by {:.1} %", relative.abs() * 100.0)
        }
        None => format!("there is {what}{work}, and was none"),
    }
}

/// What would have been seen.
fn seen(changes: &[Change]) -> String {
    let total = changes.iter().find(|change| is_total(change));
    let interval = total.and_then(|change| {
        let [from, to] = change.interval?;
        (change.before > 0.0).then(|| (from / change.before * 100.0, to / change.before * 100.0))
    });
    match interval {
        Some((from, to)) => {
            format!(
                "nothing is sure to be worse: time that is wanted shorter changed by {from:+.1} to {to:+.1} % (95 % confidence)"
            )
        }
        None => "nothing is sure to be worse".to_owned(),
    }
}
