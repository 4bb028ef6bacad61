//! Tables of the kernel's and limits of processes.

use super::{Definition, Figures, Kind, Resource, Thresholds, Unit, percent};
use crate::signals::reading::Use;

const fn define(name: &'static str) -> Definition {
    Definition::new(name, Resource::Limit, Kind::Utilization, Unit::Percent).gauge().levels(Thresholds::FULL)
}

static FILES: Definition =
    define("limit.files").means("share of the files that the host may have open (/proc/sys/fs/file-nr)");
static THREADS: Definition = define("limit.threads")
    .means("share of the threads that the host may have (/proc/loadavg, kernel.pid_max, kernel.threads-max)");
static PROCESS_FILES: Definition = define("limit.process_files")
    .means("share of the files that a process may have open, of those nearest to their limit (/proc/PID/fd, /proc/PID/limits)");

pub const DEFINITIONS: &[&Definition] = &[&FILES, &THREADS, &PROCESS_FILES];

pub fn derive(figures: &mut Figures<'_>) {
    let limits = &figures.after.limits;
    let share = |of: Use| percent(of.used, of.max);
    figures.add(&FILES, limits.files.and_then(share));
    figures.add(&THREADS, limits.threads.and_then(share));
    for (name, pid, of) in &limits.process_files {
        figures.add_of(&PROCESS_FILES, &format!("{name} ({pid})"), share(*of));
    }
}
