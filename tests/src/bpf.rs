//! What is loaded in the kernel.

use std::fs;

/// Counts of what a program may leave in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objects {
    /// BPF programs.
    pub programs: usize,
    /// BPF maps.
    pub maps: usize,
    /// BPF links.
    pub links: usize,
    /// Perf events that some process holds.
    pub perf_events: usize,
}

impl Objects {
    /// As of now, on the whole host.
    #[must_use]
    pub fn now() -> Self {
        Self {
            programs: aya::programs::loaded_programs().flatten().count(),
            maps: aya::maps::loaded_maps().flatten().count(),
            links: aya::programs::loaded_links().flatten().count(),
            perf_events: perf_events(),
        }
    }
}

fn perf_events() -> usize {
    let descriptors = |process: fs::DirEntry| fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .flat_map(descriptors)
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .filter(|target| target.as_os_str() == "anon_inode:[perf_event]")
        .count()
}
