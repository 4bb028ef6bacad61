//! Runs that the kernel left out: a program does not run within itself, as where an interrupt comes while it runs.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use super::Programs;
use super::tcp;

/// How often that was since the programs were loaded. Linux before 5.12 does not count it, and runs programs at BTF tracepoints within
/// themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissedRuns {
    /// Of the programs that tell of retransmits and resets.
    pub of_losses: u64,
    /// Of all others.
    pub of_others: u64,
}

impl MissedRuns {
    /// What came since an earlier moment.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            of_losses: self.of_losses.saturating_sub(earlier.of_losses),
            of_others: self.of_others.saturating_sub(earlier.of_others),
        }
    }
}

impl Programs {
    /// Runs that were left out so far; when the programs have been stopped, until then.
    #[must_use]
    pub fn missed_runs(&self) -> MissedRuns {
        self.missed_at_stop.unwrap_or_else(|| self.read_missed_runs())
    }

    pub(super) fn read_missed_runs(&self) -> MissedRuns {
        let mut missed = MissedRuns::default();
        for (name, program) in self.ebpf.programs() {
            // Those that this kernel or these options do without are not loaded.
            let Ok(fd) = program.fd() else { continue };
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let of_program = fs::read_to_string(path).ok().as_deref().and_then(recursion_misses).unwrap_or(0);
            if tcp::tells_losses(name) {
                missed.of_losses += of_program;
            } else {
                missed.of_others += of_program;
            }
        }
        missed
    }
}

/// The kernel's count in what it says of a program's descriptor.
fn recursion_misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_found() {
        let fdinfo = "pos:\t0\nflags:\t02000002\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t2\nverified_insns:\t90\n";
        assert_eq!(recursion_misses(fdinfo), Some(2));
        assert_eq!(recursion_misses("pos:\t0\nrun_cnt:\t7\n"), None);
    }

    #[test]
    fn what_came_since_is_of_each_kind() {
        let now = MissedRuns { of_losses: 5, of_others: 9 };
        let before = MissedRuns { of_losses: 3, of_others: 9 };
        assert_eq!(now.since(before), MissedRuns { of_losses: 2, of_others: 0 });
    }
}
