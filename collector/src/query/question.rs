//! What all queries have in common: whose rows, of when, kept apart by what.

use chokepoint_analysis::profile::Unit;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::profile_type::ProfileType;
use super::selector::{self, Selector};
use super::{QueryError, time};
use crate::store::{Asker, Selection, Store, SumQuery, Sums};

/// Nanoseconds of a millisecond.
pub const MS_NS: u64 = 1_000_000;
/// Steps of a series where nobody says how long they are to be: about as many as a graph has room for.
const USUAL_STEPS: u64 = 240;
/// Lengths of steps that people count in, seconds.
const ROUND_STEPS_S: [u64; 12] = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400];

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// From here, inclusive.
    pub from_unix_ns: u64,
    /// Up to here, exclusive.
    pub until_unix_ns: u64,
}

impl Range {
    /// The time from one to the other, as they are written.
    ///
    /// # Errors
    /// They are no times, or there is nothing or too much between them.
    pub fn between(from: &str, until: &str, now_unix_ns: u64, limits: &Limits) -> Result<Self, QueryError> {
        let range = Self {
            from_unix_ns: time::instant(from, now_unix_ns)?,
            until_unix_ns: time::instant(until, now_unix_ns)?,
        };
        if range.from_unix_ns >= range.until_unix_ns {
            return Err(QueryError::bad(format!("{from} is not before {until}: let from be before until")));
        }
        let length_ns = range.until_unix_ns - range.from_unix_ns;
        if length_ns > limits.max_range_ns {
            return Err(QueryError::TooLarge(format!(
                "the time is longer than {}: ask for less of it",
                time::written(limits.max_range_ns)
            )));
        }
        Ok(range)
    }

    /// The steps that it is divided into: of this length, or of a round one. They begin at whole multiples of it, whatever the time asked
    /// for, so that the same moment is always in the same step; the first and the last reach beyond the range for that.
    ///
    /// # Errors
    /// There would be too many.
    pub fn steps(self, step_ns: Option<u64>, limits: &Limits) -> Result<Steps, QueryError> {
        let length_ns = self.until_unix_ns - self.from_unix_ns;
        let step_ns = step_ns.unwrap_or_else(|| {
            let least_ns = length_ns.div_ceil(USUAL_STEPS);
            let rounds = ROUND_STEPS_S.map(|seconds| seconds * 1_000 * MS_NS);
            rounds.into_iter().find(|step_ns| *step_ns >= least_ns).unwrap_or(rounds[rounds.len() - 1])
        });
        if step_ns < MS_NS {
            return Err(QueryError::bad("a step is at least 1ms"));
        }
        let from_unix_ns = self.from_unix_ns - self.from_unix_ns % step_ns;
        let count = (self.until_unix_ns - from_unix_ns).div_ceil(step_ns);
        if count > limits.max_steps as u64 {
            return Err(QueryError::TooLarge(format!(
                "{count} steps, more than {}: let them be longer, or ask for less time",
                limits.max_steps
            )));
        }
        let until_unix_ns = from_unix_ns.saturating_add(count * step_ns);
        Ok(Steps { range: Self { from_unix_ns, until_unix_ns }, step_ns, count: count as usize })
    }
}

/// A range divided into steps of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// All of them.
    pub range: Range,
    /// Length of each.
    pub step_ns: u64,
    /// How many.
    pub count: usize,
}

impl Steps {
    /// The number of the step that a moment is in.
    #[must_use]
    pub fn position(&self, unix_ns: u64) -> Option<usize> {
        let since = unix_ns.checked_sub(self.range.from_unix_ns)?;
        usize::try_from(since / self.step_ns).ok().filter(|position| *position < self.count)
    }
}

/// A question for samples.
#[derive(Clone, Debug)]
pub struct Question {
    /// As it was written.
    pub text: String,
    /// What its text says.
    pub selector: Selector,
    /// Of when.
    pub range: Range,
    /// Labels that the answer is kept apart by.
    pub by: Vec<String>,
    /// Who asks.
    pub asker: Asker,
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// The selector is none, or there are too many labels.
    pub fn new(text: &str, range: Range, by: Vec<String>, limits: &Limits) -> Result<Self, QueryError> {
        if by.len() > limits.max_group_by {
            let message = format!("more than {} labels to keep apart by: use fewer", limits.max_group_by);
            return Err(QueryError::TooLarge(message));
        }
        if by.iter().any(String::is_empty) {
            return Err(QueryError::bad("a label's name is not empty: write by=host,pod"));
        }
        let selector = selector::parse(text)?;
        Ok(Self { text: text.to_owned(), selector, range, by, asker: Asker::default() })
    }

    /// Whose rows, and of when.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection {
            matchers: self.selector.matchers.clone(),
            from_unix_ns: self.range.from_unix_ns,
            until_unix_ns: self.range.until_unix_ns,
            asker: self.asker.clone(),
        }
    }

    /// The type that is asked for.
    ///
    /// # Errors
    /// As for [`ProfileType::of`].
    pub fn profile_type(&self) -> Result<ProfileType, QueryError> {
        ProfileType::of(&self.selector)
    }

    /// A selection of whatever has labels.
    ///
    /// # Errors
    /// The selector names a type of profile.
    pub fn selection_of_any(&self) -> Result<Selection, QueryError> {
        if self.selector.name.is_empty() && self.selector.classes.is_empty() {
            return Ok(self.selection());
        }
        Err(QueryError::bad("this is not of a type of profile: write {...} alone, and no class"))
    }

    /// Asks the store for sums by stack.
    pub(super) fn sums_by_stack(
        &self,
        store: &dyn Store,
        asked: &ProfileType,
        by_class: bool,
        limits: &Limits,
    ) -> Result<Sums, QueryError> {
        Ok(store.sums(&SumQuery {
            selection: self.selection(),
            kind: asked.kind.clone(),
            classes: asked.class_names(),
            group_by: self.by.clone(),
            step_ns: None,
            by_class,
            by_stack: true,
            max_sums: limits.max_sums,
        })?)
    }
}

/// What every answer with samples says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The query, as it was written.
    pub query: String,
    /// What the weights are, in words.
    pub title: String,
    /// `ns` or `count`; empty where nothing is stored.
    pub unit: String,
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
}

impl Subject {
    pub(super) fn new(question: &Question, asked: &ProfileType, unit: Option<Unit>, range: Range) -> Self {
        Self {
            query: question.text.clone(),
            title: asked.title.clone(),
            unit: match unit {
                Some(Unit::Nanoseconds) => "ns",
                Some(Unit::Count) => "count",
                None => "",
            }
            .to_owned(),
            from_unix_ms: range.from_unix_ns / MS_NS,
            until_unix_ms: range.until_unix_ns / MS_NS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_begin_where_they_always_do() {
        const S: u64 = 1_000_000_000;
        let limits = Limits::default();
        let range = Range { from_unix_ns: 95 * S, until_unix_ns: 185 * S };
        let steps = range.steps(Some(60 * S), &limits).expect("few steps");
        assert_eq!((steps.range.from_unix_ns, steps.range.until_unix_ns, steps.count), (60 * S, 240 * S, 3));
        assert_eq!(
            [60, 119, 120, 239].map(|at| steps.position(at * S)),
            [Some(0), Some(0), Some(1), Some(2)]
        );
        assert_eq!([steps.position(59 * S), steps.position(240 * S)], [None, None]);
        let hour = Range { from_unix_ns: 0, until_unix_ns: 3600 * S };
        assert_eq!(hour.steps(None, &limits).expect("few steps").step_ns, 30 * S);
        assert!(matches!(hour.steps(Some(S), &limits), Err(QueryError::TooLarge(_))));
        assert!(hour.steps(Some(1), &limits).is_err());
    }

    #[test]
    fn ranges_have_a_begin_an_end_and_a_bound() {
        let between =
            |from, until| Range::between(from, until, 1_000_000_000_000_000_000, &Limits::default());
        assert!(between("now-1h", "now").is_ok());
        assert!(matches!(between("now", "now"), Err(QueryError::Bad(_))));
        assert!(matches!(between("0", "now"), Err(QueryError::TooLarge(_))));
    }
}
