//! Loads the kernel programs, attaches them, and reads their counters. With [`crate::drain`] the only code that touches
//! aya.
//!
//! Everything lives in file descriptors of this process and nothing is pinned, so the kernel removes it all when the
//! process ends, however it ends.

pub mod block;
mod counters;
mod error;
pub mod failed_calls;
mod introduce;
pub mod layout;
pub mod memory;
mod missed;
mod object;
mod on_cpu;
mod options;
mod pod;
mod programs;
mod quota;
pub mod sched;
pub mod tcp;
pub mod unwind_maps;

use std::os::fd::OwnedFd;

use aya::maps::{HashMap, Map, MapData, MapError, RingBuf};
use aya::sys::Stats;
use aya::{Btf, Ebpf};
use chokepoint_ebpf::block::{Key, Sums};
use chokepoint_ebpf::memory::{ProcessKey, ProcessTotals};
use chokepoint_ebpf::run_queue::{Behind, QueuePair};
use chokepoint_ebpf::sched::ThreadClock;

pub use counters::{Counters, ProgramCost};
pub use error::LoadError;
pub use missed::MissedRuns;
pub use on_cpu::OnCpuEvent;
pub use options::{Gate, LoadOptions, Stacks};

use crate::block_windows::Idle;
use crate::held_bios::KernelMemory;
use block::{Block, BlockMaps, Peeking, SeesHolds};
use failed_calls::{FailedCalls, Looking};
use layout::KernelLayout;
use memory::Memory;
use sched::Sched;
use tcp::Tcp;
use unwind_maps::UnwindMaps;

/// The program that makes the children of target processes targets.
const FOLLOW_FORK: &str = "follow_fork";

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
    /// While it is open the kernel measures the run time of BPF programs.
    statistics: Option<OwnedFd>,
    /// Whether it may; not after the programs are gone.
    may_measure_cost: bool,
    has_on_cpu: bool,
    on_cpu_links: on_cpu::Links,
    sched: Option<Sched>,
    tcp: Option<Tcp>,
    memory: Option<Memory>,
    /// Or why it could not be loaded: the others do without.
    block: Option<Result<Block, String>>,
    /// The same.
    failed_calls: Option<Result<FailedCalls, String>>,
    /// The kernel forgets with the programs.
    missed_at_stop: Option<MissedRuns>,
}

impl Programs {
    /// Loads the maps and the programs that the options need; nothing runs yet.
    ///
    /// # Errors
    /// [`LoadError`] with the kernel's answer.
    pub fn load(options: &LoadOptions, layout: &KernelLayout) -> Result<Self, LoadError> {
        let mut ebpf = object::load(options, layout)?;
        let statistics = aya::sys::enable_stats(Stats::RunTime).ok();
        let has_on_cpu = options.frequency_hz.is_some();
        if has_on_cpu {
            on_cpu::load(&mut ebpf)?;
        }
        let mut programs = Self {
            ebpf,
            may_measure_cost: statistics.is_some(),
            statistics,
            has_on_cpu,
            on_cpu_links: Vec::new(),
            sched: None,
            tcp: None,
            memory: None,
            block: None,
            failed_calls: None,
            missed_at_stop: None,
        };
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
        if let Some(tcp) = options.tcp {
            self.tcp = Some(Tcp::load(&mut self.ebpf, tcp, &btf)?);
        }
        if let Some(memory) = options.memory {
            self.memory = Some(Memory::load(&mut self.ebpf, memory, &btf)?);
        }
        if let Some(block) = options.block {
            self.block = Some(match layout.missing_for_block() {
                Some(missing) => Err(format!("its type information has no {missing}")),
                None => or_why_not(Block::load(&mut self.ebpf, block, &btf))?,
            });
        }
        if options.failed_calls {
            self.failed_calls = Some(or_why_not(FailedCalls::load(&mut self.ebpf, &btf))?);
        }
        if options.follows_forks() {
            programs::load(&mut self.ebpf, FOLLOW_FORK, "sched_process_fork", &btf)?;
            programs::attach(&mut self.ebpf, FOLLOW_FORK)?;
        }
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

    /// Starts the on-CPU source on these CPUs: sampling begins. Where it samples already, it goes on with this frequency.
    ///
    /// # Errors
    /// [`LoadError`] where neither event can be opened.
    pub fn attach_on_cpu(&mut self, cpus: &[u32], frequency_hz: u32) -> Result<OnCpuEvent, LoadError> {
        on_cpu::detach(&mut self.ebpf, std::mem::take(&mut self.on_cpu_links))?;
        let (event, links) = on_cpu::attach(&mut self.ebpf, cpus, frequency_hz)?;
        self.on_cpu_links = links;
        Ok(event)
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

    /// Sees threads send from now on, or not any more, where the tcp source was loaded to be told when.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn see_sends(&mut self, on: bool) -> Result<(), LoadError> {
        match &mut self.tcp {
            Some(tcp) => tcp.see_sends(&mut self.ebpf, on),
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

    /// Sums of requests by device and operation, where the block source was loaded for that alone; nothing without it.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn read_block_devices(&self) -> Result<Vec<(Key, Sums)>, LoadError> {
        match &self.block {
            Some(Ok(_)) => Block::read_devices(&self.ebpf),
            Some(Err(_)) | None => Ok(Vec::new()),
        }
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

    /// Makes room in the block source's sums for others than those of these keys; nothing without it.
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn forget_block(&mut self, idle: &Idle) -> Result<(), LoadError> {
        match &self.block {
            Some(Ok(_)) => Block::forget(&mut self.ebpf, idle),
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// The source of failed calls, or why this kernel refuses it; `None` where it was not asked for.
    pub fn failed_calls_mut(&mut self) -> Option<Result<Looking<'_>, &str>> {
        let source = self.failed_calls.as_mut()?;
        Some(
            source
                .as_mut()
                .map(|source| Looking { source, ebpf: &mut self.ebpf })
                .map_err(|why| why.as_str()),
        )
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
        self.log_costs();
        self.missed_at_stop = Some(self.read_missed_runs());
        let running = self.running_threads()?;
        if self.has_on_cpu {
            on_cpu::stop(&mut self.ebpf)?;
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
        if let Some(Ok(failed_calls)) = &mut self.failed_calls {
            failed_calls.stop(&mut self.ebpf)?;
        }
        (self.statistics, self.may_measure_cost) = (None, false);
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

    /// The loaded object, for [`crate::drain::kernel_log`].
    pub(crate) fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// A source that the others do without: as it was loaded, or why this kernel refuses it. What is not permitted stays an error.
fn or_why_not<T>(loaded: Result<T, LoadError>) -> Result<Result<T, String>, LoadError> {
    match loaded {
        Err(error) if !error.is_permission() => Ok(Err(error.to_string())),
        loaded => loaded.map(Ok),
    }
}
