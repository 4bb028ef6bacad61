//! Run queues: how long threads were queued until they ran, and who ran meanwhile; by process and by group.

/// A range of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its shortest, nanoseconds.
    pub from_ns: u64,
    /// What is no more in it, nanoseconds.
    pub to_ns: u64,
    /// How many there were.
    pub count: u64,
}

/// How often and how long threads were queued, each time from being woken or preempted until they ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Ranges in ascending order, without empty ones.
    pub buckets: Vec<Bucket>,
    /// The longest, nanoseconds.
    pub max_ns: u64,
}

impl Latencies {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.count))
    }

    /// The latency below which this share of them lies, nanoseconds; within a bucket they are taken to be spread evenly. 0 where there
    /// are none.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let rank = share.clamp(0.0, 1.0) * self.count() as f64;
        let mut before = 0.0;
        for Bucket { from_ns, to_ns, count } in &self.buckets {
            let after = before + *count as f64;
            if *count > 0 && after >= rank {
                let within = (rank - before) / *count as f64;
                let width = to_ns.saturating_sub(*from_ns) as f64;
                return from_ns.saturating_add((within * width) as u64).min(self.max_ns);
            }
            before = after;
        }
        self.max_ns
    }
}

/// Who had a CPU while others queued for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runner {
    /// A process, or a group.
    One {
        /// Process id, or id of the group.
        id: u64,
        /// Name of the process, or path of the group; empty where that is not known.
        name: String,
    },
    /// Nobody: the CPU was on its way out of idling.
    Idle,
    /// Nobody knows.
    Unknown,
}

/// The queueing of a process's threads, or of a group's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Process id, or id of the group in the hierarchy that controls CPUs.
    pub id: u64,
    /// Name of the process, or path of the group; empty where that is not known.
    pub name: String,
    /// Time queued in the window, nanoseconds: `woken_ns` and `preempted_ns` of its threads.
    pub queued_ns: u64,
    /// How that is divided into waits.
    pub latencies: Latencies,
    /// Who ran meanwhile, and for how much of that time; the most first. They add up to `queued_ns`.
    pub behind: Vec<(Runner, u64)>,
}

/// All queueing of a window; those that queued most come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQueue {
    /// By process.
    pub processes: Vec<Queue>,
    /// By group, each without those below it.
    pub cgroups: Vec<Queue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let bucket = |from_ns, to_ns, count| Bucket { from_ns, to_ns, count };
        let latencies = Latencies {
            buckets: vec![bucket(0, 100, 90), bucket(400, 800, 9), bucket(800, 1_600, 1)],
            max_ns: 900,
        };
        assert_eq!(latencies.count(), 100);
        assert_eq!(latencies.quantile_ns(0.45), 50);
        assert_eq!(latencies.quantile_ns(0.99), 800);
        assert_eq!(latencies.quantile_ns(0.999), 900);
        assert_eq!(latencies.quantile_ns(1.0), 900);
        assert_eq!(Latencies::default().quantile_ns(0.5), 0);
    }
}
