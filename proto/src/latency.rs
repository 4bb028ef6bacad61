//! The buckets in which latencies are counted: what the classes of the kinds `latency.run-queue` and `latency.disk` are.
//!
//! A bucket's class is its upper bound in nanoseconds, exclusive, as a decimal number; that of the last one is [`MORE`]. It begins where the
//! one before it ends. Both ends of a stream need to know that only to draw buckets in which nothing was counted: what a class says is said by
//! its name.

/// Class of the bucket that has all that is longer.
pub const MORE: &str = "more";

/// What latencies are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// From when a thread could run until it did. Two buckets to a power of two, from 250 ns on.
    RunQueue,
    /// From when a request was given to its block device until it was done. Two buckets to a power of two, from 1,024 ns on.
    Disk,
}

impl Latency {
    /// All.
    pub const ALL: [Self; 2] = [Self::RunQueue, Self::Disk];

    /// The name that users know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunQueue => "run-queue",
            Self::Disk => "disk",
        }
    }

    /// The kind of the rows that have it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::RunQueue => "latency.run-queue",
            Self::Disk => "latency.disk",
        }
    }

    /// The upper bounds of its buckets but for the last, which has none, nanoseconds.
    pub fn bounds_ns(self) -> impl Iterator<Item = u64> {
        let (below, unit_ns, octaves) = match self {
            Self::RunQueue => (Some(250), 500, 23),
            Self::Disk => (None, 1_024, 32),
        };
        let of_octave = move |octave: u32| [unit_ns << octave, (unit_ns + unit_ns / 2) << octave];
        below.into_iter().chain((0..octaves).flat_map(of_octave))
    }

    /// The class of a duration's bucket.
    #[must_use]
    pub fn class(self, ns: u64) -> String {
        self.bounds_ns().find(|bound| ns < *bound).map_or_else(|| MORE.to_owned(), |bound| bound.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_below_its_bucket_s_bound() {
        for latency in Latency::ALL {
            let bounds: Vec<u64> = latency.bounds_ns().collect();
            assert!(bounds.is_sorted_by(|one, next| one < next));
            let mut before = 0;
            for bound in bounds {
                for ns in [before, bound - 1] {
                    assert_eq!(latency.class(ns), bound.to_string());
                }
                before = bound;
            }
            assert_eq!((latency.class(before), latency.class(u64::MAX)), (MORE.to_owned(), MORE.to_owned()));
        }
    }
}
