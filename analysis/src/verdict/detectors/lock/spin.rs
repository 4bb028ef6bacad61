//! Locks that are waited for on the CPU.

use super::GATE;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use std::collections::HashSet;

/// Locks that are waited for on the CPU.
pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let spinning: Vec<_> = account
        .running
        .iter()
        .filter(|running| !running.in_kernel && account.is_spin_wait(running.stack))
        .collect();
    let ns: u64 = spinning.iter().map(|running| running.ns).sum();
    let share = case.share(ns as f64);
    let threads: usize = {
        let nodes: HashSet<usize> = spinning.iter().map(|running| running.node).collect();
        nodes.iter().map(|node| account.nodes[*node].members).sum()
    };
    if share < GATE || threads < 2 {
        return None;
    }
    let stacks = || spinning.iter().map(|running| (running.stack, running.ns));
    let mut finding = Finding::new(
        Code::LockSpin,
        share,
        format!("threads spend {} of their time spinning for a lock", percent(share)),
    )
    .proves(
        "of the demand, in loops whose instructions only wait for another thread",
        share * 100.0,
        "%",
        "CPU samples",
    )
    .proves("threads that spin", threads as f64, "1", "threads");
    finding.functions = account.functions_of(stacks());
    let mut nodes: Vec<_> = spinning.iter().map(|running| running.node).collect();
    nodes.dedup();
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    Some(finding)
}
