//! Loads what a session samples with, and starts it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chokepoint_ebpf::sched::MAX_THREADS;

use super::{MIN_THREADS, PREPARED_PROCESSES, Sampling, WINDOW_LIMITS, ring_bytes};
use crate::aggregate::{Aggregate, Limits};
use crate::block_watch::{self, BlockWatch};
use crate::disk_latencies::DiskLatencies;
use crate::drain::decode::Record;
use crate::drain::{DRAIN_INTERVAL, Drain, SPARING_DRAIN_INTERVAL, kernel_log};
use crate::failed_calls::CallWatch;
use crate::failure::{Failure, Kind};
use crate::host;
use crate::host::cgroups::{self, Hierarchy};
use crate::host::clock::ClockTie;
use crate::load::block::BlockOptions;
use crate::load::layout::{KERNEL_BTF, KernelLayout};
use crate::load::memory::MemoryOptions;
use crate::load::sched::SchedOptions;
use crate::load::tcp::TcpOptions;
use crate::load::{Gate, LoadOptions, Programs};
use crate::memory_budget::MemoryBudget;
use crate::record::Options;
use crate::record::event::Event;
use crate::sockets::Sockets;
use crate::target::{admits, admitted};
use crate::unwind::Unwinding;
use crate::wait_budget::WaitBudget;

/// Minor faults to a stack where faults are sampled: a prime, so that it beats with nothing. A CPU has up to a million faults a second, of
/// which that makes 1,000 stacks: half a per cent of its time.
const SPARING_FAULT_PERIOD: u64 = 1_009;

/// Loaded programs, ready to sample.
pub struct Session {
    pub(super) programs: Programs,
    pub(super) options: Options,
    pub(super) cpus: Vec<u32>,
    pub(super) drain: Drain,
    pub(super) unwinding: Unwinding,
    pub(super) gate: Gate,
    pub(super) budget: WaitBudget,
    pub(super) memory_budget: MemoryBudget,
    /// `None` where no event watches block devices.
    pub(super) block: Option<BlockWatch>,
    /// `None` where no event does, or more is told of them.
    pub(super) disks: Option<DiskLatencies>,
    /// `None` where no event looks at calls that fail.
    pub(super) calls: Option<CallWatch>,
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
            frequency_hz: options.takes_on_cpu().then_some(options.frequency_hz),
            sched: options.takes_sched().then(|| sched_options(&options, layout)),
            tcp: options.takes_tcp().then_some(TcpOptions { openers: !options.sparing }),
            memory: options.takes_memory().then(|| MemoryOptions {
                faults: options.has(Event::Fault) || options.has(Event::All),
                fault_period: options.sparing.then_some(SPARING_FAULT_PERIOD),
                reclaims: !options.sparing,
                reclaim_stacks: options.has(Event::Reclaim),
            }),
            block: options.takes_block().then(|| {
                let block = BlockWatch::options(&gate, layout);
                BlockOptions { devices_only: options.sparing, ..block }
            }),
            failed_calls: options.looks_at_failed_calls(),
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
        let wait = if options.sparing { SPARING_DRAIN_INTERVAL } else { DRAIN_INTERVAL };
        let drain =
            Drain::new(programs.take_records()?, wait).map_err(|error| Failure::unexpected(&error))?;
        let unwinding = Unwinding::start(programs.take_unwind_maps()?, &options.unwind)?;
        let budget = WaitBudget::new(cpus.len(), gate == Gate::Everything);
        if let Some(sched) = programs.sched_mut() {
            sched.set_period_ns(budget.period_ns())?;
        }
        let memory_budget = MemoryBudget::new(cpus.len(), gate == Gate::Everything, Instant::now());
        let watches_block = options.takes_block() && !options.sparing;
        let block = watches_block.then(|| BlockWatch::new(&gate, layout));
        let disks = (options.takes_block() && options.sparing).then(DiskLatencies::default);
        let calls = options.looks_at_failed_calls().then(CallWatch::begin);
        let mut session = Self {
            programs,
            options,
            cpus,
            drain,
            unwinding,
            gate,
            budget,
            memory_budget,
            block,
            disks,
            calls,
        };
        session.apply_memory_budget()?;
        Ok(session)
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

    /// How long until something is due that the agent would not wake for by itself in time; `None` where nothing is.
    pub(super) fn pressing(&self) -> Option<Duration> {
        let block = self.block.as_ref().filter(|block| block.is_pressing()).map(|_| block_watch::INTERVAL);
        block.into_iter().chain(self.calls.as_ref().and_then(CallWatch::pressing)).min()
    }

    /// Tells whether a process is part of the target, by what is known of it now.
    pub(super) fn is_target(&self) -> impl Fn(u32) -> bool {
        |tgid| admits(&self.gate, &self.options.target, tgid, |tgid| self.programs.is_target(tgid))
    }

    pub(super) fn look_at_sockets(&self, sockets: &mut Sockets) {
        sockets.look(self.gate == Gate::Everything, self.is_target());
    }

    /// Tells the kernel programs what the budget of stacks of the memory source allows.
    pub(super) fn apply_memory_budget(&mut self) -> Result<(), Failure> {
        if let Some(memory) = self.programs.memory_mut() {
            memory.set_fault_period(self.memory_budget.fault_period())?;
            memory.set_reclaim_period_ns(self.memory_budget.reclaim_period_ns())?;
        }
        Ok(())
    }

    /// Begins to sample for a recording.
    ///
    /// # Errors
    /// A [`Failure`] where the kernel refuses.
    pub fn start(self) -> Result<Sampling, Failure> {
        let timeline = self.options.timeline;
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
        let event = if self.options.takes_on_cpu() {
            Some(self.programs.attach_on_cpu(&self.cpus, self.options.frequency_hz)?)
        } else {
            None
        };
        let sockets = || if self.options.sparing { Sockets::sparing() } else { Sockets::default() };
        let mut sockets = self.options.looks_at_sockets().then(sockets);
        if let Some(sockets) = &mut sockets {
            self.look_at_sockets(sockets);
        }
        Ok(Sampling::begin(self, event, tie, aggregate, sockets))
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

/// How often a CPU may be sampled.
const LIMIT: &str = "kernel.perf_event_max_sample_rate";

/// The most samples of a CPU's second that this kernel allows.
#[must_use]
pub fn highest_frequency_hz() -> u32 {
    host::sysctl(LIMIT).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX)
}

fn check_frequency(frequency_hz: u32) -> Result<(), Failure> {
    let refuse = |message| Err(Failure::new(Kind::Usage, message));
    if frequency_hz == 0 {
        return refuse("frequency 0 takes no samples: pass at least 1 with -F".to_owned());
    }
    let limit = highest_frequency_hz();
    if frequency_hz > limit {
        return refuse(format!(
            "frequency {frequency_hz} is above this host's limit of {limit}: pass less with -F, or raise {LIMIT}"
        ));
    }
    Ok(())
}

fn sched_options(options: &Options, layout: &KernelLayout) -> SchedOptions {
    SchedOptions {
        // Four times those there are now; of a thread that ends the room is free again.
        threads: (4 * host::threads()).clamp(MIN_THREADS, MAX_THREADS),
        waits: true,
        wakers: options.takes_wakers(),
        run_queues: options.run_queues,
        cpu_controller: cgroups::controlled_by("cpu")
            .filter(Hierarchy::is_version_1)
            .and_then(|_| layout.controller("cpu")),
    }
}
