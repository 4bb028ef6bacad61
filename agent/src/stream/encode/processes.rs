//! The processes of a window, for who wants one of them profiled now.

use std::cmp::Reverse;
use std::collections::HashMap;

use chokepoint_analysis::profile::{Profile, Thread};
use chokepoint_proto::stream::{Process, Processes};

use super::rows::process_name;
use crate::stream::owners::Labels;

/// Processes that are told, those that ran or queued longest: some 25 bytes each in every window.
const MAX_PROCESSES: usize = 64;

/// What a process came to.
#[derive(Default)]
struct Sum<'p> {
    name: &'p str,
    cpu_ns: u64,
    /// Ran, or could have.
    runnable_ns: u64,
    is_alive: bool,
}

/// Those that lived at the window's end; `None` where nobody knows who ran.
pub(super) fn processes(
    profile: &Profile,
    labels_of: &mut impl FnMut(&Thread) -> Labels,
) -> Option<Processes> {
    if profile.thread_times.is_empty() {
        return None;
    }
    let mut sums: HashMap<u32, Sum<'_>> = HashMap::new();
    // Process 0 stands for threads that were too many to be told apart.
    for time in profile.thread_times.iter().filter(|time| time.pid > 0) {
        let sum = sums.entry(time.pid).or_default();
        sum.name = &time.process_name;
        sum.cpu_ns = sum.cpu_ns.saturating_add(time.parts.on_cpu_ns);
        sum.runnable_ns =
            sum.runnable_ns.saturating_add(time.parts.on_cpu_ns).saturating_add(time.parts.queued_ns());
        sum.is_alive |= !time.ended;
    }
    let mut alive: Vec<(u32, Sum<'_>)> = sums.into_iter().filter(|(_, sum)| sum.is_alive).collect();
    alive.sort_unstable_by_key(|(pid, sum)| (Reverse(sum.runnable_ns), *pid));
    let left_out = alive.len().saturating_sub(MAX_PROCESSES);
    alive.truncate(MAX_PROCESSES);
    let processes = alive.into_iter().map(|(pid, sum)| {
        let thread =
            Thread { pid, tid: pid, process_name: sum.name.to_owned(), thread_name: sum.name.to_owned() };
        let labels = labels_of(&thread);
        let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        Process {
            pid,
            name: process_name(sum.name).into_owned(),
            cpu_ns: sum.cpu_ns,
            pod: label("pod").map_or_else(String::new, |pod| {
                format!("{}/{pod}", label("namespace").map_or("", String::as_str))
            }),
            container: label("container").cloned().unwrap_or_default(),
        }
    });
    Some(Processes { processes: processes.collect(), left_out: u32::try_from(left_out).unwrap_or(u32::MAX) })
}
