//! The sched source: its programs and maps as the agent uses them.

use std::fs::File;
use std::io::{self, Read};

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::Iter;
use aya::{Btf, Ebpf};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use chokepoint_ebpf::run_queue::{Behind, QueueDetail, QueuePair};
use chokepoint_ebpf::sched::{EarlierLook, INTERRUPTS_BYTES, ThreadClock};

use super::LoadError;
use super::pod::readable;
use super::programs::{self, program};

/// What the sched source is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedOptions {
    /// Threads it has room for.
    pub threads: u32,
    /// Whether stacks of waits are taken.
    pub waits: bool,
    /// Whether stacks of what ends them are taken.
    pub wakers: bool,
    /// What is told of run queues.
    pub run_queues: QueueDetail,
    /// Index of the controller of CPUs where it is a version 1 one.
    pub cpu_controller: Option<u32>,
}

/// Name of each program, and its tracepoint.
const ALWAYS: [(&str, &str); 3] = [
    ("sched_wakeup_new", "sched_wakeup_new"),
    ("sched_wakeup", "sched_wakeup"),
    ("sched_switch", "sched_switch"),
];
/// The interrupt that a ring buffer's wake-up comes by.
const WAITS: (&str, &str) =
    ("wait_over", if cfg!(target_arch = "aarch64") { "ipi_entry" } else { "irq_work_entry" });
const WAKERS: (&str, &str) = ("sched_waking", "sched_waking");
const CHOSEN: &str = "WAIT_CHOSEN";
const THREADS: &str = "SCHED_THREADS";
const PAIRS: &str = "QUEUE_PAIRS";
const INTERRUPTS: &str = "WAIT_INTERRUPTS";
const EARLIER_LOOK: &str = "EARLIER_LOOK";
const BEGIN: &str = "threads_begin";
const RUNNING: &str = "threads_running";
const REPORT: &str = "threads_report";
/// For kernels before 5.18.
const REPORT_WITHOUT_USER: &str = "threads_report_5_10";

impl SchedOptions {
    fn programs(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let waits = self.waits.then_some(WAITS);
        let wakers = self.wakers.then_some(WAKERS);
        // The one that the others build on comes last.
        waits.into_iter().chain(wakers).chain(ALWAYS)
    }
}

readable! {
    Clock(ThreadClock);
    Pair(QueuePair);
    PairBehind(Behind);
}

/// The attached source.
pub struct Sched {
    options: SchedOptions,
    report: &'static str,
    period: Array<MapData, u64>,
    interrupts: Vec<RingBuf<MapData>>,
    threads: HashMap<MapData, u64, Clock>,
    pairs: HashMap<MapData, Pair, PairBehind>,
    chosen: PerCpuArray<MapData, [u64; 7]>,
    earlier_look: Array<MapData, [u64; 2]>,
}

impl Sched {
    /// Loads the programs, for CPUs below this number; nothing runs yet.
    pub(super) fn load(
        ebpf: &mut Ebpf,
        mut options: SchedOptions,
        cpus: u32,
        btf: &Btf,
    ) -> Result<Self, LoadError> {
        for hook in options.programs().collect::<Vec<_>>() {
            match programs::load(ebpf, hook.0, hook.1, btf) {
                // The times are exact without it. Each wait that was to have a stack is counted as lost.
                Err(error) if hook == WAITS => {
                    tracing::warn!(%error, "no stacks of waits: this kernel has no tracepoint {}", hook.1);
                    options.waits = false;
                }
                result => result?,
            }
        }
        let load = |ebpf: &mut Ebpf, name| {
            let iterator: &mut Iter = program(ebpf, name)?;
            iterator.load("task", btf).map_err(|source| LoadError::Program { name, source })
        };
        load(ebpf, BEGIN)?;
        load(ebpf, RUNNING)?;
        let report = match load(ebpf, REPORT) {
            Ok(()) => REPORT,
            Err(error) => {
                tracing::debug!(%error, "user stacks of threads that do not run");
                load(ebpf, REPORT_WITHOUT_USER)?;
                REPORT_WITHOUT_USER
            }
        };
        Ok(Self {
            options,
            report,
            period: Array::try_from(take(ebpf, "WAIT_PERIOD")?)
                .map_err(|source| LoadError::Map { name: "WAIT_PERIOD", source })?,
            threads: HashMap::try_from(take(ebpf, THREADS)?)
                .map_err(|source| LoadError::Map { name: THREADS, source })?,
            pairs: HashMap::try_from(take(ebpf, PAIRS)?)
                .map_err(|source| LoadError::Map { name: PAIRS, source })?,
            chosen: PerCpuArray::try_from(take(ebpf, CHOSEN)?)
                .map_err(|source| LoadError::Map { name: CHOSEN, source })?,
            earlier_look: Array::try_from(take(ebpf, EARLIER_LOOK)?)
                .map_err(|source| LoadError::Map { name: EARLIER_LOOK, source })?,
            interrupts: interrupts(ebpf, cpus)?,
        })
    }

    /// Begins to account: for what happens from now on, and then for the threads to which nothing has happened yet.
    pub(super) fn attach(&self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        for (name, _) in self.options.programs() {
            programs::attach(ebpf, name)?;
        }
        iterate(ebpf, BEGIN).map(drop)
    }

    /// What the kernel has counted of the threads that are on CPUs: [`chokepoint_ebpf::sched::RunningThread`] one after the other.
    pub(super) fn running(ebpf: &mut Ebpf) -> Result<Vec<u8>, LoadError> {
        iterate(ebpf, RUNNING)
    }

    /// Ends the accounting, and returns what every living thread has done.
    pub(super) fn stop(&self, ebpf: &mut Ebpf) -> Result<Vec<u8>, LoadError> {
        // In the other order, so that no wait is chosen whose interrupt would not be met.
        let programs: Vec<_> = self.options.programs().collect();
        for (name, _) in programs.into_iter().rev() {
            programs::unload(ebpf, name)?;
        }
        iterate(ebpf, self.report)
    }

    /// Waits that were chosen and whose interrupts had not come when the programs were unloaded.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn pending_waits(&self) -> Result<u64, LoadError> {
        let chosen = self.chosen.get(&0, 0).map_err(|source| LoadError::Map { name: CHOSEN, source })?;
        // Each begins with the thread, or 0.
        Ok(chosen.iter().filter(|wait| wait[0] != 0).count() as u64)
    }

    /// The times of threads by their keys, also of those that no look finds any more because they are about to end.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn clocks(&self) -> Result<Vec<(u64, ThreadClock)>, LoadError> {
        let unusable = |source| LoadError::Map { name: THREADS, source };
        self.threads
            .iter()
            .map(|entry| entry.map(|(key, Clock(clock))| (key, clock)).map_err(unusable))
            .collect()
    }

    /// Who ran while others queued.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn queue_pairs(&self) -> Result<Vec<(QueuePair, Behind)>, LoadError> {
        let unusable = |source| LoadError::Map { name: PAIRS, source };
        self.pairs
            .iter()
            .map(|entry| entry.map(|(Pair(pair), PairBehind(behind))| (pair, behind)).map_err(unusable))
            .collect()
    }

    /// Forgets who ran while others queued, for good.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forget_queue_pairs(&mut self, pairs: &[QueuePair]) -> Result<(), LoadError> {
        for pair in pairs {
            match self.pairs.remove(&Pair(*pair)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(LoadError::Map { name: PAIRS, source }),
            }
        }
        Ok(())
    }

    /// What every living thread has done so far, as for [`Sched::stop`].
    pub(super) fn look(&self, ebpf: &mut Ebpf) -> Result<Vec<u8>, LoadError> {
        iterate(ebpf, self.report)
    }

    /// Sets what waits are chosen by: see [`chokepoint_ebpf::sched::WaitFacts`].
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_period_ns(&mut self, period_ns: u64) -> Result<(), LoadError> {
        self.period.set(0, period_ns, 0).map_err(|source| LoadError::Map { name: "WAIT_PERIOD", source })
    }

    /// Has the next looks at threads leave out the waits that an earlier one has told of; the default has told of none.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_earlier_look(&mut self, look: EarlierLook) -> Result<(), LoadError> {
        self.earlier_look
            .set(0, [look.time_ns, look.period_ns], 0)
            .map_err(|source| LoadError::Map { name: EARLIER_LOOK, source })
    }

    /// Makes room for more interrupts.
    pub fn make_room(&mut self) {
        for ring in &mut self.interrupts {
            while ring.next().is_some() {}
        }
    }
}

/// Makes a ring buffer for each CPU.
fn interrupts(ebpf: &mut Ebpf, cpus: u32) -> Result<Vec<RingBuf<MapData>>, LoadError> {
    let unusable = |source| LoadError::Map { name: INTERRUPTS, source };
    let map = take(ebpf, INTERRUPTS)?;
    let mut outer: ArrayOfMaps<MapData, RingBuf<MapData>> = ArrayOfMaps::try_from(map).map_err(unusable)?;
    let make = |cpu| {
        let shape =
            aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, INTERRUPTS_BYTES as u32, 0);
        let map = MapData::create(shape, "wait_interrupt", None).map_err(unusable)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(unusable)?;
        outer.set(cpu, &ring, 0).map_err(unusable)?;
        Ok(ring)
    };
    (0..cpus).map(make).collect()
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

/// Most that is read of an iterator: some hundred thousand threads.
const MAX_REPORT_BYTES: u64 = 128 << 20;

/// Runs a program for each thread of the host, and returns what it writes.
fn iterate(ebpf: &mut Ebpf, name: &'static str) -> Result<Vec<u8>, LoadError> {
    let refused = |source| LoadError::Program { name, source };
    let iterator: &mut Iter = program(ebpf, name)?;
    let link = iterator.attach().map_err(refused)?;
    let link = iterator.take_link(link).map_err(refused)?;
    let file: File =
        link.into_file().map_err(|error| LoadError::Io { what: name, source: io::Error::other(error) })?;
    let mut written = Vec::new();
    file.take(MAX_REPORT_BYTES)
        .read_to_end(&mut written)
        .map_err(|source| LoadError::Io { what: "the kernel's list of threads cannot be read", source })?;
    Ok(written)
}
