//! Wires the stages of a recording, with every capacity in sight.
//!
//! kernel programs -> ring buffer -> [`Drain`] -> [`Aggregate`] (with files and processes) -> [`Symbolizing`] -> [`Profile`],
//! and from the drain's sight of files without tables back to the kernel programs by [`Unwinding`].
//!
//! One thread drains and sums, two build unwind tables, another one symbolizes. While samples come in the last only reads the
//! kernel's symbols, so that recording costs no more than sampling and its tables.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chokepoint_analysis::profile::{Basis, Header, Unit};
use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::sched::MAX_THREADS;

use crate::aggregate::{Aggregate, Limits, Origin};
use crate::connections::Connections;
use crate::coverage::Seen;
use crate::drain::decode::{Record, decode_look};
use crate::drain::{DRAIN_INTERVAL, Drain, kernel_log};
use crate::failure::{Failure, Kind};
use crate::host;
use crate::host::clock::{ClockTie, monotonic_ns};
use crate::host::cost::{Cost, log_phase, thread_cpu};
use crate::load::layout::{KERNEL_BTF, KernelLayout};
use crate::load::sched::SchedOptions;
use crate::load::tcp::Sends;
use crate::load::{Gate, LoadOptions, OnCpuEvent, ProgramCost, Programs, Stopped};
use crate::process::binaries::Announced;
use crate::record::Options;
use crate::record::event::Event;
use crate::symbolize::{self, Symbolizer};
use crate::symbolized::{self, Profiles, Wanted};
use crate::target::{Target, admits, admitted};
use crate::thread_times::ThreadTimes;
use crate::unwind::{self, Unwinding};
use crate::wait_budget::WaitBudget;

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
    aggregate: Aggregate,
    /// `None` where the scheduler's events were not asked for.
    times: Option<ThreadTimes>,
    connections: Connections,
    /// Whether all of the host is the target.
    is_host: bool,
    wanted: Vec<Wanted>,
    window_start_ns: u64,
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
            sched: sched_options(&options),
            tcp: takes_tcp(&options),
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
        Ok(Self { programs, options, cpus, drain, unwinding, gate, budget })
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

    /// Begins to sample.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn start(mut self) -> Result<Sampling, Failure> {
        let timeline = if self.options.timeline { TIMELINE_SAMPLES } else { 0 };
        let mut aggregate = Aggregate::new(Limits { timeline, ..Limits::default() });
        self.prepare(&mut aggregate);
        let tie = ClockTie::now();
        self.programs.attach_sched()?;
        self.programs.attach_tcp()?;
        let event = if takes_on_cpu(&self.options) {
            Some(self.programs.attach_on_cpu(&self.cpus, self.options.frequency_hz)?)
        } else {
            None
        };
        Ok(Sampling {
            session: self,
            aggregate,
            event,
            tie,
            start: Instant::now(),
            window_start_ns: monotonic_ns(),
        })
    }
}

/// A recording under way. Dropping it ends it without a result.
pub struct Sampling {
    session: Session,
    aggregate: Aggregate,
    event: Option<OnCpuEvent>,
    tie: ClockTie,
    start: Instant,
    window_start_ns: u64,
}

impl Sampling {
    /// Samples until the duration is over or `stop` says so. `target` is what is profiled, in words; `progress` is called after
    /// each drain with the time and the samples so far.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub async fn finish(
        self,
        target: String,
        stop: &mut impl Stop,
        mut progress: impl FnMut(Duration, u64),
    ) -> Result<Recording, Failure> {
        let Self { session, mut aggregate, event, tie, start, window_start_ns } = self;
        let Session { mut programs, options, cpus, mut drain, unwinding, mut budget, gate } = session;
        let mut times = ThreadTimes::default();
        let (mut connections, mut searched) = (Connections::default(), start);
        let (mut waits, mut adapted) = (0, start);
        let mut looks = LOOKS;
        let deadline = options.duration.map(|duration| tokio::time::Instant::from_std(start + duration));
        let mut end = None;
        while end.is_none() {
            tokio::select! {
                ready = drain.ready() => ready.map_err(|error| Failure::unexpected(&error))?,
                () = sleep_until(deadline) => end = Some(End::Elapsed),
                reason = stop.wait() => end = Some(reason),
            }
            drain.take_all(|record| take(&record, &mut aggregate, &mut times, &mut connections, &unwinding));
            if let Some(sched) = programs.sched_mut() {
                sched.make_room();
                if adapted.elapsed() >= DRAIN_INTERVAL {
                    let now = aggregate.captured(Origin::Waits).samples();
                    if budget.adapt(now - waits, adapted.elapsed()) {
                        sched.set_period_ns(budget.period_ns())?;
                    }
                    (waits, adapted) = (now, Instant::now());
                }
                if looks.first().is_some_and(|after| start.elapsed() >= *after) {
                    let all_met = meet(&programs.look_at_threads()?, &unwinding)?;
                    looks = if all_met { &[] } else { &looks[1..] };
                }
            }
            if connections.is_searching() && searched.elapsed() >= SEARCH_INTERVAL {
                searched = Instant::now();
                connections.find_owners(is_target(&gate, &options.target, &programs));
            }
            progress(start.elapsed(), aggregate.samples() + connections.events());
        }
        let duration = start.elapsed();
        log_phase("sampled", Cost::of_this_process().cpu);
        let measured = programs.cost_is_measured();
        let window_end_ns = monotonic_ns();
        let Stopped { cost: program_cost, threads, clocks, pending_waits } = programs.stop()?;
        drain.take_all(|record| take(&record, &mut aggregate, &mut times, &mut connections, &unwinding));
        let (mut open_waits, mut found) = (0, HashSet::new());
        decode_look(&threads, |record| match record {
            Record::Thread(thread) => {
                found.insert(thread.key);
                times.add_living(&thread, window_end_ns);
            }
            Record::Wait(wait) => {
                // Of one that began after the window's end, while the programs were being unloaded, nothing is left.
                if let Some(wait) = wait.until(window_end_ns) {
                    open_waits += 1;
                    aggregate.add_wait(&wait);
                }
            }
            _ => {}
        })
        .map_err(|error| Failure::unexpected(&error))?;
        for (_, clock) in clocks.iter().filter(|(key, _)| !found.contains(key)) {
            times.add_unlisted(clock, window_end_ns);
        }
        // Files that this last look was the first to meet.
        drain.take_all(|record| take(&record, &mut aggregate, &mut times, &mut connections, &unwinding));
        // What has lost something since the last search.
        connections.find_owners(is_target(&gate, &options.target, &programs));
        let unwind_tables = unwinding.statistics();
        drop(unwinding);
        aggregate.processes_mut().open_late_files();

        let counters = programs.counters()?;
        let expected =
            event.map_or(0, |event| expected_ticks(event, cpus.len(), options.frequency_hz, duration));
        let seen = Seen {
            counters: &counters,
            aggregate: &aggregate,
            tables: &unwind_tables,
            times: &times,
            expected,
            open_waits,
            pending_waits,
            malformed: drain.malformed(),
            connections: &connections,
            sees_sends: programs.tcp().is_some_and(|tcp| tcp.sends() != Sends::Nowhere),
        };
        let wanted = options
            .events
            .iter()
            .map(|event| Wanted {
                event: *event,
                header: Header {
                    title: event.title().to_owned(),
                    kind: event.name().to_owned(),
                    unit: if event.needs_tcp() { Unit::Count } else { Unit::Nanoseconds },
                    basis: if *event == Event::Cpu { Basis::Samples } else { Basis::Weight },
                    period: if event.needs_tcp() {
                        1
                    } else {
                        1_000_000_000 / u64::from(options.frequency_hz)
                    },
                    start_unix_ns: tie.unix_ns(window_start_ns),
                    duration_ns: duration.as_nanos() as u64,
                    host: host::name(),
                    target: target.clone(),
                },
                coverage: seen.coverage(*event),
            })
            .collect();
        Ok(Recording {
            times: sched_options(&options).map(|_| times),
            connections,
            is_host: gate == Gate::Everything,
            wanted,
            window_start_ns,
            facts: Facts {
                program_cost: measured.then_some(program_cost),
                event,
                cpus: cpus.len(),
                frequency_hz: options.frequency_hz,
                unwind_tables,
                end: end.unwrap_or(End::Elapsed),
            },
            aggregate,
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
        self.times.as_ref()
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
                let Recording { aggregate, times, connections, is_host, wanted, window_start_ns, .. } =
                    recording;
                let lost = connections.of_target(is_host).collect();
                let times = times.as_ref();
                Some(symbolized::profiles(&aggregate, &mut symbolizer, wanted, times, lost, window_start_ns))
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

/// Hands a record to where it belongs.
fn take(
    record: &Record<'_>,
    aggregate: &mut Aggregate,
    times: &mut ThreadTimes,
    connections: &mut Connections,
    unwinding: &Unwinding,
) {
    match record {
        Record::Sample(sample) => {
            unwinding.sampled(sample);
            aggregate.add(sample);
        }
        Record::Wait(wait) => {
            unwinding.sampled(&wait.sample);
            aggregate.add_wait(wait);
        }
        Record::Wake(facts, sample) => {
            unwinding.sampled(sample);
            aggregate.add_wake(facts, sample);
        }
        Record::Thread(thread) => times.add_ended(thread),
        Record::Tcp(record, event) => connections.add(record, *event),
        Record::TcpOpener(facts, call, sample) => {
            unwinding.sampled(sample);
            let placed = aggregate.add_opener(sample);
            connections.add_opener(facts, *call, sample, placed);
        }
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
    let sampled = |record: Record<'_>| {
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
    })
}

fn ring_bytes(cpus: usize, options: &Options) -> u32 {
    if sched_options(options).is_some() || takes_tcp(options) {
        // Waits and losses come in bursts.
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
