//! Wires the stages of a session, with every capacity in sight. A recording is a session of one window.
//!
//! kernel programs -> ring buffer -> [`Drain`] -> [`Aggregate`] (with files and processes) -> [`Symbolizing`] -> [`Profile`],
//! and from the drain's sight of files without tables back to the kernel programs by [`Unwinding`].
//!
//! One thread drains and sums, two build unwind tables, another one symbolizes. While samples come in the last only reads the
//! kernel's symbols, so that recording costs no more than sampling and its tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chokepoint_analysis::profile::{Basis, Header, Unit};
use chokepoint_ebpf::counters::Counter;
use chokepoint_ebpf::memory::Fault;
use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::sched::{EarlierLook, MAX_THREADS, ThreadClock};

use crate::aggregate::{Aggregate, Limits, Origin};
use crate::block_watch::{self, BlockSeen, BlockWatch};
use crate::connections::Connections;
use crate::drain::decode::{Record, decode_look, decode_running};
use crate::drain::{DRAIN_INTERVAL, Drain, kernel_log};
use crate::failure::{Failure, Kind};
use crate::host;
use crate::host::cgroups::{self, Hierarchy};
use crate::host::clock::{ClockTie, monotonic_ns};
use crate::host::cost::{Cost, log_phase, thread_cpu};
use crate::load::layout::{KERNEL_BTF, KernelLayout};
use crate::load::memory::MemoryOptions;
use crate::load::sched::SchedOptions;
use crate::load::tcp::Sends;
use crate::load::{Counters, Gate, LoadOptions, OnCpuEvent, ProgramCost, Programs, Stopped};
use crate::memory::{MemoryEvents, What};
use crate::memory_budget::MemoryBudget;
use crate::open_waits::OpenWaits;
use crate::process::binaries::Announced;
use crate::record::Options;
use crate::record::event::Event;
use crate::sockets::{self, Sockets, SocketsSeen};
use crate::symbolize::{self, Symbolizer};
use crate::symbolized::{self, Profiles, Wanted};
use crate::target::{Target, admits, admitted};
use crate::thread_marks::ThreadMarks;
use crate::thread_times::ThreadTimes;
use crate::unwind::{self, Unwinding};
use crate::wait_budget::WaitBudget;
use crate::window::{Counts, Window};

/// Samples kept one by one where the format shows them at their times: 24 MB, three hours of one CPU at 99 Hz.
const TIMELINE_SAMPLES: usize = 1_000_000;
/// The ring buffer holds at least this much time at full rate, so that reading the mappings of a host full of new processes
/// does not lose samples.
const RING_TIME: Duration = Duration::from_secs(1);
/// Bytes of a typical sample: 50 frames and the header.
const TYPICAL_SAMPLE_BYTES: u64 = 512;
/// Limits of the ring buffer's size. The upper one is counted twice in the agent's resident memory where it is all used.
const RING_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=8 << 20;

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

/// How long processes that run code of no file, and what threads wait for, are remembered from window to window: those that
/// are gone leave nothing behind then.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Limits of the sums of one of many windows: 15 MB. Three are there at a time: one is summed, one is read and one is shown.
const WINDOW_LIMITS: Limits =
    Limits { frames: 500_000, sums: 100_000, threads: 32_768, timeline: 0, wakes: 65_536 };

/// Room for threads on a small host.
const MIN_THREADS: u32 = 8_192;

/// Target processes whose unwind tables are built before the first sample. Of more, files are built as they are sampled.
const PREPARED_PROCESSES: usize = 16;

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
    window: Window,
    wanted: Vec<Wanted>,
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

/// Loaded programs, ready to sample.
pub struct Session {
    programs: Programs,
    options: Options,
    cpus: Vec<u32>,
    drain: Drain,
    unwinding: Unwinding,
    gate: Gate,
    budget: WaitBudget,
    memory_budget: MemoryBudget,
    /// `None` where no event watches block devices.
    block: Option<BlockWatch>,
}

impl Session {
    /// Checks the options against the host and loads the programs. Needs a tokio runtime with IO and time.
    ///
    /// # Errors
    /// A [`Failure`] that says what to do.
    pub fn load(options: Options) -> Result<Self, Failure> {
        check_frequency(options.frequency_hz)?;
        let layout = read_layout()?;
        let gate = options.target.gate(&layout)?;
        Self::load_with_gate(options, gate, &layout)
    }

    /// The same for a command that was just forked.
    ///
    /// # Errors
    /// A [`Failure`] that says what to do.
    pub fn load_for_command(options: Options, pid: u32) -> Result<Self, Failure> {
        check_frequency(options.frequency_hz)?;
        let gate = Gate::Processes { tgids: vec![pid], follow_forks: true };
        Self::load_with_gate(options, gate, &read_layout()?)
    }

    fn load_with_gate(options: Options, gate: Gate, layout: &KernelLayout) -> Result<Self, Failure> {
        // Not before a command has been forked, which is to have the limits it would have without a profiler.
        host::raise_open_files_limit();
        let cpus = host::online_cpus().map_err(|error| Failure::unexpected(&error))?;
        let load = LoadOptions {
            gate: gate.clone(),
            stacks: options.stacks,
            frequency_hz: takes_on_cpu(&options).then_some(options.frequency_hz),
            sched: sched_options(&options).map(|sched| SchedOptions {
                cpu_controller: cgroups::controlled_by("cpu")
                    .filter(Hierarchy::is_version_1)
                    .and_then(|_| layout.controller("cpu")),
                ..sched
            }),
            tcp: takes_tcp(&options),
            memory: memory_options(&options),
            block: takes_block(&options).then(|| BlockWatch::options(&gate, layout)),
            ring_bytes: ring_bytes(cpus.len(), &options),
            possible_cpus: host::possible_cpus().map_err(|error| Failure::unexpected(&error))?,
            perf_max_stack: host::sysctl("kernel.perf_event_max_stack")
                .and_then(|max| max.try_into().ok())
                .unwrap_or(127),
            kernel_log: options.kernel_log,
        };
        let mut programs = Programs::load(&load, layout)?;
        if options.kernel_log {
            kernel_log::forward(&mut programs)?;
        }
        let drain = Drain::new(programs.take_records()?).map_err(|error| Failure::unexpected(&error))?;
        let unwinding = Unwinding::start(programs.take_unwind_maps()?, &options.unwind)?;
        let budget = WaitBudget::new(cpus.len(), gate == Gate::Everything);
        if let Some(sched) = programs.sched_mut() {
            sched.set_period_ns(budget.period_ns())?;
        }
        let memory_budget = MemoryBudget::new(cpus.len(), gate == Gate::Everything, Instant::now());
        apply(&memory_budget, &mut programs)?;
        let block = takes_block(&options).then(|| BlockWatch::new(&gate, layout));
        Ok(Self { programs, options, cpus, drain, unwinding, gate, budget, memory_budget, block })
    }

    /// The processes that the target names, if it names any.
    #[must_use]
    pub fn target_processes(&self) -> &[u32] {
        match &self.gate {
            Gate::Processes { tgids, .. } => tgids,
            _ => &[],
        }
    }

    /// Has the target's files known and their tables built before the first sample. What of it fails is made up for as samples
    /// come.
    fn prepare(&mut self, aggregate: &mut Aggregate) {
        let targets = admitted(&self.gate, &self.options.target, PREPARED_PROCESSES);
        let mut binaries: Vec<_> =
            targets.into_iter().flat_map(|tgid| aggregate.open_files_of(tgid)).collect();
        binaries.sort_unstable();
        binaries.dedup();
        let files: Vec<_> = binaries
            .into_iter()
            .filter_map(|binary| Some((binary, Arc::clone(aggregate.binaries().get(binary).file.as_ref()?))))
            .collect();
        if files.is_empty() {
            return;
        }
        let introduced = self
            .programs
            .introduce(files.iter().map(|(_, file)| &**file))
            .inspect_err(|error| tracing::debug!(%error, "files are made known as they are sampled"))
            .unwrap_or_default();
        self.drain.take_all(|record| {
            if let Record::NewFile(new) = record
                && let Some(index) = introduced
                    .iter()
                    .position(|mapped| mapped.as_ref().is_some_and(|mapped| mapped.address() == new.start))
            {
                let (binary, file) = &files[index];
                aggregate.introduce(&new, *binary);
                self.unwinding.announce(&new, *binary, file);
            }
        });
        self.unwinding.prepare(files.iter().map(|(binary, file)| (*binary, file)));
    }

    fn look_at_sockets(&self, sockets: &mut Sockets) {
        sockets
            .look(self.gate == Gate::Everything, is_target(&self.gate, &self.options.target, &self.programs));
    }

    /// Begins to sample for a recording.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn start(self) -> Result<Sampling, Failure> {
        let timeline = if self.options.timeline { TIMELINE_SAMPLES } else { 0 };
        self.start_with(Limits { timeline, ..Limits::default() })
    }

    /// Begins to sample, window after window.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn start_windows(self) -> Result<Sampling, Failure> {
        self.start_with(WINDOW_LIMITS)
    }

    fn start_with(mut self, limits: Limits) -> Result<Sampling, Failure> {
        let mut aggregate = Aggregate::new(limits);
        self.prepare(&mut aggregate);
        let tie = ClockTie::now();
        self.programs.attach_sched()?;
        self.programs.attach_tcp()?;
        self.programs.attach_memory(&self.cpus)?;
        self.programs.attach_block()?;
        let event = if takes_on_cpu(&self.options) {
            Some(self.programs.attach_on_cpu(&self.cpus, self.options.frequency_hz)?)
        } else {
            None
        };
        let mut sockets = looks_at_sockets(&self.options).then(Sockets::default);
        if let Some(sockets) = &mut sockets {
            self.look_at_sockets(sockets);
        }
        let (start, window_start_ns) = (Instant::now(), monotonic_ns());
        let memory = MemoryEvents::new(self.gate.clone(), self.options.target.clone(), window_start_ns);
        Ok(Sampling {
            session: self,
            event,
            tie,
            start,
            sums: Sums {
                aggregate,
                times: ThreadTimes::default(),
                marks: ThreadMarks::default(),
                connections: Connections::default(),
                memory,
                window_start_ns,
                since_ns: 0,
            },
            sockets,
            sockets_seen: start,
            open_waits: OpenWaits::default(),
            earlier_look: EarlierLook::default(),
            looks: LOOKS,
            before: Before::default(),
            searched: start,
            adapted: start,
            stacks: 0,
            remembered: start,
        })
    }
}

/// A session under way. Dropping it ends it without a result.
pub struct Sampling {
    session: Session,
    event: Option<OnCpuEvent>,
    tie: ClockTie,
    start: Instant,
    sums: Sums,
    open_waits: OpenWaits,
    earlier_look: EarlierLook,
    /// The looks that are still to be had for the files that threads wait in.
    looks: &'static [Duration],
    before: Before,
    /// `None` where no event looks at them.
    sockets: Option<Sockets>,
    sockets_seen: Instant,
    searched: Instant,
    adapted: Instant,
    /// Stacks of waits in this window when the budget was adapted last.
    stacks: u64,
    /// Since when processes and objects have been remembered.
    remembered: Instant,
}

/// What records are summed into.
struct Sums {
    aggregate: Aggregate,
    times: ThreadTimes,
    marks: ThreadMarks,
    connections: Connections,
    memory: MemoryEvents,
    window_start_ns: u64,
    /// From when on waits count: the first window has all that was seen while the sources started.
    since_ns: u64,
}

/// What had been counted when the window began.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    counters: Counters,
    cost: ProgramCost,
    malformed: u64,
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
            let is_pressing = self.session.block.as_ref().is_some_and(BlockWatch::is_pressing);
            tokio::select! {
                ready = self.session.drain.ready() => ready.map_err(|error| Failure::unexpected(&error))?,
                () = sleep_for(is_pressing.then_some(block_watch::INTERVAL)) => {}
                () = sleep_until(deadline) => end = Some(End::Elapsed),
                reason = stop.wait() => end = Some(reason),
            }
            self.take_in()?;
            progress(start.elapsed(), self.sums.aggregate.samples() + self.sums.connections.events());
        }
        log_phase("sampled", Cost::of_this_process().cpu);
        self.stop(target, end.unwrap_or(End::Elapsed))
    }

    /// Waits for records and takes in what there is. To be called over and over between two windows; may be dropped and called
    /// again.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub async fn step(&mut self) -> Result<(), Failure> {
        self.session.drain.ready().await.map_err(|error| Failure::unexpected(&error))?;
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
        let open_waits = self.account(&running, &look, &[], end_ns, true)?;
        self.earlier_look = EarlierLook { time_ns: end_ns, period_ns };
        self.close(end_ns, open_waits, 0)
    }

    /// Ends the session with this window as its last.
    fn stop(mut self, target: String, end: End) -> Result<Recording, Failure> {
        let measured = self.session.programs.cost_is_measured();
        let end_ns = monotonic_ns();
        let mut block = self.session.block.take();
        let has_looked = block.as_mut().is_some_and(|block| block.end(&mut self.session.programs, end_ns));
        let Stopped { cost, threads, running, clocks, queue_pairs, pending_waits, memory } =
            self.session.programs.stop()?;
        self.drain();
        let open_waits = self.account(&running, &threads, &clocks, end_ns, false)?;
        if sched_options(&self.session.options).is_some() {
            self.sums.times.finish_run_queue(&queue_pairs, cgroups::controlled_by("cpu").as_ref());
        }
        // Files that this last look was the first to meet.
        self.drain();
        // What has lost something since the last search.
        let Session { programs, gate, options, .. } = &self.session;
        self.sums.connections.find_owners(is_target(gate, &options.target, programs));
        self.sums.aggregate.processes_mut().open_late_files();
        let memory = if memory_options(options).is_some() {
            let kswapd_runs = programs.counters()?.get(Counter::KswapdRuns);
            let is_target = is_target(gate, &options.target, programs);
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
                header: Header {
                    title: event.title().to_owned(),
                    kind: event.name().to_owned(),
                    unit: if event.is_counted() { Unit::Count } else { Unit::Nanoseconds },
                    basis: if *event == Event::Cpu { Basis::Samples } else { Basis::Weight },
                    period: if event.is_counted() {
                        1
                    } else {
                        1_000_000_000 / u64::from(options.frequency_hz)
                    },
                    start_unix_ns: window.start_unix_ns,
                    duration_ns: window.duration.as_nanos() as u64,
                    host: host::name(),
                    target: target.clone(),
                    cpus: self.session.cpus.len() as u32,
                },
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

    /// Takes in what has been recorded, and does what is due.
    fn take_in(&mut self) -> Result<(), Failure> {
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
        let taken =
            [Origin::Faults, Origin::Reclaims].map(|origin| sums.aggregate.captured(origin).samples());
        if session.memory_budget.adapt(taken, Instant::now()) {
            apply(&session.memory_budget, &mut session.programs)?;
        }
        if let Some(block) = &mut session.block {
            block.look(&mut session.programs);
        }
        if let Some(sockets) = &mut self.sockets
            && self.sockets_seen.elapsed() >= sockets::INTERVAL
        {
            self.sockets_seen = Instant::now();
            session.look_at_sockets(sockets);
        }
        if sums.connections.is_searching() && self.searched.elapsed() >= SEARCH_INTERVAL {
            self.searched = Instant::now();
            let Session { gate, options, programs, .. } = session;
            sums.connections.find_owners(is_target(gate, &options.target, programs));
        }
        Ok(())
    }

    fn drain(&mut self) {
        let Session { drain, unwinding, .. } = &mut self.session;
        drain.take_all(|record| self.sums.take(&record, unwinding));
    }

    /// Adds what a look at all threads has found: their times, and the waits that are not over. `running` are the threads that
    /// were on CPUs right before it. `unlisted` are the clocks of all
    /// threads, where those are wanted too that no look finds; `goes_on` tells whether another window follows. How many waits
    /// are not over.
    fn account(
        &mut self,
        running: &[u8],
        look: &[u8],
        unlisted: &[(u64, ThreadClock)],
        end_ns: u64,
        goes_on: bool,
    ) -> Result<u64, Failure> {
        let Self { session, sums, open_waits, .. } = self;
        let (mut added, mut key) = (0, 0);
        let mut found: HashMap<u64, ThreadClock> = HashMap::new();
        open_waits.begin_look();
        sums.marks.begin_look(decode_running(running).map_err(|error| Failure::unexpected(&error))?);
        decode_look(look, |record, bytes| match record {
            Record::Thread(thread) => {
                key = thread.key;
                found.insert(key, thread.clock);
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
        for (key, clock) in unlisted.iter().filter(|(key, _)| !found.contains_key(key)) {
            sums.times.add_unlisted(clock, end_ns, |clock| sums.marks.unlisted(*key, clock, end_ns));
        }
        sums.marks.end_look();
        let period_ns = session.budget.period_ns();
        let state_of = |key| found.get(&key).copied();
        added += open_waits.add_to(&mut sums.aggregate, sums.since_ns, end_ns, period_ns, state_of);
        Ok(added)
    }

    /// Takes out what the window came to.
    fn close(&mut self, end_ns: u64, open_waits: u64, pending_waits: u64) -> Result<Window, Failure> {
        let Self { session, sums, before, .. } = self;
        let duration = Duration::from_nanos(end_ns - sums.window_start_ns);
        let counters = session.programs.counters()?;
        let cost = session.programs.cost();
        let now = Before { counters, cost, malformed: session.drain.malformed() };
        let counts = Counts {
            kernel: counters.since(&before.counters),
            expected: self.event.map_or(0, |event| {
                expected_ticks(event, session.cpus.len(), session.options.frequency_hz, duration)
            }),
            open_waits,
            pending_waits,
            malformed: now.malformed - before.malformed,
            reclaims_without_length: sums.memory.without_length(),
            kills_dropped: sums.memory.kills_dropped(),
            sees_sends: session.programs.tcp().is_some_and(|tcp| tcp.sends() != Sends::Nowhere),
        };
        let program_cost = session.programs.cost_is_measured().then(|| cost.since(before.cost));
        *before = now;
        let forgotten = self.remembered.elapsed() >= FORGOTTEN_AFTER;
        if forgotten {
            self.remembered = Instant::now();
            self.open_waits.forget_objects();
        }
        let aggregate = sums.aggregate.close_window(forgotten);
        let connections = sums.connections.close_window(|placed| sums.aggregate.carry(&aggregate, placed));
        let start_ns = std::mem::replace(&mut sums.window_start_ns, end_ns);
        sums.since_ns = end_ns;
        self.stacks = 0;
        Ok(Window {
            start_ns,
            start_unix_ns: self.tie.unix_ns(start_ns),
            duration,
            aggregate,
            times: sched_options(&session.options).map(|_| std::mem::take(&mut sums.times)),
            connections,
            memory: None,
            sockets: SocketsSeen::default(),
            block: BlockSeen::default(),
            is_host: session.gate == Gate::Everything,
            program_cost,
            unwind_tables: session.unwinding.statistics(),
            counts,
        })
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

/// The thread that symbolizes. It reads the kernel's symbols while samples still come in.
pub struct Symbolizing {
    recordings: SyncSender<Recording>,
    thread: JoinHandle<Option<Profiles>>,
}

impl Symbolizing {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub fn begin(options: &Options) -> Result<Self, Failure> {
        let inlined = options.inlined;
        let wants_kernel = options.stacks.kernel;
        let (recordings, received) = sync_channel::<Recording>(1);
        let thread = std::thread::Builder::new()
            .name("symbolize".to_owned())
            .spawn(move || {
                // A recording asks for each binary once.
                let options =
                    symbolize::Options { inlined, cache_binaries: 0, ..symbolize::Options::default() };
                let mut symbolizer = Symbolizer::new(options);
                if wants_kernel && let Err(error) = symbolizer.load_kernel() {
                    // The recording says so too, if it has kernel frames.
                    tracing::debug!(%error, "kernel symbols");
                }
                log_phase("kernel symbols", thread_cpu());
                let recording = received.recv().ok()?;
                let Recording { window, wanted, .. } = recording;
                Some(symbolized::profiles(&window, &mut symbolizer, wanted))
            })
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { recordings, thread })
    }

    /// Symbolizes the recording.
    ///
    /// # Errors
    /// Where the thread died.
    pub fn profiles(self, recording: Recording) -> Result<Profiles, Failure> {
        let died = || {
            Failure::new(Kind::Unexpected, "the symbolizing thread died; please report this with --log debug")
        };
        self.recordings.send(recording).map_err(|_| died())?;
        self.thread.join().ok().flatten().ok_or_else(died)
    }
}

impl Sums {
    /// Hands a record to where it belongs.
    fn take(&mut self, record: &Record<'_>, unwinding: &Unwinding) {
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

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn read_layout() -> Result<KernelLayout, Failure> {
    let bytes = std::fs::read(KERNEL_BTF).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "this kernel has no type information at {KERNEL_BTF}: it needs CONFIG_DEBUG_INFO_BTF=y, as distribution kernels since 2021 have"
            ),
            _ => format!("cannot read {KERNEL_BTF}: {error}"),
        };
        Failure::new(Kind::Unsupported, message)
    })?;
    Ok(KernelLayout::from_btf(&bytes)?)
}

/// The kernel's own limit, `kernel.perf_event_max_sample_rate`.
fn check_frequency(frequency_hz: u32) -> Result<(), Failure> {
    const LIMIT: &str = "kernel.perf_event_max_sample_rate";
    let refuse = |message| Err(Failure::new(Kind::Usage, message));
    if frequency_hz == 0 {
        return refuse("frequency 0 takes no samples: pass at least 1 with -F".to_owned());
    }
    match host::sysctl(LIMIT) {
        Some(limit) if i64::from(frequency_hz) > limit => refuse(format!(
            "frequency {frequency_hz} is above this host's limit of {limit}: pass less with -F, or raise {LIMIT}"
        )),
        _ => Ok(()),
    }
}

/// Has the tables built of the files that threads wait in: those that wait through the whole window are in no other sample.
/// Whether none was missing.
fn meet(look: &[u8], unwinding: &Unwinding) -> Result<bool, Failure> {
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

fn takes_on_cpu(options: &Options) -> bool {
    options.events.iter().any(|event| event.needs_on_cpu())
}

fn takes_tcp(options: &Options) -> bool {
    options.events.iter().any(|event| event.needs_tcp())
}

fn takes_block(options: &Options) -> bool {
    options.events.iter().any(|event| event.needs_block())
}

/// Tells whether a process is part of the target, by what is known of it now.
fn is_target(gate: &Gate, target: &Target, programs: &Programs) -> impl Fn(u32) -> bool {
    move |tgid| admits(gate, target, tgid, |tgid| programs.is_target(tgid))
}

/// What the sched source is to do; `None` where no event needs it.
fn sched_options(options: &Options) -> Option<SchedOptions> {
    options.events.iter().any(|event| event.needs_sched()).then(|| SchedOptions {
        // Four times those there are now; of a thread that ends the room is free again.
        threads: (4 * host::threads()).clamp(MIN_THREADS, MAX_THREADS),
        waits: true,
        wakers: options.events.iter().any(|event| event.needs_wakers()),
        cpu_controller: None,
    })
}

fn looks_at_sockets(options: &Options) -> bool {
    options.events.iter().any(|event| event.looks_at_sockets())
}

/// What the memory source is to do; `None` where no event needs it.
fn memory_options(options: &Options) -> Option<MemoryOptions> {
    let has = |event| options.events.contains(&event);
    options.events.iter().any(|event| event.needs_memory()).then(|| MemoryOptions {
        faults: has(Event::Fault) || has(Event::All),
        reclaim_stacks: has(Event::Reclaim),
    })
}

fn apply(budget: &MemoryBudget, programs: &mut Programs) -> Result<(), Failure> {
    if let Some(memory) = programs.memory_mut() {
        memory.set_fault_period(budget.fault_period())?;
        memory.set_reclaim_period_ns(budget.reclaim_period_ns())?;
    }
    Ok(())
}

fn ring_bytes(cpus: usize, options: &Options) -> u32 {
    if sched_options(options).is_some() || takes_tcp(options) || memory_options(options).is_some() {
        // Waits, losses and faults come in bursts.
        return *RING_BYTES.end() as u32;
    }
    let bytes = cpus as u64 * u64::from(options.frequency_hz) * TYPICAL_SAMPLE_BYTES * RING_TIME.as_secs();
    bytes.clamp(*RING_BYTES.start(), *RING_BYTES.end()).next_power_of_two() as u32
}

/// A timer fires at its frequency whatever the CPU does; the cycle counter stands still on an idle CPU, so that nothing can be
/// said of it.
fn expected_ticks(event: OnCpuEvent, cpus: usize, frequency_hz: u32, duration: Duration) -> u64 {
    match event {
        OnCpuEvent::CpuClock => (cpus as f64 * f64::from(frequency_hz) * duration.as_secs_f64()) as u64,
        OnCpuEvent::Cycles => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_buffer_is_a_power_of_two_within_its_limits() {
        let at = |frequency_hz| Options { frequency_hz, ..Options::default() };
        assert_eq!(ring_bytes(1, &at(1)), 256 << 10);
        assert_eq!(ring_bytes(2, &at(999)), 1 << 20);
        assert_eq!(ring_bytes(512, &at(10_000)), 8 << 20);
        let wall = Options { events: vec![Event::Wall], ..Options::default() };
        assert_eq!(ring_bytes(1, &wall), 8 << 20);
    }
}
