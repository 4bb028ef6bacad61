//! That a label is true: without its constraint, as much more work is done as the case demands.

use super::table::Table;
use super::{Case, Missing, Stage, Variant};

/// The work of both variants, in turns.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The case.
    pub case: &'static Case,
    /// Work a second of each variant, turn by turn.
    pub turns: Vec<Turn>,
}

/// One run of each variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Work a second with the constraint.
    pub constrained: f64,
    /// Work a second without.
    pub relieved: f64,
}

impl Turn {
    fn gain(self) -> f64 {
        self.relieved / self.constrained
    }
}

impl Proof {
    /// Plays both variants, so many times for so many seconds each.
    ///
    /// # Errors
    /// What this machine lacks for it.
    pub fn measure(case: &'static Case, turns: usize, seconds: f64) -> Result<Self, Missing> {
        let work_per_s = |variant| {
            let mut stage = Stage::new(variant);
            (case.play)(&mut stage)?;
            std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
            Ok(stage.work_per_s())
        };
        // In turns, so that what the machine does meanwhile hits both.
        let turns = (0..turns)
            .map(|_| {
                Ok(Turn {
                    constrained: work_per_s(Variant::Constrained)?,
                    relieved: work_per_s(Variant::Relieved)?,
                })
            })
            .collect::<Result<_, Missing>>()?;
        Ok(Self { case, turns })
    }

    /// The median of the turns, by gain.
    fn median(&self) -> Turn {
        let mut turns = self.turns.clone();
        turns.sort_by(|one, other| one.gain().total_cmp(&other.gain()));
        turns[turns.len() / 2]
    }

    /// Whether the label is true.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.median().gain() >= self.case.least_gain
    }
}

/// All of them as a table.
#[must_use]
pub fn table(proofs: &[Proof]) -> Table {
    let mut table =
        Table::new(["case", "truth", "relieved by", "work/s", "relieved", "gain", "at least", "label"]);
    for proof in proofs {
        let (median, case) = (proof.median(), proof.case);
        table.row([
            case.name,
            &case.truth.join(" or "),
            case.relief,
            &significant(median.constrained),
            &significant(median.relieved),
            &significant(median.gain()),
            &significant(case.least_gain),
            if proof.holds() { "holds" } else { "FAILS" },
        ]);
    }
    table
}

/// Three digits of a number, or all of its integer part.
fn significant(number: f64) -> String {
    let decimals = match number {
        number if number < 10.0 => 2,
        number if number < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::super::case;
    use super::*;

    #[test]
    fn the_median_turn_decides() {
        let turn = |gain| Turn { constrained: 10.0, relieved: 10.0 * gain };
        let proof = |gains: &[f64]| Proof {
            case: case("cpu-single-thread"),
            turns: gains.iter().map(|gain| turn(*gain)).collect(),
        };
        assert!(proof(&[1.9, 1.1, 1.8]).holds());
        assert!(!proof(&[1.2, 1.1, 1.8]).holds());
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([1.234, 12.34, 123.4, 12345.6].map(significant), ["1.23", "12.3", "123", "12346"]);
    }
}
