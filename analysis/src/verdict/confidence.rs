//! How sure an answer is, part by part, so that each part can be told.

use super::account::{Account, Wait};
use super::detectors::Case;
use super::finding::{Fact, Finding};
use super::{Basis, PAUSES, SHORT_PAUSE_NS, polls};
use crate::activity::Class;

/// For the number that a constraint was found by.
const FOUND: f64 = 0.4;
/// For one that agrees and is not drawn from the same events.
const AGREES: f64 = 0.3;
/// For a window that is long enough.
const LASTS: f64 = 0.2;
/// For enough samples.
const SAMPLED: f64 = 0.1;
/// What a number that speaks against a finding takes from its confidence.
pub(super) const AGAINST: f64 = 0.3;
/// A window that holds several bursts and pauses of most loads.
const LONG_WINDOW_S: f64 = 10.0;
/// Samples from which on a share's error is below a twentieth: 0.5 / sqrt(100).
const ENOUGH_SAMPLES: f64 = 100.0;
/// Sources that are all drawn from the scheduler's events: one of them does not vouch for another.
const OF_THE_SCHEDULER: [&str; 3] = ["threads", "wakers", "run queue"];
/// Something is always left that might be so.
const LEAST: f64 = 0.05;
/// That nothing is known is rather sure, and says nothing.
const UNKNOWN: f64 = 0.3;
/// What is left to an answer that nothing limits, where all of the time is explained: to see nothing is no proof.
const EXPLAINED: f64 = 0.5;

fn part(what: impl Into<String>, value: f64, source: &str) -> Fact {
    Fact { what: what.into(), value, unit: "1", source: source.to_owned() }
}

/// Sets how sure a constraint is: for what it was found by, for a number from elsewhere that agrees, for a window long enough and for
/// enough samples; less [`AGAINST`] for each number that speaks against it.
pub(super) fn of_constraint(finding: &mut Finding, case: &Case<'_>, basis: &Basis) {
    let is_other = |fact: &&Fact| !OF_THE_SCHEDULER.contains(&fact.source.as_str());
    let found_by = finding.evidence.first();
    let is_found_otherwise = found_by.as_ref().is_some_and(is_other);
    // What was not found by the scheduler's events is agreed with by them.
    let agreeing = finding.evidence.iter().find(|fact| is_other(fact) != is_found_otherwise);
    let window = (case.account.window_ns as f64 / 1e9 / LONG_WINDOW_S).min(1.0);
    let samples = (basis.samples as f64 / ENOUGH_SAMPLES).min(1.0);
    let mut parts = Vec::new();
    parts.push(part(
        "for the number it was found by",
        FOUND,
        found_by.map_or("threads", |fact| fact.source.as_str()),
    ));
    if let Some(agreeing) = agreeing {
        let what = "for a number that agrees and is not drawn from the same events";
        parts.push(part(what, AGREES, &agreeing.source));
    }
    parts.push(part("for the window's length", LASTS * window, "threads"));
    parts.push(part("for the number of samples", SAMPLED * samples, "coverage"));
    parts.extend(against(finding));
    settle(finding, parts);
}

/// The same of an answer that nothing limits, or that nothing is known: as sure as the time is explained, `certain` from 0 to 1.
pub(super) fn of_nothing(finding: &mut Finding, is_known: bool, certain: f64) {
    let mut parts = vec![];
    if is_known {
        parts.push(part("for nothing that was found", FOUND, "threads"));
        parts.push(part("for the time that is explained", EXPLAINED * certain, "wakers"));
        parts.extend(against(finding));
    } else {
        parts.push(part("for what is not known", UNKNOWN, "threads"));
    }
    settle(finding, parts);
}

fn against(finding: &Finding) -> impl Iterator<Item = Fact> + use<'_> {
    let less = |fact: &Fact| part(format!("against it: {}", fact.what), -AGAINST, &fact.source);
    finding.counter_evidence.iter().map(less)
}

/// Adds the parts up, within what the finding can be.
fn settle(finding: &mut Finding, mut parts: Vec<Fact>) {
    let sum: f64 = parts.iter().map(|part| part.value).sum();
    let settled = sum.clamp(LEAST, finding.at_most);
    if (settled - sum).abs() > 1e-9 {
        let what =
            if settled < sum { "as it is inferred, and not seen" } else { "as it cannot be ruled out" };
        parts.push(part(what, settled - sum, "threads"));
    }
    (finding.confidence, finding.confidence_from) = (settled, parts);
}

/// Time in pauses that are short and follow each other, of which it is not known what for; who pauses until a set time keeps to a pace.
pub(super) fn short_pauses_ns(account: &Account<'_>) -> Option<f64> {
    let pauses = account
        .waits
        .iter()
        .filter(|wait| wait.class == Class::Timer && wait.object != Some(polls::AT_A_TIME));
    let is_short = |wait: &&Wait<'_>| {
        let count: u64 = wait.ends.iter().map(|end| end.count).sum();
        count > 1 && wait.ns / count < SHORT_PAUSE_NS
    };
    let ns = pauses.filter(is_short).map(|wait| wait.ns).sum::<u64>() as f64;
    (ns >= PAUSES * account.window_ns as f64).then_some(ns)
}
