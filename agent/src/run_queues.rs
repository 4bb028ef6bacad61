//! Adds up how long threads were queued and who ran meanwhile, by process and by group.
//!
//! How long is exact. Who ran is told of a part of it, chosen without bias: what is known is scaled to the exact time.

use std::collections::{HashMap, HashSet};

use chokepoint_analysis::durations::{Bucket, Durations};
use chokepoint_analysis::run_queue::{Queue, RunQueue, Runner};
use chokepoint_ebpf::run_queue::{
    Behind, LATENCY_BUCKETS, QueuePair, UNKNOWN_RUNNER, latency_bucket_begin_ns,
};
use chokepoint_ebpf::sched::ThreadClock;

use crate::drain::decode::comm;
use crate::host::cgroups::Hierarchy;
use crate::process;

/// Processes and groups that are kept one by one; what further ones queued is added up. 500 bytes each.
const MAX_QUEUES: usize = 20_000;
/// Names what stands for all that were too many.
const OTHERS: &str = "[others]";

/// The queueing of every process and group.
#[derive(Debug, Default)]
pub struct RunQueues {
    processes: HashMap<u32, Process>,
    groups: HashMap<u64, Tally>,
}

#[derive(Debug, Default)]
struct Process {
    name: String,
    group: u64,
    tally: Tally,
}

/// How long threads were queued.
#[derive(Clone, Debug)]
pub struct Tally {
    /// All of it.
    pub queued_ns: u64,
    /// How often how long, by the kernel programs' buckets.
    pub counts: [u64; LATENCY_BUCKETS],
    longest_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { queued_ns: 0, counts: [0; LATENCY_BUCKETS], longest_ns: 0 }
    }
}

impl RunQueues {
    /// Adds a thread's queueing, all told until the window's end.
    pub fn add(&mut self, clock: &ThreadClock, tgid: u32, name: &str, group: u64, queued_ns: u64) {
        let is_room = self.processes.len() < MAX_QUEUES || self.processes.contains_key(&tgid);
        let (tgid, name) = if is_room { (tgid, name) } else { (0, OTHERS) };
        let process = self.processes.entry(tgid).or_default();
        name.clone_into(&mut process.name);
        process.group = group;
        process.tally.add(clock, queued_ns);
        let is_room = self.groups.len() < MAX_QUEUES || self.groups.contains_key(&group);
        self.groups.entry(if is_room { group } else { 0 }).or_default().add(clock, queued_ns);
    }

    /// Each process's queueing without who ran meanwhile, in no order: its id, 0 for all that were too many, its name, and what it was.
    pub fn processes(&self) -> impl Iterator<Item = (u32, &str, &Tally)> {
        self.processes.iter().map(|(pid, process)| (*pid, process.name.as_str(), &process.tally))
    }

    /// What all of it comes to.
    #[must_use]
    pub fn finish(&self, pairs: &[(QueuePair, Behind)], hierarchy: Option<&Hierarchy>) -> RunQueue {
        // A CPU has told some of each.
        let mut sums: HashMap<(u32, u32), Behind> = HashMap::new();
        for (pair, what) in pairs {
            let add = |sum: &mut Behind| sum.ns = sum.ns.saturating_add(what.ns);
            sums.entry((pair.queued, pair.runner)).and_modify(add).or_insert(*what);
        }
        let mut behind: HashMap<u32, Vec<(u32, &Behind)>> = HashMap::new();
        for ((queued, runner), what) in &sums {
            behind.entry(*queued).or_default().push((*runner, what));
        }
        let mut names: HashMap<u32, String> = HashMap::new();
        let mut by_group: HashMap<u64, Vec<(Option<u64>, u64)>> = HashMap::new();
        let mut processes = Vec::new();
        for (tgid, process) in &self.processes {
            let known = behind.get(tgid).map_or(&[][..], Vec::as_slice);
            let told = shares(known.iter().map(|(runner, what)| (*runner, what.ns)), process.tally.queued_ns);
            let group = by_group.entry(process.group).or_default();
            for ((runner, what), (_, ns)) in known.iter().zip(&told) {
                group.push(match *runner {
                    UNKNOWN_RUNNER => (None, *ns),
                    0 => (Some(IDLE), *ns),
                    _ => (Some(what.runner_cgroup), *ns),
                });
            }
            let runners = known.iter().zip(told).map(|((runner, what), (_, ns))| match *runner {
                UNKNOWN_RUNNER => (Runner::Unknown, ns),
                0 => (Runner::Idle, ns),
                tgid => {
                    let name = names.entry(tgid).or_insert_with(|| self.name(tgid, what));
                    (Runner::One { id: tgid.into(), name: name.clone() }, ns)
                }
            });
            let runners = runners.collect();
            processes.push(process.tally.queue(u64::from(*tgid), process.name.clone(), runners));
        }
        let mut cgroups = self.cgroups(by_group, hierarchy);
        for queues in [&mut processes, &mut cgroups] {
            queues.retain(|queue| queue.queued_ns > 0);
            queues.sort_by_key(|queue| (std::cmp::Reverse(queue.queued_ns), queue.id));
        }
        RunQueue { processes, cgroups }
    }

    fn cgroups(
        &self,
        mut by_group: HashMap<u64, Vec<(Option<u64>, u64)>>,
        hierarchy: Option<&Hierarchy>,
    ) -> Vec<Queue> {
        let runners = by_group.values().flatten().filter_map(|(runner, _)| *runner);
        let wanted: HashSet<u64> =
            self.groups.keys().copied().chain(runners).filter(|id| *id != 0 && *id != IDLE).collect();
        let paths = hierarchy.map(|hierarchy| hierarchy.paths(&wanted)).unwrap_or_default();
        let path = |id: u64| paths.get(&id).cloned().unwrap_or_default();
        let mut cgroups = Vec::new();
        for (id, tally) in &self.groups {
            let mut sums: HashMap<Option<u64>, u64> = HashMap::new();
            for (runner, ns) in by_group.remove(id).unwrap_or_default() {
                *sums.entry(runner).or_default() += ns;
            }
            let told = shares(sums.into_iter(), tally.queued_ns).into_iter();
            let runners = told.map(|(runner, ns)| match runner {
                None => (Runner::Unknown, ns),
                Some(IDLE) => (Runner::Idle, ns),
                Some(id) => (Runner::One { id, name: path(id) }, ns),
            });
            cgroups.push(tally.queue(*id, path(*id), runners.collect()));
        }
        cgroups
    }

    /// Name of a process that ran: as its threads told it, or as it is called now, or as the thread was called that ran.
    fn name(&self, tgid: u32, behind: &Behind) -> String {
        let known = self.processes.get(&tgid).map(|process| process.name.clone());
        known.or_else(|| process::name(tgid)).unwrap_or_else(|| comm(&behind.runner_comm))
    }
}

/// Stands for an idle CPU where groups are told by their ids: no directory has this number.
const IDLE: u64 = u64::MAX;

/// Scales what is known to what there was.
fn shares<K>(known: impl Iterator<Item = (K, u64)>, exact_ns: u64) -> Vec<(K, u64)> {
    let known: Vec<(K, u64)> = known.collect();
    let total: u128 = known.iter().map(|(_, ns)| u128::from(*ns)).sum();
    let scaled =
        |ns: u64| u64::try_from(u128::from(ns) * u128::from(exact_ns) / total.max(1)).unwrap_or(u64::MAX);
    known.into_iter().map(|(runner, ns)| (runner, scaled(ns))).collect()
}

impl Tally {
    fn add(&mut self, clock: &ThreadClock, queued_ns: u64) {
        self.queued_ns += queued_ns;
        for (sum, count) in self.counts.iter_mut().zip(clock.latencies) {
            *sum += u64::from(count);
        }
        self.longest_ns = self.longest_ns.max(clock.longest_queue_ns);
    }

    fn queue(&self, id: u64, name: String, mut behind: Vec<(Runner, u64)>) -> Queue {
        let told: u64 = behind.iter().map(|(_, ns)| ns).sum();
        let untold = self.queued_ns - told.min(self.queued_ns);
        match behind.iter_mut().find(|(runner, _)| *runner == Runner::Unknown) {
            Some((_, ns)) => *ns += untold,
            None => behind.push((Runner::Unknown, untold)),
        }
        behind.retain(|(_, ns)| *ns > 0);
        behind.sort_by(|(one, one_ns), (other, other_ns)| other_ns.cmp(one_ns).then_with(|| one.cmp(other)));
        Queue { id, name, queued_ns: self.queued_ns, latencies: self.latencies(), behind }
    }

    /// How often how long.
    #[must_use]
    pub fn latencies(&self) -> Durations {
        let bucket = |(index, count): (usize, &u64)| {
            let from_ns = latency_bucket_begin_ns(index);
            let is_last = index + 1 == LATENCY_BUCKETS;
            let to_ns =
                if is_last { self.longest_ns.max(from_ns) + 1 } else { latency_bucket_begin_ns(index + 1) };
            Bucket { from_ns, to_ns, count: *count }
        };
        let buckets = self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bucket).collect();
        Durations { buckets, max_ns: self.longest_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_ebpf::COMM_LEN;

    fn behind(queued: u32, runner: u32, ns: u64) -> (QueuePair, Behind) {
        let mut runner_comm = [0; COMM_LEN];
        runner_comm[..3].copy_from_slice(b"hog");
        (QueuePair { queued, runner, cpu: 1, reserved: 0 }, Behind { ns, runner_cgroup: 7, runner_comm })
    }

    #[test]
    fn what_is_known_is_scaled_to_what_there_was_and_the_rest_is_unknown() {
        const GONE: u32 = u32::MAX - 1;
        let mut clock = ThreadClock::ZERO;
        clock.latencies[8] = 2;
        clock.longest_queue_ns = 5_000;
        let mut queues = RunQueues::default();
        queues.add(&clock, 10, "victim", 5, 600);
        queues.add(&clock, 10, "victim", 5, 400);
        queues.add(&clock, 11, "other", 5, 1_000);
        let pairs = [behind(10, GONE, 30), behind(10, 0, 10), behind(10, UNKNOWN_RUNNER, 10)];
        let RunQueue { processes, cgroups } = queues.finish(&pairs, None);

        let hog = Runner::One { id: GONE.into(), name: "hog".to_owned() };
        assert_eq!(processes[0].id, 10);
        assert_eq!(processes[0].behind, [(hog, 600), (Runner::Idle, 200), (Runner::Unknown, 200)]);
        assert_eq!(processes[0].latencies.count(), 4);
        assert_eq!(processes[0].latencies.max_ns, 5_000);
        assert_eq!(processes[1].behind, [(Runner::Unknown, 1_000)]);
        assert_eq!(cgroups.len(), 1);
        assert_eq!((cgroups[0].id, cgroups[0].queued_ns), (5, 2_000));
        assert_eq!(cgroups[0].behind.iter().map(|(_, ns)| ns).sum::<u64>(), 2_000);
    }
}
