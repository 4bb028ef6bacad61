//! What Chokepoint has in the kernel; other programs' objects are left out by their names.

use std::fs;

use aya::maps::loaded_maps;
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};

/// The kernel programs, but for those at the scheduler's hooks, whose names others choose too.
const PROGRAMS: [&str; 8] = [
    "on_cpu",
    "follow_fork",
    "wait_over",
    "threads_begin",
    "threads_running",
    "threads_report",
    "minor_fault",
    "major_fault",
];
/// Their maps; the kernel keeps fifteen bytes of a name.
const MAPS: [&str; 28] = [
    "RECORDS",
    "COUNTERS",
    "SCRATCH",
    "TARGET_PROCESSE",
    "SCHED_THREADS",
    "CPU_TURNS",
    "QUEUE_PAIRS",
    "NEW_CLOCKS",
    "WAIT_CHOSEN",
    "WAIT_INTERRUPTS",
    "EARLIER_LOOK",
    "wait_interrupt",
    "TCP_SOCKETS",
    "TCP_SENDS_UNTIL",
    "MEMORY_PROCESSE",
    "MEMORY_RECLAIMI",
    "MEMORY_PERIODS",
    "BLOCK_KEPT",
    "BLOCK_REQUESTS",
    "BLOCK_SUMS",
    "BLOCK_DEVICES",
    "BLOCK_POSITIONS",
    "BLOCK_HELD",
    "BLOCK_HOLDS",
    "BLOCK_RELEASED",
    "BLOCK_NO_SUMS",
    "BLOCK_NO_HOLDS",
    "BLOCK_PEEK",
];

/// Counts of what a program may leave in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// BPF programs.
    pub programs: usize,
    /// BPF maps.
    pub maps: usize,
    /// BPF links.
    pub links: usize,
    /// Perf events that agents hold open.
    pub perf_events: usize,
}

impl Objects {
    /// As of now, of every agent on the host.
    #[must_use]
    pub fn now() -> Self {
        let ours = |program: &ProgramInfo| program.name_as_str().is_some_and(|name| PROGRAMS.contains(&name));
        let programs: Vec<u32> =
            loaded_programs().flatten().filter(ours).map(|program| program.id()).collect();
        let maps =
            loaded_maps().flatten().filter(|map| map.name_as_str().is_some_and(|name| MAPS.contains(&name)));
        let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id()));
        Self {
            programs: programs.len(),
            maps: maps.count(),
            links: links.count(),
            perf_events: perf_events(),
        }
    }
}

fn perf_events() -> usize {
    let descriptors =
        |process: fs::DirEntry| fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter(|process| {
            fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.trim() == "chokepoint")
        })
        .flat_map(descriptors)
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .filter(|target| target.as_os_str() == "anon_inode:[perf_event]")
        .count()
}

/// Programs of this name that are attached, of whatever tool; of a long name the kernel keeps the beginning.
#[must_use]
pub fn attached(name: &str) -> usize {
    let is_it = |program: &ProgramInfo| {
        program.name_as_str().is_some_and(|own| own.starts_with(&name[..name.len().min(14)]))
    };
    let programs: Vec<u32> = loaded_programs().flatten().filter(is_it).map(|program| program.id()).collect();
    loaded_links().flatten().filter(|link| programs.contains(&link.program_id())).count()
}
