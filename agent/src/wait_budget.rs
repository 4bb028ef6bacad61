//! How many stacks of waits are taken: few enough to cost little, all of them where a target was asked for.
//!
//! The kernel programs choose waits by their length and a period (see [`chokepoint_ebpf::sched::WaitFacts`]). Here the period is
//! fitted to a budget of stacks a second. Each sample says by which period it was chosen, so a change skews nothing.

use std::time::Duration;

/// Stacks a second on each CPU where the whole host is recorded: as many as the on-CPU source takes by default.
const HOST_STACKS_PER_CPU_S: u32 = 100;
/// The same where a target is: more than any but a pathological one waits. 8 µs each make 8 % of a CPU.
const TARGET_STACKS_PER_CPU_S: u32 = 10_000;
/// What the whole host begins with.
const FIRST_HOST_PERIOD: Duration = Duration::from_millis(10);
/// What a target's period begins with when all of its waits are too many.
const FIRST_TARGET_PERIOD: Duration = Duration::from_micros(10);
/// The longest. With it each thread gives at most one stack a second.
const MAX_PERIOD: Duration = Duration::from_secs(1);
/// A period changes by no more than this factor at a time.
const MAX_FACTOR: f64 = 4.0;
/// Below this share of the budget, the period is shortened.
const LOW_WATER: f64 = 0.5;

/// Fits the period to a budget.
#[derive(Clone, Copy, Debug)]
pub struct WaitBudget {
    /// By default, and now.
    usual_stacks_per_s: f64,
    stacks_per_s: f64,
    shortest: Duration,
    first: Duration,
    period: Duration,
}

impl WaitBudget {
    /// For the whole host, or for a target, of which all waits are taken unless they are far too many.
    #[must_use]
    pub fn new(cpus: usize, whole_host: bool) -> Self {
        let per_cpu = if whole_host { HOST_STACKS_PER_CPU_S } else { TARGET_STACKS_PER_CPU_S };
        let (shortest, first) = if whole_host {
            (Duration::from_micros(1), FIRST_HOST_PERIOD)
        } else {
            (Duration::ZERO, FIRST_TARGET_PERIOD)
        };
        let period = if whole_host { first } else { Duration::ZERO };
        let stacks_per_s = f64::from(per_cpu) * cpus as f64;
        Self { usual_stacks_per_s: stacks_per_s, stacks_per_s, shortest, first, period }
    }

    /// What waits are to be chosen by now.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        self.period.as_nanos() as u64
    }

    /// Has this share of the usual budget from now on. The period follows.
    pub fn set_share(&mut self, share: f64) {
        self.stacks_per_s = self.usual_stacks_per_s * share;
    }

    /// Takes note of the stacks that came in some time. Whether the period is another one now.
    pub fn adapt(&mut self, stacks: u64, elapsed: Duration) -> bool {
        if elapsed.is_zero() {
            return false;
        }
        let load = stacks as f64 / elapsed.as_secs_f64() / self.stacks_per_s;
        let before = self.period;
        if load > 1.0 {
            let longer = self.period.mul_f64(load.min(MAX_FACTOR)).min(MAX_PERIOD);
            self.period = if before.is_zero() { self.first } else { longer };
        } else if load < LOW_WATER && self.period > self.shortest {
            let shorter = self.period.div_f64((1.0 / load.max(0.01) * LOW_WATER).clamp(1.0, MAX_FACTOR));
            // A target's period goes back to none.
            self.period = if shorter < self.first && self.shortest.is_zero() {
                self.shortest
            } else {
                shorter.max(self.shortest)
            };
        }
        self.period != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn the_hosts_period_grows_until_the_stacks_fit_and_shrinks_when_they_are_few() {
        let mut budget = WaitBudget::new(2, true);
        // Two hundred threads that sleep a millisecond, over and over: of waits shorter than the period, time / period is taken.
        let stacks = |budget: &WaitBudget| (200.0 * 0.1 / (budget.period_ns() as f64 / 1e9).max(1e-3)) as u64;
        for _ in 0..20 {
            let taken = stacks(&budget);
            budget.adapt(taken, TICK);
        }
        let taken = stacks(&budget);
        assert!((10..=20).contains(&taken), "{taken} in 100 ms, the budget is 20");
        for _ in 0..20 {
            budget.adapt(0, TICK);
        }
        assert_eq!(budget.period_ns(), 1_000);
    }

    #[test]
    fn a_share_of_the_budget_is_kept_to_and_can_be_given_back() {
        let mut budget = WaitBudget::new(1, true);
        budget.set_share(0.1);
        // Fifty stacks a second are within the usual budget, and five times this one.
        assert!(budget.adapt(5, TICK));
        assert!(budget.period_ns() > FIRST_HOST_PERIOD.as_nanos() as u64);
        budget.set_share(1.0);
        while budget.adapt(0, TICK) {}
        assert_eq!(budget.period_ns(), 1_000);
    }

    #[test]
    fn of_a_target_all_waits_are_taken_until_they_are_too_many() {
        let mut budget = WaitBudget::new(1, false);
        assert_eq!(budget.period_ns(), 0);
        assert!(!budget.adapt(900, TICK));
        assert!(budget.adapt(20_000, TICK));
        assert_eq!(budget.period_ns(), 10_000);
        while budget.adapt(0, TICK) {}
        assert_eq!(budget.period_ns(), 0);
    }
}
