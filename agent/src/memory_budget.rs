//! How many stacks of page faults and reclaims are taken: as few as cost little, all of them where a target was asked for and
//! they are not too many. Everything is counted, whatever its stack.

use std::time::{Duration, Instant};

use crate::drain::DRAIN_INTERVAL;
use crate::wait_budget::WaitBudget;

/// Stacks a second on each CPU where the whole host is recorded: as many as of waits.
const HOST_STACKS_PER_CPU_S: f64 = 100.0;
/// The same where a target is.
const TARGET_STACKS_PER_CPU_S: f64 = 10_000.0;
/// What the whole host begins with: a CPU has up to a million faults a second.
const FIRST_HOST_PERIOD: u64 = 100;
/// The longest: a second of such a CPU.
const MAX_PERIOD: u64 = 1 << 20;
/// A period is shortened by no more than this factor at a time.
const MAX_FACTOR: u64 = 4;

/// The budgets of the memory source.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBudget {
    faults: FaultBudget,
    reclaims: WaitBudget,
    taken: [u64; 2],
    adapted: Instant,
}

impl MemoryBudget {
    /// For the whole host, or for a target; from now on.
    #[must_use]
    pub fn new(cpus: usize, whole_host: bool, now: Instant) -> Self {
        Self {
            faults: FaultBudget::new(cpus, whole_host),
            reclaims: WaitBudget::new(cpus, whole_host),
            taken: [0, 0],
            adapted: now,
        }
    }

    /// Minor faults to a stack.
    #[must_use]
    pub fn fault_period(&self) -> u64 {
        self.faults.period()
    }

    /// What reclaims are to be chosen by.
    #[must_use]
    pub fn reclaim_period_ns(&self) -> u64 {
        self.reclaims.period_ns()
    }

    /// Takes note of all stacks of faults and of reclaims of the window so far. Whether a period is another one now.
    pub fn adapt(&mut self, taken: [u64; 2], now: Instant) -> bool {
        let elapsed = now.duration_since(self.adapted);
        if elapsed < DRAIN_INTERVAL {
            return false;
        }
        // Where there were more before, another window has begun.
        let [faults, reclaims] = [0, 1].map(|of| taken[of].checked_sub(self.taken[of]).unwrap_or(taken[of]));
        (self.taken, self.adapted) = (taken, now);
        self.faults.adapt(faults, elapsed) | self.reclaims.adapt(reclaims, elapsed)
    }
}

/// Fits the number of minor faults to a stack to a budget.
#[derive(Clone, Copy, Debug)]
pub struct FaultBudget {
    stacks_per_s: f64,
    period: u64,
}

impl FaultBudget {
    /// For the whole host, or for a target.
    #[must_use]
    pub fn new(cpus: usize, whole_host: bool) -> Self {
        let (per_cpu, period) = if whole_host {
            (HOST_STACKS_PER_CPU_S, FIRST_HOST_PERIOD)
        } else {
            (TARGET_STACKS_PER_CPU_S, 1)
        };
        Self { stacks_per_s: per_cpu * cpus as f64, period }
    }

    /// Faults to a stack, from now on.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.period
    }

    /// Takes note of the stacks that were to be taken in some time. Whether the period is another one now.
    pub fn adapt(&mut self, stacks: u64, elapsed: Duration) -> bool {
        if elapsed.is_zero() {
            return false;
        }
        let before = self.period;
        let faults_per_s = stacks as f64 * before as f64 / elapsed.as_secs_f64();
        let fitting = (faults_per_s / self.stacks_per_s).ceil() as u64;
        self.period = fitting.clamp((before / MAX_FACTOR).max(1), MAX_PERIOD);
        self.period != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_begins_anew_counts_from_nothing() {
        let start = Instant::now();
        let at = |windows: u32| start + windows * Duration::from_secs(1);
        let mut budget = MemoryBudget::new(1, true, start);
        budget.adapt([1, 0], at(1));
        let period = budget.fault_period();
        budget.adapt([0, 0], at(2));
        assert!(budget.fault_period() <= period, "{} after {period}", budget.fault_period());
    }

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn of_a_target_all_are_taken_until_they_are_too_many() {
        let mut budget = FaultBudget::new(2, false);
        assert_eq!(budget.period(), 1);
        assert!(!budget.adapt(1_900, TICK));
        // A million a second.
        assert!(budget.adapt(100_000, TICK));
        assert_eq!(budget.period(), 50);
        assert!(!budget.adapt(2_000, TICK), "it fits");
        while budget.adapt(0, TICK) {}
        assert_eq!(budget.period(), 1);
    }

    #[test]
    fn the_hosts_period_fits_at_once_and_shrinks_slowly() {
        let mut budget = FaultBudget::new(2, true);
        assert!(budget.adapt(1_000, TICK));
        assert_eq!(budget.period(), 5_000);
        budget.adapt(0, TICK);
        assert_eq!(budget.period(), 1_250);
        budget.adapt(u64::MAX, TICK);
        assert_eq!(budget.period(), MAX_PERIOD);
    }
}
