//! What records are summed into.

use chokepoint_ebpf::memory::Fault;
use chokepoint_ebpf::sched::ENDED_UNSEEN;

use crate::aggregate::{Aggregate, Origin};
use crate::connections::Connections;
use crate::drain::decode::Record;
use crate::memory::{MemoryEvents, What};
use crate::process::binaries::Announced;
use crate::thread_marks::ThreadMarks;
use crate::thread_times::ThreadTimes;
use crate::unwind::Unwinding;

/// The sums of a session: those of its window, and what is remembered from window to window.
pub(super) struct Sums {
    pub(super) aggregate: Aggregate,
    pub(super) times: ThreadTimes,
    pub(super) marks: ThreadMarks,
    pub(super) connections: Connections,
    pub(super) memory: MemoryEvents,
    pub(super) window_start_ns: u64,
    /// From when on waits count: the first window has all that was seen while the sources started.
    pub(super) since_ns: u64,
}

impl Sums {
    /// Empty ones, but for the files that the aggregate knows.
    pub(super) fn new(aggregate: Aggregate, memory: MemoryEvents, window_start_ns: u64) -> Self {
        Self {
            aggregate,
            times: ThreadTimes::default(),
            marks: ThreadMarks::default(),
            connections: Connections::default(),
            memory,
            window_start_ns,
            since_ns: 0,
        }
    }

    /// Hands a record to where it belongs.
    pub(super) fn take(&mut self, record: &Record<'_>, unwinding: &Unwinding) {
        let Self { aggregate, times, marks, connections, memory, since_ns, .. } = self;
        match record {
            Record::Sample(sample) => {
                unwinding.sampled(sample);
                aggregate.add(sample);
            }
            Record::Wait(wait) => {
                unwinding.sampled(&wait.sample);
                match wait.since(*since_ns) {
                    Some(wait) => aggregate.add_wait(&wait),
                    // It ended with the window before, and was told too late for it.
                    None => aggregate.count_wait(&wait.sample),
                }
            }
            Record::Wake(facts, sample) => {
                unwinding.sampled(sample);
                aggregate.add_wake(facts, sample);
            }
            Record::Thread(thread) if thread.ended == ENDED_UNSEEN => {
                let clock = marks.ended(thread).clock;
                times.add_unlisted(&clock, clock.since_ns, |clock| *clock);
            }
            Record::Thread(thread) => times.add_ended(&marks.ended(thread)),
            Record::Tcp(record, event) => connections.add(record, *event),
            Record::TcpOpener(facts, call, sample) => {
                unwinding.sampled(sample);
                let placed = aggregate.add_opener(sample);
                connections.add_opener(facts, *call, sample, placed);
            }
            Record::Fault(fault, sample) => {
                unwinding.sampled(sample);
                let what = match fault {
                    Fault::Minor => What::MinorFault,
                    Fault::Major => What::MajorFault,
                };
                aggregate.add_elsewhere(Origin::Faults, sample, |placed| memory.add(what, sample, placed));
            }
            Record::Reclaim(facts, _, sample) => {
                memory.add_length(facts);
                if let Some(sample) = sample {
                    unwinding.sampled(sample);
                    let add = |placed| memory.add(What::Reclaim, sample, placed);
                    aggregate.add_elsewhere(Origin::Reclaims, sample, add);
                }
            }
            Record::Kill(record) => memory.add_kill(record),
            Record::NewFile(new) => match aggregate.announce(new) {
                Some(Announced::Opened(binary)) => {
                    if let Some(file) = &aggregate.binaries().get(binary).file {
                        unwinding.announce(new, binary, file);
                    }
                }
                Some(Announced::Unopened(_)) | None => unwinding.unopened(new),
            },
        }
    }
}
