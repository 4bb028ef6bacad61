//! Loads the kernel programs, attaches them, and reads their counters. With [`crate::drain`] the only code that touches
//! aya.
//!
//! Everything lives in file descriptors of this process and nothing is pinned, so the kernel removes it all when the
//! process ends, however it ends.

pub mod block;
mod introduce;
pub mod layout;
pub mod memory;
pub mod sched;
pub mod tcp;
pub mod unwind_maps;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::perf_event::{
    HardwareEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{BtfTracePoint, PerfEvent, ProgramError};
use aya::sys::Stats;
use aya::{Btf, BtfError, Ebpf, EbpfError, EbpfLoader};
use chokepoint_ebpf::COMM_LEN;
use chokepoint_ebpf::block::{
    MAX_DEVICE_SUMS, MAX_HELD, MAX_HOLDS, MAX_POSITIONS, MAX_RELEASED, MAX_REQUESTS, MAX_SUMS,
};
use chokepoint_ebpf::counters::Counter;
use chokepoint_ebpf::gate::{CGROUP_V2, Rule};
use chokepoint_ebpf::memory::{MAX_PROCESSES, MAX_RECLAIMING, ProcessKey, ProcessTotals};
use chokepoint_ebpf::run_queue::{Behind, MAX_QUEUE_PAIRS, QueuePair};
use chokepoint_ebpf::sample::{MAX_KERNEL_FRAMES, Source};
use chokepoint_ebpf::sched::ThreadClock;
use chokepoint_ebpf::tcp::MAX_SOCKETS;
use thiserror::Error;

use crate::held_bios::KernelMemory;
use block::{Block, BlockMaps, Peeking, SeesHolds};
use layout::KernelLayout;
use memory::{Memory, MemoryOptions};
use sched::{Sched, SchedOptions};
use tcp::Tcp;
use unwind_maps::UnwindMaps;

/// The compiled kernel programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/chokepoint-ebpf"));

/// Why the programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object or its maps were refused.
    #[error("the kernel refused the programs or their maps")]
    Object(#[from] EbpfError),
    /// A program was refused or could not be attached.
    #[error("the kernel refused program {name}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// The kernel's answer.
        #[source]
        source: ProgramError,
    },
    /// A map could not be used.
    #[error("map {name} could not be used")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// The kernel's answer.
        #[source]
        source: MapError,
    },
    /// The object lacks something that the agent expects: they were not built together.
    #[error("the compiled kernel programs have no {0}")]
    Missing(&'static str),
    /// The kernel's type information could not be read for a program that needs it.
    #[error("the kernel's type information could not be read")]
    Btf(#[from] BtfError),
    /// Too many target processes for the table.
    #[error("more than {} target processes", chokepoint_ebpf::gate::MAX_TARGET_PROCESSES)]
    TooManyProcesses,
    /// Something in the operating system failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl LoadError {
    /// Whether the kernel said that the agent may not do this.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::PermissionDenied
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Which threads the kernel programs sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// All of the host.
    Everything,
    /// Those of some processes.
    Processes {
        /// Process ids.
        tgids: Vec<u32>,
        /// Whether processes they fork from now on belong to the target too.
        follow_forks: bool,
    },
    /// Those of a cgroup and the groups below it.
    Cgroup {
        /// The group's id, which is its directory's inode number.
        id: u64,
        /// Index of the version 1 controller that owns it; `None` in the version 2 hierarchy.
        controller: Option<u32>,
    },
    /// Those whose own or whose process's name this is.
    Comm(String),
}

/// Which of a thread's stacks are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// User stacks. Without them, time spent in user mode is not sampled.
    pub user: bool,
    /// Kernel stacks.
    pub kernel: bool,
}

/// What the programs are loaded with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which threads are sampled.
    pub gate: Gate,
    /// Which stacks are kept.
    pub stacks: Stacks,
    /// Ticks a second of each CPU's on-CPU source; `None` leaves the source out.
    pub frequency_hz: Option<u32>,
    /// The sched source; `None` leaves it out.
    pub sched: Option<SchedOptions>,
    /// Whether the tcp source is loaded.
    pub tcp: bool,
    /// The memory source; `None` leaves it out.
    pub memory: Option<MemoryOptions>,
    /// The block source; `None` leaves it out.
    pub block: Option<BlockOptions>,
    /// Size of the ring buffer, a power of two that is a multiple of the page size.
    pub ring_bytes: u32,
    /// CPUs that the kernel may have: one more than the highest number.
    pub possible_cpus: u32,
    /// The sysctl `kernel.perf_event_max_stack`.
    pub perf_max_stack: u32,
    /// Whether the programs log through aya-log.
    pub kernel_log: bool,
}

/// What the block source is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// Whether the target is a group of the hierarchy that requests are charged in.
    pub gate_by_group: bool,
}

impl LoadOptions {
    /// What one tick of the on-CPU source stands for, nanoseconds.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        self.frequency_hz.map_or(0, |frequency_hz| 1_000_000_000 / u64::from(frequency_hz))
    }

    fn follows_forks(&self) -> bool {
        matches!(self.gate, Gate::Processes { follow_forks: true, .. })
    }

    /// Whether programs at tracepoints or functions are part of it.
    fn traces(&self) -> bool {
        self.sched.is_some()
            || self.tcp
            || self.memory.is_some()
            || self.block.is_some()
            || self.follows_forks()
    }
}

/// What drives the on-CPU source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCpuEvent {
    /// The processor's cycle counter.
    Cycles,
    /// A timer on each CPU, on machines whose cycle counter is not to be had.
    CpuClock,
}

/// What the kernel programs have cost since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Time they ran.
    pub run_time: Duration,
    /// How often they ran.
    pub run_count: u64,
}

impl ProgramCost {
    /// What came since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_time: self.run_time.saturating_sub(earlier.run_time),
            run_count: self.run_count.saturating_sub(earlier.run_count),
        }
    }
}

/// What is left of the sources when they have stopped.
#[derive(Debug, Default)]
pub struct Stopped {
    /// What the programs have cost.
    pub cost: ProgramCost,
    /// Records of the threads that live: [`chokepoint_ebpf::sched::ThreadRecord`] one after the other, and of the waits that
    /// are not over.
    pub threads: Vec<u8>,
    /// The threads that were on a CPU just before: [`chokepoint_ebpf::sched::RunningThread`] one after the other.
    pub running: Vec<u8>,
    /// The times of every thread that has not ended, by its key in the kernel programs' map.
    pub clocks: Vec<(u64, ThreadClock)>,
    /// Who ran while others queued.
    pub queue_pairs: Vec<(QueuePair, Behind)>,
    /// Waits whose stacks were still to be taken.
    pub pending_waits: u64,
    /// What each process did with its memory.
    pub memory: Vec<(ProcessKey, ProcessTotals)>,
}

/// The loaded programs. Dropping it detaches and unloads them.
pub struct Programs {
    ebpf: Ebpf,
    /// While it is open the kernel measures the run time of BPF programs; `None` where that is not permitted.
    statistics: Option<OwnedFd>,
    has_on_cpu: bool,
    sched: Option<Sched>,
    tcp: Option<Tcp>,
    memory: Option<Memory>,
    /// Or why it could not be loaded: the others do without.
    block: Option<Result<Block, String>>,
}

impl Programs {
    /// Loads the maps and the programs that the options need; nothing runs yet.
    ///
    /// # Errors
    /// [`LoadError`] with the kernel's answer.
    pub fn load(options: &LoadOptions, layout: &KernelLayout) -> Result<Self, LoadError> {
        let (rule, cgroup_id, controller, comm) = match &options.gate {
            Gate::Everything => (Rule::Everything, 0, 0, ""),
            Gate::Processes { .. } => (Rule::Processes, 0, 0, ""),
            Gate::Cgroup { id, controller } => (Rule::Cgroup, *id, controller.unwrap_or(CGROUP_V2), ""),
            Gate::Comm(comm) => (Rule::Comm, 0, 0, comm.as_str()),
        };
        let rule = rule as u32;
        let comm = padded_comm(comm);
        let want_user = u8::from(options.stacks.user);
        let want_kernel = u8::from(options.stacks.kernel);
        let period_ns = options.period_ns();
        let depth_limit = options.perf_max_stack.min(MAX_KERNEL_FRAMES as u32);
        let wake_at_bytes = u64::from(options.ring_bytes) / 2;
        let maple_tree = u8::from(layout.has_maple_tree);
        let task_pt_regs = u8::from(layout.has_task_pt_regs);
        let retransmit_result = u8::from(layout.has_retransmit_result);
        let want_reclaims = u8::from(options.memory.is_some_and(|memory| memory.reclaim_stacks));
        let victim_task = u8::from(layout.has_victim_task);
        let memory_controller = layout.controller("memory").unwrap_or(u32::MAX);
        let want_waits = u8::from(options.sched.is_some_and(|sched| sched.waits));
        let cpu_controller = options.sched.and_then(|sched| sched.cpu_controller).unwrap_or(CGROUP_V2);
        let gate_by_group = u8::from(options.block.is_some_and(|block| block.gate_by_group));
        let block_globals = layout.block_globals();
        let log_level = if options.kernel_log { u8::MAX } else { 0 };

        let mut loader = EbpfLoader::new();
        loader
            // The programs carry no relocations.
            .btf(None)
            .map_max_entries("RECORDS", options.ring_bytes)
            .override_global("GATE_RULE", &rule, true)
            .override_global("GATE_CGROUP_ID", &cgroup_id, true)
            .override_global("GATE_CGROUP_CONTROLLER", &controller, true)
            .override_global("GATE_COMM", &comm, true)
            .override_global("WANT_USER", &want_user, true)
            .override_global("WANT_KERNEL", &want_kernel, true)
            .override_global("ON_CPU_PERIOD_NS", &period_ns, true)
            .override_global("DEPTH_LIMIT", &depth_limit, true)
            .override_global("WAKE_AT_BYTES", &wake_at_bytes, true)
            .override_global("CPUS", &options.possible_cpus, true)
            .override_global("HAS_MAPLE_TREE", &maple_tree, true)
            .override_global("HAS_TASK_PT_REGS", &task_pt_regs, true)
            .override_global("HAS_RETRANSMIT_RESULT", &retransmit_result, true)
            .override_global("WANT_RECLAIMS", &want_reclaims, true)
            .override_global("HAS_VICTIM_TASK", &victim_task, true)
            .override_global("MEMORY_CONTROLLER", &memory_controller, true)
            .override_global("RSS_COUNTER_BYTES", &layout.rss_counter_bytes, true)
            .override_global("BLOCK_GATE_BY_GROUP", &gate_by_group, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .override_global("TASK_IOWAIT_MASK", &layout.iowait_mask, true)
            .override_global("WANT_WAITS", &want_waits, true)
            .override_global("CPU_CONTROLLER", &cpu_controller, true);
        if let Some(sched) = &options.sched {
            loader
                .map_max_entries("SCHED_THREADS", sched.threads)
                .map_max_entries("CPU_TURNS", options.possible_cpus)
                .map_max_entries("QUEUE_PAIRS", MAX_QUEUE_PAIRS)
                .map_max_entries("WAIT_INTERRUPTS", options.possible_cpus);
        }
        if options.tcp {
            loader.map_max_entries("TCP_SOCKETS", MAX_SOCKETS);
        }
        if options.memory.is_some() {
            loader
                .map_max_entries("MEMORY_PROCESSES", MAX_PROCESSES)
                .map_max_entries("MEMORY_RECLAIMING", MAX_RECLAIMING);
        }
        if options.block.is_some() {
            loader
                .map_max_entries("BLOCK_REQUESTS", MAX_REQUESTS)
                .map_max_entries("BLOCK_SUMS", MAX_SUMS)
                .map_max_entries("BLOCK_DEVICES", MAX_DEVICE_SUMS)
                .map_max_entries("BLOCK_POSITIONS", MAX_POSITIONS)
                .map_max_entries("BLOCK_HELD", MAX_HELD)
                .map_max_entries("BLOCK_HOLDS", MAX_HOLDS)
                .map_max_entries("BLOCK_RELEASED", MAX_RELEASED);
        }
        if !options.tcp && options.sched.is_none() && options.memory.is_none() {
            // Scratch space of the on-CPU source alone.
            loader.map_max_entries("SCRATCH", Source::OnCpu as u32 + 1);
        }
        for (global, value) in &block_globals {
            loader.override_global(global, value, true);
        }
        for (global, offset) in &layout.offsets {
            loader.override_global(global, offset, true);
        }
        let mut ebpf = loader.load(OBJECT)?;

        let statistics = aya::sys::enable_stats(Stats::RunTime).ok();
        if options.frequency_hz.is_some() {
            let on_cpu: &mut PerfEvent = program(&mut ebpf, "on_cpu")?;
            on_cpu.load().map_err(|source| LoadError::Program { name: "on_cpu", source })?;
        }
        let has_on_cpu = options.frequency_hz.is_some();
        let mut programs =
            Self { ebpf, statistics, has_on_cpu, sched: None, tcp: None, memory: None, block: None };
        if options.traces() {
            programs.load_tracing(options, layout)?;
        }
        if let Gate::Processes { tgids, .. } = &options.gate {
            programs.add_targets(tgids)?;
        }
        Ok(programs)
    }

    /// Loads the programs at tracepoints and functions. Reading the kernel's types for them takes tens of milliseconds.
    fn load_tracing(&mut self, options: &LoadOptions, layout: &KernelLayout) -> Result<(), LoadError> {
        let btf = Btf::from_sys_fs()?;
        if let Some(sched) = options.sched {
            self.sched = Some(Sched::load(&mut self.ebpf, sched, options.possible_cpus, &btf)?);
        }
        if options.tcp {
            self.tcp = Some(Tcp::load(&mut self.ebpf, &btf)?);
        }
        if let Some(memory) = options.memory {
            self.memory = Some(Memory::load(&mut self.ebpf, memory, &btf)?);
        }
        if options.block.is_some() {
            self.block = Some(match layout.missing_for_block() {
                Some(missing) => Err(format!("its type information has no {missing}")),
                None => match Block::load(&mut self.ebpf, &btf) {
                    Err(error) if !error.is_permission() => Err(error.to_string()),
                    loaded => Ok(loaded?),
                },
            });
        }
        if options.follows_forks() {
            self.follow_forks(&btf)?;
        }
        Ok(())
    }

    fn follow_forks(&mut self, btf: &Btf) -> Result<(), LoadError> {
        const NAME: &str = "follow_fork";
        let refused = |source| LoadError::Program { name: NAME, source };
        let follow_fork: &mut BtfTracePoint = program(&mut self.ebpf, NAME)?;
        follow_fork.load("sched_process_fork", btf).map_err(refused)?;
        follow_fork.attach().map_err(refused)?;
        Ok(())
    }

    /// Makes these processes targets.
    ///
    /// # Errors
    /// [`LoadError::TooManyProcesses`] where the table is full.
    pub fn add_targets(&mut self, tgids: &[u32]) -> Result<(), LoadError> {
        const NAME: &str = "TARGET_PROCESSES";
        let unusable = |source| LoadError::Map { name: NAME, source };
        let map = self.ebpf.map_mut(NAME).ok_or(LoadError::Missing(NAME))?;
        let mut targets: HashMap<_, u32, u8> = HashMap::try_from(map).map_err(unusable)?;
        tgids.iter().try_for_each(|tgid| {
            targets.insert(tgid, 1, 0).map_err(|error| match &error {
                MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => {
                    LoadError::TooManyProcesses
                }
                _ => unusable(error),
            })
        })
    }

    /// Starts the on-CPU source on these CPUs: sampling begins.
    ///
    /// # Errors
    /// [`LoadError`] where neither event can be opened.
    pub fn attach_on_cpu(&mut self, cpus: &[u32], frequency_hz: u32) -> Result<OnCpuEvent, LoadError> {
        let on_cpu: &mut PerfEvent = program(&mut self.ebpf, "on_cpu")?;
        let attach = |on_cpu: &mut PerfEvent, config: PerfEventConfig| {
            let mut links = Vec::with_capacity(cpus.len());
            for cpu in cpus {
                let scope = PerfEventScope::AllProcessesOneCpu { cpu: *cpu };
                let policy = SamplePolicy::Frequency(u64::from(frequency_hz));
                match on_cpu.attach(config, scope, policy, false) {
                    Ok(link) => links.push(link),
                    // A CPU that went offline since it was listed has nothing to sample.
                    Err(error) if is_no_such_device(&error) && !links.is_empty() => {}
                    Err(error) => {
                        for link in links {
                            let _ = on_cpu.detach(link);
                        }
                        return Err(error);
                    }
                }
            }
            Ok(())
        };
        if attach(on_cpu, PerfEventConfig::Hardware(HardwareEvent::CpuCycles)).is_ok() {
            return Ok(OnCpuEvent::Cycles);
        }
        attach(on_cpu, PerfEventConfig::Software(SoftwareEvent::CpuClock))
            .map_err(|source| LoadError::Program { name: "on_cpu", source })?;
        Ok(OnCpuEvent::CpuClock)
    }

    /// Starts the sched source, if it was loaded.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn attach_sched(&mut self) -> Result<(), LoadError> {
        match &self.sched {
            Some(sched) => sched.attach(&mut self.ebpf),
            None => Ok(()),
        }
    }

    /// Starts the tcp source, if it was loaded.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn attach_tcp(&mut self) -> Result<(), LoadError> {
        match &mut self.tcp {
            Some(tcp) => tcp.attach(&mut self.ebpf),
            None => Ok(()),
        }
    }

    /// The tcp source, if it was loaded.
    #[must_use]
    pub fn tcp(&self) -> Option<&Tcp> {
        self.tcp.as_ref()
    }

    /// Starts the memory source, if it was loaded, on these CPUs.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn attach_memory(&mut self, cpus: &[u32]) -> Result<(), LoadError> {
        match &self.memory {
            Some(memory) => memory.attach(&mut self.ebpf, cpus),
            None => Ok(()),
        }
    }

    /// The memory source, if it was loaded.
    pub fn memory_mut(&mut self) -> Option<&mut Memory> {
        self.memory.as_mut()
    }

    /// Starts the block source, if it was loaded.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn attach_block(&mut self) -> Result<(), LoadError> {
        match &mut self.block {
            Some(Ok(block)) => block.attach(&mut self.ebpf),
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// The block source, or what this kernel lacks for it; `None` where it was not asked for.
    #[must_use]
    pub fn block(&self) -> Option<Result<&Block, &str>> {
        self.block.as_ref().map(|block| block.as_ref().map_err(String::as_str))
    }

    /// The kernel's memory; `None` without the block source.
    pub fn peek(&mut self) -> Option<impl KernelMemory + '_> {
        matches!(&self.block, Some(Ok(_))).then_some(Peeking(&mut self.ebpf))
    }

    /// The same where held bios are to be looked for: where the block source does not see each.
    pub fn peek_at_holds(&mut self) -> Option<impl KernelMemory + '_> {
        let looks = matches!(&self.block, Some(Ok(block)) if block.sees_holds() == SeesHolds::Looks);
        looks.then_some(Peeking(&mut self.ebpf))
    }

    /// What the block source has summed up, and what is under way; nothing without it.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn read_block(&self) -> Result<BlockMaps, LoadError> {
        match &self.block {
            Some(Ok(_)) => Block::read(&self.ebpf),
            Some(Err(_)) | None => Ok(BlockMaps::default()),
        }
    }

    /// Whether a process is in the table of target processes.
    #[must_use]
    pub fn is_target(&self, tgid: u32) -> bool {
        let targets =
            self.ebpf.map("TARGET_PROCESSES").and_then(|map| HashMap::<_, u32, u8>::try_from(map).ok());
        targets.is_some_and(|targets| targets.get(&tgid, 0).is_ok())
    }

    /// The threads of the target that are on CPUs: [`chokepoint_ebpf::sched::RunningThread`] one after the other.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn running_threads(&mut self) -> Result<Vec<u8>, LoadError> {
        if self.sched.is_some() { Sched::running(&mut self.ebpf) } else { Ok(Vec::new()) }
    }

    /// What every living thread has done so far, in the form of [`Stopped::threads`]; nothing without the sched source.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn look_at_threads(&mut self) -> Result<Vec<u8>, LoadError> {
        match &self.sched {
            Some(sched) => sched.look(&mut self.ebpf),
            None => Ok(Vec::new()),
        }
    }

    /// The sched source, if it was loaded.
    pub fn sched_mut(&mut self) -> Option<&mut Sched> {
        self.sched.as_mut()
    }

    /// Stops every source and unloads its programs. The maps stay, to be drained and read.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn stop(&mut self) -> Result<Stopped, LoadError> {
        let cost = self.cost();
        let running = self.running_threads()?;
        if self.has_on_cpu {
            let on_cpu: &mut PerfEvent = program(&mut self.ebpf, "on_cpu")?;
            on_cpu.unload().map_err(|source| LoadError::Program { name: "on_cpu", source })?;
        }
        let mut stopped = Stopped { cost, running, ..Stopped::default() };
        if let Some(sched) = &self.sched {
            stopped.threads = sched.stop(&mut self.ebpf)?;
            stopped.clocks = sched.clocks()?;
            stopped.queue_pairs = sched.queue_pairs()?;
            stopped.pending_waits = sched.pending_waits()?;
        }
        if let Some(tcp) = &self.tcp {
            tcp.stop(&mut self.ebpf)?;
        }
        if let Some(memory) = &self.memory {
            memory.stop(&mut self.ebpf)?;
            stopped.memory = memory.processes()?;
        }
        if let Some(Ok(block)) = &self.block {
            block.stop(&mut self.ebpf)?;
        }
        self.statistics = None;
        Ok(stopped)
    }

    /// The ring buffer of records. It can be taken once.
    ///
    /// # Errors
    /// [`LoadError::Missing`] the second time.
    pub fn take_records(&mut self) -> Result<RingBuf<MapData>, LoadError> {
        const NAME: &str = "RECORDS";
        let map: Map = self.ebpf.take_map(NAME).ok_or(LoadError::Missing(NAME))?;
        RingBuf::try_from(map).map_err(|source| LoadError::Map { name: NAME, source })
    }

    /// The unwinder's maps. They can be taken once.
    ///
    /// # Errors
    /// Where a map is missing or cannot be mapped.
    pub fn take_unwind_maps(&mut self) -> Result<UnwindMaps, LoadError> {
        UnwindMaps::take(&mut self.ebpf)
    }

    /// Reads every counter, summed over the CPUs; in the order of [`Counter::ALL`].
    ///
    /// # Errors
    /// [`LoadError::Map`] where the kernel refuses.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        const NAME: &str = "COUNTERS";
        let unusable = |source| LoadError::Map { name: NAME, source };
        let map = self.ebpf.map(NAME).ok_or(LoadError::Missing(NAME))?;
        let array: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(unusable)?;
        let mut counters = Counters::default();
        for counter in Counter::ALL {
            let values = array.get(&(counter as u32), 0).map_err(unusable)?;
            counters.0[counter as usize] = values.iter().sum();
        }
        Ok(counters)
    }

    /// What the programs have cost so far; zero unless [`Programs::cost_is_measured`].
    #[must_use]
    pub fn cost(&self) -> ProgramCost {
        self.ebpf
            .programs()
            .filter_map(|(_, program)| program.info().ok())
            .map(|info| ProgramCost { run_time: info.run_time(), run_count: info.run_count() })
            .fold(ProgramCost::default(), |sum, cost| ProgramCost {
                run_time: sum.run_time + cost.run_time,
                run_count: sum.run_count + cost.run_count,
            })
    }

    /// Whether the kernel measures the programs' run time; it asks for `CAP_SYS_ADMIN`.
    #[must_use]
    pub fn cost_is_measured(&self) -> bool {
        self.statistics.is_some()
    }

    /// The loaded object, for [`crate::drain::kernel_log`].
    pub(crate) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// The kernel programs' counters at one moment, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters([u64; Counter::COUNT as usize]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::COUNT as usize])
    }
}

impl Counters {
    /// One of them.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = *self;
        counts.0.iter_mut().zip(earlier.0).for_each(|(now, before)| *now = now.saturating_sub(before));
        counts
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })
}

fn is_no_such_device(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::ENODEV))
}

/// A task name as the kernel keeps it: cut to what fits, zero-padded.
fn padded_comm(name: &str) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let length = name.len().min(COMM_LEN - 1);
    comm[..length].copy_from_slice(&name.as_bytes()[..length]);
    comm
}
