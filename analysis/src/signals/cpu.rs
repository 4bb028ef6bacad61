//! The host's CPUs and the queue for them.

use super::{Definition, Figures, Kind, Part, Resource, Thresholds, Unit, grown, percent};
use crate::signals::reading::{Cpu, CpuTimes};

const fn define(name: &'static str, kind: Kind, unit: Unit) -> Definition {
    Definition::new(name, Resource::Cpu, kind, unit)
}

static UTILIZATION: Definition = define("cpu.utilization", Kind::Utilization, Unit::Percent)
    .levels(Thresholds::BUSY)
    .means("share of all CPUs' time in which they executed something (/proc/stat)");
static USER: Definition = define("cpu.user", Kind::Utilization, Unit::Percent)
    .means("share of all CPUs' time in user code (/proc/stat)");
static SYSTEM: Definition = define("cpu.system", Kind::Utilization, Unit::Percent)
    .means("share of all CPUs' time in the kernel, interrupts left out (/proc/stat)");
static INTERRUPTS: Definition = define("cpu.interrupts", Kind::Utilization, Unit::Percent)
    .means("share of all CPUs' time in hard and soft interrupts (/proc/stat)");
static IOWAIT: Definition = define("cpu.iowait", Kind::Utilization, Unit::Percent).means(
    "share of all CPUs' time idle while a thread that last ran there waited for a device (/proc/stat)",
);
static BUSIEST: Definition = define("cpu.busiest", Kind::Utilization, Unit::Percent)
    .means("share of its time that the busiest CPU executed something (/proc/stat)");
static IMBALANCE: Definition = define("cpu.imbalance", Kind::Saturation, Unit::Percent)
    .means("how much busier the busiest CPU was than all on average, points of per cent (/proc/stat)");
static STEAL: Definition = define("cpu.steal", Kind::Saturation, Unit::Percent)
    // At 5 % each second has lost a scheduling period of most hypervisors; at 10 % every process notices.
    .levels(Some(Thresholds { warning: 5.0, critical: 10.0 }))
    .means("share of all CPUs' time that the hypervisor gave to others (/proc/stat)");
static RUNNABLE: Definition = define("cpu.runnable_per_cpu", Kind::Saturation, Unit::Number)
    .gauge()
    // At 1.25 a fifth of the runnable time is spent queueing; at 2 as much as running.
    .levels(Some(Thresholds { warning: 1.25, critical: 2.0 }))
    .means("threads that run or could run, for each CPU (/proc/stat procs_running)");
static LOAD: Definition = define("cpu.load_per_cpu", Kind::Saturation, Unit::Number).gauge().means(
    "load average of one minute, for each CPU; counts threads that wait for devices, too (/proc/loadavg)",
);
static PRESSURE: Definition = define("cpu.pressure", Kind::Saturation, Unit::Percent)
    // A host that is just full has some of this; the gate for queueing is a fifth.
    .levels(Some(Thresholds { warning: 20.0, critical: 50.0 }))
    .means("share of the time in which some thread waited for a CPU (PSI cpu some)");
static SWITCHES: Definition = define("cpu.context_switches", Kind::Utilization, Unit::PerSecond)
    .means("switches from thread to thread (/proc/stat)");
static FORKS: Definition = define("cpu.forks", Kind::Utilization, Unit::PerSecond)
    .means("processes and threads started (/proc/stat)");

pub const DEFINITIONS: &[&Definition] = &[
    &UTILIZATION,
    &USER,
    &SYSTEM,
    &INTERRUPTS,
    &IOWAIT,
    &BUSIEST,
    &IMBALANCE,
    &STEAL,
    &RUNNABLE,
    &LOAD,
    &PRESSURE,
    &SWITCHES,
    &FORKS,
];

pub fn derive(figures: &mut Figures<'_>) {
    let (before, after) = (figures.before, figures.after);
    if let (Some(before), Some(after)) = (&before.cpu, &after.cpu) {
        derive_times(figures, before, after);
        let cpus = after.each.len().max(1) as f64;
        figures.add(&RUNNABLE, Some(after.runnable as f64 / cpus));
        figures.add(&LOAD, Some(after.load_1m / cpus));
        let rate = |before, after| figures.rate(Some(before), Some(after));
        let switches = rate(before.context_switches, after.context_switches);
        let forks = rate(before.forks, after.forks);
        figures.add(&SWITCHES, switches);
        figures.add(&FORKS, forks);
    }
    figures.add(&PRESSURE, figures.share_of_time(before.pressure.cpu_some, after.pressure.cpu_some));
}

fn derive_times(figures: &mut Figures<'_>, before: &Cpu, after: &Cpu) {
    let share = |part: Part<CpuTimes>, before: &CpuTimes, after: &CpuTimes| {
        let total = grown(Some(before.total()), Some(after.total()))?;
        percent(grown(Some(part(before)), Some(part(after)))?, total)
    };
    let parts: [(&'static Definition, Part<CpuTimes>); 6] = [
        (&UTILIZATION, CpuTimes::busy),
        (&USER, |times| times.user),
        (&SYSTEM, |times| times.system),
        (&INTERRUPTS, |times| times.interrupts),
        (&IOWAIT, |times| times.iowait),
        (&STEAL, |times| times.steal),
    ];
    for (definition, part) in parts {
        figures.add(definition, share(part, &before.all, &after.all));
    }
    // A CPU that came or went meanwhile is left out.
    let each =
        after.each.iter().filter_map(|(cpu, after)| share(CpuTimes::busy, before.each.get(cpu)?, after));
    let busiest = each.max_by(f64::total_cmp);
    figures.add(&BUSIEST, busiest);
    let all = share(CpuTimes::busy, &before.all, &after.all);
    figures.add(&IMBALANCE, busiest.zip(all).map(|(busiest, all)| (busiest - all).max(0.0)));
}
