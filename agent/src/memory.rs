//! Page faults, direct reclaim, and processes that were killed for want of memory.
//!
//! What each process did is counted by the kernel programs and exact. Samples are summed by thread and stack, and in the end
//! scaled, for each process, to those numbers; where a process has no sample of something, its number stands without a stack.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use chokepoint_analysis::durations::Durations;
use chokepoint_analysis::memory::{Group, Kill, Memory, ProcessMemory, Reclaim};
use chokepoint_ebpf::memory::{KillRecord, ProcessKey, ProcessTotals, ReclaimFacts, UNKNOWN_PAGES};

use crate::aggregate::{Aggregate, Sum};
use crate::drain::decode::{Sample, comm};
use crate::host::memory_groups::MemoryGroups;
use crate::load::Gate;
use crate::target::{Target, admits};

/// Sums by thread and stack; about 40 bytes each.
const MAX_SUMS: usize = 250_000;
/// Processes of whose reclaims the lengths are kept: 24 bytes for each that is not within 3 % of another. Others have no percentiles.
const MAX_LENGTHS: usize = 4_096;
/// Kills that are told.
const MAX_KILLS: usize = 1_024;

/// What a sample is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// A minor fault; the weight is a number.
    MinorFault,
    /// A major fault; the weight is a number.
    MajorFault,
    /// Direct reclaim; the weight is its time, nanoseconds.
    Reclaim,
}

impl What {
    const ALL: [Self; 3] = [Self::MinorFault, Self::MajorFault, Self::Reclaim];

    /// Name of the frame that stands above its stack.
    #[must_use]
    pub const fn frame(self) -> &'static str {
        match self {
            Self::MinorFault => "[minor fault]",
            Self::MajorFault => "[major fault]",
            Self::Reclaim => "[mem.reclaim]",
        }
    }

    /// Whether it is a page fault.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(self, Self::MinorFault | Self::MajorFault)
    }

    fn exact(self, totals: &ProcessTotals) -> u64 {
        match self {
            Self::MinorFault => totals.minor_faults,
            Self::MajorFault => totals.major_faults,
            Self::Reclaim => totals.reclaim_ns,
        }
    }
}

/// A sum scaled to what its process did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    /// What it is of.
    pub what: What,
    /// Positions of the thread and the stack among the sums; else the process that no sample was taken of.
    pub placed: Result<(u32, u32), Process>,
    /// Samples, and what they stand for.
    pub sum: Sum,
}

/// A process of which only numbers are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// What a recording came to.
#[derive(Clone, Debug, Default)]
pub struct MemorySeen {
    /// The numbers.
    pub memory: Memory,
    /// Process of each of [`Memory::processes`].
    pub keys: Vec<ProcessKey>,
    /// What has stacks, and what has not.
    pub scaled: Vec<Scaled>,
}

/// What comes in while a recording goes on. See the module's documentation.
pub struct MemoryEvents {
    gate: Gate,
    target: Target,
    window_start_ns: u64,
    sums: BTreeMap<(What, u32, u32), Sum>,
    lengths: HashMap<ProcessKey, Durations>,
    names: HashMap<ProcessKey, String>,
    kills: Vec<(Kill, Admitted)>,
    groups: Option<MemoryGroups>,
    without_length: u64,
    kills_dropped: u64,
}

/// Whether a victim is of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admitted {
    Yes,
    /// If its process is in the table of target processes.
    IfListed,
}

impl MemoryEvents {
    /// None yet. What is profiled decides which kills are told; `window_start_ns` is the monotonic time that the window begins at.
    #[must_use]
    pub fn new(gate: Gate, target: Target, window_start_ns: u64) -> Self {
        Self {
            gate,
            target,
            window_start_ns,
            sums: BTreeMap::new(),
            lengths: HashMap::new(),
            names: HashMap::new(),
            kills: Vec::new(),
            groups: None,
            without_length: 0,
            kills_dropped: 0,
        }
    }

    /// Adds a sample. `placed` is where the sums have its thread and stack; whether there was room.
    pub fn add(&mut self, what: What, sample: &Sample<'_>, placed: (u32, u32)) -> bool {
        let (thread, stack) = placed;
        let is_full = self.sums.len() >= MAX_SUMS;
        let sum = match self.sums.entry((what, thread, stack)) {
            std::collections::btree_map::Entry::Vacant(_) if is_full => return false,
            entry => entry.or_default(),
        };
        sum.count += 1;
        sum.weight += sample.header.weight;
        true
    }

    /// Adds the length of a reclaim.
    pub fn add_length(&mut self, facts: &ReclaimFacts) {
        if self.lengths.len() < MAX_LENGTHS || self.lengths.contains_key(&facts.process) {
            self.lengths.entry(facts.process).or_default().add(facts.length_ns);
        } else {
            self.without_length += 1;
        }
    }

    /// Adds a kill, and finds out what of its victim the kernel does not tell, while that is there.
    pub fn add_kill(&mut self, record: &KillRecord) {
        if self.kills.len() >= MAX_KILLS {
            self.kills_dropped += 1;
            return;
        }
        let groups = self.groups.get_or_insert_with(MemoryGroups::find);
        // The group may be gone when the recording ends.
        groups.look();
        let (pid, process_name, group, admitted) = if record.tgid != 0 {
            (record.tgid, comm(&record.comm), groups.group(record.cgroup_id), Admitted::Yes)
        } else {
            let (pid, name) = process_of(record.tid).unwrap_or((record.tid, String::new()));
            if !admits(&self.gate, &self.target, pid, |_| true) {
                return;
            }
            (pid, name, groups.of_process(record.tid), Admitted::IfListed)
        };
        let bytes = |pages: u64| (pages != UNKNOWN_PAGES).then(|| pages * page_bytes());
        let kill = Kill {
            offset_ns: record.time_ns.saturating_sub(self.window_start_ns),
            pid,
            process_name,
            group,
            total_bytes: bytes(record.total_pages),
            anonymous_bytes: bytes(record.anonymous_pages),
            file_bytes: bytes(record.file_pages),
            shared_bytes: bytes(record.shared_pages),
            by_pid: record.by_tgid,
            by_name: comm(&record.by_comm),
        };
        self.kills.push((kill, admitted));
    }

    /// What it all came to. `is_target` tells whether a process is part of the target.
    #[must_use]
    pub fn finish(
        &mut self,
        totals: Vec<(ProcessKey, ProcessTotals)>,
        aggregate: &Aggregate,
        kswapd_runs: u64,
        is_target: impl Fn(u32) -> bool,
    ) -> MemorySeen {
        for (_, thread, _) in self.sums.keys() {
            let raw = &aggregate.threads()[*thread as usize];
            let key = ProcessKey { start_ns: raw.process_start_ns, tgid: raw.tgid, reserved: 0 };
            self.names.insert(key, comm(&raw.process_comm));
        }
        let name = |key: &ProcessKey, totals: &ProcessTotals| {
            self.names.get(key).cloned().unwrap_or_else(|| comm(&totals.comm))
        };
        let key_of = |thread: u32| {
            let raw = &aggregate.threads()[thread as usize];
            ProcessKey { start_ns: raw.process_start_ns, tgid: raw.tgid, reserved: 0 }
        };
        let scaled = scale(&self.sums, &totals, key_of, name);
        let mut groups = self.groups.take().unwrap_or_else(MemoryGroups::find);
        groups.look();
        let mut processes: Vec<(ProcessKey, ProcessMemory)> = totals
            .iter()
            .map(|(key, totals)| {
                let process = ProcessMemory {
                    pid: key.tgid,
                    process_name: name(key, totals),
                    group: groups.group(totals.cgroup_id),
                    minor_faults: totals.minor_faults,
                    major_faults: totals.major_faults,
                    fault_wait_ns: None,
                    reclaim: reclaim(totals, self.lengths.get(key)),
                    compactions: totals.compactions,
                };
                (*key, process)
            })
            .collect();
        processes.sort_by_key(|(key, process)| (process.pid, key.start_ns));
        let (keys, processes) = processes.into_iter().unzip();
        let kills = self
            .kills
            .drain(..)
            .filter(|(kill, admitted)| *admitted == Admitted::Yes || is_target(kill.pid))
            .map(|(kill, _)| kill)
            .collect();
        MemorySeen { memory: Memory { processes, kills, kswapd_runs }, keys, scaled }
    }

    /// Ends a window in which faults were sampled and nothing was counted: what each sample stands for is all that is known.
    #[must_use]
    pub fn close_window(&mut self) -> Vec<Scaled> {
        let sums = std::mem::take(&mut self.sums).into_iter();
        sums.map(|((what, thread, stack), sum)| Scaled { what, placed: Ok((thread, stack)), sum }).collect()
    }

    /// Reclaims whose length is in the totals alone.
    #[must_use]
    pub fn without_length(&self) -> u64 {
        self.without_length
    }

    /// Kills that are not told: there were too many.
    #[must_use]
    pub fn kills_dropped(&self) -> u64 {
        self.kills_dropped
    }
}

fn reclaim(totals: &ProcessTotals, lengths: Option<&Durations>) -> Reclaim {
    let quantile_ns = |share| lengths.and_then(|lengths| lengths.quantile_ns(share)).unwrap_or_default();
    Reclaim {
        count: totals.reclaims,
        total_ns: totals.reclaim_ns,
        pages: totals.reclaimed_pages,
        p50_ns: quantile_ns(0.5),
        p95_ns: quantile_ns(0.95),
        p99_ns: quantile_ns(0.99),
        max_ns: lengths.map_or(0, |lengths| lengths.max_ns),
    }
}

/// Scales the weights of each process to what it did, so that they add up to it exactly.
fn scale(
    sums: &BTreeMap<(What, u32, u32), Sum>,
    totals: &[(ProcessKey, ProcessTotals)],
    key_of: impl Fn(u32) -> ProcessKey,
    name: impl Fn(&ProcessKey, &ProcessTotals) -> String,
) -> Vec<Scaled> {
    let mut sampled: HashMap<(What, ProcessKey), u64> = HashMap::new();
    for ((what, thread, _), sum) in sums {
        *sampled.entry((*what, key_of(*thread))).or_default() += sum.weight;
    }
    let exact: HashMap<&ProcessKey, &ProcessTotals> =
        totals.iter().map(|(key, totals)| (key, totals)).collect();
    let mut before: HashMap<(What, ProcessKey), u64> = HashMap::new();
    let mut scaled: Vec<Scaled> = sums
        .iter()
        .map(|((what, thread, stack), sum)| {
            let key = key_of(*thread);
            // Of a process that the kernel's table had no room for, the samples are all there is.
            let weight = exact.get(&key).map_or(sum.weight, |totals| {
                let all = sampled[&(*what, key)].max(1);
                let before = before.entry((*what, key)).or_default();
                let share = |weight: u64| {
                    (u128::from(weight) * u128::from(what.exact(totals)) / u128::from(all)) as u64
                };
                // What is rounded off here is in the next one.
                let weight = share(*before + sum.weight) - share(*before);
                *before += sum.weight;
                weight
            });
            Scaled { what: *what, placed: Ok((*thread, *stack)), sum: Sum { count: sum.count, weight } }
        })
        .collect();
    for (key, totals) in totals {
        for what in What::ALL {
            let weight = what.exact(totals);
            if weight > 0 && !sampled.contains_key(&(what, *key)) {
                let process = Process { pid: key.tgid, name: name(key, totals) };
                scaled.push(Scaled { what, placed: Err(process), sum: Sum { count: 0, weight } });
            }
        }
    }
    scaled
}

/// The process of a thread, and its name.
fn process_of(tid: u32) -> Option<(u32, String)> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some((field("Tgid:")?.parse().ok()?, field("Name:")?.to_owned()))
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}

/// A group in words.
#[must_use]
pub fn describe(group: &Group) -> String {
    match (group.id, group.path.as_str()) {
        (0, "") => "unknown group".to_owned(),
        (id, "") => format!("group {id}, which is gone"),
        (_, path) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ProcessKey = ProcessKey { start_ns: 7, tgid: 42, reserved: 0 };

    fn sums(weights: &[(What, u32, u64)]) -> BTreeMap<(What, u32, u32), Sum> {
        let sum = |weight| Sum { count: 1, weight };
        weights
            .iter()
            .enumerate()
            .map(|(stack, (what, thread, weight))| ((*what, *thread, stack as u32), sum(*weight)))
            .collect()
    }

    fn weights(scaled: &[Scaled], what: What) -> Vec<u64> {
        scaled.iter().filter(|one| one.what == what).map(|one| one.sum.weight).collect()
    }

    #[test]
    fn weights_add_up_to_what_the_process_did() {
        let sums = sums(&[(What::MinorFault, 0, 50), (What::MinorFault, 0, 50), (What::MinorFault, 1, 50)]);
        let totals = ProcessTotals { minor_faults: 1_000, ..ProcessTotals::default() };
        let scaled = scale(&sums, &[(KEY, totals)], |_| KEY, |_, _| String::new());
        assert_eq!(weights(&scaled, What::MinorFault), [333, 333, 334]);
    }

    #[test]
    fn what_has_no_sample_stands_for_itself() {
        let totals = ProcessTotals { major_faults: 3, minor_faults: 9, ..ProcessTotals::default() };
        let sums = sums(&[(What::MinorFault, 0, 100)]);
        let scaled = scale(&sums, &[(KEY, totals)], |_| KEY, |_, _| "burst".to_owned());
        let process = Process { pid: 42, name: "burst".to_owned() };
        assert_eq!(weights(&scaled, What::MinorFault), [9]);
        assert_eq!(
            scaled[1],
            Scaled { what: What::MajorFault, placed: Err(process), sum: Sum { count: 0, weight: 3 } }
        );
        assert_eq!(scaled.len(), 2);
    }

    #[test]
    fn a_process_without_numbers_keeps_its_samples() {
        let scaled = scale(&sums(&[(What::Reclaim, 0, 5_000)]), &[], |_| KEY, |_, _| String::new());
        assert_eq!(weights(&scaled, What::Reclaim), [5_000]);
    }
}
