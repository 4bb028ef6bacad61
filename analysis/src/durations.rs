//! Many durations in little room, for percentiles.

use std::collections::BTreeMap;

/// Steps to a factor of two: a percentile is at most 3 % above the true one.
const STEPS: u64 = 32;

/// Durations, counted by their length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: BTreeMap<u16, u64>,
    count: u64,
    max_ns: u64,
}

impl Durations {
    /// Adds one, nanoseconds.
    pub fn add(&mut self, ns: u64) {
        *self.counts.entry(step(ns)).or_default() += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all of others.
    pub fn merge(&mut self, others: &Self) {
        for (step, count) in &others.counts {
            *self.counts.entry(*step).or_default() += count;
        }
        self.count += others.count;
        self.max_ns = self.max_ns.max(others.max_ns);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, nanoseconds; 0 without any.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// What this share of them, per cent, does not exceed: nanoseconds, at most 3 % too long. 0 without any.
    #[must_use]
    pub fn percentile_ns(&self, pct: f64) -> u64 {
        let wanted = ((self.count as f64 * pct / 100.0).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for (step, count) in &self.counts {
            below += count;
            if below >= wanted {
                return last_of(*step).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

/// Up to twice [`STEPS`] each number is a step of its own; above, each factor of two has [`STEPS`].
fn step(ns: u64) -> u16 {
    let doublings = ns.checked_ilog2().unwrap_or_default().saturating_sub(STEPS.ilog2());
    (u64::from(doublings) * STEPS + (ns >> doublings)) as u16
}

/// The longest duration of a step.
fn last_of(step: u16) -> u64 {
    let step = u64::from(step);
    let doublings = (step / STEPS).saturating_sub(1);
    let first = (step - doublings * STEPS) << doublings;
    first + ((1 << doublings) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_and_are_narrow() {
        for ns in [0, 1, 31, 32, 63, 64, 65, 127, 128, 1_000, 123_456_789, u64::MAX / 2, u64::MAX] {
            let last = last_of(step(ns));
            assert!(last >= ns, "{ns}");
            assert!(last as f64 <= ns as f64 * (1.0 + 1.0 / STEPS as f64), "{ns}: {last}");
            if last < u64::MAX {
                assert_eq!(step(last) + 1, step(last + 1), "{ns}");
            }
        }
    }

    #[test]
    fn percentiles() {
        let mut durations = Durations::default();
        assert_eq!((durations.percentile_ns(50.0), durations.max_ns()), (0, 0));
        for ns in 1..=1_000 {
            durations.add(ns * 1_000);
        }
        for (pct, exact) in [(0.0, 1_000), (50.0, 500_000), (99.0, 990_000), (100.0, 1_000_000)] {
            let told = durations.percentile_ns(pct);
            assert!(told >= exact && told as f64 <= exact as f64 * 1.032, "{pct}: {told}");
        }
        let mut merged = Durations::default();
        merged.merge(&durations);
        assert_eq!(merged, durations);
    }
}
