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
    /// Samples of processes that ended before their mappings could be read; their user frames have no module.
    pub unread_processes: u64,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackOutcomes {
    /// The walk ended by itself.
    pub walked: u64,
    /// The outermost frames are missing: the depth limit was met.
    pub truncated: u64,
    /// The walk left the process's code: a frame pointer was none, as in code compiled without them. The frames before that
    /// are kept, the outermost ones are missing.
    pub broken: u64,
    /// There is a stack, but it could not be read.
    pub unreadable: u64,
    /// The thread has no such stack, or it was not asked for.
    pub absent: u64,
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
            let causes: Vec<String> = self
                .lost
                .iter()
                .map(|loss| format!("{} {}", names::printable(&loss.cause), loss.samples))
                .collect();
            statements.push(format!("{} lost ({})", self.total_lost(), causes.join(", ")));
        }
        let gaps = [
            (self.user_stacks.truncated.saturating_add(self.kernel_stacks.truncated), "stacks truncated"),
            (self.user_stacks.broken, "user stacks broken off in code without frame pointers"),
            (self.user_stacks.unreadable.saturating_add(self.kernel_stacks.unreadable), "stacks unreadable"),
            (self.unread_processes, "of processes that ended too soon to be read"),
        ];
        statements.extend(
            gaps.iter()
                .filter(|(samples, _)| *samples > 0)
                .map(|(samples, gap): &(u64, _)| format!("{samples} {gap}")),
        );
        let withheld = self.expected.saturating_sub(self.fired);
        if withheld.saturating_mul(100) > self.expected.saturating_mul(WITHHELD_TOLERANCE_PCT) {
            let pct = 100.0 * withheld as f64 / self.expected as f64;
            statements.push(format!("{pct:.0} % of the ticks never came"));
        }
        statements
    }
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
            user_stacks: StackOutcomes { truncated: 3, broken: 6, unreadable: 2, ..StackOutcomes::default() },
            kernel_stacks: StackOutcomes { truncated: 1, ..StackOutcomes::default() },
            unread_processes: 7,
            ..whole
        };
        assert_eq!(
            partial.statements(),
            [
                "495 of 500 samples",
                "5 lost (ring buffer full 4, no scratch space 1)",
                "4 stacks truncated",
                "6 user stacks broken off in code without frame pointers",
                "2 stacks unreadable",
                "7 of processes that ended too soon to be read",
                "20 % of the ticks never came",
            ]
        );
    }
}
