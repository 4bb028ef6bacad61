//! The preflight: what profiling on this host needs, whether it is there, and how to get it.
//!
//! Each check is a fact and a judgement of it. [`host_checks`] only reads; [`hooks`] loads and attaches each kernel program
//! for a moment.

mod hooks;
mod host_checks;

use serde::Serialize;

use crate::failure::Kind;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Profiling works, but something will be missing or slower.
    Warning,
    /// Profiling cannot work.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `kernel`, `capability CAP_BPF`.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub finding: String,
    /// What it means and what to do; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// The kind of failure this is, where it is one.
    #[serde(skip)]
    kind: Option<Kind>,
}

impl Check {
    fn ok(name: impl Into<String>, finding: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            finding: finding.into(),
            advice: String::new(),
            kind: None,
        }
    }

    fn warning(name: impl Into<String>, finding: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: Status::Warning, advice: advice.into(), ..Self::ok(name, finding) }
    }

    fn failed(
        kind: Kind,
        name: impl Into<String>,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { status: Status::Failed, advice: advice.into(), kind: Some(kind), ..Self::ok(name, finding) }
    }
}

/// Everything that was looked at. Serialized it is what `chokepoint doctor --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this structure: 1. Fields may be added without a new version.
    pub schema: u32,
    /// Whether profiling can work.
    pub can_profile: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Examines the host this process runs on.
    #[must_use]
    pub fn of_this_host() -> Self {
        let mut checks = host_checks::all();
        checks.extend(hooks::all());
        Self::new(checks)
    }

    fn new(checks: Vec<Check>) -> Self {
        let can_profile = checks.iter().all(|check| check.status != Status::Failed);
        Self { schema: 1, can_profile, checks }
    }

    /// The kind of the first failure; a missing privilege comes first, because it may hide the others.
    #[must_use]
    pub fn failure(&self) -> Option<Kind> {
        let kinds: Vec<Kind> = self.checks.iter().filter_map(|check| check.kind).collect();
        kinds.iter().find(|kind| **kind == Kind::Permission).or(kinds.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_privilege_is_told_before_its_consequences() {
        let checks = vec![
            Check::ok("a", ""),
            Check::failed(Kind::Unsupported, "hook", "", ""),
            Check::failed(Kind::Permission, "capability", "", ""),
        ];
        let report = Report::new(checks);
        assert_eq!((report.can_profile, report.failure()), (false, Some(Kind::Permission)));
        assert_eq!(Report::new(vec![Check::warning("w", "", "")]).failure(), None);
    }
}
