//! A selection in the formats of other tools.

use chokepoint_analysis::export::{self, Format, Options};

use super::QueryError;
use super::limits::Limits;
use super::merged::Merged;
use super::question::Question;
use crate::store::Store;

/// What stands at the root of each stack where nobody says by what to keep them apart.
const USUAL_ROOT: &str = "process";

/// A selection as a file of this format. Where it is not of time on a CPU, the class of time is the innermost frame, as in what `record`
/// writes.
///
/// # Errors
/// The question makes no sense, the format needs what is not stored, or the store cannot.
pub fn export(
    store: &dyn Store,
    question: &Question,
    format: Format,
    limits: &Limits,
) -> Result<Vec<u8>, QueryError> {
    let asked = question.profile_type()?;
    let by = if question.by.is_empty() { vec![USUAL_ROOT.to_owned()] } else { question.by.clone() };
    let question = Question { by, ..question.clone() };
    let class_leaf = asked.is_told_by_class();
    let sums = question.sums_by_stack(store, &asked, class_leaf, limits)?;
    let merged = Merged::new(store, &[&sums], &question, &asked, class_leaf)?;
    let mut file = Vec::new();
    export::write(&merged.profile, format, &Options::default(), &mut file)
        .map_err(|error| QueryError::bad(error.to_string()))?;
    Ok(file)
}
