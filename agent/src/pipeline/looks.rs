//! What the looks at all threads tell: the times of those that live, their waits that are not over, and the files in which they
//! wait.

use std::collections::HashMap;

use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::sched::ThreadClock;

use super::Sampling;
use crate::drain::decode::{Record, decode_look, decode_running};
use crate::failure::Failure;
use crate::unwind::Unwinding;

/// A look that ends a window, as the kernel programs wrote it.
pub(super) struct Look<'a> {
    /// The threads that were on CPUs right before it.
    pub(super) running: &'a [u8],
    /// The threads that live, and their waits that are not over.
    pub(super) found: &'a [u8],
    /// The clocks of all threads, by their keys, where those are wanted too that no look finds.
    pub(super) unlisted: &'a [(u64, ThreadClock)],
    /// The window's end.
    pub(super) end_ns: u64,
    /// Whether another window follows.
    pub(super) goes_on: bool,
}

impl Sampling {
    /// Adds what a look has found: the times of threads, and the waits that are not over. Returns how many those are.
    pub(super) fn account(&mut self, look: &Look<'_>) -> Result<u64, Failure> {
        let &Look { running, found, unlisted, end_ns, goes_on } = look;
        let Self { session, sums, open_waits, .. } = self;
        let (mut added, mut key) = (0, 0);
        let mut living: HashMap<u64, ThreadClock> = HashMap::new();
        open_waits.begin_look();
        sums.marks.begin_look(decode_running(running).map_err(|error| Failure::unexpected(&error))?);
        decode_look(found, |record, bytes| match record {
            Record::Thread(thread) => {
                key = thread.key;
                living.insert(key, thread.clock);
                open_waits.met(key, &thread.clock);
                sums.times.add_living(&sums.marks.living(&thread, end_ns), end_ns);
            }
            // Its thread came right before.
            Record::Wait(wait) => {
                session.unwinding.sampled(&wait.sample);
                if goes_on {
                    open_waits.tell(key, &wait, bytes);
                    if open_waits.has(key, wait.facts.left_ns) {
                        return;
                    }
                }
                // Of one that began after the window's end nothing is left.
                if let Some(wait) = wait.until(end_ns).and_then(|wait| wait.since(sums.since_ns)) {
                    added += 1;
                    sums.aggregate.add_wait(&wait);
                }
            }
            _ => {}
        })
        .map_err(|error| Failure::unexpected(&error))?;
        for (key, clock) in unlisted.iter().filter(|(key, _)| !living.contains_key(key)) {
            sums.times.add_unlisted(clock, end_ns, |clock| sums.marks.unlisted(*key, clock, end_ns));
        }
        sums.times.add_left_unseen(sums.marks.end_look());
        let period_ns = session.budget.period_ns();
        let state_of = |key| living.get(&key).copied();
        added += open_waits.add_to(&mut sums.aggregate, sums.since_ns, end_ns, period_ns, state_of);
        Ok(added)
    }
}

/// Has the tables built of the files that threads wait in: those that wait through the whole window are in no other sample.
/// Returns whether none was missing.
pub(super) fn meet(look: &[u8], unwinding: &Unwinding) -> Result<bool, Failure> {
    let mut all_met = true;
    let sampled = |record: Record<'_>, _: &[u8]| {
        if let Record::Wait(wait) = record {
            all_met &= wait.sample.user_outcome != StackOutcome::TableMissing;
            unwinding.sampled(&wait.sample);
        }
    };
    decode_look(look, sampled).map_err(|error| Failure::unexpected(&error))?;
    Ok(all_met)
}
