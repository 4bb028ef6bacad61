//! What a session came to in one window: everything that its sources told, before anything has a name.
//!
//! A source's results are a field here: what is summed by stack is in the aggregate, the rest stands beside it.

use std::time::Duration;

use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::profile::{Basis, Header, Unit};

use crate::aggregate::Aggregate;
use crate::block_watch::BlockSeen;
use crate::connections::Connections;
use crate::coverage::Seen;
use crate::disk_latencies::DiskLatency;
use crate::failed_calls::CallsSeen;
use crate::host;
use crate::load::{Counters, MissedRuns, ProgramCost};
use crate::memory::{MemorySeen, Scaled};
use crate::record::event::Event;
use crate::sockets::SocketsSeen;
use crate::thread_times::ThreadTimes;
use crate::unwind;

/// One window of a session. It keeps what it needs, so that the session may go on meanwhile.
pub struct Window {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub start_ns: u64,
    /// The same as nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// How long it was.
    pub duration: Duration,
    /// Samples by thread and stack. Of a wait, what lies in the window.
    pub aggregate: Aggregate,
    /// The exact times of threads in the window; `None` where the scheduler's events were not asked for.
    pub times: Option<ThreadTimes>,
    /// What TCP connections sent again in the window.
    pub connections: Connections,
    /// Page faults, reclaim and kills of a recording; `None` where that was not asked for, and in windows that another follows.
    pub memory: Option<MemorySeen>,
    /// Page faults of one of many windows, where they were asked for.
    pub faults: Vec<Scaled>,
    /// How long requests of block devices took in one of many windows; empty where nobody asked.
    pub disks: Vec<DiskLatency>,
    /// TCP connections with their statistics; empty where nobody asked, and in windows that another follows unless the event of the
    /// network was asked for.
    pub sockets: SocketsSeen,
    /// What block devices did; empty where nobody asked, and in windows that another follows unless their event was asked for.
    pub block: BlockSeen,
    /// Calls that failed for want of something limited; empty where nobody asked.
    pub calls: CallsSeen,
    /// Whether all of the host is the target.
    pub is_host: bool,
    /// What the kernel programs have cost in the window; `None` where the kernel would not measure.
    pub program_cost: Option<ProgramCost>,
    /// The unwind tables, since the session began.
    pub unwind_tables: unwind::Statistics,
    pub(crate) counts: Counts,
}

/// Numbers that say how complete a window is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// What the kernel programs counted.
    pub kernel: Counters,
    /// Ticks that there should have been.
    pub expected: u64,
    /// Waits that were not over at its end.
    pub open_waits: u64,
    /// Waits whose stacks were still to be taken when the programs stopped.
    pub pending_waits: u64,
    /// Records that could not be read.
    pub malformed: u64,
    /// Runs of kernel programs that the kernel left out.
    pub missed: MissedRuns,
    /// Reclaims whose lengths are not kept: there were too many processes.
    pub reclaims_without_length: u64,
    /// Kills for want of memory that are not told: there were too many.
    pub kills_dropped: u64,
    /// Whether this kernel lets a program see what is sent.
    pub sees_sends: bool,
}

impl Window {
    /// What the profile of an event is, that was recorded with so many ticks a second on so many CPUs. `target` is what is profiled, in
    /// words.
    #[must_use]
    pub fn header(&self, event: Event, frequency_hz: u32, cpus: usize, target: &str) -> Header {
        Header {
            title: event.title().to_owned(),
            kind: event.name().to_owned(),
            unit: if event.is_counted() { Unit::Count } else { Unit::Nanoseconds },
            basis: if event == Event::Cpu { Basis::Samples } else { Basis::Weight },
            period: if event.is_counted() { 1 } else { 1_000_000_000 / u64::from(frequency_hz) },
            start_unix_ns: self.start_unix_ns,
            duration_ns: self.duration.as_nanos() as u64,
            host: host::name(),
            target: target.to_owned(),
            cpus: cpus as u32,
            kernel: host::kernel_release(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// How much of what happened the window has of an event.
    #[must_use]
    pub fn coverage(&self, event: Event) -> Coverage {
        let Counts {
            kernel,
            expected,
            open_waits,
            pending_waits,
            malformed,
            missed,
            reclaims_without_length,
            kills_dropped,
            sees_sends,
        } = self.counts;
        let no_times = ThreadTimes::default();
        let seen = Seen {
            counters: &kernel,
            aggregate: &self.aggregate,
            tables: &self.unwind_tables,
            times: self.times.as_ref().unwrap_or(&no_times),
            expected,
            open_waits,
            pending_waits,
            malformed,
            missed,
            connections: &self.connections,
            reclaims_without_length,
            kills_dropped,
            block_refused: self.block.refused.as_deref(),
            calls_refused: self.calls.refused.as_deref(),
            ended_unseen: self.block.ended_unseen,
            short_looks: self.block.short_looks,
            sees_sends,
        };
        seen.coverage(event)
    }
}
