//! Pools, which are locks that several may hold.

use super::concurrency::concurrency;
use super::{GATE, enders};
use crate::activity::Class;
use crate::profile::ThreadId;
use crate::verdict::account::{End, Ender, ThreadUse, Wait};
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Hop, Part, Root, Via};
use crate::verdict::lock_names::{self, Kind};
use std::collections::{HashMap, HashSet};

/// Members of a pool that do nothing for a fifth of the time are not what is short.
const MEMBERS_BUSY: f64 = 0.8;

/// A number of threads or connections, smaller than that of those who want one, all of them in use.
pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_counted = |wait: &&Wait<'_>| {
        wait.class == Class::Futex
            && lock_names::kind(account.user_functions(wait.stack)) == Some(Kind::Counted)
    };
    let busy = busy_threads(case);
    // Semaphores and conditions that busy threads end waits for.
    let is_pool = |wait: &&Wait<'_>| {
        let by_busy = |end: &&End| matches!(end.by, Ender::Thread(_, thread) if busy.contains(&thread));
        let told: u64 = wait.ends.iter().filter(by_busy).map(|end| end.ns).sum();
        2 * told > wait.ns
    };
    let is_own = |wait: &&Wait<'_>| {
        wait.ends.iter().any(|end| matches!(end.by, Ender::Thread(node, _) if node == wait.node))
    };
    let counted: Vec<&Wait<'_>> = account.waits.iter().filter(is_counted).collect();
    let waiting = |is: &dyn Fn(&&Wait<'_>) -> bool| -> Vec<&Wait<'_>> {
        counted.iter().copied().filter(|wait| is(wait)).collect()
    };
    // Workers that others wait for; or those who have one give it to those who want one.
    let of_workers = waiting(&is_pool);
    let total = |waits: &[&Wait<'_>]| waits.iter().map(|wait| wait.ns).sum::<u64>();
    let of_holders = waiting(&is_own);
    let is_of_workers = 2 * total(&of_workers) > total(&of_holders);
    let waits = if is_of_workers { of_workers } else { of_holders };
    let objects: HashSet<(u32, Option<&str>)> =
        waits.iter().map(|wait| (account.nodes[wait.node].pid, wait.object)).collect();
    let is_it = |part: &Part| {
        let is_of_pool = |hop: &Hop| {
            matches!(hop.via, Via::Lock | Via::Queue)
                && objects.contains(&(account.nodes[part.from].pid, hop.object.as_deref()))
        };
        part.hops.first().is_some_and(is_of_pool)
            && matches!(part.root, Root::Downstream | Root::Outside | Root::Timer | Root::OnCpu)
    };
    // A worker's pause is part of its work where its queue is never empty.
    let ns = case.flow.sum(is_it);
    let uncounted = case.flow.sum(|part| is_it(part) && !part.is_demand());
    let share = ns / (case.demand_ns + uncounted).max(1.0);
    if share < GATE {
        return None;
    }
    let waiters: HashSet<ThreadId> = waits.iter().map(|wait| wait.thread).collect();
    let workers: HashSet<ThreadId> = enders(&waits).map(|(thread, _)| thread).collect();
    // Who gives one back may take it again before who was woken for it does, and never wait.
    let users: HashSet<ThreadId> = waiters.union(&workers).copied().collect();
    let size = if is_of_workers { workers.len() as f64 } else { concurrency(case, &users, &waits).0 };
    // One that works for all is a thread at its limit, not a pool; and as many as those who wait are not too few.
    if size < 1.5 || size >= waiters.len() as f64 {
        return None;
    }
    let away = case.flow.sum(|part| is_it(part) && matches!(part.root, Root::Downstream | Root::Outside));
    // Threads have a queue before them; what is lent to those who want to ask another service are connections to it.
    let (code, what) = if !is_of_workers && away > 0.5 * ns {
        (Code::PoolConnections, "connections")
    } else {
        (Code::PoolThreads, "threads")
    };
    let queued = case.share(case.flow.sum(|part| part.root == Root::RunQueue));
    let mut finding = Finding::new(
        code,
        share,
        format!(
            "{} threads wait {} of the time for one of about {size:.0} {what}",
            waiters.len(),
            percent(share)
        ),
    )
    .proves("of the demand, waiting for a free one", share * 100.0, "%", "wakers")
    .proves("in use at a time", size, "1", "threads")
    .proves("threads that wait for one", waiters.len() as f64, "1", "wakers")
    // More of them would only queue for CPUs.
    .weighs(queued < 0.2, "of the demand, queueing for CPUs", queued * 100.0, "%", "run queue");
    finding.functions = account.functions_of(waits.iter().map(|wait| (wait.stack, wait.ns)));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits.clone_from(&finding.processes);
    finding.path = case.path(is_it);
    Some(finding)
}

/// Threads that are hardly ever without work.
fn busy_threads(case: &Case<'_>) -> HashSet<ThreadId> {
    let account = case.account;
    let mut waiting: HashMap<ThreadId, u64> = HashMap::new();
    for wait in account
        .waits
        .iter()
        .filter(|wait| matches!(wait.class, Class::Futex | Class::Event | Class::NetAccept))
    {
        *waiting.entry(wait.thread).or_default() += wait.ns;
    }
    let of_tid: HashMap<u32, &ThreadUse> =
        account.threads.iter().map(|thread| (thread.tid, thread)).collect();
    let all: Vec<&Wait<'_>> = account.waits.iter().collect();
    enders(&all)
        .map(|(thread, _)| thread)
        .filter(|thread| {
            let Some(used) = of_tid.get(&account.profile.thread(*thread).tid) else { return false };
            let waiting = waiting.get(thread).copied().unwrap_or_default() as f64;
            waiting < (1.0 - MEMBERS_BUSY) * used.elapsed_ns as f64
        })
        .collect()
}
