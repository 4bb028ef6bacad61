//! Which profiles are sent on.

use std::str::FromStr;

use chokepoint_analysis::activity::Class;

use crate::query::profile_type::{ProfileType, WALL};
use crate::query::selector::Selector;

/// Kinds that say how long something took, or of whom: they have no stacks.
const WITHOUT_STACKS: [&str; 2] = ["latency.", ".peers"];

/// Classes of thread time, and other kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    classes: Vec<Class>,
    kinds: Vec<String>,
}

impl Types {
    /// Whether rows of this kind are sent, or some of them.
    pub(super) fn has_kind(&self, kind: &str) -> bool {
        if kind == WALL { !self.classes.is_empty() } else { self.kinds.iter().any(|known| known == kind) }
    }

    /// Whether thread time of this class is sent.
    pub(super) fn has_class(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }
}

impl FromStr for Types {
    type Err = String;

    /// Reads names of types of profiles with commas between them: those of queries.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut types = Self::default();
        for name in text.split(',').map(str::trim) {
            let of = ProfileType::of(&Selector { name: name.to_owned(), ..Selector::default() });
            let of = of.map_err(|_| "name what is sent: cpu,offcpu or another type of profile".to_owned())?;
            let [before, behind] = WITHOUT_STACKS;
            if name.starts_with(before) || name.ends_with(behind) {
                return Err(format!("{name} has no stacks: it is none that OTLP profiles are for"));
            }
            if of.kind != WALL {
                types.kinds.push(of.kind);
                continue;
            }
            let classes = of.classes.unwrap_or_else(|| Class::ALL.to_vec());
            types.classes.extend(classes);
        }
        Ok(types)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_queries() {
        let types: Types = "io, lock,faults".parse().expect("types");
        assert!(types.has_kind("wall") && types.has_kind("faults") && !types.has_kind("retransmits"));
        assert!(types.has_class(Class::IoRead) && types.has_class(Class::Futex));
        assert!(!types.has_class(Class::CpuUser));
        assert!("wall".parse::<Types>().expect("types").has_class(Class::Idle));
        for (bad, part) in [("", "name what is sent"), ("cpu,,", "name"), ("latency.disk", "no stacks")] {
            let error = bad.parse::<Types>().expect_err(bad);
            assert!(error.contains(part), "{error}");
        }
    }
}
