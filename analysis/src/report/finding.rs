//! What was found: the answer, its evidence, its tests and the steps that follow.

use std::cmp::Reverse;

use super::document::{Answer, Block, Cell, Facts, Table, Tone, name, text};
use crate::verdict::confirm::Confirmation;
use crate::verdict::finding::{Fact, Finding, Severity, Step};

/// Findings, facts and steps of a diagnosis are few.
const ALL: usize = usize::MAX;

/// The answer, and who and where it is.
pub(super) fn answer<'p>(finding: &Finding) -> Vec<Block<'p>> {
    let answer = Answer {
        tone: tone(finding.severity),
        code: finding.code.name().to_owned(),
        summary: finding.summary.clone(),
        judgement: finding.judgement(),
    };
    let mut facts = Vec::new();
    for (what, names) in [
        ("caused by", &finding.culprits),
        ("suffered by", &finding.processes),
        ("in the functions", &finding.functions),
    ] {
        if !names.is_empty() {
            facts.push((what, Cell::Names(names.clone())));
        }
    }
    if finding.path.len() > 1 {
        facts.push(("from the wait to what is behind it", Cell::Path(finding.path.clone())));
    }
    let mut blocks = vec![Block::Answer(answer)];
    if !facts.is_empty() {
        blocks
            .push(Block::Facts(Facts { source: "threads, who ended their waits, and their stacks", facts }));
    }
    blocks
}

/// The numbers that speak for a finding and against it, each with its source.
pub(super) fn evidence<'p>(finding: &Finding) -> Vec<Block<'p>> {
    let row = |speaks: &str, fact: &Fact| {
        vec![text(speaks), text(fact.number()), text(&fact.what), name(&fact.source)]
    };
    let rows = finding
        .evidence
        .iter()
        .map(|fact| row("for it", fact))
        .chain(finding.counter_evidence.iter().map(|fact| row("against it", fact)));
    let table = Table::new(
        "What proves it, and what speaks against it",
        "",
        &["", "#number", "what", "source"],
        ALL,
        rows,
    );
    let mut blocks = vec![Block::Table(table)];
    if finding.counter_evidence.is_empty() && finding.code.is_constraint() {
        blocks.push(Block::Text("No number that was looked at speaks against it.".to_owned()));
    }
    blocks
}

/// What should be seen if a finding is true, how to test that, what came of a second look, and where to see it.
pub(super) fn test<'p>(finding: &Finding, confirmation: Option<&Confirmation>) -> Vec<Block<'p>> {
    let mut facts = Vec::new();
    if !finding.hypothesis.is_empty() {
        facts.push(("hypothesis", text(&finding.hypothesis)));
    }
    facts.push(("test", text(&finding.experiment)));
    facts.extend(confirmation.map(|confirmation| ("second look", text(&confirmation.summary))));
    facts.push(("see it", name(&finding.shown_by)));
    let source = match confirmation {
        None => "known of this constraint; not tested here",
        Some(_) => "known of this constraint; of the test only the second look was tried",
    };
    vec![Block::Facts(Facts { source, facts })]
}

/// What to do about one finding, the best first.
pub(super) fn steps<'p>(finding: &Finding) -> Vec<Block<'p>> {
    if finding.next_steps.is_empty() {
        return vec![Block::Text("Nothing: what there is to do is done without being held up.".to_owned())];
    }
    let row = |(number, step): (usize, &Step)| {
        let mut row = vec![text((number + 1).to_string()), text(&step.action)];
        row.extend(amounts(step));
        row
    };
    vec![Block::Table(Table::new(
        "Steps, the best first",
        "known of this constraint, not measured here",
        &["#", "step", "impact", "effort", "risk"],
        ALL,
        finding.next_steps.iter().enumerate().map(row),
    ))]
}

/// The steps of all findings in one order: of what limits before what is only to be known, and then the largest impact, the least
/// effort, the least risk.
pub(super) fn ranked_steps<'p>(findings: &[Finding]) -> Vec<Block<'p>> {
    let mut steps: Vec<(&Finding, &Step)> = Vec::new();
    for finding in findings {
        for step in &finding.next_steps {
            // Several constraints may be relieved by the same.
            if !steps.iter().any(|(_, known)| known.action == step.action) {
                steps.push((finding, step));
            }
        }
    }
    if steps.is_empty() {
        return vec![Block::Text("Nothing: nothing was found that holds the target up.".to_owned())];
    }
    // Stable: of equals, those of the first finding come first.
    steps.sort_by_key(|(finding, step)| {
        (finding.severity <= Severity::Low, Reverse(step.impact), step.effort, step.risk)
    });
    let row = |(number, (finding, step)): (usize, &(&Finding, &Step))| {
        let gain = finding.gain_upper_bound.filter(|_| finding.code.is_constraint());
        let mut row = vec![text((number + 1).to_string()), text(&step.action), name(finding.code.name())];
        row.extend(amounts(step));
        row.push(text(gain.map_or_else(|| "-".to_owned(), |gain| format!("{gain:.1} times"))));
        row
    };
    vec![
        Block::Table(Table::new(
            "Steps, the best first",
            "steps are known of their constraint; the gain is 1 / (1 - share), by the threads' times",
            &["#", "step", "for", "impact", "effort", "risk", "#gain, at most"],
            ALL,
            steps.iter().enumerate().map(row),
        )),
        Block::Text(
            "Ranked by whether the constraint limits or is only to be known, then impact, effort and risk. The gain is that of \
             removing the constraint altogether; a step may remove a part of it, and another constraint may come next."
                .to_owned(),
        ),
    ]
}

/// Findings beside the verdict.
pub(super) fn others<'p>(findings: &[Finding]) -> Vec<Block<'p>> {
    let row = |finding: &Finding| {
        vec![
            name(finding.code.name()),
            Cell::Level(tone(finding.severity), finding.severity.name().to_owned()),
            text(format!("{:.0} %", finding.share * 100.0)),
            text(format!("{:.0} %", finding.confidence * 100.0)),
            text(&finding.summary),
            Cell::Names(sources(finding)),
        ]
    };
    let others = findings.get(1..).unwrap_or_default();
    if others.is_empty() {
        return vec![Block::Text("No other constraint reached its gate.".to_owned())];
    }
    vec![Block::Table(Table::new(
        "Other constraints that reached their gate",
        "",
        &["constraint", "severity", "#share of the demand", "#confidence", "what", "sources"],
        ALL,
        others.iter().map(row),
    ))]
}

/// Where the numbers of a finding are from, each once.
fn sources(finding: &Finding) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for fact in finding.evidence.iter().chain(&finding.counter_evidence) {
        if !sources.contains(&fact.source) {
            sources.push(fact.source.clone());
        }
    }
    sources
}

fn amounts(step: &Step) -> [Cell; 3] {
    [step.impact, step.effort, step.risk].map(|amount| text(amount.name()))
}

pub(super) const fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::None => Tone::Good,
        Severity::Low => Tone::Plain,
        Severity::Warning => Tone::Warning,
        Severity::Critical => Tone::Critical,
    }
}
