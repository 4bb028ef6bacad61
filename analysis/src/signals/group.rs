//! Control groups: what they may use, and what they are held back from.

use super::{Definition, Figures, Kind, Resource, Thresholds, Unit, percent, percent_grown};

const fn define(name: &'static str, kind: Kind, unit: Unit) -> Definition {
    Definition::new(name, Resource::Group, kind, unit)
}

static CPU: Definition = define("group.cpu", Kind::Utilization, Unit::Percent)
    .means("CPU time its threads had, per cent of one CPU (cpu.stat, cpuacct.usage)");
static QUOTA: Definition = define("group.cpu_quota", Kind::Utilization, Unit::Percent)
    .levels(Thresholds::BUSY)
    .means("share of the group's CPU quota in use (cpu.stat, cpu.max)");
static THROTTLED: Definition = define("group.throttled_periods", Kind::Saturation, Unit::Percent)
    // At one period in twenty latencies have outliers of a period's length; at a quarter all work is slowed.
    .levels(Some(Thresholds { warning: 5.0, critical: 25.0 }))
    .means("share of the periods in which the group had used up its CPU quota (cpu.stat nr_throttled)");
static THROTTLED_TIME: Definition = define("group.throttled_time", Kind::Saturation, Unit::Percent)
    .means("time the group's queues were held back, all CPUs added up, per cent of the window (cpu.stat throttled_usec)");
static MEMORY: Definition = define("group.memory", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of the group's memory limit in use, without file cache that was not used lately (memory.current, memory.stat)");
static MEMORY_HITS: Definition =
    define("group.memory_limit_hits", Kind::Saturation, Unit::PerSecond).levels(Thresholds::ANY).means(
        "times the group's memory met its limit and had to be reclaimed (memory.events max, memory.failcnt)",
    );
static OOM_KILLS: Definition = define("group.oom_kills", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::FATAL)
    .means("processes of the group killed for its lack of memory (memory.events oom_kill)");
static REFAULTS: Definition = define("group.refaults", Kind::Saturation, Unit::PerSecond)
    .means("pages of the group that were read again soon after they had been dropped (memory.stat workingset_refault)");
static THREADS: Definition = define("group.threads", Kind::Utilization, Unit::Percent)
    .gauge()
    .levels(Thresholds::FULL)
    .means("share of the threads that the group may have (pids.current, pids.max)");
static FORK_FAILURES: Definition = define("group.fork_failures", Kind::Errors, Unit::PerSecond)
    .levels(Thresholds::FATAL)
    .means("forks refused since the group had all the threads it may have (pids.events max)");
static CPU_PRESSURE: Definition = define("group.cpu_pressure", Kind::Saturation, Unit::Percent)
    .levels(Some(Thresholds { warning: 20.0, critical: 50.0 }))
    .means(
        "share of the time in which some of its threads waited for a CPU, its quota included (PSI cpu some)",
    );
static CPU_PRESSURE_FULL: Definition = define("group.cpu_pressure_full", Kind::Saturation, Unit::Percent)
    .means("share of the time in which all of its threads with work waited for a CPU; its quota shows here (PSI cpu full)");
static MEMORY_PRESSURE: Definition = define("group.memory_pressure", Kind::Saturation, Unit::Percent)
    .levels(Thresholds::STALLED)
    .means("share of the time in which some of its threads waited for memory (PSI memory some)");
static IO_PRESSURE: Definition = define("group.io_pressure", Kind::Saturation, Unit::Percent)
    .levels(Thresholds::STALLED)
    .means("share of the time in which some of its threads waited for a device (PSI io some)");

pub const DEFINITIONS: &[&Definition] = &[
    &CPU,
    &QUOTA,
    &THROTTLED,
    &THROTTLED_TIME,
    &MEMORY,
    &MEMORY_HITS,
    &OOM_KILLS,
    &REFAULTS,
    &THREADS,
    &FORK_FAILURES,
    &CPU_PRESSURE,
    &CPU_PRESSURE_FULL,
    &MEMORY_PRESSURE,
    &IO_PRESSURE,
];

pub fn derive(figures: &mut Figures<'_>) {
    let (before, after) = (figures.before, figures.after);
    for (path, after) in &after.groups {
        let Some(before) = before.groups.get(path) else { continue };
        let us_per_s = figures.rate(before.cpu_us, after.cpu_us);
        let quota = after.cpu_quota_us_per_s.filter(|quota| *quota > 0);
        let held = figures.rate(before.throttled_us, after.throttled_us);
        let throttled = percent_grown(
            (before.throttled_periods, after.throttled_periods),
            (before.periods, after.periods),
        );
        let share = |used: Option<u64>, max: Option<u64>| percent(used?, max?);
        let (old, new) = (before.pressure, after.pressure);
        let values: [(&'static Definition, Option<f64>); 14] = [
            (&CPU, us_per_s.map(|us| us / 1e4)),
            (&QUOTA, us_per_s.zip(quota).map(|(us, quota)| us * 100.0 / quota as f64)),
            (&THROTTLED, throttled),
            (&THROTTLED_TIME, held.map(|us| us / 1e4)),
            (&MEMORY, share(after.memory_bytes, after.memory_max_bytes)),
            (&MEMORY_HITS, figures.rate(before.memory_limit_hits, after.memory_limit_hits)),
            (&OOM_KILLS, figures.rate(before.oom_kills, after.oom_kills)),
            (&REFAULTS, figures.rate(before.refaults, after.refaults)),
            (&THREADS, share(after.threads, after.threads_max)),
            (&FORK_FAILURES, figures.rate(before.fork_failures, after.fork_failures)),
            (&CPU_PRESSURE, figures.share_of_time(old.cpu_some, new.cpu_some)),
            (&CPU_PRESSURE_FULL, figures.share_of_time(old.cpu_full, new.cpu_full)),
            (&MEMORY_PRESSURE, figures.share_of_time(old.memory_some, new.memory_some)),
            (&IO_PRESSURE, figures.share_of_time(old.io_some, new.io_some)),
        ];
        for (definition, value) in values {
            figures.add_of(definition, path, value);
        }
    }
}
