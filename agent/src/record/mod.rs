//! `chokepoint record`: samples for a while and writes a profile of each event that was asked for.
//!
//! [`crate::pipeline`] runs the stages; here is what is particular to this command: its options, the target's life
//! ([`workload`]), the output file ([`output`]), the progress bar and the closing summary ([`summary`]).

mod block_table;
pub mod event;
mod memory_summary;
pub mod output;
pub mod progress;
mod run_queue_summary;
mod sockets_summary;
pub mod summary;
pub mod workload;

use std::time::Duration;

use chokepoint_ebpf::run_queue::QueueDetail;

use crate::load::Stacks;
use crate::target::Target;
use crate::unwind;
use event::Event;

/// Frequency at which nothing is asked for: not 100, so that it does not beat with timers of 10 ms.
pub const DEFAULT_FREQUENCY_HZ: u32 = 99;
/// Time that a recording takes where nothing is asked for.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// What to sample, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is profiled.
    pub target: Target,
    /// How long; `None` until the target ends or the user stops it.
    pub duration: Option<Duration>,
    /// What it shows; at least one.
    pub events: Vec<Event>,
    /// Ticks a second on each CPU.
    pub frequency_hz: u32,
    /// Which stacks are kept.
    pub stacks: Stacks,
    /// Samples that are kept one by one, with their times, at most; 64 bytes each. Those beyond are counted, and in the sums all the same.
    pub timeline: usize,
    /// What is told of how long threads queue, and of who runs meanwhile. It costs a little at every switch of the host.
    pub run_queues: QueueDetail,
    /// Whether each source is to cost as little as windows without end allow: minor faults are sampled and not counted, reclaim is not looked
    /// at, stacks of who opens connections are not taken, and requests of block devices are summed by device and operation alone.
    pub sparing: bool,
    /// What unwind tables may cost.
    pub unwind: unwind::Options,
    /// Whether inlined functions become frames of their own.
    pub inlined: bool,
    /// Whether lines of source files are told. Without these and inlined functions, symbol tables are read and no debug information.
    pub source_lines: bool,
    /// Whether the kernel programs log through aya-log.
    pub kernel_log: bool,
}

impl Options {
    /// Whether this event is recorded.
    #[must_use]
    pub fn has(&self, event: Event) -> bool {
        self.events.contains(&event)
    }

    /// Whether an event takes samples of the CPUs.
    #[must_use]
    pub fn takes_on_cpu(&self) -> bool {
        self.any(Event::needs_on_cpu)
    }

    /// Whether an event takes the scheduler's events.
    #[must_use]
    pub fn takes_sched(&self) -> bool {
        self.any(Event::needs_sched)
    }

    /// Whether an event takes stacks of what ends waits.
    #[must_use]
    pub fn takes_wakers(&self) -> bool {
        self.any(Event::needs_wakers)
    }

    /// Whether an event takes those of TCP connections.
    #[must_use]
    pub fn takes_tcp(&self) -> bool {
        self.any(Event::needs_tcp)
    }

    /// Whether an event looks at the statistics of TCP connections.
    #[must_use]
    pub fn looks_at_sockets(&self) -> bool {
        self.any(Event::looks_at_sockets)
    }

    /// Whether an event takes what processes do with memory.
    #[must_use]
    pub fn takes_memory(&self) -> bool {
        self.any(Event::needs_memory)
    }

    /// Whether an event takes the requests of block devices.
    #[must_use]
    pub fn takes_block(&self) -> bool {
        self.any(Event::needs_block)
    }

    /// Whether an event looks at calls that fail for want of something limited.
    #[must_use]
    pub fn looks_at_failed_calls(&self) -> bool {
        self.any(Event::looks_at_failed_calls)
    }

    fn any(&self, needs: impl Fn(Event) -> bool) -> bool {
        self.events.iter().any(|event| needs(*event))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target: Target::Host,
            duration: Some(DEFAULT_DURATION),
            events: vec![Event::Cpu],
            frequency_hz: DEFAULT_FREQUENCY_HZ,
            stacks: Stacks { user: true, kernel: true },
            timeline: 0,
            run_queues: QueueDetail::Nothing,
            sparing: false,
            unwind: unwind::Options::default(),
            inlined: true,
            source_lines: true,
            kernel_log: false,
        }
    }
}
