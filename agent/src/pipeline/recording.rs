//! A recording: a session of one window, and what ends it.

use std::time::Duration;

use chokepoint_ebpf::counters::Counter;
use chokepoint_ebpf::run_queue::QueueDetail;

use super::Sampling;
use super::looks::Look;
use super::sampling::sleep_for;
use crate::block_watch::BlockSeen;
use crate::failure::Failure;
use crate::host::cgroups;
use crate::host::clock::monotonic_ns;
use crate::host::cost::{Cost, log_phase};
use crate::load::{OnCpuEvent, ProgramCost, Stopped};
use crate::symbolized::Wanted;
use crate::thread_times::ThreadTimes;
use crate::unwind;
use crate::window::Window;

/// Why a recording came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    Elapsed,
    /// The user stopped it.
    Interrupted,
    /// The target ended.
    TargetEnded,
}

/// A finished recording, not yet symbolized.
pub struct Recording {
    pub(super) window: Window,
    pub(super) wanted: Vec<Wanted>,
    facts: Facts,
}

/// How a recording was made.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What the kernel programs cost; `None` where the kernel would not measure.
    pub program_cost: Option<ProgramCost>,
    /// What drove the on-CPU source; `None` without it.
    pub event: Option<OnCpuEvent>,
    /// CPUs that were sampled.
    pub cpus: usize,
    /// Ticks a second on each of them.
    pub frequency_hz: u32,
    /// The unwind tables it took.
    pub unwind_tables: unwind::Statistics,
    /// Why it ended.
    pub end: End,
}

/// What may end a recording before its time.
pub trait Stop {
    /// Resolves with the reason when it is time to stop. May be dropped and called again.
    fn wait(&mut self) -> impl Future<Output = End>;
}

impl Sampling {
    /// Samples until the duration is over or `stop` says so. `target` is what is profiled, in words; `progress` is called after
    /// each drain with the time and the samples so far.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub async fn finish(
        mut self,
        target: String,
        stop: &mut impl Stop,
        mut progress: impl FnMut(Duration, u64),
    ) -> Result<Recording, Failure> {
        let start = self.start;
        let duration = self.session.options.duration;
        let deadline = duration.map(|duration| tokio::time::Instant::from_std(start + duration));
        let mut end = None;
        while end.is_none() {
            let pressing = self.session.pressing();
            tokio::select! {
                ready = self.session.drain.ready() => ready.map_err(|error| Failure::unexpected(&error))?,
                () = sleep_for(pressing) => {}
                () = sleep_until(deadline) => end = Some(End::Elapsed),
                reason = stop.wait() => end = Some(reason),
            }
            self.take_in()?;
            progress(start.elapsed(), self.sums.aggregate.samples() + self.sums.connections.events());
        }
        log_phase("sampled", Cost::of_this_process().cpu);
        self.stop(target, end.unwrap_or(End::Elapsed))
    }

    /// Ends the session with this window as its last.
    fn stop(mut self, target: String, end: End) -> Result<Recording, Failure> {
        let measured = self.session.programs.cost_is_measured();
        let end_ns = monotonic_ns();
        let mut block = self.session.block.take();
        let has_looked = block.as_mut().is_some_and(|block| block.end(&mut self.session.programs, end_ns));
        if let Some(calls) = &mut self.session.calls {
            calls.end(&mut self.session.programs)?;
        }
        let Stopped { cost, threads, running, clocks, queue_pairs, pending_waits, memory } =
            self.session.programs.stop()?;
        self.drain();
        let open_waits = self.account(&Look {
            running: &running,
            found: &threads,
            unlisted: &clocks,
            end_ns,
            goes_on: false,
        })?;
        if self.session.options.takes_sched() && self.session.options.run_queues == QueueDetail::WhoRan {
            self.sums.times.finish_run_queue(&queue_pairs, cgroups::controlled_by("cpu").as_ref());
        }
        // Files that this last look was the first to meet.
        self.drain();
        // What has lost something since the last search.
        self.sums.connections.find_owners(self.session.is_target());
        self.sums.aggregate.processes_mut().open_late_files();
        let memory = if self.session.options.takes_memory() {
            let kswapd_runs = self.session.programs.counters()?.get(Counter::KswapdRuns);
            let is_target = self.session.is_target();
            Some(self.sums.memory.finish(memory, &self.sums.aggregate, kswapd_runs, is_target))
        } else {
            None
        };
        let sockets = self.sockets.take().map(|mut sockets| {
            self.session.look_at_sockets(&mut sockets);
            sockets.finish()
        });
        let block = match block {
            Some(block) => block.finish(&mut self.session.programs, has_looked, end_ns)?,
            None => BlockSeen::default(),
        };
        let program_cost = measured.then_some(cost);
        let mut window = self.close(end_ns, open_waits, pending_waits)?;
        (window.memory, window.sockets, window.block) = (memory, sockets.unwrap_or_default(), block);
        let options = &self.session.options;
        let wanted = options
            .events
            .iter()
            .map(|event| Wanted {
                event: *event,
                header: window.header(*event, options.frequency_hz, self.session.cpus.len(), &target),
                coverage: window.coverage(*event),
            })
            .collect();
        let facts = Facts {
            program_cost,
            event: self.event,
            cpus: self.session.cpus.len(),
            frequency_hz: options.frequency_hz,
            unwind_tables: window.unwind_tables,
            end,
        };
        Ok(Recording { window, wanted, facts })
    }
}

impl Recording {
    /// How it was made.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// The exact times of threads; `None` where the scheduler's events were not asked for.
    #[must_use]
    pub fn thread_times(&self) -> Option<&ThreadTimes> {
        self.window.times.as_ref()
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
