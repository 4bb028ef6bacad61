//! One selection compared with another: time with time, or label with label.

use std::collections::BTreeMap;

use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::top;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::flame::{ClassFrames, FlameGraph, graph};
use super::limits::Limits;
use super::merged::Merged;
use super::question::{Question, Subject};
use crate::store::{Store, Sums};

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// What is compared with.
    pub before: Subject,
    /// Both in one tree: its first side is `before`. Weights are as they were measured; shares of a side's weight are comparable.
    pub flame: FlameGraph,
    /// Functions, those whose own share changed most first.
    pub functions: Vec<Change>,
    /// How many there are beside these.
    pub left_out: u64,
}

/// A function in both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The file that holds its code, without the directory.
    pub module: String,
    /// Its own part of the first side's weight, 0 to 1.
    pub self_share_before: f64,
    /// The same of the second.
    pub self_share: f64,
    /// The part that it and what it called had of the first side's weight, 0 to 1.
    pub total_share_before: f64,
    /// The same of the second.
    pub total_share: f64,
}

impl Change {
    /// By how much its own share grew.
    #[must_use]
    pub fn grew(&self) -> f64 {
        self.self_share - self.self_share_before
    }
}

/// How large an answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes of the tree.
    pub max_nodes: usize,
    /// Functions.
    pub max_functions: usize,
}

/// What `after` has other than `before`.
///
/// # Errors
/// A question makes no sense, they are of different units, or the store cannot.
pub fn diff(
    store: &dyn Store,
    before: &Question,
    after: &Question,
    class_frames: Option<ClassFrames>,
    size: Size,
    limits: &Limits,
) -> Result<Diff, QueryError> {
    let (asked_before, asked) = (before.profile_type()?, after.profile_type()?);
    let is_told = asked.is_told_by_class() || asked_before.is_told_by_class();
    let class_frames = class_frames.unwrap_or(if is_told { ClassFrames::Leaf } else { ClassFrames::None });
    let by_class = class_frames != ClassFrames::None;
    let sums_before = before.sums_by_stack(store, &asked_before, by_class, limits)?;
    let sums = after.sums_by_stack(store, &asked, by_class, limits)?;
    if let (Some(one), Some(other)) = (sums_before.unit, sums.unit)
        && one != other
    {
        return Err(QueryError::bad("one is of times and the other is counted: compare what has one unit"));
    }
    let sides = [&sums_before, &sums];
    let mut merged = Merged::new(store, &sides, after, &asked, false)?;
    let unit = sums.unit.or(sums_before.unit);
    let subject = Subject::new(after, &asked, unit, after.range);
    let max_nodes = size.max_nodes.min(limits.max_nodes);
    let flame = graph(subject, &merged, &sides, &after.by, class_frames, max_nodes);
    let mut functions = changes(&mut merged, sides);
    let kept = size.max_functions.min(limits.max_functions);
    let left_out = functions.len().saturating_sub(kept) as u64;
    functions.truncate(kept);
    Ok(Diff { before: Subject::new(before, &asked_before, unit, before.range), flame, functions, left_out })
}

fn changes(merged: &mut Merged, sides: [&Sums; 2]) -> Vec<Change> {
    let mut changes: BTreeMap<(String, String), Change> = BTreeMap::new();
    for (side, sums) in sides.into_iter().enumerate() {
        merged.profile.samples = merged.samples(side, sums);
        let Profile { samples, .. } = &merged.profile;
        let weight = samples.iter().map(|sample| sample.weight as f64).sum::<f64>().max(1.0);
        for function in top::functions(&merged.profile) {
            let key = (function.name, function.module);
            let change = changes.entry(key).or_insert_with_key(|(name, module)| Change {
                name: name.clone(),
                module: module.clone(),
                ..Change::default()
            });
            let (own, total) = if side == 0 {
                (&mut change.self_share_before, &mut change.total_share_before)
            } else {
                (&mut change.self_share, &mut change.total_share)
            };
            *own = function.self_weight as f64 / weight;
            *total = function.total_weight as f64 / weight;
        }
    }
    let mut changes: Vec<Change> = changes.into_values().collect();
    changes.sort_by(|one, other| other.grew().abs().total_cmp(&one.grew().abs()));
    changes
}
