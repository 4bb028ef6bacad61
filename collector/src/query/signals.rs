//! Saturation signals over time.

use chokepoint_analysis::signals::{Kind, Resource, Thresholds};
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question, Steps};
use crate::labels::Labels;
use crate::store::{SignalQuery, SignalValue, Store};

/// Signals of a selection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// Length of a step; absent where values are those of the windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_ms: Option<u64>,
    /// The signals.
    pub signals: Vec<Signal>,
}

/// A signal over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Its name.
    pub name: String,
    /// Of which host, and which instance.
    pub labels: Labels,
    /// `%`, `1`, `/s`, `B/s`, `ms`.
    pub unit: String,
    /// What it means; absent of signals that this collector does not know.
    #[serde(flatten)]
    pub definition: Option<Defined>,
    /// In the order of time.
    pub values: Vec<Value>,
}

/// What a signal means, by the definition that agents have of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Defined {
    /// What it is of.
    pub resource: Resource,
    /// Which question of the USE method it answers.
    pub kind: Kind,
    /// In words.
    pub meaning: String,
    /// From where on a value is a warning, and critical, where nobody told agents otherwise.
    pub thresholds: Option<Thresholds>,
}

/// A signal in a window, or in the windows that began in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// When it began.
    pub start_unix_ms: u64,
    /// The mean.
    pub value: f64,
    /// The highest.
    pub max: f64,
    /// The worst level: 0 none, 1 warning, 2 critical.
    pub level: u8,
}

/// The signals that a question asks for; its selector's name is that of the signal, or empty for all.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn signals(
    store: &dyn Store,
    question: &Question,
    step_ns: Option<u64>,
    limits: &Limits,
) -> Result<Signals, QueryError> {
    if !question.selector.classes.is_empty() {
        return Err(QueryError::bad("signals have no classes: leave class out"));
    }
    let steps = step_ns.map(|step_ns| question.range.steps(Some(step_ns), limits)).transpose()?;
    let range = steps.map_or(question.range, |steps| steps.range);
    let found = store.signals(&SignalQuery {
        selection: Question { range, ..question.clone() }.selection(),
        name: question.selector.name.clone(),
        max_values: limits.max_signal_values,
    })?;
    let signals = found.into_iter().map(|series| Signal {
        definition: defined(&series.name),
        name: series.name,
        labels: series.labels,
        unit: series.unit,
        values: match steps {
            Some(steps) => by_step(&series.values, steps),
            None => series.values.iter().map(|value| shown(value.start_unix_ns, value)).collect(),
        },
    });
    Ok(Signals {
        from_unix_ms: range.from_unix_ns / MS_NS,
        until_unix_ms: range.until_unix_ns / MS_NS,
        step_ms: step_ns.map(|step_ns| step_ns / MS_NS),
        signals: signals.collect(),
    })
}

fn defined(name: &str) -> Option<Defined> {
    let found = chokepoint_analysis::signals::definition(name)?;
    Some(Defined {
        resource: found.resource,
        kind: found.kind,
        meaning: found.meaning.to_owned(),
        thresholds: found.thresholds,
    })
}

fn shown(start_unix_ns: u64, value: &SignalValue) -> Value {
    Value { start_unix_ms: start_unix_ns / MS_NS, value: value.value, max: value.max, level: value.level }
}

/// Values are in the order of time, so those of a step follow each other.
fn by_step(values: &[SignalValue], steps: Steps) -> Vec<Value> {
    values
        .chunk_by(|one, next| steps.position(one.start_unix_ns) == steps.position(next.start_unix_ns))
        .filter_map(|windows| {
            let position = steps.position(windows.first()?.start_unix_ns)?;
            Some(Value {
                start_unix_ms: (steps.range.from_unix_ns + position as u64 * steps.step_ns) / MS_NS,
                value: windows.iter().map(|window| window.value).sum::<f64>() / windows.len() as f64,
                max: windows.iter().map(|window| window.max).fold(f64::NEG_INFINITY, f64::max),
                level: windows.iter().map(|window| window.level).max()?,
            })
        })
        .collect()
}
