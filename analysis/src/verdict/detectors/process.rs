//! Processes: those that live too short to be worth their start.

use std::collections::HashSet;

use super::{Case, percent};
use crate::activity::Class;
use crate::verdict::account::NodeId;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

/// A process that lives shorter has spent a good part of it on its own start: an exec with a dynamic linker takes a millisecond or two,
/// a runtime some tens.
const SHORT_NS: u64 = 500_000_000;
/// Fewer a second are what a shell script or a health check does.
const RATE_PER_S: f64 = 10.0;

/// A fifth of the demand, and of a CPU: short processes that only wait, as for a pause, cost next to nothing.
const GATE: f64 = 0.2;

pub(super) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let short: HashSet<NodeId> = account
        .threads
        .iter()
        .filter(|thread| thread.is_main && thread.ended && thread.elapsed_ns < SHORT_NS)
        .map(|thread| thread.node)
        .collect();
    let rate = short.len() as f64 * 1e9 / account.window_ns as f64;
    let is_theirs = |part: &Part| {
        short.contains(&part.at) && matches!(part.root, Root::OnCpu | Root::Stolen | Root::RunQueue)
    };
    let share = case.share(case.flow.sum(is_theirs));
    let on_cpu: u64 = account
        .threads
        .iter()
        .filter(|thread| short.contains(&thread.node))
        .map(|thread| thread.on_cpu_ns)
        .sum();
    if rate < RATE_PER_S || share < GATE || (on_cpu as f64) < GATE * account.window_ns as f64 {
        return None;
    }
    let each_ms = on_cpu as f64 / 1e6 / short.len() as f64;
    let mut finding = Finding::new(
        Code::ProcChurn,
        share,
        format!("{rate:.0} processes a second are started and end, and take {} of the time", percent(share)),
    )
    .proves("processes ended a second", rate, "/s", "threads")
    .proves("CPU time of each", each_ms, "ms", "threads");
    if let Some(forks) = account.signal("cpu.forks") {
        finding = finding.weighs(
            forks >= rate / 2.0,
            "processes and threads started a second",
            forks,
            "/s",
            "signal cpu.forks",
        );
    }
    let mut children: Vec<NodeId> = short.iter().copied().collect();
    children.sort_unstable();
    finding.culprits = account.processes(children);
    finding.processes =
        account.processes(case.flow.nodes(|part| part.from, |part| is_theirs(part) && !part.hops.is_empty()));
    if finding.processes.is_empty() {
        finding.processes.clone_from(&finding.culprits);
    }
    // Who starts them and waits for them, and what they do.
    finding.functions = account.waiting_functions(|wait| wait.class == Class::Child);
    finding.functions.extend(account.running_functions(|running| short.contains(&running.node)));
    finding.path = case.path(is_theirs);
    Some(finding)
}
