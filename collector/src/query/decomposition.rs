//! What the time of threads goes into: the weight of each class, by labels and over time.

use std::collections::BTreeMap;

use chokepoint_analysis::activity::Class;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question, Steps, Subject};
use super::series::labels_of;
use super::tree::heaviest;
use crate::labels::Labels;
use crate::store::{Store, Sum, SumQuery};

/// Thread time by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decomposition {
    /// Of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// The classes that there is time of, in the order they are shown in. Weights are in this order.
    pub classes: Vec<ClassShown>,
    /// Length of a step; absent where time is not divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_ms: Option<u64>,
    /// The groups, that with the largest weight first.
    pub scopes: Vec<Scope>,
    /// How many groups there are beside these.
    pub left_out: u64,
}

/// A class as it is shown everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassShown {
    /// Its name.
    pub name: String,
    /// What it is part of: cpu, queue, io, memory, lock, net, wait or idle; `other` for classes of newer agents.
    pub group: String,
    /// Its colour, `#rrggbb`.
    pub colour: String,
}

impl ClassShown {
    pub(super) fn of(name: &str) -> Self {
        /// As for time of which nothing is known.
        const UNKNOWN: [u8; 3] = [205, 205, 205];
        let class = Class::from_name(name);
        let [r, g, b] = class.map_or(UNKNOWN, Class::colour);
        let group = class.map_or("other", |class| class.group().name());
        Self { name: name.to_owned(), group: group.to_owned(), colour: format!("#{r:02x}{g:02x}{b:02x}") }
    }
}

/// The time of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The group's labels.
    pub labels: Labels,
    /// Weight of all classes.
    pub weight: u64,
    /// Weight of each class.
    pub weights: Vec<u64>,
    /// Weight of each class in each step that something is stored of; empty where time is not divided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepWeights>,
}

/// A step of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepWeights {
    /// When it began.
    pub start_unix_ms: u64,
    /// Weight of each class.
    pub weights: Vec<u64>,
}

/// The decomposition that a question asks for.
///
/// # Errors
/// The question makes no sense, is not of thread time, or the store cannot.
pub fn decomposition(
    store: &dyn Store,
    question: &Question,
    step_ns: Option<u64>,
    max_scopes: usize,
    limits: &Limits,
) -> Result<Decomposition, QueryError> {
    let asked = question.profile_type()?;
    if asked.kind != "wall" {
        return Err(QueryError::bad(format!("{} has no classes: ask for wall{{...}}", asked.name)));
    }
    let steps = step_ns.map(|step_ns| question.range.steps(Some(step_ns), limits)).transpose()?;
    let range = steps.map_or(question.range, |steps| steps.range);
    let question = Question { range, ..question.clone() };
    let sums = store.sums(&SumQuery {
        selection: question.selection(),
        kind: asked.kind.clone(),
        classes: asked.class_names(),
        group_by: question.by.clone(),
        step_ns,
        by_class: true,
        by_stack: false,
        max_sums: limits.max_sums,
    })?;
    let classes = classes_of(&sums.sums);
    let mut groups: BTreeMap<&[String], Vec<&Sum>> = BTreeMap::new();
    for sum in &sums.sums {
        groups.entry(&sum.group).or_default().push(sum);
    }
    let count = groups.len();
    let scopes = groups.into_iter().map(|(group, sums)| scope(&question, group, &sums, &classes, steps));
    let scopes = heaviest(scopes, max_scopes.min(limits.max_series), |scope| scope.weight);
    Ok(Decomposition {
        subject: Subject::new(&question, &asked, sums.unit, range),
        classes: classes.iter().map(|name| ClassShown::of(name)).collect(),
        step_ms: step_ns.map(|step_ns| step_ns / MS_NS),
        left_out: (count - scopes.len()) as u64,
        scopes,
    })
}

/// The classes that there is time of: those known in their own order, then others by name.
fn classes_of(sums: &[Sum]) -> Vec<String> {
    let place = |name: &str| Class::from_name(name).map_or(Class::ALL.len(), |class| class as usize);
    let mut classes: Vec<String> = Vec::new();
    for sum in sums {
        if sum.weight > 0 && !classes.contains(&sum.class) {
            classes.push(sum.class.clone());
        }
    }
    classes.sort_by(|one, other| place(one).cmp(&place(other)).then_with(|| one.cmp(other)));
    classes
}

fn scope(
    question: &Question,
    group: &[String],
    sums: &[&Sum],
    classes: &[String],
    steps: Option<Steps>,
) -> Scope {
    let mut weights = vec![0_u64; classes.len()];
    let mut by_step: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for sum in sums {
        let Some(class) = classes.iter().position(|class| *class == sum.class) else { continue };
        weights[class] = weights[class].saturating_add(sum.weight);
        let position = steps.and_then(|steps| Some((steps, steps.position(sum.start_unix_ns)?)));
        if let Some((steps, position)) = position {
            let start_unix_ns = steps.range.from_unix_ns + position as u64 * steps.step_ns;
            let step = by_step.entry(start_unix_ns).or_insert_with(|| vec![0; classes.len()]);
            step[class] = step[class].saturating_add(sum.weight);
        }
    }
    Scope {
        labels: labels_of(&question.by, group),
        weight: weights.iter().fold(0, |all: u64, weight| all.saturating_add(*weight)),
        weights,
        steps: by_step
            .into_iter()
            .map(|(start_unix_ns, weights)| StepWeights { start_unix_ms: start_unix_ns / MS_NS, weights })
            .collect(),
    }
}
