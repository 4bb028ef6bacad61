//! How many durations there were of which length, in little room, and the percentiles of them.

/// Steps to a factor of two of durations that are added one by one.
const STEPS: u64 = 32;

/// Durations of about the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The shortest that belongs here, nanoseconds.
    pub from_ns: u64,
    /// The shortest that does not any more.
    pub to_ns: u64,
    /// How many there are.
    pub count: u64,
}

/// Durations, counted by their length.
///
/// A percentile is the end of the bucket in which the duration of that rank lies, or the longest duration where that is less. So it
/// is never below the true one, and above it by less than its bucket is wide. That is up to a half of the true one for run-queue
/// latencies, a quarter for block requests and bios (the kernel programs' buckets), and 3 % for what [`Durations::add`] counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// In ascending order. Buckets without any are left out.
    pub buckets: Vec<Bucket>,
    /// The longest, nanoseconds; 0 without any.
    pub max_ns: u64,
}

impl Durations {
    /// Adds one, nanoseconds.
    pub fn add(&mut self, ns: u64) {
        let step = step(ns);
        self.add_bucket(Bucket { from_ns: first_of(step), to_ns: first_of(step + 1), count: 1 });
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all of others that were counted in the same buckets.
    pub fn merge(&mut self, others: &Self) {
        others.buckets.iter().for_each(|bucket| self.add_bucket(*bucket));
        self.max_ns = self.max_ns.max(others.max_ns);
    }

    fn add_bucket(&mut self, bucket: Bucket) {
        match self.buckets.binary_search_by_key(&bucket.from_ns, |known| known.from_ns) {
            Ok(at) => self.buckets[at].count = self.buckets[at].count.saturating_add(bucket.count),
            Err(at) => self.buckets.insert(at, bucket),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.count))
    }

    /// What this share (0 to 1) of them does not exceed, nanoseconds; how exactly, [`Durations`] says. `None` without any.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let rank = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        let found = self.buckets.iter().find(|bucket| {
            seen = seen.saturating_add(bucket.count);
            seen >= rank
        });
        found.map(|bucket| bucket.to_ns.saturating_sub(1).min(self.max_ns))
    }
}

/// Up to twice [`STEPS`] each number is a step of its own; above, each factor of two has [`STEPS`].
fn step(ns: u64) -> u64 {
    let doublings = ns.checked_ilog2().unwrap_or_default().saturating_sub(STEPS.ilog2());
    u64::from(doublings) * STEPS + (ns >> doublings)
}

/// The shortest duration of a step.
fn first_of(step: u64) -> u64 {
    let doublings = (step / STEPS).saturating_sub(1) as u32;
    let first = u128::from(step - u64::from(doublings) * STEPS) << doublings;
    u64::try_from(first).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durations(buckets: &[(u64, u64, u64)], max_ns: u64) -> Durations {
        let bucket = |&(from_ns, to_ns, count): &(u64, u64, u64)| Bucket { from_ns, to_ns, count };
        Durations { buckets: buckets.iter().map(bucket).collect(), max_ns }
    }

    #[test]
    fn steps_follow_each_other_and_are_narrow() {
        for ns in [0, 1, 31, 32, 63, 64, 65, 127, 128, 1_000, 123_456_789, u64::MAX / 2, u64::MAX] {
            let (from, to) = (first_of(step(ns)), first_of(step(ns) + 1));
            assert!(from <= ns && (ns < to || to == u64::MAX), "{ns}: {from} to {to}");
            assert!(
                to as f64 <= (from as f64 * (1.0 + 1.0 / STEPS as f64)).max(from as f64 + 1.0),
                "{ns}: {to}"
            );
            if to < u64::MAX {
                assert_eq!(step(to), step(ns) + 1, "{ns}");
            }
        }
    }

    #[test]
    fn percentiles_are_never_below_the_true_ones_and_little_above() {
        let mut all = Durations::default();
        for ns in (1..=1_000).rev() {
            all.add(ns * 1_000);
        }
        assert_eq!((all.count(), all.max_ns), (1_000, 1_000_000));
        for (share, exact) in [(0.0, 1_000), (0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let told = all.quantile_ns(share).unwrap();
            assert!(told >= exact && told as f64 <= exact as f64 * 1.032, "{share}: {told}");
        }
    }

    #[test]
    fn percentiles_are_the_ends_of_their_buckets_and_no_longer_than_the_longest() {
        let wide = durations(&[(1024, 2048, 50), (2048, 4096, 49), (8192, 16384, 1)], 8193);
        let at = |share| wide.quantile_ns(share);
        assert_eq!((at(0.5), at(0.51), at(0.99)), (Some(2047), Some(4095), Some(4095)));
        assert_eq!((at(0.999), at(1.0)), (Some(8193), Some(8193)));
        assert_eq!(Durations::default().quantile_ns(0.5), None);
    }

    #[test]
    fn durations_add_up_bucket_by_bucket() {
        let mut sum = durations(&[(1024, 2048, 1), (4096, 8192, 1)], 5000);
        sum.merge(&durations(&[(2048, 4096, 5), (4096, 8192, 2)], 4096));
        assert_eq!(sum, durations(&[(1024, 2048, 1), (2048, 4096, 5), (4096, 8192, 3)], 5000));
    }
}
