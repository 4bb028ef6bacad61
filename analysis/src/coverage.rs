//! How much of what happened a profile saw. It travels inside every profile, so that a thin one is never taken for an
//! innocent one.

use std::borrow::Cow;

use crate::names;

/// Attempts, successes and losses of one source over one window. Counts of events, unless the name says otherwise.
///
/// `fired = idle + outside_target + other_mode + attempted` and `attempted = captured + lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Ticks that the window should have had: CPUs x frequency x time. The rest was withheld by the kernel or the
    /// hypervisor.
    pub expected: u64,
    /// Ticks that came.
    pub fired: u64,
    /// Ticks on an idle CPU.
    pub idle: u64,
    /// Ticks in threads outside the target.
    pub outside_target: u64,
    /// Ticks in a mode (user, kernel) that was not asked for.
    pub other_mode: u64,
    /// Samples that were to be taken.
    pub attempted: u64,
    /// Samples in the profile.
    pub captured: u64,
    /// Samples lost, by cause. Causes that did not occur are left out.
    pub lost: Vec<Loss>,
    /// User stacks, by how their capture ended.
    pub user_stacks: StackOutcomes,
    /// Kernel stacks, by how their capture ended.
    pub kernel_stacks: StackOutcomes,
    /// Further remarks, each a sentence that a user can act on.
    pub notes: Vec<String>,
}

/// Samples lost for one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The cause, as a short phrase: `ring buffer full`.
    pub cause: Cow<'static, str>,
    /// Number of samples.
    pub samples: u64,
}

/// Captured samples by the end of one of their stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackOutcomes {
    /// The outermost frame is the thread's start.
    pub complete: u64,
    /// The outermost frames are missing: the depth limit was met.
    pub truncated: u64,
    /// The outermost frames are missing for another reason, by cause. Causes that did not occur are left out.
    pub incomplete: Vec<Loss>,
    /// The thread has no such stack, or it was not asked for.
    pub absent: u64,
}

impl StackOutcomes {
    /// Adds another source's.
    pub fn add(&mut self, other: &Self) {
        self.complete += other.complete;
        self.truncated += other.truncated;
        self.absent += other.absent;
        for loss in &other.incomplete {
            match self.incomplete.iter_mut().find(|known| known.cause == loss.cause) {
                Some(known) => known.samples += loss.samples,
                None => self.incomplete.push(loss.clone()),
            }
        }
    }

    /// Stacks that end early for another reason than their depth.
    #[must_use]
    pub fn total_incomplete(&self) -> u64 {
        self.incomplete.iter().fold(0, |sum, loss| sum.saturating_add(loss.samples))
    }

    /// Share of the stacks there are whose outermost frame is the thread's start; `None` where there are none.
    #[must_use]
    pub fn complete_pct(&self) -> Option<f64> {
        let all = self.complete.saturating_add(self.truncated).saturating_add(self.total_incomplete());
        (all > 0).then(|| 100.0 * self.complete as f64 / all as f64)
    }
}

impl Coverage {
    /// Samples lost for whatever cause.
    #[must_use]
    pub fn total_lost(&self) -> u64 {
        self.lost.iter().fold(0, |sum, loss| sum.saturating_add(loss.samples))
    }

    /// What was seen and what was not, as short phrases for people: first the samples captured, then each gap. Gaps that
    /// there are not are left out, so a single phrase means that nothing is known to be missing.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        let mut statements = vec![if self.captured == self.attempted {
            format!("{} samples", self.captured)
        } else {
            format!("{} of {} samples", self.captured, self.attempted)
        }];
        if self.total_lost() > 0 {
            statements.push(format!("{} lost ({})", self.total_lost(), by_cause(&self.lost)));
        }
        let truncated = self.user_stacks.truncated.saturating_add(self.kernel_stacks.truncated);
        if truncated > 0 {
            statements.push(format!("{truncated} stacks truncated"));
        }
        for (stacks, kind) in [(&self.user_stacks, "user"), (&self.kernel_stacks, "kernel")] {
            if stacks.total_incomplete() > 0 {
                statements.push(format!(
                    "{} {kind} stacks incomplete ({})",
                    stacks.total_incomplete(),
                    by_cause(&stacks.incomplete)
                ));
            }
        }
        let withheld = self.expected.saturating_sub(self.fired);
        if withheld.saturating_mul(100) > self.expected.saturating_mul(WITHHELD_TOLERANCE_PCT) {
            let pct = 100.0 * withheld as f64 / self.expected as f64;
            statements.push(format!("{pct:.0} % of the ticks never came"));
        }
        statements
    }
}

fn by_cause(losses: &[Loss]) -> String {
    let causes: Vec<String> =
        losses.iter().map(|loss| format!("{} {}", names::printable(&loss.cause), loss.samples)).collect();
    causes.join(", ")
}

/// Below this share, ticks that did not come are what a window's edges and the clock's drift account for.
const WITHHELD_TOLERANCE_PCT: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_every_gap_and_nothing_else() {
        let whole =
            Coverage { expected: 1000, fired: 995, attempted: 500, captured: 500, ..Coverage::default() };
        assert_eq!(whole.statements(), ["500 samples"]);

        let partial = Coverage {
            fired: 800,
            captured: 495,
            lost: vec![
                Loss { cause: "ring buffer full".into(), samples: 4 },
                Loss { cause: "no scratch space".into(), samples: 1 },
            ],
            user_stacks: StackOutcomes {
                complete: 90,
                truncated: 3,
                incomplete: vec![
                    Loss { cause: "no table yet".into(), samples: 6 },
                    Loss { cause: "stack not readable".into(), samples: 1 },
                ],
                ..StackOutcomes::default()
            },
            kernel_stacks: StackOutcomes { truncated: 1, ..StackOutcomes::default() },
            ..whole
        };
        assert_eq!(
            partial.statements(),
            [
                "495 of 500 samples",
                "5 lost (ring buffer full 4, no scratch space 1)",
                "4 stacks truncated",
                "7 user stacks incomplete (no table yet 6, stack not readable 1)",
                "20 % of the ticks never came",
            ]
        );
        assert_eq!(partial.user_stacks.complete_pct(), Some(90.0));
        assert_eq!(StackOutcomes::default().complete_pct(), None);
    }
}
