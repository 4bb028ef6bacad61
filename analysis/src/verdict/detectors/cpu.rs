//! Constraints of CPUs: too few of them, others on them, or work that only one of them can do.

use std::collections::{HashMap, HashSet};

use super::{Case, only_names, percent};
use crate::run_queue::Runner;
use crate::verdict::account::{Account, NodeId, Running, ThreadUse};
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};
use crate::{kernel_frames, names};

/// A thread that runs for so much of the window has no time for anything else: what is left are the waits between two pieces of work.
const BUSY: f64 = 0.85;
/// A thread that queues for less of its time than this is not short of CPUs.
const QUEUED: f64 = 0.2;
/// Where busy threads leave less of the CPUs than this, another thread would find none.
const IDLE_CPUS: f64 = 0.2;
/// A CPU that is less busy has time for who queues for it.
const BUSIEST_PCT: f64 = 80.0;
/// Up to a twentieth, losses are those of any host.
const TAKEN: f64 = 0.05;
/// Where less of a thread's queueing is behind others, it is its own process's doing.
pub(super) const BEHIND_OTHERS: f64 = 0.5;
/// From here on the kernel is what the CPU time is for.
const KERNEL: f64 = 0.6;

pub(super) fn single_thread(case: &Case<'_>) -> Option<Finding> {
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

pub(super) fn queueing(case: &Case<'_>) -> Option<Finding> {
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

/// Whose turn it was while the target's threads queued.
pub(super) struct Behind {
    /// Whether it was recorded; else nothing is behind anybody here.
    pub is_known: bool,
    /// The part that is behind its own threads.
    pub own: f64,
    /// The part that is behind others.
    pub others: f64,
    /// The others, the most first.
    pub names: Vec<String>,
}

impl Behind {
    pub(super) fn of(account: &Account<'_>) -> Self {
        let (mut own, mut total, mut others) = (0, 0, HashMap::new());
        let queues = account.profile.run_queue.iter().flat_map(|queues| &queues.processes);
        for queue in queues.filter(|queue| u32::try_from(queue.id).is_ok_and(|pid| account.has_process(pid)))
        {
            for (runner, ns) in &queue.behind {
                total += ns;
                match runner {
                    Runner::One { id, .. }
                        if u32::try_from(*id).is_ok_and(|pid| account.has_process(pid)) =>
                    {
                        own += ns;
                    }
                    Runner::One { name, .. } => *others.entry(names::printable(name)).or_insert(0) += ns,
                    Runner::Idle | Runner::Unknown => {}
                }
            }
        }
        let whole = total.max(1) as f64;
        let mut others: Vec<(String, u64)> = others.into_iter().collect();
        others.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self {
            is_known: total > 0,
            own: own as f64 / whole,
            others: others.iter().map(|(_, ns)| ns).sum::<u64>() as f64 / whole,
            names: others.into_iter().take(3).map(|(name, _)| name).collect(),
        }
    }
}

pub(super) fn all_busy(case: &Case<'_>) -> Option<Finding> {
    let cpus = case.cpus?;
    let running =
        case.flow.sum(|part| matches!(part.root, Root::OnCpu | Root::Stolen) && part.hops.is_empty());
    let used = running / (cpus * case.account.window_ns as f64);
    // Nine tenths leave room for what else any host has to do.
    if used < 0.9 || case.share(running) < 0.5 {
        return None;
    }
    let account = case.account;
    let mut finding = Finding::new(
        Code::CpuSaturated,
        case.share(running),
        format!("the target uses {} of the host's CPUs", percent(used)),
    )
    .proves("of the host's CPU time, used by the target", used * 100.0, "%", "threads");
    let nodes = case.flow.nodes(|part| part.at, |part| part.root == Root::OnCpu);
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    finding.functions = account.running_functions(|_| true);
    finding.gain_upper_bound = None;
    Some(finding)
}

pub(super) fn quota(case: &Case<'_>) -> Option<Finding> {
    let is_throttled = |part: &Part| part.root == Root::Throttled;
    let share = case.share(case.flow.sum(is_throttled));
    if share < TAKEN {
        return None;
    }
    let account = case.account;
    let mut finding = Finding::new(
        Code::CpuQuota,
        share,
        format!("a CPU quota holds the threads back for {} of their time", percent(share)),
    )
    .proves("of the demand, held back by a quota", share * 100.0, "%", "threads");
    if let Some(periods) = account.signal("group.throttled_periods") {
        finding = finding.weighs(
            periods > 5.0,
            "periods in which a group was held back",
            periods,
            "%",
            "signal group.throttled_periods",
        );
    }
    let nodes = case.flow.nodes(|part| part.at, is_throttled);
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    finding.functions = account.running_functions(|_| true);
    finding.path = case.path(is_throttled);
    Some(finding)
}

pub(super) fn steal(case: &Case<'_>) -> Option<Finding> {
    let is_stolen = |part: &Part| part.root == Root::Stolen;
    let share = case.share(case.flow.sum(is_stolen));
    let steal = case.account.signal("cpu.steal")?;
    if share < TAKEN || steal < TAKEN * 100.0 {
        return None;
    }
    let account = case.account;
    let mut finding = Finding::new(
        Code::CpuSteal,
        share,
        format!("the hypervisor has the CPUs for {} of the time", percent(steal / 100.0)),
    )
    .proves("of the demand, on a CPU that was taken away", share * 100.0, "%", "threads")
    .proves("of the CPUs' time, stolen", steal, "%", "signal cpu.steal");
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_stolen));
    finding.path = case.path(is_stolen);
    Some(finding)
}

pub(super) fn kernel(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let sum = |of: &dyn Fn(&Running) -> bool| -> f64 {
        account.running.iter().filter(|running| of(running)).map(|running| running.ns as f64).sum()
    };
    let all = sum(&|_| true);
    // Faults, locks and flushes in the kernel have answers of their own.
    let is_call = |running: &Running| {
        running.in_kernel
            && !account.is_flushing(running.stack)
            && !account.functions(running.stack).any(is_elsewhere)
    };
    let calls = sum(&is_call);
    let on_cpu = case.flow.sum(|part| part.root == Root::OnCpu && !part.is_behind_lock());
    let besides = sum(&|running| !account.is_flushing(running.stack));
    let share = case.share(on_cpu * calls / besides.max(1.0));
    if calls < KERNEL * all || share < 0.3 {
        return None;
    }
    let stacks = || {
        account.running.iter().filter(|running| is_call(running)).map(|running| (running.stack, running.ns))
    };
    let system_calls =
        account.top_functions(stacks(), |stack| account.functions(stack).find_map(system_call).into_iter());
    let call = system_calls.first().map_or("system calls", |(name, _)| name);
    let mut finding = Finding::new(
        Code::CpuKernel,
        share,
        format!("{} of the CPU time is the kernel's, mostly for {call}", percent(calls / all)),
    )
    .proves("of the CPU time, in the kernel", calls / all * 100.0, "%", "CPU samples");
    for (name, share) in &system_calls {
        finding = finding.proves(format!("of the kernel's, in {name}"), share * 100.0, "%", "CPU samples");
    }
    if let Some(system) = account.signal("cpu.system") {
        finding = finding.proves("of the host's CPUs, in the kernel", system, "%", "signal cpu.system");
    }
    finding.functions = account.functions_of(stacks());
    finding.functions.extend(only_names(system_calls));
    let nodes = case.flow.nodes(|part| part.at, |part| part.root == Root::OnCpu);
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    Some(finding)
}

/// Kernel functions whose time is told by other detectors.
fn is_elsewhere(function: &str) -> bool {
    kernel_frames::is_fault(function) || function.contains("spin_lock_slowpath")
}

/// The name of a system call, of the function that the kernel enters for it.
fn system_call(function: &str) -> Option<&str> {
    ["__x64_sys_", "__arm64_sys_", "__se_sys_", "__do_sys_", "ksys_"]
        .iter()
        .find_map(|start| function.strip_prefix(start))
}
