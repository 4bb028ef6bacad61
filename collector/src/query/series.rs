//! Weights over time, by labels: one series for each group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question, Subject};
use super::tree::heaviest;
use crate::labels::Labels;
use crate::store::{Store, SumQuery};

/// Series with common steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesSet {
    /// Of what; its time is that of all steps.
    #[serde(flatten)]
    pub subject: Subject,
    /// Length of a step.
    pub step_ms: u64,
    /// The series, that with the largest weight first.
    pub series: Vec<Series>,
    /// What there is beside these, in one; `None` where there is nothing.
    pub others: Option<Others>,
}

/// A group over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// The group's labels.
    pub labels: Labels,
    /// Weight of all steps.
    pub weight: u64,
    /// Weight of each step, in the unit; `null` where nothing is stored of it. Nanoseconds divided by the step's are threads at a time.
    pub values: Vec<Option<u64>>,
}

/// Series that are too many to be told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// How many.
    pub series: u64,
    /// Their weight in all steps.
    pub weight: u64,
    /// Their weight in each step.
    pub values: Vec<Option<u64>>,
}

/// The series that a question asks for.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn series(
    store: &dyn Store,
    question: &Question,
    step_ns: Option<u64>,
    max_series: usize,
    limits: &Limits,
) -> Result<SeriesSet, QueryError> {
    let asked = question.profile_type()?;
    let steps = question.range.steps(step_ns, limits)?;
    let question = Question { range: steps.range, ..question.clone() };
    let sums = store.sums(&SumQuery {
        selection: question.selection(),
        kind: asked.kind.clone(),
        classes: asked.class_names(),
        group_by: question.by.clone(),
        step_ns: Some(steps.step_ns),
        by_class: false,
        by_stack: false,
        max_sums: limits.max_sums,
    })?;
    let mut groups: BTreeMap<&[String], Series> = BTreeMap::new();
    for sum in &sums.sums {
        let Some(position) = steps.position(sum.start_unix_ns) else { continue };
        let group = groups.entry(&sum.group).or_insert_with(|| Series {
            labels: labels_of(&question.by, &sum.group),
            weight: 0,
            values: vec![None; steps.count],
        });
        group.weight = group.weight.saturating_add(sum.weight);
        add(&mut group.values[position], Some(sum.weight));
    }
    let count = groups.len();
    let mut told = heaviest(groups.into_values(), count, |series| series.weight);
    let rest = told.split_off(max_series.min(limits.max_series).min(told.len()));
    let others = (!rest.is_empty()).then(|| {
        let mut others = Others { series: rest.len() as u64, weight: 0, values: vec![None; steps.count] };
        for series in rest {
            others.weight = others.weight.saturating_add(series.weight);
            for (sum, value) in others.values.iter_mut().zip(series.values) {
                add(sum, value);
            }
        }
        others
    });
    Ok(SeriesSet {
        subject: Subject::new(&question, &asked, sums.unit, steps.range),
        step_ms: steps.step_ns / MS_NS,
        series: told,
        others,
    })
}

/// Nothing and nothing stay nothing.
fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or_default().saturating_add(value));
    }
}

/// Labels and their values, without those that are empty, which is the same as absent.
pub(super) fn labels_of(names: &[String], values: &[String]) -> Labels {
    names.iter().cloned().zip(values.iter().cloned()).filter(|(_, value)| !value.is_empty()).collect()
}
