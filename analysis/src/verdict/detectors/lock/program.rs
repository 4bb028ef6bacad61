//! Locks of a program, its runtime or its monitors.

use super::concurrency::concurrency;
use super::{GATE, functions_at, is_own_doing, kind_of, waits_for};
use crate::profile::ThreadId;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, Turns, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};
use crate::verdict::lock_names::{self, Kind};
use std::collections::{HashMap, HashSet};

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_behind_it = |part: &Part| is_lock(part) && is_own_doing(case, part);
    // What is behind each lock. Of some there may be several holders: see `pool`.
    let mut sums: HashMap<(u32, Option<String>), f64> = HashMap::new();
    for part in case.flow.parts.iter().filter(|part| is_behind_it(part)) {
        *sums.entry((account.nodes[part.from].pid, lock_of(part))).or_default() += part.ns;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let named = sums.into_iter().map(|((pid, object), _)| {
        let waits = waits_for(account, pid, object.as_deref());
        (object, pid, kind_of(account, &waits), waits)
    });
    let (object, pid, kind, mut waits) =
        named.into_iter().find(|(.., kind, waits)| *kind != Some(Kind::Counted) && !waits.is_empty())?;
    if object.is_none() {
        waits.retain(|wait| lock_names::kind(account.user_functions(wait.stack)) == kind);
    }
    let is_it =
        |part: &Part| is_behind_it(part) && account.nodes[part.from].pid == pid && lock_of(part) == object;
    let queued = |part: &Part| {
        case.in_turns == Some(Turns::Lock) && part.root == Root::RunQueue && part.hops.is_empty()
    };
    let share = case.share(case.flow.sum(|part| is_it(part) || queued(part)));
    if share < GATE {
        return None;
    }
    let waiters: HashSet<ThreadId> = waits.iter().map(|wait| wait.thread).collect();
    let (concurrency, waited) = concurrency(case, &waiters, &waits);
    let (code, what) = match kind {
        Some(Kind::Monitor) => (Code::LockMonitor, "a monitor"),
        Some(Kind::Runtime) => {
            (Code::LockRuntime, "the runtime's lock, which lets one thread run at a time,")
        }
        _ => (Code::LockMutex, "a lock"),
    };
    let mut finding = Finding::new(
        code,
        share,
        format!(
            "{} threads wait {} of the time for {what} that others of them have",
            waiters.len(),
            percent(share)
        ),
    )
    .proves("of the demand, waiting for it while its holder works on", share * 100.0, "%", "wakers")
    .proves("threads that wait for it", waiters.len() as f64, "1", "wakers")
    .proves("of their time, waiting for it", waited * 100.0, "%", "threads")
    // One holder at a time, who comes back to it, and who was just woken.
    .weighs(concurrency < 2.5, "of them not waiting for it, on average", concurrency, "1", "threads");
    let working = account.running_functions(|running| account.nodes[running.node].pid == pid);
    finding.functions = functions_at(account, &waits, working);
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits = account.processes(case.flow.nodes(|part| part.at, is_it));
    finding.path = case.path(is_it);
    Some(finding)
}

fn is_lock(part: &Part) -> bool {
    part.is_via(Via::Lock) || part.root == Root::Held(Via::Lock)
}

/// The lock that a part is behind: that nearest to its root.
fn lock_of(part: &Part) -> Option<String> {
    let hop = part.hops.iter().rev().find(|hop| hop.via == Via::Lock);
    hop.map_or_else(|| part.object.clone(), |hop| hop.object.clone())
}
