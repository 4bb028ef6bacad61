//! Locks that the processes of a program have among themselves.

use super::{GATE, functions_at, is_own_doing};
use crate::profile::ThreadId;
use crate::verdict::account::Wait;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Via};
use crate::verdict::roles::Roles;
use std::collections::HashSet;

/// Locks that the processes of a database, or of another program, have among themselves.
pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_it = |part: &Part| part.is_via(Via::SharedLock) && is_own_doing(case, part);
    let share = case.share(case.flow.sum(is_it));
    let worst = case.flow.longest(is_it)?;
    if share < GATE {
        return None;
    }
    let program = &account.nodes[worst.from].process;
    let roles = Roles::of(account);
    let is_theirs = |wait: &&Wait<'_>| {
        account.nodes[wait.node].process == *program && roles.is_shared_lock(account, wait)
    };
    let waits: Vec<&Wait<'_>> = account.waits.iter().filter(is_theirs).collect();
    let waiters: HashSet<ThreadId> = waits.iter().map(|wait| wait.thread).collect();
    let waited: u64 = waits.iter().map(|wait| wait.ns).sum();
    let mut finding = Finding::new(
        Code::LockDb,
        share,
        format!(
            "{} processes of {program} wait {} of the time for locks that others of them have",
            waiters.len(),
            percent(share)
        ),
    )
    .proves("of the demand, waiting for a lock whose holder works on", share * 100.0, "%", "wakers")
    .proves("processes that wait for one, and end each other's waits", waiters.len() as f64, "1", "wakers")
    .proves("of them waiting, on average", waited as f64 / account.window_ns as f64, "1", "threads");
    finding.functions = functions_at(account, &waits, Vec::new());
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits = account.processes(case.flow.nodes(|part| part.at, is_it));
    finding.path = case.path(is_it);
    Some(finding)
}
