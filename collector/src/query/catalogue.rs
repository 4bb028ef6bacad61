//! What there is to ask for: labels, their values, and agents.

use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question};
use crate::labels::Labels;
use crate::store::{Asker, Store};

/// Label names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelNames {
    /// The labels, by name.
    pub labels: Vec<LabelName>,
}

/// A label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelName {
    /// Its name.
    pub name: String,
    /// How many values it has; where they are very many, as many as are told.
    pub values: u64,
}

/// The values of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelValues {
    /// The label.
    pub name: String,
    /// Its values, sorted.
    pub values: Vec<String>,
    /// Whether there may be more.
    pub is_cut: bool,
}

/// Agents that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agents {
    /// The agents, by identity.
    pub agents: Vec<Agent>,
}

/// What is known of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its identity.
    pub agent: String,
    /// Who may stream as it; empty: whoever first proves who it is.
    pub owner: String,
    /// Its host's labels.
    pub labels: Labels,
    /// Release of the host's kernel.
    pub kernel: String,
    /// The agent's version.
    pub program: String,
    /// When its last window ended; 0 where it has sent none.
    pub last_window_unix_ms: u64,
    /// Batches stored.
    pub batches: u64,
    /// Batches that it has dropped.
    pub dropped_batches: u64,
    /// What is missing of its last window beside samples, each a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it had given up in its last window to stay within its budget, each a sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<String>,
}

/// The labels that rows of a selection have.
///
/// # Errors
/// The question is of a type of profile, or the store cannot.
pub fn label_names(
    store: &dyn Store,
    question: &Question,
    limits: &Limits,
) -> Result<LabelNames, QueryError> {
    let labels = store.labels(&question.selection_of_any()?, limits.max_label_values)?;
    let shown = |(name, values): (String, Vec<String>)| LabelName { name, values: values.len() as u64 };
    Ok(LabelNames { labels: labels.into_iter().map(shown).collect() })
}

/// The values that a label has in rows of a selection.
///
/// # Errors
/// As for [`label_names`], or no row has the label.
pub fn label_values(
    store: &dyn Store,
    question: &Question,
    name: &str,
    limits: &Limits,
) -> Result<LabelValues, QueryError> {
    let labels = store.labels(&question.selection_of_any()?, limits.max_label_values)?;
    let (name, values) = labels.into_iter().find(|(known, _)| known == name).ok_or_else(|| {
        QueryError::NotFound(format!(
            "nothing has a label {name:?} in this time: /api/v1/labels lists those there are"
        ))
    })?;
    let is_cut = values.len() >= limits.max_label_values;
    Ok(LabelValues { name, values, is_cut })
}

/// Every agent that is known to those parts of the store that answer; the asker is told of the others.
///
/// # Errors
/// The store cannot.
pub fn agents(store: &dyn Store, asker: &Asker) -> Result<Agents, QueryError> {
    let shown = |agent: crate::store::AgentStatus| Agent {
        agent: agent.agent,
        owner: agent.owner,
        labels: agent.labels,
        kernel: agent.kernel,
        program: agent.program,
        last_window_unix_ms: agent.last_window_unix_ns / MS_NS,
        batches: agent.batches,
        dropped_batches: agent.dropped_batches,
        notes: agent.notes,
        given_up: agent.given_up,
    };
    let mut agents: Vec<Agent> = store.agents_for(asker)?.into_iter().map(shown).collect();
    agents.sort_by(|one, other| one.agent.cmp(&other.agent));
    Ok(Agents { agents })
}
