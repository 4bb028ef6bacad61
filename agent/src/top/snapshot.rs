//! One window as it is shown: every thread's time by class, the host's use, and what was not seen.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use chokepoint_analysis::activity::{Class, Group};
use chokepoint_analysis::block::Block;

use super::groups::GroupNames;
use super::host_use::HostUse;
use super::latencies::Queued;
use crate::connections::Peer;
use crate::process::place::ProcessKey;

/// Time by class, and what else adds up over threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    by_class_ns: [u64; Class::ALL.len()],
    /// How often the threads left a CPU.
    pub switches: u64,
    /// How many threads it is of.
    pub threads: u64,
}

impl Activity {
    /// A thread that did nothing yet but leave a CPU this often.
    #[must_use]
    pub fn of_thread(switches: u64) -> Self {
        Self { switches, threads: 1, ..Self::default() }
    }

    /// Time of a class, nanoseconds.
    #[must_use]
    pub fn class_ns(&self, class: Class) -> u64 {
        self.by_class_ns[class as usize]
    }

    /// Time of the classes of a group, nanoseconds.
    #[must_use]
    pub fn group_ns(&self, group: Group) -> u64 {
        Class::ALL.into_iter().filter(|class| class.group() == group).map(|class| self.class_ns(class)).sum()
    }

    /// Adds time of a class, nanoseconds.
    pub fn add(&mut self, class: Class, time_ns: u64) {
        self.by_class_ns[class as usize] += time_ns;
    }
}

impl AddAssign for Activity {
    fn add_assign(&mut self, other: Self) {
        for (sum, time_ns) in self.by_class_ns.iter_mut().zip(other.by_class_ns) {
            *sum += time_ns;
        }
        self.switches += other.switches;
        self.threads += other.threads;
    }
}

/// A thread in the window.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its process.
    pub process: ProcessKey,
    /// Thread id.
    pub tid: u32,
    /// Name of the process.
    pub process_name: String,
    /// Name of the thread.
    pub name: String,
    /// Path of its cgroup.
    pub cgroup: Arc<str>,
    /// The process's parent; 0 where it is not known.
    pub parent: u32,
    /// What it did.
    pub activity: Activity,
}

/// What the profiler itself took in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnCost {
    /// Time of the kernel programs; `None` where the kernel would not measure.
    pub programs: Option<Duration>,
    /// CPU time of the agent.
    pub agent: Duration,
    /// The agent's resident memory, bytes.
    pub resident_bytes: u64,
}

/// One window.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it ended, seconds since 1970.
    pub end_unix_s: u64,
    /// How long it was.
    pub length: Duration,
    /// Every thread that lived in it.
    pub threads: Vec<Thread>,
    /// Threads that ended in it.
    pub ended: u64,
    /// TCP peers that something was lost with, the worst first.
    pub peers: Vec<Peer>,
    /// How long threads queued, by process.
    pub queues: Vec<Queued>,
    /// What block devices did; `None` where this kernel refuses to have them watched.
    pub block: Option<Block>,
    /// Why it refuses that.
    pub block_refused: Option<String>,
    /// The names of the cgroups of containers.
    pub groups: GroupNames,
    /// The host, as the kernel tells of it.
    pub host: HostUse,
    /// What was not seen, a phrase each.
    pub losses: Vec<String>,
    /// What it cost.
    pub own: OwnCost,
}

impl Snapshot {
    /// Share of the window, per cent: of a thread at most 100, of several their sum.
    #[must_use]
    pub fn pct(&self, time_ns: u64) -> f64 {
        100.0 * time_ns as f64 / (self.length.as_nanos() as f64).max(1.0)
    }

    /// Mean number of threads that could have run and did not, those held back by a quota left out.
    #[must_use]
    pub fn queued(&self) -> f64 {
        let queued_ns: u64 =
            self.threads.iter().map(|thread| thread.activity.class_ns(Class::RunQueue)).sum();
        self.pct(queued_ns) / 100.0
    }

    /// Switches a second.
    #[must_use]
    pub fn switches_per_s(&self) -> f64 {
        let switches: u64 = self.threads.iter().map(|thread| thread.activity.switches).sum();
        switches as f64 / self.length.as_secs_f64().max(1e-9)
    }
}
