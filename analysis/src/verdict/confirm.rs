//! A second, closer look at what a verdict says: what it is to be, and whether the verdict held.

use serde::Serialize;

use super::Diagnosis;
use super::code::Code;
use super::finding::{Finding, Severity, round};

/// Two windows of one load differ by so much without a reason, besides what sampling scatters: bursts and pauses fall differently.
const LOAD: f64 = 0.1;
/// Standard errors within which a share is the same.
const ERRORS: f64 = 3.0;
/// By how much more often CPUs are sampled, and for how much longer the target is looked at: the errors are a quarter then.
const CLOSER: u32 = 8;
const LONGER: u32 = 2;

/// How to look closer at a target. It only reads, as the first look did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondLook {
    /// Only at the processes and threads of this name; the whole target again where there is none.
    pub only: Option<String>,
    /// So many times the samples of each CPU's second.
    pub more_samples: u32,
    /// So many times the window.
    pub longer: u32,
}

/// What a second look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The same, with the same weight.
    Held,
    /// The same constraint, with another weight: the load changes.
    Changed,
    /// Not the same.
    Failed,
    /// There was no second look.
    Untried,
}

/// Whether a verdict held.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confirmation {
    /// What came of it.
    pub outcome: Outcome,
    /// What was tried, and what was found, in one sentence.
    pub summary: String,
    /// The constraint's share of the demand at the second look, 0 to 1; `None` where it was not found.
    pub share: Option<f64>,
    /// By how much the share may differ from the first by chance, 0 to 1; `None` where they are of different targets.
    pub tolerance: Option<f64>,
}

impl Confirmation {
    /// There could be no second look, and why.
    #[must_use]
    pub fn untried(why: &str) -> Self {
        let summary = format!("nothing, for a second look was not possible: {why}");
        Self { outcome: Outcome::Untried, summary, share: None, tolerance: None }
    }
}

impl SecondLook {
    /// The closer look that tests a verdict. Of a host, waits are looked at for one name only: each of them has its stack then, and
    /// that of what ended it.
    #[must_use]
    pub fn at(verdict: &Finding, is_host: bool) -> Self {
        let only = verdict.processes.first().filter(|_| is_host && verdict.code.is_wait());
        Self { only: only.cloned(), more_samples: CLOSER, longer: LONGER }
    }

    /// Whether the verdict of the first look held in the second.
    #[must_use]
    pub fn judge(&self, first: &Diagnosis, second: &Diagnosis) -> Confirmation {
        let verdict = &first.verdict;
        let tried = match &self.only {
            Some(name) => {
                format!("{:.0} s of {name} alone, with the stacks of all its waits", second.window_s)
            }
            None => format!("{:.0} s more, sampled {} times as often", second.window_s, self.more_samples),
        };
        if !verdict.code.is_constraint() {
            return without_constraint(verdict.code, &second.verdict, &tried);
        }
        let is_it = |finding: &&Finding| finding.code == verdict.code && finding.severity > Severity::Low;
        let Some(again) = second.ranked.iter().find(is_it) else {
            let summary = format!("{tried}: it was not found again, but {}", second.verdict.code);
            return Confirmation { outcome: Outcome::Failed, summary, share: None, tolerance: None };
        };
        let tolerance = self.only.is_none().then(|| round(tolerance(first, second, again)));
        let differs = tolerance.is_some_and(|tolerance| (again.share - verdict.share).abs() > tolerance);
        let is_first = second.verdict.code == verdict.code;
        let outcome = if differs || !is_first { Outcome::Changed } else { Outcome::Held };
        let of_what = if self.only.is_some() { "of its own demand" } else { "of the demand" };
        let said = match outcome {
            Outcome::Held => "it held".to_owned(),
            _ if is_first => "it is there, with another weight".to_owned(),
            _ => format!("it is there, behind {}", second.verdict.code),
        };
        let before = if self.only.is_some() {
            String::new()
        } else {
            format!(", before {:.0} %", verdict.share * 100.0)
        };
        Confirmation {
            outcome,
            summary: format!("{tried}: {said}, {:.0} % {of_what}{before}", again.share * 100.0),
            share: Some(round(again.share)),
            tolerance,
        }
    }
}

/// By how much two shares differ by chance.
fn tolerance(first: &Diagnosis, second: &Diagnosis, again: &Finding) -> f64 {
    let variance = |share: f64, samples: u64| share * (1.0 - share) / samples.max(1) as f64;
    let scatter = variance(first.verdict.share, first.coverage.samples)
        + variance(again.share, second.coverage.samples);
    LOAD + ERRORS * scatter.sqrt()
}

fn without_constraint(code: Code, again: &Finding, tried: &str) -> Confirmation {
    let holds = if code == Code::Unknown {
        again.code == code
    } else {
        !again.code.is_constraint() && again.code != Code::Unknown
    };
    let (outcome, said) = match holds {
        true => (Outcome::Held, format!("it held, {}", again.code)),
        false => (Outcome::Failed, format!("{} was found: {}", again.code, again.summary)),
    };
    Confirmation { outcome, summary: format!("{tried}: {said}"), share: None, tolerance: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Basis;

    fn diagnosis(code: Code, share: f64, samples: u64) -> Diagnosis {
        let mut verdict = Finding::new(code, share, "told".to_owned());
        verdict.severity = if code.is_constraint() { Severity::Critical } else { Severity::None };
        verdict.processes = vec!["shop".to_owned()];
        Diagnosis {
            schema: 1,
            host: "h".to_owned(),
            target: "host".to_owned(),
            window_s: 10.0,
            ranked: vec![verdict.clone()],
            verdict,
            decomposition: Default::default(),
            behind: Default::default(),
            demand: Default::default(),
            modifiers: Vec::new(),
            coverage: Basis { threads: 1, samples, lost: 0, ends_known: 1.0, missing: Vec::new() },
            confirmation: None,
        }
    }

    fn check(first: (Code, f64), second: (Code, f64), samples: u64, expected: Outcome) {
        let (first, second) = (diagnosis(first.0, first.1, samples), diagnosis(second.0, second.1, samples));
        let found = SecondLook::at(&first.verdict, false).judge(&first, &second);
        assert_eq!(found.outcome, expected, "{found:?}");
    }

    #[test]
    fn the_same_share_is_the_same_within_what_sampling_and_load_scatter() {
        let it = Code::LockMutex;
        check((it, 0.6), (it, 0.65), 10_000, Outcome::Held);
        // Three standard errors of 10,000 samples each are 0.02; of 100 each 0.2.
        check((it, 0.6), (it, 0.75), 10_000, Outcome::Changed);
        check((it, 0.6), (it, 0.75), 100, Outcome::Held);
        check((it, 0.6), (Code::IoRead, 0.6), 10_000, Outcome::Failed);
    }

    #[test]
    fn what_is_not_a_constraint_holds_until_one_is_found() {
        check((Code::NoneHealthy, 0.0), (Code::NoneIdle, 0.0), 100, Outcome::Held);
        check((Code::NoneIdle, 0.0), (Code::LockMutex, 0.5), 100, Outcome::Failed);
        check((Code::Unknown, 0.0), (Code::Unknown, 0.0), 100, Outcome::Held);
        check((Code::Unknown, 0.0), (Code::NoneHealthy, 0.0), 100, Outcome::Failed);
    }

    #[test]
    fn waits_of_a_host_are_looked_at_where_they_are() {
        let only = |code, is_host| SecondLook::at(&diagnosis(code, 0.5, 1).verdict, is_host).only;
        assert_eq!(only(Code::LockMutex, true), Some("shop".to_owned()));
        assert_eq!(only(Code::LockMutex, false), None);
        assert_eq!(only(Code::CpuSaturated, true), None);
        // Counters are the whole host's.
        assert_eq!(only(Code::NetListenOverflow, true), None);
        // Shares of a name alone and of a host are of different wholes.
        let (host, alone) = (diagnosis(Code::LockMutex, 0.2, 9), diagnosis(Code::LockMutex, 0.9, 9));
        let found = SecondLook::at(&host.verdict, true).judge(&host, &alone);
        assert_eq!((found.outcome, found.tolerance), (Outcome::Held, None));
    }
}
