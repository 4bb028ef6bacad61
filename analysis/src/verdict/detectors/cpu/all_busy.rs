//! All CPUs are used, and nobody queues for them.

use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::Root;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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
