//! How many samples of each source are in the sums, and how the captures of their stacks ended.

use chokepoint_analysis::coverage::{Loss, StackOutcomes};
use chokepoint_ebpf::sample::StackOutcome;

use crate::drain::decode::Sample;

/// The program that took samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The on-CPU source.
    OnCpu = 0,
    /// Waits that ended, and those that had not at the window's end.
    Waits = 1,
    /// What ended them.
    Wakers = 2,
    /// Who opened TCP connections, and who sent on those that lost something.
    Openers = 3,
    /// Page faults.
    Faults = 4,
    /// Direct reclaims.
    Reclaims = 5,
}

/// Samples of one source that are in the sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Captured {
    samples: u64,
    user_stacks: Outcomes,
    kernel_stacks: Outcomes,
}

impl Captured {
    pub(super) fn count(&mut self, sample: &Sample<'_>) {
        self.samples += 1;
        self.user_stacks.count(sample.user_outcome);
        self.kernel_stacks.count(sample.kernel_outcome);
    }

    /// How many.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How the captures of user stacks ended.
    #[must_use]
    pub fn user_stacks(&self) -> StackOutcomes {
        self.user_stacks.summary()
    }

    /// How the captures of kernel stacks ended.
    #[must_use]
    pub fn kernel_stacks(&self) -> StackOutcomes {
        self.kernel_stacks.summary()
    }
}

/// Number of stacks by each [`StackOutcome`].
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes([u64; StackOutcome::COUNT]);

impl Outcomes {
    fn count(&mut self, outcome: StackOutcome) {
        self.0[outcome as usize] += 1;
    }

    fn summary(&self) -> StackOutcomes {
        let mut summary = StackOutcomes::default();
        for (number, samples) in self.0.iter().enumerate().filter(|(_, samples)| **samples > 0) {
            let Some(outcome) = StackOutcome::from_u8(number as u8) else { continue };
            match (outcome, cause(outcome)) {
                (_, Some(cause)) => {
                    summary.incomplete.push(Loss { cause: cause.into(), samples: *samples });
                }
                (StackOutcome::NotWanted | StackOutcome::Absent, _) => summary.absent += samples,
                (StackOutcome::DepthLimit, _) => summary.truncated += samples,
                _ => summary.complete += samples,
            }
        }
        summary
    }
}

/// Why a stack is incomplete, in words; `None` where it is not, or was cut on purpose.
#[must_use]
pub fn cause(outcome: StackOutcome) -> Option<&'static str> {
    match outcome {
        StackOutcome::NotWanted
        | StackOutcome::Absent
        | StackOutcome::Walked
        | StackOutcome::Complete
        | StackOutcome::DepthLimit => None,
        StackOutcome::Unreadable => Some("kernel stack not readable"),
        StackOutcome::TableMissing => Some("no unwind table yet"),
        StackOutcome::NoMapping => Some("return address outside of all code"),
        StackOutcome::NoRule => Some("code without call-frame information"),
        StackOutcome::UnsupportedRule => Some("call-frame information of a form not known"),
        StackOutcome::BadFrame => Some("damaged frame"),
        StackOutcome::StackUnreadable => Some("stack not in memory"),
        StackOutcome::ThirtyTwoBit => Some("32-bit code"),
        StackOutcome::NoRegisters => Some("registers not readable"),
        StackOutcome::NotRunning => Some("not running"),
    }
}
