//! What functions take more time since another version was rolled out, and whether that is more than chance.

use std::collections::BTreeMap;

use chokepoint_analysis::compare::selections::{Compared, Reality};
use serde::{Deserialize, Serialize};

use super::SERVICE;
use super::read::{Reader, Scope, labels_of};
use crate::labels::Labels;
use crate::query::QueryError;
use crate::query::compare::compare;
use crate::query::limits::Limits;
use crate::query::question::{MS_NS, Question, Range};
use crate::query::selector;
use crate::store::{Store, SumQuery};

/// Labels that change with what is rolled out.
const ROLLED_OUT: [&str; 2] = ["version", "image"];
/// Steps in which a change is looked for: a moment to the 240th part of the time.
const STEPS: u64 = 240;
/// Changes that are compared: each reads all stacks of its service.
const MAX_CHANGES: usize = 10;
/// Functions of a comparison of which those that changed are told.
const MAX_FUNCTIONS: usize = 200;

/// What was rolled out, and what became slower with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Regressions {
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// The changes, the latest first.
    pub changes: Vec<Rollout>,
    /// How many there are beside these.
    pub left_out: u64,
}

/// A change of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The service.
    pub labels: Labels,
    /// The label that has another value.
    pub label: String,
    /// The value that it had on most of its time before.
    pub before: String,
    /// The new value.
    pub after: String,
    /// When the new value was there first.
    pub at_unix_ms: u64,
    /// Functions that take more time of threads than before, those that do most first.
    pub grew: Vec<Compared>,
    /// Functions that take less.
    pub shrank: Vec<Compared>,
    /// What was not compared, and why, each a sentence.
    pub notes: Vec<String>,
}

/// Time of threads, by step.
type Steps = BTreeMap<u64, u64>;

/// A new value of a label.
struct Found {
    scope: Scope,
    label: &'static str,
    before: String,
    after: String,
    at_unix_ns: u64,
}

/// The changes of a selection, and what functions changed with them.
///
/// # Errors
/// The question is of a type of profile, or the store cannot.
pub fn regressions(
    store: &dyn Store,
    question: &Question,
    limits: &Limits,
) -> Result<Regressions, QueryError> {
    let by = if question.by.is_empty() { vec![SERVICE.to_owned()] } else { question.by.clone() };
    let reader = Reader { store, question, limits };
    let mut found = Vec::new();
    for label in ROLLED_OUT {
        found.extend(changes(&reader, &by, label)?);
    }
    found.sort_by_key(|change| std::cmp::Reverse(change.at_unix_ns));
    let left_out = found.len().saturating_sub(MAX_CHANGES) as u64;
    found.truncate(MAX_CHANGES);
    let changes = found.into_iter().map(|change| rollout(&reader, &by, change)).collect::<Result<_, _>>()?;
    Ok(Regressions {
        from_unix_ms: question.range.from_unix_ns / MS_NS,
        until_unix_ms: question.range.until_unix_ns / MS_NS,
        changes,
        left_out,
    })
}

/// New values of a label, with that which had most of the time before.
fn changes(reader: &Reader<'_>, by: &[String], label: &'static str) -> Result<Vec<Found>, QueryError> {
    let range = reader.question.range;
    let step_ns = ((range.until_unix_ns - range.from_unix_ns) / STEPS).max(10_000 * MS_NS);
    let sums = reader.store.sums(&SumQuery {
        selection: reader.question.selection_of_any()?,
        kind: "wall".to_owned(),
        classes: Vec::new(),
        group_by: [by, &[label.to_owned()]].concat(),
        step_ns: Some(step_ns),
        by_class: false,
        by_stack: false,
        max_sums: reader.limits.max_sums,
    })?;
    let mut scopes: BTreeMap<Scope, BTreeMap<String, Steps>> = BTreeMap::new();
    for mut sum in sums.sums {
        let Some(value) = sum.group.pop().filter(|value| !value.is_empty()) else { continue };
        scopes.entry(sum.group).or_default().entry(value).or_default().insert(sum.start_unix_ns, sum.weight);
    }
    let mut found = Vec::new();
    for (scope, values) in scopes {
        let first =
            values.values().filter_map(|steps| steps.keys().next()).min().copied().unwrap_or_default();
        for (value, steps) in &values {
            let Some(at_unix_ns) = steps.keys().next().copied().filter(|at| *at > first) else { continue };
            let before = |steps: &Steps| steps.range(..at_unix_ns).map(|(_, weight)| *weight).sum::<u64>();
            let most =
                values.iter().filter(|(other, _)| *other != value).max_by_key(|(_, steps)| before(steps));
            if let Some((most, _)) = most.filter(|(_, steps)| before(steps) > 0) {
                let (before, after) = (most.clone(), value.clone());
                found.push(Found { scope: scope.clone(), label, before, after, at_unix_ns });
            }
        }
    }
    Ok(found)
}

fn rollout(reader: &Reader<'_>, by: &[String], change: Found) -> Result<Rollout, QueryError> {
    let Found { scope, label, before, after, at_unix_ns } = change;
    let Range { from_unix_ns, until_unix_ns } = reader.question.range;
    let side = |value: &str, range| -> Result<Question, QueryError> {
        let mut question = Question { range, ..reader.question.clone() };
        question.by = Vec::new();
        question.selector = selector::parse("wall")?;
        question.selector.matchers = reader.of_scope(by, &scope)?.matchers;
        let matcher = crate::labels::Matcher::new(label, crate::labels::Operator::Is, value);
        question.selector.matchers.push(matcher.map_err(|error| QueryError::bad(error.to_string()))?);
        question.text = format!("wall{{{label}={value:?}}}");
        Ok(question)
    };
    let before_question = side(&before, Range { from_unix_ns, until_unix_ns: at_unix_ns })?;
    let after_question = side(&after, Range { from_unix_ns: at_unix_ns, until_unix_ns })?;
    let compared =
        compare(reader.store, &before_question, &after_question, None, MAX_FUNCTIONS, reader.limits)?;
    let of = |is: Reality| compared.functions.iter().filter(|function| function.is == is).cloned().collect();
    let (grew, shrank) = (of(Reality::Grew), of(Reality::Shrank));
    Ok(Rollout {
        labels: labels_of(by, &scope),
        label: label.to_owned(),
        before,
        after,
        at_unix_ms: at_unix_ns / MS_NS,
        grew,
        shrank,
        notes: compared.notes,
    })
}
