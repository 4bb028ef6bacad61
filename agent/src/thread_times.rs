//! The exact times of threads, as the kernel programs told them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chokepoint_analysis::run_queue::RunQueue;
use chokepoint_analysis::thread_time::{Parts, ThreadTime};
use chokepoint_ebpf::run_queue::{Behind, QueuePair};
use chokepoint_ebpf::sched::{State, ThreadClock, ThreadRecord};

use crate::drain::decode::comm;
use crate::host::cgroups::Hierarchy;
use crate::process;
use crate::run_queues::RunQueues;

/// Names a thread in the samples and in the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadKey {
    /// Process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Start of the process, `CLOCK_BOOTTIME` nanoseconds.
    pub process_start_ns: u64,
}

/// Threads that are kept one by one; the times of further ones are added to their process's. About 200 bytes each.
const MAX_THREADS: usize = 100_000;

/// The times of every thread.
#[derive(Debug, Default)]
pub struct ThreadTimes {
    threads: HashMap<ThreadKey, ThreadTime>,
    merged: u64,
    left_unseen: u64,
    queues: RunQueues,
    run_queue: Option<RunQueue>,
}

impl ThreadTimes {
    /// Adds the times of a thread that has ended.
    pub fn add_ended(&mut self, record: &ThreadRecord) {
        self.add(record, record.clock.since_ns);
    }

    /// Adds the times of a thread that lives when the accounting ends.
    pub fn add_living(&mut self, record: &ThreadRecord, end_ns: u64) {
        self.add(record, end_ns.max(record.clock.since_ns));
    }

    /// Adds the times of a thread that is on no list of the kernel's any more, because it has all but ended; or that the host
    /// hides, whose name is still told. `since_told` takes off what was told of it before, up to its argument's end.
    pub fn add_unlisted(
        &mut self,
        clock: &ThreadClock,
        end_ns: u64,
        since_told: impl FnOnce(&ThreadClock) -> ThreadClock,
    ) {
        let ThreadClock { tgid, tid, process_start_ns, .. } = *clock;
        let of_process = |(key, _): &(&ThreadKey, &ThreadTime)| key.tgid == tgid;
        let process = self.threads.iter().find(of_process);
        let (process_name, cgroup_id) = process.map_or_else(
            || (process::name(tgid), 0),
            |(_, time)| (Some(time.process_name.clone()), time.cgroup_id),
        );
        let thread_name = process::thread_name(tgid, tid);
        let ended = thread_name.is_none();
        let mut clock = *clock;
        if !ended && clock.state == State::OnCpu as u32 {
            // Nobody knows whether it still is.
            clock.state = State::Blocked as u32;
        }
        let clock = since_told(&clock);
        let process_name = process_name.unwrap_or_else(|| "[ending]".to_owned());
        let time = ThreadTime {
            pid: tgid,
            tid,
            thread_name: thread_name.unwrap_or_else(|| process_name.clone()),
            process_name,
            cgroup_id,
            ended,
            ..time_of(&clock, end_ns.max(clock.since_ns), true)
        };
        self.queues.add(&clock, tgid, &time.process_name, 0, time.parts.queued_ns());
        self.insert(ThreadKey { tgid, tid, process_start_ns }, time);
    }

    /// Adds up run queues, when every thread has been added.
    pub fn finish_run_queue(&mut self, pairs: &[(QueuePair, Behind)], hierarchy: Option<&Hierarchy>) {
        self.run_queue = Some(self.queues.finish(pairs, hierarchy));
    }

    /// The queueing of processes, before it is added up.
    #[must_use]
    pub fn queues(&self) -> &RunQueues {
        &self.queues
    }

    /// How long threads queued, and who ran meanwhile; `None` before all of it was added up.
    #[must_use]
    pub fn run_queue(&self) -> Option<&RunQueue> {
        self.run_queue.as_ref()
    }

    /// Every thread.
    pub fn iter(&self) -> impl Iterator<Item = (&ThreadKey, &ThreadTime)> {
        self.threads.iter()
    }

    /// Adds to the threads that were not on the CPUs on which their last events had put them.
    pub fn add_left_unseen(&mut self, threads: u64) {
        self.left_unseen += threads;
    }

    /// Threads that a look found not to be on the CPUs on which their last events had put them.
    #[must_use]
    pub fn left_unseen(&self) -> u64 {
        self.left_unseen
    }

    /// Threads whose times are part of another's: there were too many to keep them apart.
    #[must_use]
    pub fn merged(&self) -> u64 {
        self.merged
    }

    fn add(&mut self, record: &ThreadRecord, end_ns: u64) {
        let ThreadRecord { tgid, tid, .. } = *record;
        let process_start_ns = record.clock.process_start_ns;
        let time = time(record, end_ns);
        let (name, group) = (&time.process_name, record.cpu_cgroup_id);
        self.queues.add(&record.clock, tgid, name, group, time.parts.queued_ns());
        self.insert(ThreadKey { tgid, tid, process_start_ns }, time);
    }

    fn insert(&mut self, mut key: ThreadKey, time: ThreadTime) {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&key) {
            self.merged += 1;
            key = ThreadKey { tgid: 0, tid: 0, process_start_ns: 0 };
        }
        match self.threads.entry(key) {
            Entry::Occupied(mut known) => merge(known.get_mut(), &time),
            Entry::Vacant(new) => _ = new.insert(if key.tid == 0 { others(time) } else { time }),
        }
    }
}

/// The thread that stands for all that were too many.
fn others(time: ThreadTime) -> ThreadTime {
    let name = "[other threads]".to_owned();
    ThreadTime { pid: 0, tid: 0, process_name: name.clone(), thread_name: name, cgroup_id: 0, ..time }
}

/// Two stretches of one thread's life: it left the target's accounting and came back, or another had its number.
fn merge(known: &mut ThreadTime, time: &ThreadTime) {
    let user_ns = |time: &ThreadTime| time.user_share.map(|share| share * time.parts.on_cpu_ns as f64);
    let on_cpu_ns = known.parts.on_cpu_ns + time.parts.on_cpu_ns;
    known.user_share = match (user_ns(known), user_ns(time)) {
        (None, None) => None,
        (one, other) => {
            Some((one.unwrap_or(0.0) + other.unwrap_or(0.0)) / (on_cpu_ns.max(1) as f64)).map(|s| s.min(1.0))
        }
    };
    known.elapsed_ns += time.elapsed_ns;
    known.parts += time.parts;
    known.switches += time.switches;
    known.ended |= time.ended;
}

/// A name that `/proc` tells; `None` where there is no such process or thread.
fn time(record: &ThreadRecord, end_ns: u64) -> ThreadTime {
    let clock = &record.clock;
    let user_ns = record.user_ns.saturating_sub(clock.begin_user_ns);
    let system_ns = record.system_ns.saturating_sub(clock.begin_system_ns);
    let ticks_ns = user_ns + system_ns;
    ThreadTime {
        pid: record.tgid,
        tid: record.tid,
        process_name: comm(&record.process_comm),
        thread_name: comm(&record.thread_comm),
        cgroup_id: record.cgroup_id,
        user_share: (ticks_ns > 0).then(|| user_ns as f64 / ticks_ns as f64),
        ended: record.ended != 0,
        ..time_of(clock, end_ns, record.ended == 0)
    }
}

/// What a clock says; `goes_on` where the thread stays in its state until `end_ns`. Without names.
fn time_of(clock: &ThreadClock, end_ns: u64, goes_on: bool) -> ThreadTime {
    let mut spent_ns = clock.spent_ns;
    // The kernel reads its clock a moment before the event: where nothing was taken away, either may be ahead by that.
    let ran_ns = clock.ran_ns.saturating_sub(clock.begin_ran_ns);
    let stolen_ns = spent_ns[State::OnCpu as usize].saturating_sub(ran_ns);
    if let Some(spent_ns) = spent_ns.get_mut(clock.state as usize)
        && goes_on
    {
        *spent_ns += end_ns - clock.since_ns;
    }
    let [at_cpu_ns, woken_ns, preempted_ns, throttled_ns, interruptible_ns, uninterruptible_ns, io_ns] =
        State::ALL.map(|state| spent_ns[state as usize]);
    ThreadTime {
        pid: 0,
        tid: 0,
        process_name: String::new(),
        thread_name: String::new(),
        cgroup_id: 0,
        elapsed_ns: end_ns - clock.begin_ns,
        parts: Parts {
            on_cpu_ns: at_cpu_ns.saturating_sub(stolen_ns),
            stolen_ns: stolen_ns.min(at_cpu_ns),
            woken_ns,
            preempted_ns,
            throttled_ns,
            interruptible_ns,
            uninterruptible_ns,
            io_ns,
        },
        user_share: None,
        switches: clock.switches,
        ended: false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use chokepoint_ebpf::COMM_LEN;
    use chokepoint_ebpf::record::Kind;

    /// A thread that began at 1,000 and has been in its state since `since_ns`: for tests of what reads such records.
    pub(crate) fn thread_record(state: State, since_ns: u64, spent_ns: [u64; 8]) -> ThreadRecord {
        ThreadRecord {
            kind: Kind::Thread as u32,
            ended: 0,
            tgid: 1,
            tid: 2,
            key: 5,
            cgroup_id: 4,
            cpu_cgroup_id: 4,
            thread_comm: [0; COMM_LEN],
            process_comm: [0; COMM_LEN],
            clock: ThreadClock {
                since_ns,
                state: state as u32,
                spent_ns,
                begin_ns: 1_000,
                process_start_ns: 3,
                ran_ns: 10_000,
                begin_user_ns: 10,
                begin_system_ns: 20,
                ..ThreadClock::ZERO
            },
            user_ns: 40,
            system_ns: 30,
            ran_ns: 10_000,
            present_state: state as u32,
            reserved: 0,
        }
    }

    #[test]
    fn what_a_living_thread_is_in_lasts_to_the_end() {
        let mut times = ThreadTimes::default();
        times.add_living(&thread_record(State::Blocked, 1_500, [300, 100, 100, 0, 0, 0, 0, 0]), 2_000);
        let (_, time) = times.iter().next().unwrap();
        assert_eq!((time.elapsed_ns, time.parts.total_ns()), (1_000, 1_000));
        assert_eq!((time.parts.blocked_ns(), time.parts.queued_ns()), (500, 200));
        assert_eq!(time.user_share, Some(0.75));
    }

    #[test]
    fn what_the_thread_did_not_run_of_its_time_on_cpus_is_stolen() {
        let ended = |ran_ns: u64| {
            let mut times = ThreadTimes::default();
            let mut record = thread_record(State::OnCpu, 1_500, [300, 200, 0, 0, 0, 0, 0, 0]);
            (record.ended, record.clock.begin_ran_ns, record.clock.ran_ns) = (1, 1_000, 1_000 + ran_ns);
            times.add_ended(&record);
            let parts = times.iter().next().unwrap().1.parts;
            assert_eq!(parts.total_ns(), 500);
            (parts.on_cpu_ns, parts.stolen_ns)
        };
        assert_eq!(ended(100), (100, 200));
        // The kernel's clock may be a moment ahead.
        assert_eq!(ended(310), (300, 0));
    }

    #[test]
    fn an_ended_thread_ends_where_it_left() {
        let mut times = ThreadTimes::default();
        times.add_ended(&ThreadRecord {
            ended: 1,
            ..thread_record(State::OnCpu, 1_500, [300, 200, 0, 0, 0, 0, 0, 0])
        });
        let (_, time) = times.iter().next().unwrap();
        assert_eq!((time.elapsed_ns, time.parts.total_ns(), time.ended), (500, 500, true));
    }

    #[test]
    fn a_thread_that_comes_back_is_one_thread() {
        let mut times = ThreadTimes::default();
        for _ in 0..2 {
            times.add_living(&thread_record(State::OnCpu, 1_500, [500, 0, 0, 0, 0, 0, 0, 0]), 2_000);
        }
        assert_eq!(times.iter().count(), 1);
        let (_, time) = times.iter().next().unwrap();
        assert_eq!((time.elapsed_ns, time.parts.on_cpu_ns, time.user_share), (2_000, 2_000, Some(0.75)));
    }
}
