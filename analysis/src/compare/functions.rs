//! The functions that grew and shrank.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::extent;
use crate::activity::Class;
use crate::baseline::{Baseline, Stacks};

/// Functions that are told.
const TOLD: usize = 200;
/// A change below so many standard errors of sampling is not told.
const ERRORS: f64 = 3.0;
/// A change below this part of all time is not told: a flame graph would not show it.
const LEAST: f64 = 0.001;

/// What a function's time came to in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunctionChange {
    /// The function.
    pub name: String,
    /// Time in the function itself, in the first: seconds for a unit of work, or a second.
    pub before: f64,
    /// The same in the second.
    pub after: f64,
    /// The second less the first.
    pub change: f64,
    /// The standard error that samples leave of the change. That time itself varies is not in it.
    pub error: f64,
    /// By how much the time in it and in what it called changed.
    pub change_with_callees: f64,
}

/// Time of a function, itself and with what it called.
#[derive(Clone, Copy, Default)]
struct Time {
    own: f64,
    samples: f64,
    all: f64,
}

/// The changes of functions in the classes that are shown, the greatest first.
#[must_use]
pub fn changes(
    before: &Baseline,
    after: &Baseline,
    per_work: bool,
    shows: impl Fn(Class) -> bool,
) -> Vec<FunctionChange> {
    let times =
        [before, after].map(|baseline| of_stacks(&baseline.stacks, extent(baseline, per_work), &shows));
    let most = times.each_ref().map(|times| times.values().map(|time| time.own).sum::<f64>());
    let least = LEAST * most[0].max(most[1]);
    let names: BTreeSet<&str> = times.iter().flat_map(|times| times.keys().copied()).collect();
    let mut changes: Vec<FunctionChange> = names
        .into_iter()
        .map(|name| {
            let [one, other] = times.each_ref().map(|times| times.get(name).copied().unwrap_or_default());
            // Of n samples, the error of their sum is one in the root of n.
            let error = |time: Time| time.own * time.own / time.samples.max(1.0);
            FunctionChange {
                name: name.to_owned(),
                before: one.own,
                after: other.own,
                change: other.own - one.own,
                error: (error(one) + error(other)).sqrt(),
                change_with_callees: other.all - one.all,
            }
        })
        .filter(|change| change.change.abs() > least && change.change.abs() > ERRORS * change.error)
        .collect();
    changes.sort_by(|one, other| {
        other.change.abs().total_cmp(&one.change.abs()).then_with(|| one.name.cmp(&other.name))
    });
    changes.truncate(TOLD);
    changes
}

fn of_stacks(stacks: &Stacks, extent: f64, shows: impl Fn(Class) -> bool) -> BTreeMap<&str, Time> {
    let mut times: BTreeMap<&str, Time> = BTreeMap::new();
    if extent <= 0.0 {
        return times;
    }
    for stack in stacks.stacks.iter().filter(|stack| shows(stack.class)) {
        let time = stack.time_ns as f64 / 1e9 / extent;
        // The first is the process.
        let functions: Vec<&str> = stacks.names_of(stack).skip(1).collect();
        if let Some(leaf) = functions.last() {
            let sum = times.entry(leaf).or_default();
            sum.own += time;
            sum.samples += stack.count as f64;
        }
        for function in functions.into_iter().collect::<BTreeSet<_>>() {
            times.entry(function).or_default().all += time;
        }
    }
    times
}
