//! The functions that most of a selection's weight goes to.

use chokepoint_analysis::top;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::merged::Merged;
use super::question::{Question, Subject};
use crate::store::Store;

/// Functions with their weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Of what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Samples of all functions.
    pub samples: u64,
    /// Weight of all functions.
    pub weight: u64,
    /// The functions, those with the largest weight of their own first.
    pub functions: Vec<Row>,
    /// How many there are beside these.
    pub left_out: u64,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its name; where there is no symbol, its module and address.
    pub name: String,
    /// The file that holds its code, without the directory; empty where there is none.
    pub module: String,
    /// Weight in the function itself. What is inlined is a function of its own.
    #[serde(rename = "self")]
    pub own: u64,
    /// Weight in it and in what it called; one that calls itself counts once.
    pub total: u64,
    /// Samples in the function itself.
    pub self_samples: u64,
    /// Samples in it and in what it called.
    pub total_samples: u64,
}

/// The table that a question asks for.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn table(
    store: &dyn Store,
    question: &Question,
    max_functions: usize,
    limits: &Limits,
) -> Result<Table, QueryError> {
    let asked = question.profile_type()?;
    let sums = question.sums_by_stack(store, &asked, false, limits)?;
    let merged = Merged::new(store, &[&sums], question, &asked, false)?;
    let mut functions = top::functions(&merged.profile);
    let kept = max_functions.min(limits.max_functions);
    let left_out = functions.len().saturating_sub(kept) as u64;
    functions.truncate(kept);
    let row = |function: top::FunctionTotals| Row {
        name: function.name,
        module: function.module,
        own: function.self_weight,
        total: function.total_weight,
        self_samples: function.self_count,
        total_samples: function.total_count,
    };
    Ok(Table {
        subject: Subject::new(question, &asked, sums.unit, question.range),
        samples: merged.profile.total_count(),
        weight: merged.profile.total_weight(),
        functions: functions.into_iter().map(row).collect(),
        left_out,
    })
}
