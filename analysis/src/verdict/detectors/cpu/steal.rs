//! The hypervisor gives the CPUs to others.

use super::TAKEN;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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
