//! The parts that queries have in common.

use std::sync::PoisonError;

use super::Shared;
use super::index::{Selected, SeriesIndex};
use super::rows::{day, hour};
use super::server::{list, quoted, quoted_list};
use crate::store::{Selection, StoreError};

/// The series of a selection.
///
/// # Errors
/// Where no server answers.
pub(super) fn selected(
    shared: &Shared,
    selection: &Selection,
    group_by: &[String],
) -> Result<Selected, StoreError> {
    SeriesIndex::refresh(shared, &selection.asker)?;
    let index = shared.index.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(index.select(&selection.matchers, group_by))
}

/// What rows of windows of this kind and time fulfil.
pub(super) fn of_time(kind: &str, from_unix_ns: u64, until_unix_ns: u64) -> String {
    format!("kind = {} AND {}", quoted(kind), between(from_unix_ns, until_unix_ns))
}

/// What rows of windows of any of these times fulfil; `None`: there are none.
pub(super) fn within(times: &[(u64, u64)]) -> Option<String> {
    let times: Vec<String> = times.iter().map(|(from, until)| between(*from, *until)).collect();
    (!times.is_empty()).then(|| format!("(({}))", times.join(") OR (")))
}

/// What rows of windows of this time fulfil: from here on, before there.
pub(super) fn between(from_unix_ns: u64, until_unix_ns: u64) -> String {
    let last = until_unix_ns.saturating_sub(1);
    format!(
        "day >= toDate({}) AND day <= toDate({}) AND hour >= {} AND hour <= {} \
         AND start_unix_ns >= {from_unix_ns} AND start_unix_ns < {until_unix_ns}",
        day(from_unix_ns),
        day(last),
        hour(from_unix_ns),
        hour(last),
    )
}

/// When the step of a row of minutes began.
pub(super) const MINUTE: &str = "(toUInt64(hour) * 3600000000000 + toUInt64(minute) * 60000000000)";
/// When the step of a row of hours began.
pub(super) const HOUR: &str = "(toUInt64(hour) * 3600000000000)";

/// What takes one of the rows that a batch has more than once.
pub(super) const ONCE: &str = "LIMIT 1 BY kind, service, agent, sequence";

impl Selected {
    /// What rows of samples fulfil beside that.
    pub(super) fn of_services(&self) -> String {
        match &self.services {
            Some(services) => {
                format!(" AND service IN ({})", quoted_list(services.iter().map(String::as_str)))
            }
            None => String::new(),
        }
    }

    /// An expression of the group's number of a series, 0 where it is not selected.
    pub(super) fn group_of(&self, column: &str) -> String {
        if self.is_everything {
            return "toUInt32(1)".to_owned();
        }
        let ids = list(self.series.iter().map(|(id, _)| id));
        let groups = list(self.series.iter().map(|(_, group)| group));
        format!("toUInt32(transform({column}, [{ids}], [{groups}], 0))")
    }
}
