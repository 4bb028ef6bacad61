//! Too many pages touched for the first time.

use crate::kernel_frames;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::Root;

/// Of the CPU time, faults take so much only where pages are touched once and given back.
const FAULTS: f64 = 0.3;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let all: u64 = account.running.iter().map(|running| running.ns).sum();
    let faulting: Vec<_> = account
        .running
        .iter()
        .filter(|running| running.in_kernel && account.functions(running.stack).any(kernel_frames::is_fault))
        .collect();
    let in_faults: u64 = faulting.iter().map(|running| running.ns).sum();
    let part = in_faults as f64 / all.max(1) as f64;
    let on_cpu = case.flow.sum(|part| part.root == Root::OnCpu);
    let share = case.share(on_cpu * part);
    if part < FAULTS || share < 0.15 {
        return None;
    }
    let mut finding = Finding::new(
        Code::MemFault,
        share,
        format!("{} of the CPU time goes into page faults", percent(part)),
    )
    .proves("of the CPU time, in page faults", part * 100.0, "%", "CPU samples");
    // Windows of a baseline are not counted in.
    if let Some(memory) = &account.profile.memory {
        let seconds = account.window_ns as f64 / 1e9;
        let (minor, major) = memory.processes.iter().fold((0, 0), |(minor, major), process| {
            (minor + process.minor_faults, major + process.major_faults)
        });
        finding = finding
            .weighs(minor > 1000, "page faults a second", minor as f64 / seconds, "/s", "page faults")
            .weighs(
                major * 10 < minor.max(1),
                "of them, read from a device",
                major as f64 / seconds,
                "/s",
                "page faults",
            );
    }
    let stacks = faulting.iter().map(|running| (running.stack, running.ns));
    finding.functions = account.functions_of(stacks);
    let mut nodes: Vec<_> = faulting.iter().map(|running| running.node).collect();
    nodes.dedup();
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    Some(finding)
}
