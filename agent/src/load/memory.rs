//! The memory source: its programs and maps as the agent uses them.

use aya::maps::{Array, HashMap, MapData};
use aya::programs::PerfEvent;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::{Btf, Ebpf};
use chokepoint_ebpf::memory::{ProcessKey, ProcessTotals};

use super::LoadError;
use super::on_cpu::is_no_such_device;
use super::pod::readable;
use super::programs::{attach, load, program, tried, unload};

/// What the memory source is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Whether page faults are seen.
    pub faults: bool,
    /// Minor faults to one that is seen, where not each is: then nothing is counted by process. `None`: each.
    pub fault_period: Option<u64>,
    /// Whether reclaims and kills are seen.
    pub reclaims: bool,
    /// Whether stacks of reclaims are taken.
    pub reclaim_stacks: bool,
}

/// Programs at perf events, and the event of each.
const FAULTS: [(&str, SoftwareEvent); 2] =
    [("minor_fault", SoftwareEvent::PageFaultsMin), ("major_fault", SoftwareEvent::PageFaultsMaj)];
/// Programs that are named as their tracepoints are. The ends come before the beginnings, which they need.
const TRACEPOINTS: [&str; 3] =
    ["mm_vmscan_direct_reclaim_end", "mm_vmscan_direct_reclaim_begin", "mark_victim"];
/// The same, of what a kernel may be built without: the memory controller and compaction. The kernel's own reclaim is told where
/// the tracepoint is.
const IF_THERE: [&str; 4] = [
    "mm_vmscan_memcg_reclaim_end",
    "mm_vmscan_memcg_reclaim_begin",
    "mm_compaction_try_to_compact_pages",
    "mm_vmscan_kswapd_wake",
];
const PROCESSES: &str = "MEMORY_PROCESSES";
const PERIODS: &str = "MEMORY_PERIODS";
/// Positions in that map.
const OF_FAULTS: u32 = 0;
const OF_RECLAIMS: u32 = 1;

readable! {
    Key(ProcessKey);
    Totals(ProcessTotals);
}

/// The source.
pub struct Memory {
    options: MemoryOptions,
    tracepoints: Vec<&'static str>,
    periods: Array<MapData, u64>,
    processes: HashMap<MapData, Key, Totals>,
}

impl Memory {
    /// Loads the programs; nothing runs yet.
    pub(super) fn load(ebpf: &mut Ebpf, options: MemoryOptions, btf: &Btf) -> Result<Self, LoadError> {
        if options.faults {
            for (name, _) in FAULTS {
                let fault: &mut PerfEvent = program(ebpf, name)?;
                fault.load().map_err(|source| LoadError::Program { name, source })?;
            }
        }
        let mut tracepoints = Vec::new();
        let (if_there, always) =
            if options.reclaims { (&IF_THERE[..], &TRACEPOINTS[..]) } else { (&[][..], &[][..]) };
        for name in if_there.iter().copied() {
            if tried(name, load(ebpf, name, name, btf)) {
                tracepoints.push(name);
            }
        }
        for name in always.iter().copied() {
            load(ebpf, name, name, btf)?;
            tracepoints.push(name);
        }
        let unusable = |name| move |source| LoadError::Map { name, source };
        let mut take = |name| ebpf.take_map(name).ok_or(LoadError::Missing(name));
        Ok(Self {
            options,
            tracepoints,
            periods: Array::try_from(take(PERIODS)?).map_err(unusable(PERIODS))?,
            processes: HashMap::try_from(take(PROCESSES)?).map_err(unusable(PROCESSES))?,
        })
    }

    /// Begins to see, on these CPUs.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, cpus: &[u32]) -> Result<(), LoadError> {
        for name in &self.tracepoints {
            attach(ebpf, name)?;
        }
        if self.options.faults {
            for (name, event) in FAULTS {
                let period = match event {
                    SoftwareEvent::PageFaultsMin => self.options.fault_period.unwrap_or(1),
                    _ => 1,
                };
                attach_fault(ebpf, name, event, period, cpus)?;
            }
        }
        Ok(())
    }

    /// Stops, and unloads the programs.
    pub(super) fn stop(&self, ebpf: &mut Ebpf) -> Result<(), LoadError> {
        if self.options.faults {
            for (name, _) in FAULTS {
                let fault: &mut PerfEvent = program(ebpf, name)?;
                fault.unload().map_err(|source| LoadError::Program { name, source })?;
            }
        }
        for name in &self.tracepoints {
            unload(ebpf, name)?;
        }
        Ok(())
    }

    /// Sets of how many minor faults one stack is taken.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_fault_period(&mut self, faults: u64) -> Result<(), LoadError> {
        self.set(OF_FAULTS, faults)
    }

    /// Sets by what reclaims are chosen, as waits are: [`chokepoint_ebpf::sched::WaitFacts`].
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_reclaim_period_ns(&mut self, period_ns: u64) -> Result<(), LoadError> {
        self.set(OF_RECLAIMS, period_ns)
    }

    fn set(&mut self, index: u32, period: u64) -> Result<(), LoadError> {
        self.periods.set(index, period, 0).map_err(|source| LoadError::Map { name: PERIODS, source })
    }

    /// What each process has done.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn processes(&self) -> Result<Vec<(ProcessKey, ProcessTotals)>, LoadError> {
        let unusable = |source| LoadError::Map { name: PROCESSES, source };
        self.processes
            .iter()
            .map(|entry| entry.map(|(Key(key), Totals(totals))| (key, totals)).map_err(unusable))
            .collect()
    }
}

fn attach_fault(
    ebpf: &mut Ebpf,
    name: &'static str,
    event: SoftwareEvent,
    period: u64,
    cpus: &[u32],
) -> Result<(), LoadError> {
    let fault: &mut PerfEvent = program(ebpf, name)?;
    let mut attached = 0;
    for cpu in cpus {
        let scope = PerfEventScope::AllProcessesOneCpu { cpu: *cpu };
        match fault.attach(PerfEventConfig::Software(event), scope, SamplePolicy::Period(period), false) {
            Ok(_) => attached += 1,
            // A CPU that went offline since it was listed has no faults.
            Err(error) if is_no_such_device(&error) && attached > 0 => {}
            Err(source) => return Err(LoadError::Program { name, source }),
        }
    }
    Ok(())
}
