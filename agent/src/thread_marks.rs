//! Up to where each thread's time was told: turns times since a session began into those of one window.
//!
//! The kernel programs count on from the session's start and know nothing of windows. What was told of a thread is kept here and
//! taken from what they say next. A thread's windows follow each other without a gap: one ends with the common end, or with
//! the thread's last event where that was later because the look at it was, and the next begins there. So the times of all
//! windows add up to the thread's life.

use std::collections::HashMap;

use chokepoint_ebpf::run_queue::{LATENCY_BUCKETS, latency_bucket_begin_ns};
use chokepoint_ebpf::sched::{RunningThread, State, ThreadClock, ThreadRecord};

/// How old the kernel's count of what a thread on a CPU has run may be: the longest tick there is. Of a turn that is not over, only
/// more than that counts as taken away.
const LONGEST_TICK_NS: u64 = 10_000_000;

/// What was told of one thread. About 140 bytes with its key, and 200 more where it queued and its latencies are counted.
#[derive(Clone, Debug)]
struct Mark {
    /// Tells threads apart whose key is the same because one came after the other.
    begin_ns: u64,
    until_ns: u64,
    spent_ns: [u64; State::SLOTS],
    /// What was taken away of its time on CPUs.
    stolen_ns: u64,
    switches: u64,
    user_ns: u64,
    system_ns: u64,
    longest_queue_ns: u64,
    /// Its run-queue latencies; `None` before the first.
    latencies: Option<Box<[u32; LATENCY_BUCKETS]>>,
    /// The look that told of it last.
    look: u64,
}

/// Up to where the time of each living thread was told. There are no more than the kernel programs' own map holds.
#[derive(Debug, Default)]
pub struct ThreadMarks {
    marks: HashMap<u64, Mark>,
    /// Threads that were on CPUs right before the look under way.
    running: HashMap<u64, RunningThread>,
    /// Threads of the look under way that had left their CPUs unseen.
    left_unseen: u64,
    look: u64,
}

impl ThreadMarks {
    /// All threads are about to be looked at. `running` is what the kernel has counted of those on CPUs.
    pub fn begin_look(&mut self, running: Vec<RunningThread>) {
        self.running = running.into_iter().map(|thread| (thread.key, thread)).collect();
    }

    /// What a thread did since it was last told of, up to `end_ns`, as a record whose accounting began then. The rest is told
    /// by the next call.
    pub fn living(&mut self, record: &ThreadRecord, end_ns: u64) -> ThreadRecord {
        let turn = self.running.get(&record.key).copied();
        let was_there =
            turn.is_some_and(|turn| turn.since_ns == record.clock.since_ns && turn.now_ns >= end_ns);
        let mut record = *record;
        // What was on a CPU after the window's end has left since, when nobody looked any more.
        if has_left_unseen(&record) && !was_there {
            self.left_unseen += 1;
            record.clock = left_unseen(&record, end_ns);
        }
        let record = &record;
        let end_ns = end_ns.max(record.clock.since_ns);
        let total = spent_until(&record.clock, end_ns);
        let stolen_ns =
            stolen(&record.clock) + turn.map_or(0, |turn| stolen_of_turn(&record.clock, &turn, end_ns));
        let told = self.marks.get(&record.key).filter(|mark| mark.begin_ns == record.clock.begin_ns);
        // Of a turn that was not seen this time, what was told before stays true.
        let stolen_ns = stolen_ns.max(told.map_or(0, |mark| mark.stolen_ns));
        let mark = Mark {
            begin_ns: record.clock.begin_ns,
            until_ns: end_ns,
            spent_ns: total,
            stolen_ns,
            switches: record.clock.switches,
            user_ns: record.user_ns,
            system_ns: record.system_ns,
            longest_queue_ns: record.clock.longest_queue_ns,
            latencies: record
                .clock
                .latencies
                .iter()
                .any(|count| *count > 0)
                .then(|| Box::new(record.clock.latencies)),
            look: self.look,
        };
        let earlier = self.marks.insert(record.key, mark);
        since(record, earlier.as_ref(), (total, stolen_ns), end_ns)
    }

    /// What a thread that has ended did since it was last told of.
    pub fn ended(&mut self, record: &ThreadRecord) -> ThreadRecord {
        let earlier = self.marks.remove(&record.key);
        since(record, earlier.as_ref(), (record.clock.spent_ns, stolen(&record.clock)), record.clock.since_ns)
    }

    /// What a thread that no look finds did since it was last told of, up to `end_ns`.
    #[must_use]
    pub fn unlisted(&self, key: u64, clock: &ThreadClock, end_ns: u64) -> ThreadClock {
        let end_ns = end_ns.max(clock.since_ns);
        since_mark(clock, self.marks.get(&key), (spent_until(clock, end_ns), stolen(clock)), end_ns)
    }

    /// All threads have been looked at. What is known of those that were not found is kept for one look more: that they ended
    /// may be told after it. Returns how many had left their CPUs though no event told so.
    pub fn end_look(&mut self) -> u64 {
        let look = self.look;
        self.marks.retain(|_, mark| mark.look + 1 >= look);
        self.look += 1;
        std::mem::take(&mut self.left_unseen)
    }
}

/// Whether a thread is not on the CPU on which its last event has put it.
fn has_left_unseen(record: &ThreadRecord) -> bool {
    record.clock.state == State::OnCpu as u32 && record.present_state != State::OnCpu as u32
}

/// The clock of a thread that left its CPU unseen: there for as long as the kernel counts that it ran, and since then as it is found.
fn left_unseen(record: &ThreadRecord, end_ns: u64) -> ThreadClock {
    let clock = &record.clock;
    let turn_ns = record.ran_ns.saturating_sub(clock.ran_ns).min(end_ns.saturating_sub(clock.since_ns));
    let left_ns = clock.since_ns + turn_ns;
    ThreadClock {
        spent_ns: spent_until(clock, left_ns),
        ran_ns: record.ran_ns,
        since_ns: left_ns,
        left_ns,
        state: record.present_state,
        left_state: record.present_state,
        ..*clock
    }
}

/// Time by state up to `end_ns` of a thread that stays in its state.
fn spent_until(clock: &ThreadClock, end_ns: u64) -> [u64; State::SLOTS] {
    let mut spent_ns = clock.spent_ns;
    if let Some(spent_ns) = spent_ns.get_mut(clock.state as usize) {
        *spent_ns += end_ns.saturating_sub(clock.since_ns);
    }
    spent_ns
}

/// What was taken away of a thread's turns on CPUs that are over. The kernel reads its clock a moment before the event: where nothing
/// was taken away, either may be ahead by that.
fn stolen(clock: &ThreadClock) -> u64 {
    let ran_ns = clock.ran_ns.saturating_sub(clock.begin_ran_ns);
    clock.spent_ns[State::OnCpu as usize].saturating_sub(ran_ns)
}

/// What was taken away of a thread's present turn on a CPU, as far as that lies before the end.
fn stolen_of_turn(clock: &ThreadClock, turn: &RunningThread, end_ns: u64) -> u64 {
    if clock.state != State::OnCpu as u32 || clock.since_ns != turn.since_ns {
        return 0;
    }
    let on_cpu_ns = turn.now_ns.saturating_sub(turn.since_ns);
    let ran_ns = turn.ran_ns.saturating_sub(clock.ran_ns);
    on_cpu_ns.saturating_sub(ran_ns).saturating_sub(LONGEST_TICK_NS).min(end_ns - clock.since_ns)
}

/// Time by state since a session began, and what of that on CPUs was taken away.
type Total = ([u64; State::SLOTS], u64);

fn since(record: &ThreadRecord, earlier: Option<&Mark>, total: Total, end_ns: u64) -> ThreadRecord {
    let mut clock = since_mark(&record.clock, earlier, total, end_ns);
    if let Some(mark) = earlier.filter(|mark| mark.begin_ns == record.clock.begin_ns) {
        clock.begin_user_ns = mark.user_ns;
        clock.begin_system_ns = mark.system_ns;
    }
    ThreadRecord { clock, ..*record }
}

fn since_mark(
    clock: &ThreadClock,
    earlier: Option<&Mark>,
    (total, stolen_ns): Total,
    end_ns: u64,
) -> ThreadClock {
    let ran_ns =
        |spent_ns: &[u64; State::SLOTS], stolen_ns| spent_ns[State::OnCpu as usize].saturating_sub(stolen_ns);
    let told = ThreadClock {
        spent_ns: total,
        since_ns: end_ns,
        begin_ran_ns: 0,
        ran_ns: ran_ns(&total, stolen_ns),
        ..*clock
    };
    let Some(mark) = earlier.filter(|mark| mark.begin_ns == clock.begin_ns) else {
        return told;
    };
    let spent_ns = difference(total, mark.spent_ns);
    let (latencies, longest_queue_ns) = latencies_since(clock, mark);
    ThreadClock {
        latencies,
        longest_queue_ns,
        ran_ns: ran_ns(&spent_ns, stolen_ns.saturating_sub(mark.stolen_ns)),
        spent_ns,
        begin_ns: mark.until_ns,
        switches: clock.switches.saturating_sub(mark.switches),
        ..told
    }
}

/// The run-queue latencies since a mark, and the longest of them: exact where it is the longest of all so far, else what its bucket
/// allows.
fn latencies_since(clock: &ThreadClock, mark: &Mark) -> ([u32; LATENCY_BUCKETS], u64) {
    let mut latencies = clock.latencies;
    for (count, told) in latencies.iter_mut().zip(mark.latencies.iter().flat_map(|told| told.iter())) {
        *count = count.saturating_sub(*told);
    }
    if clock.longest_queue_ns > mark.longest_queue_ns {
        return (latencies, clock.longest_queue_ns);
    }
    let longest = latencies.iter().rposition(|count| *count > 0);
    let longest_ns = longest.map_or(0, |bucket| match bucket + 1 {
        LATENCY_BUCKETS => clock.longest_queue_ns,
        next => (latency_bucket_begin_ns(next) - 1).min(clock.longest_queue_ns),
    });
    (latencies, longest_ns)
}

/// Time by state since a mark. What was told as of one state and turned out to be of another, which happens where a host hides
/// switches, is taken from the longest, so that the sum stays true.
fn difference(total: [u64; State::SLOTS], told: [u64; State::SLOTS]) -> [u64; State::SLOTS] {
    let mut difference: [u64; State::SLOTS] =
        std::array::from_fn(|state| total[state].saturating_sub(told[state]));
    let mut excess: u64 = (0..State::SLOTS).map(|state| told[state].saturating_sub(total[state])).sum();
    while excess > 0 {
        let Some(longest) = difference.iter_mut().max().filter(|longest| **longest > 0) else { break };
        let taken = excess.min(*longest);
        *longest -= taken;
        excess -= taken;
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread_times::tests::thread_record;

    const ON_CPU: usize = State::OnCpu as usize;
    const BLOCKED: usize = State::Blocked as usize;

    fn record(state: State, since_ns: u64, spent_ns: [u64; 8], switches: u64) -> ThreadRecord {
        let mut record = thread_record(state, since_ns, spent_ns);
        (record.clock.switches, record.clock.ran_ns) = (switches, spent_ns[ON_CPU]);
        record.ran_ns = record.clock.ran_ns;
        record
    }

    #[test]
    fn windows_of_one_thread_follow_each_other_without_a_gap() {
        let mut marks = ThreadMarks::default();
        // Ran from 1,000 to 1,300 and sleeps since.
        let sleeps = record(State::Blocked, 1_300, [300, 0, 0, 0, 0, 0, 0, 0], 1);
        let first = marks.living(&sleeps, 2_000);
        assert_eq!((first.clock.begin_ns, first.clock.since_ns), (1_000, 2_000));
        assert_eq!((first.clock.spent_ns[ON_CPU], first.clock.spent_ns[BLOCKED]), (300, 700));
        assert_eq!(first.clock.begin_user_ns, 10);
        marks.end_look();
        // Nothing happened.
        let second = marks.living(&sleeps, 3_000);
        assert_eq!((second.clock.spent_ns[ON_CPU], second.clock.spent_ns[BLOCKED]), (0, 1_000));
        assert_eq!((second.clock.begin_ns, second.clock.switches), (2_000, 0));
        marks.end_look();
        // Woke at 3,500, before the window's end at 4,000; the look at it came at 4,100, when it had just gone to sleep.
        let ran = record(State::Blocked, 4_050, [850, 0, 0, 0, 2_200, 0, 0, 0], 2);
        let third = marks.living(&ran, 4_000);
        assert_eq!((third.clock.spent_ns[ON_CPU], third.clock.spent_ns[BLOCKED]), (550, 500));
        assert_eq!((third.clock.begin_ns, third.clock.since_ns, third.clock.switches), (3_000, 4_050, 1));
        marks.end_look();
        let ended = record(State::OnCpu, 4_500, [900, 0, 0, 0, 2_600, 0, 0, 0], 4);
        let last = marks.ended(&ended);
        assert_eq!((last.clock.spent_ns[ON_CPU], last.clock.spent_ns[BLOCKED]), (50, 400));
        assert_eq!((last.clock.begin_ns, last.clock.since_ns), (4_050, 4_500));
        // 3,500 ns of life, all of them told once.
        let told: u64 = [first, second, third, last].iter().flat_map(|part| part.clock.spent_ns).sum();
        assert_eq!(told, 3_500);
    }

    #[test]
    fn what_the_thread_did_not_run_of_a_turn_is_stolen_once() {
        const MS: u64 = 1_000_000;
        let stolen = |part: &ThreadRecord| part.clock.spent_ns[ON_CPU] - part.clock.ran_ns;
        let mut marks = ThreadMarks::default();
        let turn = |since_ns, now_ns, ran_ns| RunningThread { key: 5, since_ns, now_ns, ran_ns };
        let runs = record(State::OnCpu, 1_000, [0; 8], 0);
        // 100 ms on a CPU, of which it ran 60; 10 may be what the kernel has not counted yet.
        marks.begin_look(vec![turn(1_000, 100 * MS + 1_000, 60 * MS)]);
        let first = marks.living(&runs, 100 * MS + 1_000);
        assert_eq!((first.clock.spent_ns[ON_CPU], stolen(&first)), (100 * MS, 30 * MS));
        marks.end_look();
        // What was seen was an earlier turn.
        marks.begin_look(vec![turn(500, 200 * MS + 1_000, 0)]);
        let second = marks.living(&runs, 200 * MS + 1_000);
        assert_eq!((second.clock.spent_ns[ON_CPU], stolen(&second)), (100 * MS, 0));
        marks.end_look();
        // It left the CPU after 210 ms, of which it ran 160.
        let mut sleeps = record(State::Blocked, 210 * MS + 1_000, [210 * MS, 0, 0, 0, 0, 0, 0, 0], 1);
        sleeps.clock.ran_ns = 160 * MS;
        marks.begin_look(Vec::new());
        let third = marks.living(&sleeps, 300 * MS + 1_000);
        // 50 ms in all; 30 were told before, of the rest no more than the window has on the CPU.
        assert_eq!((third.clock.spent_ns[ON_CPU], stolen(&third)), (10 * MS, 10 * MS));
        assert_eq!(third.clock.spent_ns[BLOCKED], 90 * MS);
    }

    #[test]
    fn a_thread_that_is_preempted_once_the_accounting_has_ended_was_on_its_cpu() {
        let mut marks = ThreadMarks::default();
        let mut preempted = record(State::OnCpu, 1_100, [100, 0, 0, 0, 0, 0, 0, 0], 1);
        (preempted.present_state, preempted.ran_ns) = (State::Preempted as u32, 1_700);
        marks.begin_look(vec![RunningThread { key: 5, since_ns: 1_100, now_ns: 2_000, ran_ns: 1_000 }]);
        let told = marks.living(&preempted, 2_000);
        assert_eq!(told.clock.spent_ns, [1_000, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(marks.end_look(), 0);
    }

    #[test]
    fn a_thread_that_left_unseen_ran_for_as_long_as_the_kernel_says() {
        let mut marks = ThreadMarks::default();
        let mut slept = record(State::OnCpu, 1_100, [100, 0, 0, 0, 0, 0, 0, 0], 1);
        (slept.present_state, slept.ran_ns) = (State::Blocked as u32, 400);
        marks.begin_look(vec![RunningThread { key: 5, since_ns: 1_050, now_ns: 2_000, ran_ns: 50 }]);
        let told = marks.living(&slept, 2_000);
        assert_eq!(told.clock.spent_ns, [400, 0, 0, 0, 600, 0, 0, 0]);
        assert_eq!((told.clock.state, told.clock.ran_ns), (State::Blocked as u32, 400));
        assert_eq!((marks.end_look(), marks.end_look()), (1, 0));
    }

    #[test]
    fn another_thread_at_the_same_place_begins_anew() {
        let mut marks = ThreadMarks::default();
        let _ = marks.living(&record(State::Blocked, 1_300, [300, 0, 0, 0, 0, 0, 0, 0], 1), 2_000);
        let mut other = record(State::OnCpu, 2_500, [0; 8], 0);
        other.clock.begin_ns = 2_500;
        assert_eq!(marks.living(&other, 3_000).clock.spent_ns[ON_CPU], 500);
    }

    #[test]
    fn what_was_told_of_the_wrong_state_is_made_up_for() {
        let mut marks = ThreadMarks::default();
        let _ = marks.living(&record(State::OnCpu, 1_000, [0; 8], 0), 2_000);
        // It had left its CPU unseen and slept all the time.
        let slept = marks.living(&record(State::OnCpu, 2_900, [0, 0, 0, 0, 1_900, 0, 0, 0], 0), 3_000);
        assert_eq!(slept.clock.spent_ns.iter().sum::<u64>(), 1_000);
    }

    #[test]
    fn each_window_has_its_own_run_queue_latencies() {
        let mut marks = ThreadMarks::default();
        let mut clock = record(State::Blocked, 1_300, [300, 0, 0, 0, 0, 0, 0, 0], 1);
        let mut window = |latencies: &[(usize, u32)], longest_ns, end_ns| {
            for (bucket, count) in latencies {
                clock.clock.latencies[*bucket] += count;
            }
            clock.clock.longest_queue_ns = longest_ns;
            let told = marks.living(&clock, end_ns).clock;
            (told.latencies.iter().sum::<u32>(), told.longest_queue_ns)
        };
        // Buckets from 4 and 64 µs on.
        assert_eq!(window(&[(8, 2), (16, 1)], 70_000, 2_000), (3, 70_000));
        assert_eq!(window(&[], 70_000, 3_000), (0, 0));
        assert_eq!(window(&[(8, 3)], 70_000, 4_000), (3, latency_bucket_begin_ns(9) - 1));
        assert_eq!(window(&[(16, 1)], 70_000, 5_000), (1, 70_000));
        assert_eq!(window(&[(16, 1)], 90_000, 6_000), (1, 90_000));
    }

    #[test]
    fn threads_that_are_gone_are_forgotten() {
        let mut marks = ThreadMarks::default();
        let _ = marks.living(&record(State::Blocked, 1_300, [0; 8], 1), 2_000);
        for _ in 0..3 {
            marks.end_look();
        }
        assert!(marks.marks.is_empty());
    }
}
