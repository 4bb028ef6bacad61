//! The audit report: what was measured, what is claimed of it and how far that was tried, what follows, and what was not looked at.
//! Of two recordings, the first is the baseline, and the steps are those that the second asks for.

use super::document::{Block, Cell, Document, Section, Table, name, text};
use super::{Recorded, before_after, coverage, finding, flames, latencies, signals, time};
use crate::verdict::finding::Finding;

/// The audit of a recording, and where there is another of what has changed in it.
#[must_use]
pub fn audit<'p>(before: &Recorded<'p>, after: Option<&Recorded<'p>>) -> Document<'p> {
    let header = &before.profile.header;
    let now = after.unwrap_or(before);
    let section = |title, blocks| Section { title, blocks };
    let mut sections = vec![
        section("Scope", scope(before, after)),
        section("Baseline", baseline(before)),
        section("Constraint", constraint(before)),
        section("Hypotheses", hypotheses(before, after)),
        section("Next steps", finding::ranked_steps(&now.diagnosis.ranked)),
    ];
    if let Some(after) = after {
        sections.push(section("Before and after", before_after::blocks(before, after)));
    }
    sections.push(section("What was not looked at", not_looked_at(before, after)));
    Document {
        title: format!("Audit: {}", before.diagnosis.verdict.code),
        about: format!(
            "What was measured of {} on {}, and what follows from it.",
            header.target, header.host
        ),
        sections,
    }
}

fn scope<'p>(before: &Recorded<'p>, after: Option<&Recorded<'p>>) -> Vec<Block<'p>> {
    let mut blocks = vec![coverage::scope(before), coverage::captured(before)];
    if let Some(after) = after {
        blocks.push(Block::Text("The recording after:".to_owned()));
        blocks.extend([coverage::scope(after), coverage::captured(after)]);
    }
    blocks
}

fn baseline<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let mut blocks = coverage::modifiers(recorded);
    blocks.extend(time::blocks(recorded));
    blocks.extend(latencies::blocks(recorded));
    blocks.extend(signals::baseline(recorded));
    blocks
}

fn constraint<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let (verdict, ranked) = (&recorded.diagnosis.verdict, &recorded.diagnosis.ranked);
    let mut blocks = finding::answer(verdict);
    blocks.extend(finding::evidence(verdict));
    blocks.extend(finding::others(ranked));
    blocks.extend(flames::of_finding(recorded, verdict));
    blocks
}

/// What each finding claims, how that would be tested, and that it was not: a recording tries nothing.
fn hypotheses<'p>(before: &Recorded<'p>, after: Option<&Recorded<'p>>) -> Vec<Block<'p>> {
    let share = |recorded: &Recorded<'_>, finding: &Finding| {
        let found = recorded.diagnosis.ranked.iter().find(|other| other.code == finding.code);
        text(found.map_or_else(|| "not found".to_owned(), |found| format!("{:.0} %", found.share * 100.0)))
    };
    let is_new = |finding: &&Finding| before.diagnosis.ranked.iter().all(|known| known.code != finding.code);
    let later = after.iter().flat_map(|after| after.diagnosis.ranked.iter().filter(is_new));
    let rows =
        before.diagnosis.ranked.iter().chain(later).filter(|finding| !finding.hypothesis.is_empty()).map(
            |finding| -> Vec<Cell> {
                let mut row = vec![
                    name(finding.code.name()),
                    text(&finding.hypothesis),
                    text(&finding.experiment),
                    text("not tested"),
                    share(before, finding),
                ];
                row.extend(after.map(|after| share(after, finding)));
                row
            },
        );
    let columns: &[&str] = match after {
        None => &["constraint", "hypothesis", "test", "status", "#share"],
        Some(_) => &["constraint", "hypothesis", "test", "status", "#share before", "#share after"],
    };
    let table = Table::new(
        "Hypotheses and their status",
        "hypotheses and tests are known of their constraint; shares are of the demand, by the threads' times",
        columns,
        usize::MAX,
        rows,
    );
    if table.rows.is_empty() {
        return vec![Block::Text("Nothing is claimed, so there is nothing to test.".to_owned())];
    }
    let remark = match after {
        None => {
            "A recording tries nothing: carry a test out, record again, and have both recordings in one report."
        }
        Some(_) => {
            "A recording tries nothing. Whether what was changed between the two was one of these tests is for who changed it to say."
        }
    };
    vec![Block::Table(table), Block::Text(remark.to_owned())]
}

fn not_looked_at<'p>(before: &Recorded<'p>, after: Option<&Recorded<'p>>) -> Vec<Block<'p>> {
    let mut blocks = vec![Block::Text("In this recording:".to_owned()), coverage::missing(before)];
    if let Some(after) = after {
        blocks.extend([Block::Text("In the recording after:".to_owned()), coverage::missing(after)]);
    }
    blocks.extend([Block::Text("In no recording:".to_owned()), coverage::method()]);
    blocks
}
