//! Waits that go on from window to window. The kernel programs tell of each in one look at the threads; here it is kept with
//! its stack until it is over, so that it is part of every window that it spans.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::sched::{EarlierLook, State, ThreadClock, is_chosen};

use crate::aggregate::Aggregate;
use crate::drain::decode::{Record, Wait, decode};
use crate::process::objects::ObjectId;

/// Bytes of records that are kept: some forty thousand waits. Where that is not enough, every look tells of all waits again,
/// which costs a stack for each and loses none.
const MAX_BYTES: usize = 16 << 20;
/// The longest that looks go on to tell of known waits alone although stacks among those are incomplete for want of a table:
/// windows.
const MAX_PATIENCE: u32 = 32;

/// A wait as it was told.
#[derive(Debug)]
struct Known {
    left_ns: u64,
    bytes: Box<[u8]>,
    /// What it is for, once that was looked up.
    object: Option<Option<ObjectId>>,
    is_over: bool,
}

/// The waits that are not over. See the module's documentation.
#[derive(Debug, Default)]
pub struct OpenWaits {
    waits: HashMap<u64, Known>,
    bytes: usize,
    has_refused: bool,
    lacks_table: bool,
    patience: u32,
    waited: u32,
}

impl OpenWaits {
    /// What the next look may leave out, where the last one was `look`.
    pub fn known(&mut self, look: EarlierLook) -> EarlierLook {
        if self.has_refused {
            return EarlierLook::default();
        }
        if self.lacks_table {
            if self.waited >= self.patience {
                // By now there may be the tables.
                self.waited = 0;
                self.patience = (2 * self.patience).clamp(1, MAX_PATIENCE);
                return EarlierLook::default();
            }
            self.waited += 1;
        } else {
            self.patience = 0;
        }
        look
    }

    /// A look begins.
    pub fn begin_look(&mut self) {
        self.has_refused = false;
        self.lacks_table = false;
        for known in self.waits.values_mut() {
            known.is_over = true;
        }
    }

    /// A look has met a thread in this state: a wait of it that is known goes on, or is over.
    pub fn met(&mut self, key: u64, clock: &ThreadClock) {
        if let Some(known) = self.waits.get_mut(&key) {
            known.is_over = known.left_ns != clock.left_ns || clock.state == State::OnCpu as u32;
        }
    }

    /// A look tells of the wait of the thread with this key. `bytes` are its record.
    pub fn tell(&mut self, key: u64, wait: &Wait<'_>, bytes: &[u8]) {
        let entry = self.waits.entry(key);
        if let Entry::Occupied(known) = &entry {
            self.bytes -= known.get().bytes.len();
        }
        if self.bytes + bytes.len() > MAX_BYTES {
            self.has_refused = true;
            if let Entry::Occupied(known) = entry {
                known.remove();
            }
            return;
        }
        self.bytes += bytes.len();
        let known = Known { left_ns: wait.facts.left_ns, bytes: bytes.into(), object: None, is_over: false };
        entry.insert_entry(known);
    }

    /// Whether the wait of this thread is kept.
    #[must_use]
    pub fn has(&self, key: u64, left_ns: u64) -> bool {
        self.waits.get(&key).is_some_and(|known| known.left_ns == left_ns)
    }

    /// The look is over: forgets what ended, and adds what goes on to the window from `start_ns` to `end_ns`. `state_of` is the
    /// clock of a thread in this look. How many were added.
    pub fn add_to(
        &mut self,
        aggregate: &mut Aggregate,
        start_ns: u64,
        end_ns: u64,
        period_ns: u64,
        state_of: impl Fn(u64) -> Option<ThreadClock>,
    ) -> u64 {
        let mut added = 0;
        let (bytes, lacks_table) = (&mut self.bytes, &mut self.lacks_table);
        self.waits.retain(|key, known| {
            let Some(clock) = state_of(*key).filter(|_| !known.is_over) else {
                *bytes -= known.bytes.len();
                return false;
            };
            let Ok(Record::Wait(mut wait)) = decode(&known.bytes) else {
                *bytes -= known.bytes.len();
                return false;
            };
            *lacks_table |= wait.sample.user_outcome == StackOutcome::TableMissing;
            let length_ns = end_ns.saturating_sub(known.left_ns);
            // Of one that this period would not have chosen, others tell what it stands for.
            if !is_chosen(known.left_ns, length_ns, period_ns) {
                return true;
            }
            let is_blocked = clock.state >= State::Blocked as u32;
            let blocked_ns = if is_blocked {
                length_ns
            } else {
                clock.since_ns.saturating_sub(known.left_ns).min(length_ns)
            };
            wait.facts.blocked_ns = blocked_ns;
            let is_throttled = clock.state == State::Throttled as u32;
            let runnable_ns = length_ns - blocked_ns;
            wait.facts.throttled_ns = if is_throttled { runnable_ns } else { 0 };
            wait.facts.queued_ns = if is_throttled { 0 } else { runnable_ns };
            wait.facts.period_ns = period_ns;
            if let Some(wait) = wait.since(start_ns) {
                known.object = aggregate.add_open_wait(&wait, known.object);
                added += 1;
            }
            true
        });
        added
    }

    /// The names of objects begin anew.
    pub fn forget_objects(&mut self) {
        for known in self.waits.values_mut() {
            known.object = None;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::aggregate::{Limits, Origin};
    use chokepoint_ebpf::COMM_LEN;
    use chokepoint_ebpf::record::Kind;
    use chokepoint_ebpf::sample::{SampleHeader, Source};
    use chokepoint_ebpf::sched::WaitFacts;

    const KEY: u64 = 0xffff_8881_0000_2000;
    const PERIOD_NS: u64 = 0;

    fn view<T>(of: &T) -> &[u8] {
        // SAFETY: plain structures without holes, borrowed as long as the view.
        unsafe { std::slice::from_raw_parts((&raw const *of).cast(), size_of::<T>()) }
    }

    fn bytes(left_ns: u64, user_outcome: StackOutcome) -> Vec<u8> {
        let facts =
            WaitFacts { left_ns, state: State::Blocked as u32, blocked_ns: 1, open: 1, ..WaitFacts::NONE };
        [view(&facts), &sample_record(Source::OpenWait, 0, user_outcome)].concat()
    }

    /// A sample of thread 1 of process 1, without a stack: for tests of what sums them.
    pub(crate) fn sample_record(source: Source, weight: u64, user_outcome: StackOutcome) -> Vec<u8> {
        let header = SampleHeader {
            kind: Kind::Sample as u32,
            cpu: 0,
            time_ns: 0,
            weight,
            tgid: 1,
            tid: 1,
            process_start_ns: 1,
            exec_id: 0,
            reserved: 0,
            thread_comm: [0; COMM_LEN],
            process_comm: [0; COMM_LEN],
            user_frames: 0,
            kernel_frames: 0,
            source: source as u8,
            user_outcome: user_outcome as u8,
            kernel_outcome: StackOutcome::Walked as u8,
            reserved_tail: 0,
        };
        view(&header).to_vec()
    }

    fn clock(state: State, since_ns: u64, left_ns: u64) -> ThreadClock {
        ThreadClock { state: state as u32, since_ns, left_ns, ..ThreadClock::ZERO }
    }

    fn tell(waits: &mut OpenWaits, key: u64, left_ns: u64, outcome: StackOutcome) {
        let bytes = bytes(left_ns, outcome);
        let Ok(Record::Wait(wait)) = decode(&bytes) else { panic!("not a wait") };
        waits.tell(key, &wait, &bytes);
    }

    /// A look that meets one thread; the weight that its wait has in the window.
    fn window(waits: &mut OpenWaits, clock: ThreadClock, start_ns: u64, end_ns: u64) -> u64 {
        let mut aggregate = Aggregate::new(Limits::default());
        waits.met(KEY, &clock);
        let added = waits.add_to(&mut aggregate, start_ns, end_ns, PERIOD_NS, |_| Some(clock));
        assert_eq!(added, aggregate.captured(Origin::Waits).samples());
        aggregate.sums().map(|(.., sum)| sum.weight).sum()
    }

    #[test]
    fn a_wait_that_was_told_once_is_in_every_window_until_it_is_over() {
        let mut waits = OpenWaits::default();
        waits.begin_look();
        tell(&mut waits, KEY, 500, StackOutcome::Complete);
        let sleeps = clock(State::Blocked, 500, 500);
        assert_eq!(window(&mut waits, sleeps, 0, 1_000), 500);
        // Not told again.
        waits.begin_look();
        assert_eq!(window(&mut waits, sleeps, 1_000, 2_000), 1_000);
        waits.begin_look();
        assert_eq!(window(&mut waits, clock(State::Woken, 2_600, 500), 2_000, 3_000), 1_000);
        // It runs, and then sleeps anew.
        waits.begin_look();
        assert_eq!(window(&mut waits, clock(State::Blocked, 3_500, 3_500), 3_000, 4_000), 0);
        assert!((waits.waits.is_empty(), waits.bytes) == (true, 0));
    }

    #[test]
    fn stacks_without_a_table_are_asked_for_again_ever_less_often() {
        let mut waits = OpenWaits::default();
        let look = EarlierLook { time_ns: 1_000, period_ns: 1 };
        let mut repeats = Vec::new();
        for number in 0..20 {
            if waits.known(look) == EarlierLook::default() {
                repeats.push(number);
            }
            waits.begin_look();
            tell(&mut waits, KEY, 500, StackOutcome::TableMissing);
            let _ = window(&mut waits, clock(State::Blocked, 500, 500), 0, 1_000);
        }
        assert_eq!(repeats, [1, 3, 6, 11]);
    }

    #[test]
    fn where_there_is_no_room_every_look_tells_of_all_waits() {
        let mut waits = OpenWaits::default();
        let look = EarlierLook { time_ns: 1_000, period_ns: 1 };
        waits.begin_look();
        assert_eq!(waits.known(look), look);
        let count = MAX_BYTES / bytes(500, StackOutcome::Complete).len() + 1;
        for key in 0..count as u64 {
            tell(&mut waits, key, 500, StackOutcome::Complete);
        }
        assert!(!waits.has(count as u64 - 1, 500) && waits.bytes <= MAX_BYTES);
        assert_eq!(waits.known(look), EarlierLook::default());
    }
}
