//! What a recording's profiles say of their own completeness: the counters of every stage, by event.

use chokepoint_analysis::coverage::{Coverage, Loss};
use chokepoint_ebpf::counters::Counter;

use crate::aggregate::{Aggregate, Captured, Origin};
use crate::connections::Connections;
use crate::load::{Counters, MissedRuns};
use crate::record::event::Event;
use crate::thread_times::ThreadTimes;
use crate::unwind;

/// What the sources saw of a recording's window.
pub struct Seen<'a> {
    /// What the kernel programs counted.
    pub counters: &'a Counters,
    /// The samples.
    pub aggregate: &'a Aggregate,
    /// The unwind tables.
    pub tables: &'a unwind::Statistics,
    /// The accounting of threads.
    pub times: &'a ThreadTimes,
    /// Ticks that there should have been.
    pub expected: u64,
    /// Waits that were not over.
    pub open_waits: u64,
    /// Waits whose stacks were still to be taken.
    pub pending_waits: u64,
    /// Records that could not be read.
    pub malformed: u64,
    /// Runs of kernel programs that the kernel left out.
    pub missed: MissedRuns,
    /// The accounting of connections.
    pub connections: &'a Connections,
    /// Whether this kernel lets a program see what is sent.
    pub sees_sends: bool,
    /// Reclaims whose lengths are not kept: there were too many processes.
    pub reclaims_without_length: u64,
    /// Kills for want of memory that are not told: there were too many.
    pub kills_dropped: u64,
    /// Why there is nothing of block devices; `None` where they were watched, or not asked for.
    pub block_refused: Option<&'a str>,
    /// Why calls that failed were not looked at to the window's end; `None` where they were, or not asked for.
    pub calls_refused: Option<&'a str>,
    /// Requests of block devices that had ended unseen when the window did.
    pub ended_unseen: u64,
    /// Looks for held bios that did not see all.
    pub short_looks: u64,
}

impl Seen<'_> {
    /// What of it went into an event's profile. Where that has samples of more than one source, they are added up.
    #[must_use]
    pub fn coverage(&self, event: Event) -> Coverage {
        let mut coverage = Coverage::default();
        let dropped = self.aggregate.dropped();
        let mut losses = vec![
            ("malformed record", self.malformed),
            ("stack table full", dropped.stack_table),
            ("thread table full", dropped.thread_table),
        ];
        let mut notes = Notes::default();
        self.note_recording(&mut notes);
        if event.needs_on_cpu() {
            losses.extend(self.cover_on_cpu(&mut coverage));
        }
        if event.needs_sched() {
            losses.extend(self.cover_sched(&mut coverage));
            self.note_sched(event, &mut notes);
        }
        if event.needs_tcp() {
            losses.extend(self.cover_tcp(&mut coverage));
            self.note_tcp(&mut notes);
        }
        if event.needs_memory() {
            losses.extend(self.cover_memory(event, &mut coverage));
            self.note_memory(&mut notes);
        }
        if event.needs_block() {
            self.note_block(&mut notes);
        }
        if event.looks_at_failed_calls() {
            self.note_failed_calls(&mut notes);
        }
        coverage.notes = notes.0;
        coverage.lost = losses
            .into_iter()
            .filter(|(_, samples)| *samples > 0)
            .map(|(cause, samples)| Loss { cause: cause.into(), samples })
            .collect();
        coverage
    }

    fn cover_on_cpu(&self, coverage: &mut Coverage) -> Vec<(&'static str, u64)> {
        let counters = self.counters;
        coverage.expected = self.expected;
        coverage.fired = counters.get(Counter::OnCpuFired);
        coverage.idle = counters.get(Counter::OnCpuIdle);
        coverage.outside_target = counters.get(Counter::OnCpuOutsideTarget);
        coverage.other_mode = counters.get(Counter::OnCpuOtherMode);
        coverage.attempted += counters.get(Counter::OnCpuAttempted);
        add(coverage, self.aggregate.captured(Origin::OnCpu));
        vec![
            ("ring buffer full", counters.get(Counter::OnCpuRingFull)),
            ("no scratch space", counters.get(Counter::OnCpuScratchMissing)),
        ]
    }

    fn cover_sched(&self, coverage: &mut Coverage) -> Vec<(&'static str, u64)> {
        let counters = self.counters;
        coverage.attempted += counters.get(Counter::WaitAttempted) + self.open_waits;
        add(coverage, self.aggregate.captured(Origin::Waits));
        vec![
            ("ring buffer full", counters.get(Counter::WaitRingFull)),
            ("no interrupt in time", counters.get(Counter::WaitNoInterrupt)),
            ("no interrupt", counters.get(Counter::WaitInterruptsFull)),
            ("window over", self.pending_waits),
            ("no scratch space", counters.get(Counter::WaitScratchMissing)),
        ]
    }

    fn cover_tcp(&self, coverage: &mut Coverage) -> Vec<(&'static str, u64)> {
        let (told, lost) = (self.connections.events(), self.counters.get(Counter::TcpRingFull));
        coverage.attempted += told + lost + self.missed.of_losses;
        coverage.captured += told;
        coverage.outside_target += self.counters.get(Counter::TcpOutsideTarget);
        let openers = self.aggregate.captured(Origin::Openers);
        coverage.user_stacks.add(&openers.user_stacks());
        coverage.kernel_stacks.add(&openers.kernel_stacks());
        vec![("ring buffer full", lost), ("within another event", self.missed.of_losses)]
    }

    fn cover_memory(&self, event: Event, coverage: &mut Coverage) -> Vec<(&'static str, u64)> {
        let counters = self.counters;
        let (attempted, origin, ring_full, scratch_missing) = if event == Event::Fault {
            (Counter::FaultAttempted, Origin::Faults, Counter::FaultRingFull, Counter::FaultScratchMissing)
        } else {
            let (full, missing) = (Counter::ReclaimStackRingFull, Counter::ReclaimScratchMissing);
            (Counter::ReclaimAttempted, Origin::Reclaims, full, missing)
        };
        coverage.attempted += counters.get(attempted);
        add(coverage, self.aggregate.captured(origin));
        vec![
            ("ring buffer full", counters.get(ring_full)),
            ("no scratch space", counters.get(scratch_missing)),
        ]
    }

    /// What the recording as a whole lacks.
    fn note_recording(&self, notes: &mut Notes) {
        let Self { counters, aggregate, tables, .. } = self;
        notes.add(
            counters.get(Counter::TargetTableFull),
            "child processes were not followed: the table of target processes was full",
        );
        notes.add(
            self.missed.of_others,
            "times a kernel program was left out: it was running on that CPU already",
        );
        notes.add(aggregate.dropped().timeline, "samples are missing from the timeline: it was full");
        notes.add(
            counters.get(Counter::FileNotAnnounced),
            "times a mapped file could not be announced, and its frames have no module",
        );
        notes.add(
            tables.failed,
            "files have call-frame information that is damaged or too large; their stacks may end early",
        );
        notes.add(
            tables.evicted + tables.no_room,
            "times an unwind table had no room: pass more with --unwind-memory",
        );
        notes.add(
            aggregate.binaries().unopened() as u64,
            "mapped files could not be opened; their frames have no symbols",
        );
        notes.add(
            aggregate.binaries().refused(),
            "mapped files are not known, and their frames have no module: there were too many",
        );
    }

    /// What the accounting of threads lacks.
    fn note_sched(&self, event: Event, notes: &mut Notes) {
        let Self { counters, aggregate, times, .. } = self;
        notes.add(
            counters.get(Counter::SchedTableFull),
            "switches and wake-ups were not accounted for: the table of threads was full",
        );
        notes.add(
            counters.get(Counter::SchedThreadLost),
            "threads that ended are not accounted for: the ring buffer was full",
        );
        notes.add(
            counters.get(Counter::SchedWakeUpMissed),
            "times a thread ran of which no wake-up was seen; its run-queue time counts as blocked",
        );
        notes.add(
            counters.get(Counter::SchedLeaveMissed) + times.left_unseen(),
            "times a thread left its CPU unseen, since this host hides it from tracing; what it did not run since it had come counts as blocked",
        );
        notes.add(
            counters.get(Counter::SchedArrivalMissed),
            "times a thread came to its CPU unseen, from a thread that this host hides from tracing",
        );
        if event.shows_run_queue() {
            notes.add(
                counters.get(Counter::QueuePairsFull),
                "times it was not told who ran while a thread queued: too many pairs of processes",
            );
        }
        notes.add(times.merged(), "threads are not told apart: there were too many");
        notes.add(
            aggregate.objects().skipped(),
            "waits were for a file that was not looked up: too many in a second",
        );
        if event.needs_wakers() {
            notes.add(counters.get(Counter::WakeRingFull), "wakers are missing: the ring buffer was full");
            notes.add(counters.get(Counter::WakeScratchMissing), "wakers are missing: no scratch space");
            notes.add(aggregate.dropped().wakes, "wakers are missing: too many waits at a time");
        }
    }

    /// What the accounting of memory lacks.
    fn note_memory(&self, notes: &mut Notes) {
        let counters = self.counters;
        notes.add(
            counters.get(Counter::MemoryProcessesFull),
            "faults and reclaims were not accounted for: the table of processes was full",
        );
        notes.add(
            counters.get(Counter::ReclaimTableFull),
            "reclaims were not seen: too many threads reclaimed at a time",
        );
        notes.add(
            counters.get(Counter::ReclaimRingFull)
                + counters.get(Counter::ReclaimStackRingFull)
                + counters.get(Counter::ReclaimScratchMissing)
                + self.reclaims_without_length,
            "reclaims are missing from the percentiles of their lengths",
        );
        notes.add(
            counters.get(Counter::KillLost) + self.kills_dropped,
            "kills for want of memory are not told: the ring buffer was full, or there were too many",
        );
    }

    /// What the accounting of connections lacks.
    fn note_tcp(&self, notes: &mut Notes) {
        let Self { counters, connections, .. } = self;
        notes.add(
            counters.get(Counter::TcpSocketsFull),
            "times a connection was not told apart from those without an owner: the table of sockets was full",
        );
        notes.add(counters.get(Counter::TcpStackLost), "stacks of connections were lost");
        notes.add(connections.forgotten(), "stacks of connections were forgotten: there were too many");
        notes.add(
            connections.not_told_apart().retransmits(),
            "segments were sent again by connections that are not told apart: there were too many",
        );
        notes.add(
            connections.unseen(),
            "segments were sent again of which only the number is known: their events were lost",
        );
        if !self.sees_sends {
            notes.0.push(
                "connections that were accepted or opened before have no stack: this kernel lets no program see sends"
                    .to_owned(),
            );
        }
    }

    /// What is not known of calls that failed.
    fn note_failed_calls(&self, notes: &mut Notes) {
        if let Some(reason) = self.calls_refused {
            notes.0.push(format!(
                "not all is known of calls that failed: this kernel refuses to have their ends watched ({reason})"
            ));
        }
        notes.add(
            self.counters.get(Counter::FailedCallsFull),
            "calls that failed are not told: the table of calls was full",
        );
    }

    /// What the sums of block devices lack.
    fn note_block(&self, notes: &mut Notes) {
        let counters = self.counters;
        if let Some(reason) = self.block_refused {
            notes.0.push(format!(
                "nothing is known of block devices: this kernel refuses to have them watched ({reason})"
            ));
        }
        notes.add(self.short_looks, "looks at bios held back by limits did not see all: there were too many");
        notes.add(
            counters.get(Counter::BlockRequestsFull),
            "requests of block devices were not followed: the table of requests was full",
        );
        notes.add(
            counters.get(Counter::BlockOwnersFull),
            "requests of block devices count without their process and group: the table of sums was full",
        );
        notes.add(
            counters.get(Counter::BlockDevicesFull),
            "requests of block devices are missing from the sums: the table of devices was full",
        );
        notes.add(
            counters.get(Counter::BlockBeganUnseen),
            "requests of block devices are counted without times and process: they began before the recording, or unseen",
        );
        notes.add(
            counters.get(Counter::BlockEndedUnseen) + self.ended_unseen,
            "requests of block devices are counted without times: they ended unseen, in an interrupt or where this host hides it",
        );
        notes.add(
            counters.get(Counter::BlockHeldFull),
            "bios that may have been held back were not followed: the table was full",
        );
        notes.add(
            counters.get(Counter::BlockHoldsFull),
            "bios that were held back are in no sum: the table was full",
        );
    }
}

fn add(coverage: &mut Coverage, captured: &Captured) {
    coverage.captured += captured.samples();
    coverage.user_stacks.add(&captured.user_stacks());
    coverage.kernel_stacks.add(&captured.kernel_stacks());
}

/// Sentences about what is missing.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    /// A number and what it is of, unless there are none.
    fn add(&mut self, number: u64, of: &str) {
        if number > 0 {
            self.0.push(format!("{number} {of}"));
        }
    }
}
