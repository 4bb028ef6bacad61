//! Profile types: `process_cpu:cpu:nanoseconds:cpu:nanoseconds` is our `cpu`.

use chokepoint_analysis::profile::Unit;
use chokepoint_proto::pyroscope::types::v1::ProfileType;

use super::super::connect::Fault;
use crate::query::profile_type::{self, WALL};

/// The type that tools ask for unasked, as Pyroscope calls it.
const CPU: (&str, &str) = ("cpu", "process_cpu");

/// All types of a store that has these kinds: `cpu` and the other classes of thread time where that is stored, and the other kinds.
pub(super) fn all(kinds: &[(String, Unit)]) -> Vec<ProfileType> {
    let mut types = Vec::new();
    for (kind, unit) in kinds {
        if kind == WALL {
            types.extend(profile_type::of_time().map(|(name, _)| of(name, Unit::Nanoseconds)));
        } else if is_name(kind) {
            types.push(of(kind, *unit));
        }
    }
    types
}

fn of(name: &str, unit: Unit) -> ProfileType {
    let unit = match unit {
        Unit::Nanoseconds => "nanoseconds",
        Unit::Count => "count",
    };
    let profile = if name == CPU.0 { CPU.1 } else { name };
    ProfileType {
        id: format!("{profile}:{name}:{unit}:{name}:{unit}"),
        name: profile.to_owned(),
        sample_type: name.to_owned(),
        sample_unit: unit.to_owned(),
        period_type: name.to_owned(),
        period_unit: unit.to_owned(),
    }
}

/// Whether a kind can be part of an id and of a selector. An agent may have called one by anything.
fn is_name(kind: &str) -> bool {
    !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// Our name of a type.
///
/// # Errors
/// The id is none.
pub(super) fn name_of(id: &str) -> Result<&str, Fault> {
    let parts: Vec<&str> = id.split(':').collect();
    match parts.as_slice() {
        [_, name, _, _, _] if is_name(name) => Ok(name),
        _ => Err(Fault::invalid(format!(
            "{id:?} is no profile type: write name:type:unit:type:unit, as ProfileTypes lists them"
        ))),
    }
}
