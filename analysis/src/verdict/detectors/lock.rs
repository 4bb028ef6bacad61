//! Locks, and pools, which are locks that several may hold.

use std::collections::{HashMap, HashSet};

use super::{Case, Turns, only_names, percent};
use crate::activity::Class;
use crate::profile::ThreadId;
use crate::verdict::account::{Account, End, Ender, ThreadUse, Wait};
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Hop, Part, Root, Via};
use crate::verdict::lock_names::{self, Kind};
use crate::verdict::roles::Roles;

/// A fifth of the time: less gains less than a quarter.
const GATE: f64 = 0.2;
/// Members of a pool that do nothing for a fifth of the time are not what is short.
const MEMBERS_BUSY: f64 = 0.8;

/// What a holder does for its own reasons; other roots are the constraint themselves.
fn is_own_doing(case: &Case<'_>, part: &Part) -> bool {
    matches!(part.root, Root::OnCpu | Root::Timer | Root::Held(_) | Root::Idle | Root::Work)
        || (part.root == Root::RunQueue && case.in_turns == Some(Turns::Lock))
}

pub(super) fn program(case: &Case<'_>) -> Option<Finding> {
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

/// Waits of a process for a futex; without an object, those whose functions say that they are for a lock.
fn waits_for<'a, 'p>(account: &'a Account<'p>, pid: u32, object: Option<&str>) -> Vec<&'a Wait<'p>> {
    let is_named = |wait: &Wait<'_>| {
        lock_names::kind(account.user_functions(wait.stack)).is_some_and(|kind| kind != Kind::Counted)
    };
    let of_process = |wait: &&Wait<'_>| wait.class == Class::Futex && account.nodes[wait.node].pid == pid;
    let waits = account.waits.iter().filter(of_process);
    waits.filter(|wait| object.map_or_else(|| is_named(wait), |object| wait.object == Some(object))).collect()
}

/// The kind of a lock: a runtime's where any wait for it is by the runtime's own name, else that of the longest wait.
fn kind_of(account: &Account<'_>, waits: &[&Wait<'_>]) -> Option<Kind> {
    let kind = |wait: &&Wait<'_>| lock_names::kind(account.user_functions(wait.stack));
    if waits.iter().any(|wait| kind(wait) == Some(Kind::Runtime)) {
        return Some(Kind::Runtime);
    }
    waits.iter().max_by_key(|wait| wait.ns).and_then(kind)
}

fn is_lock(part: &Part) -> bool {
    part.is_via(Via::Lock) || part.root == Root::Held(Via::Lock)
}

/// The lock that a part is behind: that nearest to its root.
fn lock_of(part: &Part) -> Option<String> {
    let hop = part.hops.iter().rev().find(|hop| hop.via == Via::Lock);
    hop.map_or_else(|| part.object.clone(), |hop| hop.object.clone())
}

/// The threads that ended waits, each with where and how long.
fn enders<'a>(waits: &'a [&'a Wait<'a>]) -> impl Iterator<Item = (ThreadId, &'a End)> + 'a {
    waits.iter().flat_map(|wait| &wait.ends).filter_map(|end| match end.by {
        Ender::Thread(_, thread) => Some((thread, end)),
        _ => None,
    })
}

/// Functions in which a lock is waited for, then those in which it is given back, then others; each once.
fn functions_at(account: &Account<'_>, waits: &[&Wait<'_>], others: Vec<String>) -> Vec<String> {
    let mut functions = account.functions_of(waits.iter().map(|wait| (wait.stack, wait.ns)));
    let ends = enders(waits).filter_map(|(_, end)| Some((end.stack?, end.ns)));
    for function in account.functions_of(ends).into_iter().chain(others) {
        if !functions.contains(&function) {
            functions.push(function);
        }
    }
    functions
}

/// How many of the threads that want it were not waiting for it, on average, and which share of their time they were.
fn concurrency(case: &Case<'_>, waiters: &HashSet<ThreadId>, waits: &[&Wait<'_>]) -> (f64, f64) {
    let account = case.account;
    let waited: u64 = waits.iter().map(|wait| wait.ns).sum();
    let tids: HashSet<u32> = waiters.iter().map(|thread| account.profile.thread(*thread).tid).collect();
    let lived: u64 = account
        .threads
        .iter()
        .filter(|thread| tids.contains(&thread.tid))
        .map(|thread| thread.elapsed_ns)
        .sum();
    // Who was given it and queues for a CPU waits for it no more, and does not get on either.
    let queued: u64 = account
        .profile
        .thread_times
        .iter()
        .filter(|time| case.in_turns == Some(Turns::Lock) && tids.contains(&time.tid))
        .map(|time| time.parts.queued_ns())
        .sum();
    let of_lock: HashSet<*const Wait<'_>> = waits.iter().map(|wait| std::ptr::from_ref(*wait)).collect();
    // Nor does who waits for work, in a queue of its own.
    let is_idle = |wait: &&Wait<'_>| {
        waiters.contains(&wait.thread)
            && !of_lock.contains(&std::ptr::from_ref(*wait))
            && (wait.class == Class::NetAccept
                || wait.class == Class::Futex
                    && lock_names::kind(account.user_functions(wait.stack)) == Some(Kind::Counted))
    };
    let idle: u64 = account.waits.iter().filter(is_idle).map(|wait| wait.ns).sum();
    let others = lived.saturating_sub(waited + queued + idle) as f64 / account.window_ns as f64;
    (others, waited as f64 / lived.max(1) as f64)
}

/// A number of threads or connections, smaller than that of those who want one, all of them in use.
pub(super) fn pool(case: &Case<'_>) -> Option<Finding> {
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

/// Locks inside the kernel and on files.
pub(super) fn system(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let classes = [
        (Class::LockKernel, Via::KernelLock, Code::LockKernel, "a lock inside the kernel"),
        (Class::LockFile, Via::FileLock, Code::LockFile, "a lock on a file"),
    ];
    let is_via = |via: Via, part: &Part| {
        (part.is_via(via) || part.root == Root::Held(via)) && is_own_doing(case, part)
    };
    let time = |via| case.flow.sum(|part| is_via(via, part));
    let (class, via, code, what) = classes.into_iter().max_by(|a, b| time(a.1).total_cmp(&time(b.1)))?;
    // A lock inside the kernel is also waited for on the CPU.
    let spinning: u64 = account
        .running
        .iter()
        .filter(|running| {
            account.functions(running.stack).any(|name| {
                name.contains("spin_lock_slowpath")
                    || name.contains("rwsem_spin_on_owner")
                    || name.contains("osq_lock")
            })
        })
        .map(|running| running.ns)
        .sum();
    let spinning = if class == Class::LockKernel { spinning as f64 } else { 0.0 };
    let is_it = |part: &Part| is_via(via, part);
    let queued = case.flow.sum(|part| {
        case.in_turns == Some(Turns::Lock) && part.root == Root::RunQueue && part.hops.is_empty()
    });
    let share = case.share(time(via) + spinning + queued);
    if share < GATE || time(via) + spinning < 0.5 * GATE * case.demand_ns {
        return None;
    }
    let waits = || account.waits.iter().filter(|wait| wait.class == class).map(|wait| (wait.stack, wait.ns));
    let callers = account
        .top_functions(waits(), |stack| account.functions(stack).find(|name| !is_of_lock(name)).into_iter());
    let mut finding =
        Finding::new(code, share, format!("threads wait {} of the time for {what}", percent(share)))
            .proves("of the demand, waiting for it", case.share(time(via)) * 100.0, "%", "wakers")
            .proves("of the demand, spinning for it", case.share(spinning) * 100.0, "%", "CPU samples");
    for (name, share) in &callers {
        finding = finding.proves(format!("of the waits, below {name}"), share * 100.0, "%", "stacks");
    }
    finding.functions = account.functions_of(waits());
    finding.functions.extend(only_names(callers));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits = account.processes(case.flow.nodes(|part| part.at, is_it));
    finding.path = case.path(is_it);
    Some(finding)
}

/// Locks that the processes of a database, or of another program, have among themselves.
pub(super) fn database(case: &Case<'_>) -> Option<Finding> {
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

/// Functions of the kernel that take a lock or wait for it, and say nothing of which.
fn is_of_lock(function: &str) -> bool {
    ["rwsem", "mutex", "schedule", "down_", "percpu_", "preempt", "locks_lock", "osq_", "wait_event"]
        .iter()
        .any(|part| function.contains(part))
}

/// Locks that are waited for on the CPU.
pub(super) fn spin(case: &Case<'_>) -> Option<Finding> {
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
