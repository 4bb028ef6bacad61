//! What a service did on a host, or on several, as a profile.

use std::collections::BTreeMap;

use crate::activity::Class;
use crate::coverage::Coverage;
use crate::durations::Durations;
use crate::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Profile, Sample,
    Thread, Unit, Wake,
};
use crate::run_queue::{Queue, RunQueue, Runner};
use crate::signals::Signals;
use crate::thread_time::{Parts, ThreadTime};

/// Process ids of a fleet's processes: a host's own end below it, so that nothing that is said of a host's process is taken for one of
/// these.
const FIRST_PID: u32 = 1 << 30;
/// The port that stands for one that was chosen by chance: services have lower ones.
const CHOSEN_PORT: u16 = u16::MAX;
/// Groups of threads that are told apart; the rest are one. A host's agent tells no more.
const MAX_GROUPS: usize = 4_096;
/// Threads that a group is taken to have at most.
const MAX_MEMBERS: u64 = 4_096;
/// Names of others that had the CPUs.
const MAX_BESIDE: usize = 16;

/// What is missing of every such profile.
const NO_WAKERS: &str = "what ended waits is not kept: locks are told by the functions that wait for them";
const ESTIMATED: &str = "who ran while threads queued is taken from the CPU time of the others on the host";

/// Threads of one name, of the processes of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose<'a> {
    /// Name of the process.
    pub process: &'a str,
    /// Name of the threads.
    pub thread: &'a str,
}

/// How long a process waited for answers of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The process's name.
    pub process: String,
    /// The class of the waits.
    pub class: Class,
    /// Its own address, without a port.
    pub local: String,
    /// The service's address, with its port.
    pub service: String,
    /// How long, nanoseconds.
    pub ns: u64,
}

/// Others on the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// What they are called.
    pub name: String,
    /// Their time on CPUs, nanoseconds.
    pub cpu_ns: u64,
}

#[derive(Debug)]
struct Row {
    group: usize,
    class: Class,
    frames: Vec<LocationId>,
    count: u64,
    weight: u64,
}

#[derive(Debug)]
struct Group {
    process: String,
    thread: String,
    pid: u32,
    parts: Parts,
}

/// A profile in the making. See the module's documentation.
#[derive(Debug)]
pub struct Target {
    /// Takes the frames of stacks.
    pub builder: Builder,
    name: String,
    start_unix_ns: u64,
    window_ns: u64,
    groups: Vec<Group>,
    by_name: BTreeMap<(String, String), usize>,
    pids: BTreeMap<String, u32>,
    rows: Vec<Row>,
    waited: Vec<Waited>,
    beside: Vec<Beside>,
    notes: Vec<String>,
    lost: u64,
}

impl Target {
    /// Nothing yet of what is called so, in this time.
    #[must_use]
    pub fn new(name: impl Into<String>, start_unix_ns: u64, window_ns: u64) -> Self {
        Self {
            builder: Builder::new(),
            name: name.into(),
            start_unix_ns,
            window_ns: window_ns.max(1),
            groups: Vec::new(),
            by_name: BTreeMap::new(),
            pids: BTreeMap::new(),
            rows: Vec::new(),
            waited: Vec::new(),
            beside: Vec::new(),
            notes: Vec::new(),
            lost: 0,
        }
    }

    /// Adds time of threads: in which class, with which stack (leaf first, of the builder; none where it is not known), how many samples,
    /// and how long.
    pub fn add(
        &mut self,
        whose: Whose<'_>,
        class: Class,
        frames: Vec<LocationId>,
        count: u64,
        weight_ns: u64,
    ) {
        let Some(group) = self.group(whose) else {
            self.lost += count;
            return;
        };
        let parts = &mut self.groups[group].parts;
        let part = match class {
            Class::CpuUser | Class::CpuKernel => &mut parts.on_cpu_ns,
            Class::CpuStolen => &mut parts.stolen_ns,
            Class::RunQueue => &mut parts.woken_ns,
            Class::Throttled => &mut parts.throttled_ns,
            Class::IoRead | Class::IoWrite | Class::IoSync => &mut parts.io_ns,
            _ => &mut parts.interruptible_ns,
        };
        *part = part.saturating_add(weight_ns);
        self.rows.push(Row { group, class, frames, count, weight: weight_ns });
    }

    /// Adds what processes waited for.
    pub fn waited(&mut self, waited: Waited) {
        self.waited.push(waited);
    }

    /// Adds who else had the host's CPUs.
    pub fn beside(&mut self, beside: impl IntoIterator<Item = Beside>) {
        self.beside.extend(beside);
        self.beside.sort_by(|one, other| other.cpu_ns.cmp(&one.cpu_ns).then(one.name.cmp(&other.name)));
        self.beside.truncate(MAX_BESIDE);
    }

    /// Adds what is missing, a sentence.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn group(&mut self, whose: Whose<'_>) -> Option<usize> {
        let key = (whose.process.to_owned(), whose.thread.to_owned());
        if let Some(known) = self.by_name.get(&key) {
            return Some(*known);
        }
        if self.groups.len() >= MAX_GROUPS {
            return None;
        }
        let next = FIRST_PID + u32::try_from(self.pids.len()).ok()?;
        let pid = *self.pids.entry(key.0.clone()).or_insert(next);
        let (process, thread) = key.clone();
        self.groups.push(Group { process, thread, pid, parts: Parts::default() });
        self.by_name.insert(key, self.groups.len() - 1);
        Some(self.groups.len() - 1)
    }

    /// The profile, with the signals of the host where it is of one.
    #[must_use]
    pub fn finish(mut self, signals: Option<Signals>) -> Profile {
        let captured = self.rows.iter().map(|row| row.count).sum();
        let mut notes = std::mem::take(&mut self.notes);
        notes.push(NO_WAKERS.to_owned());
        let queued_ns: u64 = self.groups.iter().map(|group| group.parts.woken_ns).sum();
        if queued_ns > 0 && !self.beside.is_empty() {
            notes.push(ESTIMATED.to_owned());
        }
        if self.lost > 0 {
            notes.push(format!("{} samples of further groups of threads are left out", self.lost));
        }
        let (thread_times, run_queue) = (self.thread_times(), self.run_queue());
        self.add_rows();
        let header = Header {
            title: "Thread time".to_owned(),
            kind: "all".to_owned(),
            unit: Unit::Nanoseconds,
            basis: Basis::Weight,
            period: 1,
            start_unix_ns: self.start_unix_ns,
            duration_ns: self.window_ns,
            host: String::new(),
            target: self.name,
            cpus: 0,
            kernel: String::new(),
            program: String::new(),
        };
        let coverage = Coverage { attempted: captured, captured, notes, ..Coverage::default() };
        let mut profile = self.builder.finish(header, coverage);
        profile.thread_times = thread_times;
        profile.run_queue = Some(run_queue);
        profile.signals = signals;
        profile
    }

    /// As many threads of each group as their time together makes windows, each with its part: a single one is told exactly.
    fn thread_times(&self) -> Vec<ThreadTime> {
        let mut times = Vec::new();
        for group in &self.groups {
            let total = group.parts.total_ns();
            let members = ((total + self.window_ns / 2) / self.window_ns).clamp(1, MAX_MEMBERS);
            let part = |ns: u64| ns / members;
            let parts = Parts {
                on_cpu_ns: part(group.parts.on_cpu_ns),
                stolen_ns: part(group.parts.stolen_ns),
                woken_ns: part(group.parts.woken_ns),
                preempted_ns: 0,
                throttled_ns: part(group.parts.throttled_ns),
                interruptible_ns: part(group.parts.interruptible_ns),
                uninterruptible_ns: 0,
                io_ns: part(group.parts.io_ns),
            };
            for _ in 0..members {
                let tid = FIRST_PID + times.len() as u32;
                times.push(ThreadTime {
                    pid: group.pid,
                    tid,
                    process_name: group.process.clone(),
                    thread_name: group.thread.clone(),
                    cgroup_id: 0,
                    elapsed_ns: parts.total_ns(),
                    parts,
                    user_share: None,
                    switches: 0,
                    ended: false,
                });
            }
        }
        times
    }

    /// Queueing by process: behind its own and the others' threads in proportion to their time on CPUs.
    fn run_queue(&self) -> RunQueue {
        let own: u64 = self.groups.iter().map(|group| group.parts.on_cpu_ns).sum();
        let all = own + self.beside.iter().map(|beside| beside.cpu_ns).sum::<u64>();
        let mut queued: BTreeMap<u32, (&str, u64)> = BTreeMap::new();
        for group in &self.groups {
            queued.entry(group.pid).or_insert((&group.process, 0)).1 += group.parts.woken_ns;
        }
        let part = |queued: u64, cpu_ns: u64| (queued as f64 * cpu_ns as f64 / all.max(1) as f64) as u64;
        let queue = |(pid, (name, queued_ns)): (u32, (&str, u64))| {
            let runner = |id: u64, name: &str| Runner::One { id, name: name.to_owned() };
            let mut behind = vec![(runner(pid.into(), name), part(queued_ns, own))];
            // No process of this profile has such an id.
            behind.extend(
                self.beside.iter().map(|one| (runner(u64::MAX, &one.name), part(queued_ns, one.cpu_ns))),
            );
            behind.retain(|(_, ns)| *ns > 0);
            Queue {
                id: pid.into(),
                name: name.to_owned(),
                queued_ns,
                latencies: Durations::default(),
                behind,
            }
        };
        RunQueue { processes: queued.into_iter().map(queue).collect(), cgroups: Vec::new() }
    }

    fn add_rows(&mut self) {
        let mut totals: BTreeMap<(usize, Class), u64> = BTreeMap::new();
        let by_process = |group: usize, groups: &[Group]| (groups[group].pid - FIRST_PID) as usize;
        for row in &self.rows {
            *totals.entry((by_process(row.group, &self.groups), row.class)).or_default() += row.weight;
        }
        let mut waited: BTreeMap<(usize, Class), Vec<&Waited>> = BTreeMap::new();
        for one in &self.waited {
            if let Some(pid) = self.pids.get(&one.process) {
                waited.entry(((pid - FIRST_PID) as usize, one.class)).or_default().push(one);
            }
        }
        let interrupt = self.builder.stack(Vec::new());
        for row in &self.rows {
            let group = &self.groups[row.group];
            let thread = self.builder.thread(Thread {
                pid: group.pid,
                tid: 0,
                process_name: group.process.clone(),
                thread_name: group.thread.clone(),
            });
            let class = activity(&mut self.builder, row.class.frame());
            let key = (by_process(row.group, &self.groups), row.class);
            let mut left = row.weight;
            let services = waited.get(&key).map_or(&[][..], Vec::as_slice);
            // Never more than there is.
            let all = services.iter().map(|one| one.ns).sum::<u64>().max(totals[&key]).max(1);
            for one in services {
                let ns = ((row.weight as f64 * one.ns as f64 / all as f64) as u64).min(left);
                if ns == 0 {
                    continue;
                }
                left -= ns;
                let object = format!("[tcp {}-{}]", with_port(&one.local), one.service);
                let object = activity(&mut self.builder, object);
                let stack = [object, class].into_iter().chain(row.frames.iter().copied()).collect();
                let stack = self.builder.stack(stack);
                self.builder.add(Sample { thread, stack, count: 0, weight: ns });
                // An answer came, or else it would not be told.
                self.builder.add_wake(Wake {
                    thread,
                    stack,
                    waker: None,
                    waker_stack: interrupt,
                    count: 1,
                    weight: ns,
                });
            }
            let stack = std::iter::once(class).chain(row.frames.iter().copied()).collect();
            let stack = self.builder.stack(stack);
            self.builder.add(Sample { thread, stack, count: row.count, weight: left });
        }
    }
}

/// An address as one of its connections.
fn with_port(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:{CHOSEN_PORT}")
    } else {
        format!("{address}:{CHOSEN_PORT}")
    }
}

/// A frame that is no code.
fn activity(builder: &mut Builder, name: String) -> LocationId {
    let function = builder.function(Function { name, file: String::new() });
    let module = builder.module(Module {
        kind: ModuleKind::Activity,
        path: "[activity]".to_owned(),
        build_id: Vec::new(),
    });
    let lines = vec![Line { function, line: 0 }];
    builder.location(Location { module, address: 0, lines, is_spin_wait: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::code::Code;
    use crate::verdict::diagnose;

    const S: u64 = 1_000_000_000;

    fn target(rows: &[(&str, &str, Class, u64)]) -> Target {
        let mut target = Target::new("service web", 0, 10 * S);
        for (process, thread, class, seconds) in rows {
            target.add(Whose { process, thread }, *class, Vec::new(), 100, seconds * S);
        }
        target
    }

    #[test]
    fn time_adds_up_and_threads_are_as_many_as_it_makes() {
        let rows = [
            ("web", "worker-*", Class::CpuUser, 12),
            ("web", "worker-*", Class::Futex, 28),
            ("web", "web", Class::Idle, 10),
            ("cron", "cron", Class::CpuUser, 1),
        ];
        let profile = target(&rows).finish(None);
        assert_eq!(profile.total_weight(), 51 * S);
        let threads =
            |name: &str| profile.thread_times.iter().filter(|time| time.thread_name == name).count();
        assert_eq!((threads("worker-*"), threads("web"), threads("cron")), (4, 1, 1));
        let worker = &profile.thread_times[0];
        assert_eq!((worker.elapsed_ns, worker.parts.on_cpu_ns), (10 * S, 3 * S));
    }

    #[test]
    fn a_quota_is_found_as_on_a_host() {
        let rows = [("web", "web", Class::CpuUser, 4), ("web", "web", Class::Throttled, 6)];
        let found = diagnose(&target(&rows).finish(None)).verdict;
        assert_eq!((found.code, found.processes), (Code::CpuQuota, vec!["web".to_owned()]));
    }

    #[test]
    fn who_else_has_the_cpus_is_the_neighbour() {
        let rows = [("web", "web", Class::CpuUser, 2), ("web", "web", Class::RunQueue, 8)];
        let mut noisy = target(&rows);
        noisy.beside([Beside { name: "batch".to_owned(), cpu_ns: 16 * S }]);
        let diagnosis = diagnose(&noisy.finish(None));
        assert_eq!(diagnosis.verdict.code, Code::CpuNoisyNeighbour);
        assert_eq!(diagnosis.verdict.culprits, ["batch"]);
        assert!(diagnosis.coverage.missing.contains(&ESTIMATED.to_owned()), "{:?}", diagnosis.coverage);
        // Alone it queues behind itself.
        assert_eq!(diagnose(&target(&rows).finish(None)).verdict.code, Code::CpuSaturated);
    }

    #[test]
    fn waits_for_a_service_have_its_address_and_the_others_are_for_work() {
        let rows = [("web", "web", Class::CpuUser, 1), ("web", "web", Class::NetReceive, 9)];
        let waited = |class, ns| Waited {
            process: "web".to_owned(),
            class,
            local: "10.0.0.7".to_owned(),
            service: "10.0.0.5:5432".to_owned(),
            ns,
        };
        let mut asks = target(&rows);
        asks.waited(waited(Class::NetReceive, 8 * S));
        // Of a class without time there is nothing to divide.
        asks.waited(waited(Class::NetConnect, S));
        let diagnosis = diagnose(&asks.finish(None));
        assert_eq!(diagnosis.verdict.code, Code::NetDownstream);
        assert!(diagnosis.verdict.summary.contains("10.0.0.5:5432"), "{}", diagnosis.verdict.summary);
        assert_eq!(diagnosis.behind.get("net.downstream"), Some(&8.0));
        assert_eq!(diagnosis.behind.get("work"), Some(&1.0));
        // Who is asked waits for work.
        assert_eq!(diagnose(&target(&rows).finish(None)).verdict.code, Code::NoneHealthy);
    }
}
