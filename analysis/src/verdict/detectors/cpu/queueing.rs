//! More threads than CPUs, of the target or of others.

use super::QUEUED;
use super::behind::BEHIND_OTHERS;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

/// A CPU that is less busy has time for who queues for it.
const BUSIEST_PCT: f64 = 80.0;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_queued = |part: &Part| part.root == Root::RunQueue;
    let queued = case.flow.sum(is_queued);
    let running = case.flow.sum(|part| matches!(part.root, Root::OnCpu | Root::Stolen));
    let ratio = queued / (queued + running).max(1.0);
    let share = case.share(queued);
    if ratio < QUEUED || share < 0.1 || case.in_turns.is_some() {
        return None;
    }
    // Where no CPU is busy, who queues is on its way to one.
    let taken = account.signal("cpu.steal").unwrap_or_default();
    if account.signal("cpu.busiest").is_some_and(|busiest| busiest + taken < BUSIEST_PCT) {
        return None;
    }
    let behind = &case.behind;
    let is_neighbour = behind.others > BEHIND_OTHERS && !case.is_host;
    let nodes = case.flow.nodes(|part| part.at, is_queued);
    let latencies = account.profile.run_queue.iter().flat_map(|queues| &queues.processes);
    let p95 = latencies
        .filter(|queue| nodes.first().is_some_and(|node| u64::from(account.nodes[*node].pid) == queue.id))
        .find_map(|queue| queue.latencies.quantile_ns(0.95));
    let (code, summary) = if is_neighbour {
        let who = behind.names.first().map_or("other processes", String::as_str);
        let summary = format!("threads wait {} of their time for CPUs that {who} has", percent(share));
        (Code::CpuNoisyNeighbour, summary)
    } else {
        let summary =
            format!("threads want more CPUs than there are, and queue {} of their time", percent(share));
        (Code::CpuSaturated, summary)
    };
    let mut finding = Finding::new(code, share, summary).proves(
        "of the time able to run, queued",
        ratio * 100.0,
        "%",
        "threads",
    );
    if behind.is_known {
        finding = finding
            .proves("of the queueing, behind the target's own threads", behind.own * 100.0, "%", "run queue")
            .proves("of the queueing, behind others", behind.others * 100.0, "%", "run queue");
    }
    if let Some(p95) = p95 {
        finding = finding.proves("run-queue latency, 95th percentile", p95 as f64 / 1e6, "ms", "run queue");
    }
    if let Some(busy) = account.host_busy() {
        // Where a hypervisor takes the CPUs they are not the host's to give.
        let busy = busy + account.signal("cpu.steal").unwrap_or_default() / 100.0;
        finding = finding.weighs(
            busy > 0.7,
            "host CPUs busy",
            busy.min(1.0) * 100.0,
            "%",
            "signal cpu.utilization",
        );
    }
    if let Some(pressure) = account.signal("cpu.pressure") {
        finding =
            finding.proves("time in which somebody waited for a CPU", pressure, "%", "signal cpu.pressure");
    }
    finding.processes = account.processes(nodes.iter().copied());
    finding.culprits = if is_neighbour { behind.names.clone() } else { account.processes(nodes) };
    finding.functions = account.running_functions(|_| true);
    finding.path = case.path(is_queued);
    Some(finding)
}
