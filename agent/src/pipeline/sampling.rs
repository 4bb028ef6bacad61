//! A session under way: what is due while records come in, and its windows.

use std::path::Path;
use std::time::{Duration, Instant};

use chokepoint_ebpf::run_queue::QueueDetail;
use chokepoint_ebpf::sched::EarlierLook;

use super::looks::{Look, meet};
use super::program_cost::{CostSampling, Step};
use super::sums::Sums;
use super::{FORGOTTEN_AFTER, Session};
use crate::aggregate::{Aggregate, Origin};
use crate::block_watch::BlockSeen;
use crate::drain::DRAIN_INTERVAL;
use crate::failure::Failure;
use crate::host::cgroups;
use crate::host::clock::{ClockTie, monotonic_ns};
use crate::load::tcp::Sends;
use crate::load::{Counters, Gate, MissedRuns, OnCpuEvent, ProgramCost};
use crate::memory::MemoryEvents;
use crate::open_waits::OpenWaits;
use crate::queue_windows::QueueWindows;
use crate::record::event::Event;
use crate::sockets::{self, Sockets, SocketsSeen};
use crate::window::{Counts, Window};

/// When the threads that wait are looked at, since the window's start, until no table is missing: each look meets the files one
/// frame further out than those that have tables.
const LOOKS: &[Duration] = &[
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(800),
    Duration::from_millis(1500),
    Duration::from_millis(3000),
];

/// Time between two searches for the owners of connections.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);
/// The same in windows without end, in what the last one took: a host full of processes has a hundred thousand open files.
const SPARING_SEARCH_PAUSE: u32 = 1_000;

/// After a loss, how long sends are seen where they are not always: what the kernel programs want of them ([`crate::load::tcp`]).
const SENDS_SEEN: Duration = Duration::from_secs(10);

/// A session under way. Dropping it ends it without a result.
pub struct Sampling {
    pub(super) session: Session,
    pub(super) event: Option<OnCpuEvent>,
    tie: ClockTie,
    pub(super) start: Instant,
    pub(super) sums: Sums,
    pub(super) open_waits: OpenWaits,
    queues: QueueWindows,
    earlier_look: EarlierLook,
    /// The looks that are still to be had for the files that threads wait in.
    looks: &'static [Duration],
    before: Before,
    /// `None` where no event looks at them.
    pub(super) sockets: Option<Sockets>,
    sockets_seen: Instant,
    searched: Instant,
    search_interval: Duration,
    /// Losses of connections in this window when they were looked at last, and when there were new ones; `None`: not for long.
    losses: (u64, Option<Instant>),
    adapted: Instant,
    /// Stacks of waits in this window when the budget was adapted last.
    stacks: u64,
    /// Since when processes and objects have been remembered.
    remembered: Instant,
    /// `None` where the programs' cost is measured all the time.
    cost: Option<CostSampling>,
}

/// What had been counted when the window began.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    counters: Counters,
    cost: ProgramCost,
    malformed: u64,
    missed: MissedRuns,
}

impl Sampling {
    /// Begins the first window, now that the session's sources tell. `event` is what drives the on-CPU source, if it is there,
    /// and `sockets` has had its first look.
    pub(super) fn begin(
        mut session: Session,
        event: Option<OnCpuEvent>,
        tie: ClockTie,
        aggregate: Aggregate,
        sockets: Option<Sockets>,
    ) -> Self {
        let (start, window_start_ns) = (Instant::now(), monotonic_ns());
        let cost = session.options.sparing.then(|| {
            session.programs.measure_cost(false);
            CostSampling::new(start)
        });
        let memory = MemoryEvents::new(session.gate.clone(), session.options.target.clone(), window_start_ns);
        Self {
            session,
            event,
            tie,
            start,
            sums: Sums::new(aggregate, memory, window_start_ns),
            sockets,
            sockets_seen: start,
            open_waits: OpenWaits::default(),
            queues: QueueWindows::default(),
            earlier_look: EarlierLook::default(),
            looks: LOOKS,
            before: Before::default(),
            searched: start,
            search_interval: SEARCH_INTERVAL,
            losses: (0, None),
            adapted: start,
            stacks: 0,
            remembered: start,
            cost,
        }
    }

    /// Waits for records and takes in what there is. To be called over and over between two windows; may be dropped and called
    /// again.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub async fn step(&mut self) -> Result<(), Failure> {
        let pressing = self.session.pressing();
        tokio::select! {
            ready = self.session.drain.ready() => ready.map_err(|error| Failure::unexpected(&error))?,
            () = sleep_for(pressing) => {}
        }
        self.take_in()
    }

    /// Ends the window, and begins the next where it ends. The kernel programs and their tables go on.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn close_window(&mut self) -> Result<Window, Failure> {
        self.take_in()?;
        let end_ns = monotonic_ns();
        let earlier_look = self.open_waits.known(self.earlier_look);
        let period_ns = self.session.budget.period_ns();
        let (running, look) = match self.session.programs.sched_mut() {
            Some(sched) => {
                sched.set_earlier_look(earlier_look)?;
                (self.session.programs.running_threads()?, self.session.programs.look_at_threads()?)
            }
            None => (Vec::new(), Vec::new()),
        };
        // Files that this look was the first to meet.
        self.drain();
        let open_waits =
            self.account(&Look { running: &running, found: &look, unlisted: &[], end_ns, goes_on: true })?;
        self.earlier_look = EarlierLook { time_ns: end_ns, period_ns };
        self.close_run_queues()?;
        let sockets = match &mut self.sockets {
            Some(sockets) if self.session.options.has(Event::Net) => {
                self.sockets_seen = Instant::now();
                self.session.look_at_sockets(sockets);
                sockets.close_window()
            }
            _ => SocketsSeen::default(),
        };
        let Session { block, programs, options, .. } = &mut self.session;
        let block = match block {
            Some(block) if options.has(Event::Io) => block.close_window(programs, end_ns)?,
            _ => BlockSeen::default(),
        };
        let mut window = self.close(end_ns, open_waits, 0)?;
        (window.sockets, window.block) = (sockets, block);
        if let Some(disks) = &mut self.session.disks {
            if let Some(Err(reason)) = self.session.programs.block() {
                window.block.refused = Some(reason.to_owned());
            }
            window.disks = disks.close_window(self.session.programs.read_block_devices()?);
        }
        Ok(window)
    }

    /// Tells who ran while others queued in this window, where that is asked for.
    fn close_run_queues(&mut self) -> Result<(), Failure> {
        let Session { programs, options, .. } = &mut self.session;
        if let Some(sched) = programs.sched_mut().filter(|_| options.run_queues == QueueDetail::WhoRan) {
            let mut pairs = sched.queue_pairs()?;
            let gone = self.queues.close(&mut pairs, |tgid| !Path::new(&format!("/proc/{tgid}")).exists());
            sched.forget_queue_pairs(&gone)?;
            self.sums.times.finish_run_queue(&pairs, cgroups::controlled_by("cpu").as_ref());
        }
        Ok(())
    }

    /// Samples CPUs at another frequency from now on. To be called between two windows: of one window, samples are to stand for the same.
    /// Weights keep to the frequency that the session was loaded with, and become right where they are scaled to the exact times of threads.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn set_frequency(&mut self, frequency_hz: u32) -> Result<(), Failure> {
        let Session { programs, options, cpus, .. } = &mut self.session;
        if self.event.is_some() && options.frequency_hz != frequency_hz {
            self.event = Some(programs.attach_on_cpu(cpus, frequency_hz)?);
            options.frequency_hz = frequency_hz;
        }
        Ok(())
    }

    /// Takes stacks of waits within this share of the usual budget from now on.
    pub fn set_wait_share(&mut self, share: f64) {
        self.session.budget.set_share(share);
    }

    /// Takes in what has been recorded, and does what is due.
    pub(super) fn take_in(&mut self) -> Result<(), Failure> {
        self.drain();
        let Self { session, sums, .. } = self;
        if let Some(sched) = session.programs.sched_mut() {
            sched.make_room();
            if self.adapted.elapsed() >= DRAIN_INTERVAL {
                let now = sums.aggregate.captured(Origin::Waits).samples();
                if session.budget.adapt(now - self.stacks, self.adapted.elapsed()) {
                    sched.set_period_ns(session.budget.period_ns())?;
                }
                (self.stacks, self.adapted) = (now, Instant::now());
            }
            if self.looks.first().is_some_and(|after| self.start.elapsed() >= *after) {
                sched.set_earlier_look(EarlierLook::default())?;
                let all_met = meet(&session.programs.look_at_threads()?, &session.unwinding)?;
                self.looks = if all_met { &[] } else { &self.looks[1..] };
            }
        }
        if let Some(cost) = &mut self.cost {
            match cost.step(Instant::now()) {
                Some(Step::Begin) if session.programs.measure_cost(true) => {
                    cost.began(Instant::now(), session.programs.cost());
                }
                Some(Step::End) => {
                    session.programs.measure_cost(false);
                    cost.ended(Instant::now(), session.programs.cost());
                }
                // Nobody may measure.
                Some(Step::Begin) | None => {}
            }
        }
        let taken =
            [Origin::Faults, Origin::Reclaims].map(|origin| sums.aggregate.captured(origin).samples());
        if session.memory_budget.adapt(taken, Instant::now()) {
            session.apply_memory_budget()?;
        }
        if let Some(block) = &mut session.block {
            block.look(&mut session.programs);
        }
        if let Some(calls) = &mut session.calls {
            calls.look(&mut session.programs)?;
        }
        if let Some(sockets) = &mut self.sockets
            && self.sockets_seen.elapsed() >= sockets::INTERVAL
            // The look that ends the window has to do.
            && !session.options.sparing
        {
            self.sockets_seen = Instant::now();
            session.look_at_sockets(sockets);
        }
        if session.options.sparing {
            let events = sums.connections.events();
            if events > self.losses.0 {
                self.losses.1 = Some(Instant::now());
            }
            self.losses.0 = events;
            self.losses.1 = self.losses.1.filter(|last| last.elapsed() < SENDS_SEEN);
            session.programs.see_sends(self.losses.1.is_some())?;
        }
        if sums.connections.is_searching() && self.searched.elapsed() >= self.search_interval {
            self.searched = Instant::now();
            sums.connections.find_owners(session.is_target());
            if session.options.sparing {
                let pause = self.searched.elapsed() * SPARING_SEARCH_PAUSE;
                self.search_interval = pause.max(SEARCH_INTERVAL);
            }
        }
        Ok(())
    }

    pub(super) fn drain(&mut self) {
        let Session { drain, unwinding, .. } = &mut self.session;
        drain.take_all(|record| self.sums.take(&record, unwinding));
    }

    /// Takes out what the window came to.
    pub(super) fn close(
        &mut self,
        end_ns: u64,
        open_waits: u64,
        pending_waits: u64,
    ) -> Result<Window, Failure> {
        let Self { session, sums, before, .. } = self;
        let duration = Duration::from_nanos(end_ns - sums.window_start_ns);
        let counters = session.programs.counters()?;
        let program_cost = match &mut self.cost {
            Some(sampled) => sampled.close_window(Instant::now(), duration, || session.programs.cost()),
            None if session.programs.cost_is_measured() => {
                let cost = session.programs.cost();
                Some(cost.since(std::mem::replace(&mut before.cost, cost)))
            }
            None => None,
        };
        let now = Before {
            counters,
            cost: before.cost,
            malformed: session.drain.malformed(),
            missed: session.programs.missed_runs(),
        };
        let counts = Counts {
            kernel: counters.since(&before.counters),
            expected: self.event.map_or(0, |event| {
                expected_ticks(event, session.cpus.len(), session.options.frequency_hz, duration)
            }),
            open_waits,
            pending_waits,
            malformed: now.malformed - before.malformed,
            missed: now.missed.since(before.missed),
            reclaims_without_length: sums.memory.without_length(),
            kills_dropped: sums.memory.kills_dropped(),
            sees_sends: session.programs.tcp().is_some_and(|tcp| tcp.sends() != Sends::Nowhere),
        };
        let calls = session.calls.as_mut().map(|calls| calls.close_window(&mut session.programs));
        *before = now;
        let forgotten = self.remembered.elapsed() >= FORGOTTEN_AFTER;
        if forgotten {
            self.remembered = Instant::now();
            self.open_waits.forget_objects();
        }
        let aggregate = sums.aggregate.close_window(forgotten);
        let connections = sums.connections.close_window(|placed| sums.aggregate.carry(&aggregate, placed));
        let faults = if session.options.sparing { sums.memory.close_window() } else { Vec::new() };
        let start_ns = std::mem::replace(&mut sums.window_start_ns, end_ns);
        sums.since_ns = end_ns;
        self.stacks = 0;
        self.losses.0 = 0;
        Ok(Window {
            start_ns,
            start_unix_ns: self.tie.unix_ns(start_ns),
            duration,
            aggregate,
            times: session.options.takes_sched().then(|| std::mem::take(&mut sums.times)),
            connections,
            memory: None,
            faults,
            disks: Vec::new(),
            sockets: SocketsSeen::default(),
            block: BlockSeen::default(),
            calls: calls.transpose()?.unwrap_or_default(),
            is_host: session.gate == Gate::Everything,
            program_cost,
            unwind_tables: session.unwinding.statistics(),
            counts,
        })
    }
}

/// A timer fires at its frequency whatever the CPU does; the cycle counter stands still on an idle CPU, so that nothing can be
/// said of it.
fn expected_ticks(event: OnCpuEvent, cpus: usize, frequency_hz: u32, duration: Duration) -> u64 {
    match event {
        OnCpuEvent::CpuClock => (cpus as f64 * f64::from(frequency_hz) * duration.as_secs_f64()) as u64,
        OnCpuEvent::Cycles => 0,
    }
}

pub(super) async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
