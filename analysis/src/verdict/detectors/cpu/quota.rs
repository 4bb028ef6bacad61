//! A quota of CPU time is used up.

use super::TAKEN;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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
