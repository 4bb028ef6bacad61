//! Real programs of which it is known what bounds them: the truth that verdicts are judged by.
//!
//! Each case has two variants, which differ in its constraint alone. That the label is true is not said but measured: the
//! relieved variant does as much more work as the case demands ([`proof`]). [`judge`] compares what the agent says of the
//! constrained one.

mod cpu;
mod decoys;
mod io;
pub mod judge;
mod limits;
mod lock;
mod memory;
mod mixtures;
mod net;
mod pool;
pub mod proof;
mod services;
pub mod stage;
mod storage;
pub mod table;
pub mod verdict;
mod waits;

pub use stage::{Missing, Stage, Target, Variant};

/// A program with a known constraint, or without one.
#[derive(Debug)]
pub struct Case {
    /// Its name: the family's, and what is particular.
    pub name: &'static str,
    /// The codes that are right: one, unless two are names of the same thing.
    pub truth: &'static [&'static str],
    /// Why there are two, or nothing.
    pub same_because: &'static str,
    /// What a right answer names.
    pub names: Names,
    /// What the relieved variant changes.
    pub relief: &'static str,
    /// How many times as much work the relieved variant does at least, if the label is true.
    pub least_gain: f64,
    /// Why it must be that much.
    pub because: &'static str,
    /// Makes all that the case consists of.
    pub play: fn(&mut Stage) -> Result<(), Missing>,
}

/// What a right answer names, each of these among what it lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Commands whose work is bound.
    pub processes: &'static [&'static str],
    /// Commands that are the reason.
    pub culprits: &'static [&'static str],
    /// Functions.
    pub functions: &'static [&'static str],
    /// What stands on the path from the wait to its reason.
    pub path: &'static [&'static str],
}

impl Names {
    /// Nothing.
    pub const NONE: Self = Self { processes: &[], culprits: &[], functions: &[], path: &[] };

    /// Functions alone.
    const fn functions(functions: &'static [&'static str]) -> Self {
        Self { functions, ..Self::NONE }
    }

    /// Culprits alone.
    const fn culprits(culprits: &'static [&'static str]) -> Self {
        Self { culprits, ..Self::NONE }
    }
}

impl Case {
    /// Whether nothing is wrong with the program, so that any alarm is false.
    #[must_use]
    pub fn is_decoy(&self) -> bool {
        self.truth.iter().all(|code| code.starts_with("none."))
    }
}

/// All cases, by family.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        cpu::CASES,
        lock::CASES,
        pool::CASES,
        io::CASES,
        memory::CASES,
        net::CASES,
        waits::CASES,
        limits::CASES,
        mixtures::CASES,
        decoys::CASES,
        services::database::CASES,
        services::memory_store::CASES,
        services::web::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The case of this name.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn case(name: &str) -> &'static Case {
    all().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::all;

    #[test]
    fn every_case_is_labelled() {
        let mut names = HashSet::new();
        for case in all() {
            assert!(names.insert(case.name), "{} twice", case.name);
            assert!(
                !case.truth.is_empty() && case.least_gain > 1.0 && !case.because.is_empty(),
                "{}",
                case.name
            );
            assert_eq!(case.truth.len() > 1, !case.same_because.is_empty(), "{}", case.name);
        }
    }
}
