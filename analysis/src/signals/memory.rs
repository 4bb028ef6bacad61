//! The host's memory.

use std::collections::BTreeMap;

use super::{Definition, Figures, Kind, Resource, Thresholds, Unit, percent};

const fn define(name: &'static str, kind: Kind, unit: Unit) -> Definition {
    Definition::new(name, Resource::Memory, kind, unit)
}

static UTILIZATION: Definition = define("memory.utilization", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of memory that is not available to new work without swapping (/proc/meminfo MemAvailable)");
static SWAP: Definition = define("memory.swap_utilization", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of swap space in use (/proc/meminfo)");
static PRESSURE_SOME: Definition = define("memory.pressure", Kind::Saturation, Unit::Percent)
    .levels(Thresholds::STALLED)
    .means("share of the time in which some thread waited for memory (PSI memory some)");
static PRESSURE_FULL: Definition = define("memory.pressure_full", Kind::Saturation, Unit::Percent)
    .levels(Thresholds::STALLED)
    .means("share of the time in which all threads with work waited for memory (PSI memory full)");
static SWAP_IN: Definition = define("memory.swap_in", Kind::Saturation, Unit::PerSecond)
    // A read of a page from a disk takes about 0.1 to 1 ms: from 100 a second on it is 1 to 10 % of a thread's time.
    .levels(Some(Thresholds { warning: 100.0, critical: 1000.0 }))
    .means("pages read back from swap (/proc/vmstat pswpin)");
static SWAP_OUT: Definition = define("memory.swap_out", Kind::Saturation, Unit::PerSecond)
    .means("pages written to swap (/proc/vmstat pswpout)");
static DIRECT_RECLAIM: Definition = define("memory.direct_reclaim", Kind::Saturation, Unit::PerSecond)
    .levels(Thresholds::ANY)
    .means("pages looked through by threads that had to free memory before they got some (/proc/vmstat pgscan_direct)");
static REFAULTS: Definition = define("memory.refaults", Kind::Saturation, Unit::PerSecond)
    .means("pages read again soon after they had been dropped (/proc/vmstat workingset_refault)");
static MAJOR_FAULTS: Definition = define("memory.major_faults", Kind::Saturation, Unit::PerSecond)
    .means("page faults that had to read from a device (/proc/vmstat pgmajfault)");
static FAULTS: Definition = define("memory.faults", Kind::Utilization, Unit::PerSecond)
    .means("page faults, major ones included (/proc/vmstat pgfault)");
static COMPACTION: Definition = define("memory.compaction_stalls", Kind::Saturation, Unit::PerSecond)
    .means("times a thread had to move pages together before it got some (/proc/vmstat compact_stall)");
static OOM_KILLS: Definition = define("memory.oom_kills", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::FATAL)
    .means("processes killed since there was no memory, in the host or a group (/proc/vmstat oom_kill)");

pub const DEFINITIONS: &[&Definition] = &[
    &UTILIZATION,
    &SWAP,
    &PRESSURE_SOME,
    &PRESSURE_FULL,
    &SWAP_IN,
    &SWAP_OUT,
    &DIRECT_RECLAIM,
    &REFAULTS,
    &MAJOR_FAULTS,
    &FAULTS,
    &COMPACTION,
    &OOM_KILLS,
];

pub fn derive(figures: &mut Figures<'_>) {
    let (before, after) = (figures.before, figures.after);
    let used = |total: &str, free: &str| {
        let total = *after.memory.get(total)?;
        percent(total.saturating_sub(*after.memory.get(free)?), total)
    };
    figures.add(&UTILIZATION, used("MemTotal", "MemAvailable"));
    figures.add(&SWAP, used("SwapTotal", "SwapFree"));
    let (old, new) = (before.pressure, after.pressure);
    figures.add(&PRESSURE_SOME, figures.share_of_time(old.memory_some, new.memory_some));
    figures.add(&PRESSURE_FULL, figures.share_of_time(old.memory_full, new.memory_full));
    // Counters have been split up over the releases; what a kernel does not have is no part of the sum.
    let counters: [(&'static Definition, &[&str]); 8] = [
        (&SWAP_IN, &["pswpin"]),
        (&SWAP_OUT, &["pswpout"]),
        (&DIRECT_RECLAIM, &["pgscan_direct"]),
        (&REFAULTS, &["workingset_refault", "workingset_refault_anon", "workingset_refault_file"]),
        (&MAJOR_FAULTS, &["pgmajfault"]),
        (&FAULTS, &["pgfault"]),
        (&COMPACTION, &["compact_stall"]),
        (&OOM_KILLS, &["oom_kill"]),
    ];
    for (definition, names) in counters {
        let sum = |vm: &BTreeMap<String, u64>| {
            names.iter().filter_map(|name| vm.get(*name)).copied().reduce(|a, b| a + b)
        };
        figures.add(definition, figures.rate(sum(&before.vm), sum(&after.vm)));
    }
}
