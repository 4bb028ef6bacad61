//! A diagnosis as a page for a terminal: the constraint, the proof, the next step; then the runners-up and where the time went.

use std::fmt::Write;

use super::Diagnosis;
use super::finding::{Fact, Finding, Severity};
use crate::names::printable;

/// Width of the bar of a class.
const BAR: usize = 30;
/// Facts that are told of the verdict; all of them with `explain`.
const FACTS: usize = 5;

/// How a page is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With escape sequences for colours.
    pub colour: bool,
    /// With every number, and where it is from.
    pub explain: bool,
}

/// The page.
#[must_use]
pub fn page(diagnosis: &Diagnosis, style: Style) -> String {
    let mut text = String::new();
    let verdict = &diagnosis.verdict;
    let _ = writeln!(
        text,
        "{}, {}, {:.1} s, {} threads\n",
        printable(&diagnosis.host),
        printable(&diagnosis.target),
        diagnosis.window_s,
        diagnosis.coverage.threads
    );
    let (start, end) = colours(verdict.severity, style);
    let _ = writeln!(text, "{start}{}{end}  {}\n  {}", verdict.code, verdict.summary, verdict.judgement());
    for (what, names) in [("by", &verdict.culprits), ("hits", &verdict.processes), ("in", &verdict.functions)]
    {
        if !names.is_empty() {
            let _ = writeln!(text, "  {what:5} {}", names.join(", "));
        }
    }
    if verdict.path.len() > 1 {
        let _ = writeln!(text, "  path  {}", verdict.path.join(" -> "));
    }
    text.push('\n');
    facts(&mut text, "", &verdict.evidence, style);
    facts(&mut text, "against it: ", &verdict.counter_evidence, style);
    facts(&mut text, "meanwhile: ", &diagnosis.modifiers, style);
    if style.explain {
        explain(&mut text, verdict);
    }
    if !verdict.hypothesis.is_empty() {
        let _ = writeln!(text, "\n  {}", verdict.hypothesis);
    }
    let _ = writeln!(text, "  Test: {}", verdict.experiment);
    if let Some(confirmation) = &diagnosis.confirmation {
        let _ = writeln!(text, "  Tried: {}", printable(&confirmation.summary));
    }
    if !verdict.next_steps.is_empty() {
        text.push_str("\nNext\n");
    }
    for (number, step) in verdict.next_steps.iter().enumerate() {
        let amounts = format!(
            "impact {}, effort {}, risk {}",
            step.impact.name(),
            step.effort.name(),
            step.risk.name()
        );
        let _ = writeln!(text, "  {}. {} ({amounts})", number + 1, step.action);
    }
    let _ = writeln!(text, "  See it: {}", verdict.shown_by);
    let others = &diagnosis.ranked[1.min(diagnosis.ranked.len())..];
    if !others.is_empty() {
        text.push_str("\nAlso found\n");
    }
    for finding in others {
        let (start, end) = colours(finding.severity, style);
        let _ = writeln!(
            text,
            "  {start}{:20}{end} {:>4.0} %  confidence {:>3.0} %  {}",
            finding.code,
            finding.share * 100.0,
            finding.confidence * 100.0,
            finding.summary
        );
    }
    time(&mut text, diagnosis);
    let coverage = &diagnosis.coverage;
    let _ = writeln!(
        text,
        "\n{} samples, {} lost; what ended it is known of {:.0} % of the waiting time",
        coverage.samples,
        coverage.lost,
        coverage.ends_known * 100.0
    );
    for missing in &coverage.missing {
        let _ = writeln!(text, "{missing}");
    }
    text
}

/// What the numbers of the answer itself are made of.
fn explain(text: &mut String, verdict: &Finding) {
    let _ = writeln!(text, "\n  confidence {:.0} %", verdict.confidence * 100.0);
    for part in &verdict.confidence_from {
        let value = format!("{:+.0} %", part.value * 100.0);
        let _ = writeln!(text, "  {value:>10} {}  [{}]", printable(&part.what), part.source);
    }
    if let Some(gain) = verdict.gain_upper_bound.filter(|_| verdict.code.is_constraint()) {
        let share = verdict.share * 100.0;
        let _ =
            writeln!(text, "  {gain:>10.1} times at most: 1 / (1 - {share:.1} % of the demand)  [threads]");
    }
}

fn time(text: &mut String, diagnosis: &Diagnosis) {
    let total: f64 = diagnosis.decomposition.values().sum();
    if total <= 0.0 {
        return;
    }
    text.push_str("\nTime of the threads\n");
    let mut classes: Vec<(&&str, &f64)> = diagnosis.decomposition.iter().collect();
    classes.sort_by(|a, b| b.1.total_cmp(a.1));
    for (class, seconds) in classes {
        let share = seconds / total;
        let bar = "#".repeat((share * BAR as f64).round() as usize);
        let _ = writeln!(text, "  {class:18} {:>5.1} % {seconds:>9.3} s  {bar}", share * 100.0);
    }
}

fn facts(text: &mut String, intro: &str, facts: &[Fact], style: Style) {
    let told = if style.explain { facts.len() } else { FACTS };
    for fact in facts.iter().take(told) {
        let source = if style.explain { format!("  [{}]", fact.source) } else { String::new() };
        let _ = writeln!(text, "  {:>10} {}{}{source}", fact.number(), intro, printable(&fact.what));
    }
    if facts.len() > told {
        let _ = writeln!(text, "  {:>10} {} more numbers: --explain", "", facts.len() - told);
    }
}

fn colours(severity: Severity, style: Style) -> (&'static str, &'static str) {
    let start = match severity {
        _ if !style.colour => return ("", ""),
        Severity::None => "\x1b[32;1m",
        Severity::Low => "\x1b[1m",
        Severity::Warning => "\x1b[33;1m",
        Severity::Critical => "\x1b[31;1m",
    };
    (start, "\x1b[0m")
}
