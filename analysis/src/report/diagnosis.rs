//! The report of a diagnosis: the answer first, then what to do, then what to look into.

use super::document::{Block, Document, Section};
use super::{Recorded, coverage, finding, flames, signals, time};

/// The report of one recording.
#[must_use]
pub fn diagnosis<'p>(recorded: &Recorded<'p>) -> Document<'p> {
    let (verdict, ranked) = (&recorded.diagnosis.verdict, &recorded.diagnosis.ranked);
    let header = &recorded.profile.header;
    let section = |title, blocks| Section { title, blocks };
    let mut proof = finding::answer(verdict);
    proof.extend(finding::evidence(verdict));
    proof.extend(finding::test(verdict, recorded.diagnosis.confirmation.as_ref()));
    let mut pictures: Vec<Block<'p>> = flames::of_finding(recorded, verdict).into_iter().collect();
    pictures.extend(flames::all(recorded));
    let mut rests_on = coverage::modifiers(recorded);
    rests_on.extend([coverage::scope(recorded), coverage::captured(recorded), coverage::missing(recorded)]);
    Document {
        title: format!("Diagnosis: {}", verdict.code),
        about: format!("What limits {} on {}, and what to do about it.", header.target, header.host),
        sections: vec![
            section("Verdict", proof),
            section("What to do", finding::steps(verdict)),
            section("Also found", finding::others(ranked)),
            section("Where the time goes", time::blocks(recorded)),
            section("Flame graphs", pictures),
            section("Signals over their levels", signals::over_their_levels(recorded)),
            section("What this rests on", rests_on),
        ],
    }
}
