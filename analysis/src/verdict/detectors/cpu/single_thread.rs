//! One thread does all that it can.

use super::QUEUED;
use crate::verdict::account::{NodeId, ThreadUse};
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, only_names, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};
use std::collections::HashSet;

/// A thread that runs for so much of the window has no time for anything else: what is left are the waits between two pieces of work.
const BUSY: f64 = 0.85;
/// Where busy threads leave less of the CPUs than this, another thread would find none.
const IDLE_CPUS: f64 = 0.2;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_busy = |thread: &&ThreadUse| {
        let running = thread.on_cpu_ns as f64;
        let wanting = running + thread.queued_ns as f64;
        wanting >= BUSY * account.window_ns as f64 && (thread.queued_ns as f64) < QUEUED * wanting
    };
    let busy: Vec<&ThreadUse> = account.threads.iter().filter(is_busy).collect();
    let is_full = |cpus: f64| cpus > 1.0 && busy.len() as f64 > (1.0 - IDLE_CPUS) * cpus;
    if busy.is_empty() || case.cpus.is_some_and(is_full) {
        return None;
    }
    let busy_nodes: HashSet<NodeId> = busy.iter().map(|thread| thread.node).collect();
    let is_theirs = |part: &Part| {
        matches!(part.root, Root::OnCpu | Root::Stolen | Root::RunQueue)
            && busy_nodes.contains(&part.at)
            && !part.is_behind_lock()
    };
    let share = case.share(case.flow.sum(is_theirs));
    if share < 0.5 {
        return None;
    }
    let node = &account.nodes[busy[0].node];
    let waiting = case.share(case.flow.sum(|part| is_theirs(part) && !part.hops.is_empty()));
    let running = account.running.iter().filter(|running| running.node == busy[0].node);
    let functions = account.top_functions(running.map(|running| (running.stack, running.ns)), |stack| {
        account.own_functions(stack)
    });
    let hottest = functions.first().map_or(0.0, |(_, share)| *share);
    let wanted = (busy[0].on_cpu_ns + busy[0].queued_ns) as f64 / account.window_ns as f64;
    let mut finding = Finding::new(
        Code::CpuSingleThread,
        share,
        format!("one thread of {} runs {} of the time, and cannot run more", node.name(), percent(wanted)),
    )
    .proves("time that the thread runs or wants to", wanted * 100.0, "%", "threads")
    .proves(
        "of it, waiting for a CPU",
        busy[0].queued_ns as f64 / account.window_ns as f64 * 100.0,
        "%",
        "threads",
    )
    .proves("of the demand, others waiting for this thread", waiting * 100.0, "%", "wakers");
    if let Some(host_busy) = account.host_busy() {
        finding = finding.proves("host CPUs busy", host_busy * 100.0, "%", "signal cpu.utilization");
    }
    finding = finding.proves("of its time in the hottest function", hottest * 100.0, "%", "CPU samples");
    finding.functions = only_names(functions);
    finding.culprits = account.processes(busy.iter().map(|thread| thread.node));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_theirs));
    finding.path = case.path(is_theirs);
    // It is the throughput of this thread that could grow, by whatever its work is sped up.
    finding.gain_upper_bound = None;
    Some(finding)
}
