//! Locks, and pools, which are locks that several may hold.

use std::collections::HashSet;

use super::{Case, cpu::names, percent};
use crate::activity::Class;
use crate::profile::{StackId, ThreadId};
use crate::verdict::account::{Ender, Wait};
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

/// A fifth of the time: less gains less than a quarter.
const GATE: f64 = 0.2;
/// Members of a pool that do nothing for a fifth of the time are not what is short.
const MEMBERS_BUSY: f64 = 0.8;

/// What kind of lock, by the functions that threads wait in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One holder.
    Mutex,
    /// A Java monitor.
    Monitor,
    /// One thread of the runtime runs at a time.
    Runtime,
    /// So many holders as somebody has set.
    Counted,
}

/// The standard names of waits for something of which there are several: semaphores, and conditions, which pools are made of.
const COUNTED: &[&str] = &[
    "sem_wait",
    "sem_timedwait",
    "sem_clockwait",
    "new_sem_wait",
    "Semaphore",
    "semacquire",
    "cond_wait",
    "cond_timedwait",
    "Condvar",
    "condition_variable",
];
/// Those of waits for a lock with one holder. A condition's wait takes its lock again, so these do not tell against it.
const MUTEX: &[&str] =
    &["mutex_lock", "lll_lock_wait", "rwlock", "MutexGuard", "lock_contended", "lockSlow", "lock_slow"];

fn kind(functions: &[&str]) -> Kind {
    let has =
        |names: &[&str]| functions.iter().any(|function| names.iter().any(|name| function.contains(name)));
    if has(&["take_gil", "gvl_acquire", "thread_sched_to_running"]) {
        Kind::Runtime
    } else if has(&["ObjectMonitor", "ObjectSynchronizer"]) {
        Kind::Monitor
    } else if has(COUNTED) && !has(MUTEX) {
        Kind::Counted
    } else {
        Kind::Mutex
    }
}

/// What a holder does for its own reasons; other roots are the constraint themselves.
fn is_own_doing(part: &Part) -> bool {
    matches!(part.root, Root::OnCpu | Root::Timer | Root::Held(_) | Root::Idle | Root::Work)
}

pub(super) fn program(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    // The lock most waited for, and all that lead to it.
    let worst = case.flow.longest(|part| is_lock(part) && is_own_doing(part))?;
    let object = lock_of(worst);
    let is_it = |part: &Part| is_lock(part) && lock_of(part) == object && is_own_doing(part);
    let share = case.share(case.flow.sum(is_it));
    if share < GATE {
        return None;
    }
    let waits: Vec<&Wait<'_>> = account
        .waits
        .iter()
        .filter(|wait| wait.class == Class::Futex && wait.object == object.as_deref())
        .collect();
    let longest = waits.iter().max_by_key(|wait| wait.ns)?;
    let functions: Vec<&str> = account.user_functions(longest.stack).collect();
    let waiters: HashSet<ThreadId> = waits.iter().map(|wait| wait.thread).collect();
    let (concurrency, waited) = concurrency(case, &waiters, &waits);
    let kind = kind(&functions);
    let (code, what) = match kind {
        Kind::Counted => (pool_code(case, is_it), "a pool"),
        Kind::Monitor => (Code::LockMonitor, "a monitor"),
        Kind::Runtime => (Code::LockRuntime, "the runtime's lock, which lets one thread run at a time,"),
        Kind::Mutex => (Code::LockMutex, "a lock"),
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
    .proves("of them not waiting for it, on average", concurrency, "1", "threads");
    if kind == Kind::Mutex {
        // One holder at a time, and who comes back to it.
        finding = finding.weighs(concurrency < 2.5, "threads at work at a time", concurrency, "1", "threads");
    }
    finding.functions =
        names(account.top_functions(waits.iter().map(|wait| (wait.stack, wait.ns)), |stack| {
            account.own_function(stack)
        }));
    let holders = names(account.top_functions(holders(&waits), |stack| account.own_function(stack)));
    for holder in holders {
        if !finding.functions.contains(&holder) {
            finding.functions.push(holder);
        }
    }
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

/// Stacks at which waits were ended: where holders gave the lock back.
fn holders<'a>(waits: &'a [&Wait<'_>]) -> impl Iterator<Item = (StackId, u64)> + 'a {
    waits.iter().flat_map(|wait| &wait.ends).filter_map(|end| match end.by {
        Ender::Thread(..) => Some((end.stack?, end.ns)),
        _ => None,
    })
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
    let others = lived.saturating_sub(waited) as f64 / account.window_ns as f64;
    (others, waited as f64 / lived.max(1) as f64)
}

/// Members that are busy with another service are connections; else they are threads.
fn pool_code(case: &Case<'_>, is_it: impl Fn(&Part) -> bool) -> Code {
    let time = |is: fn(&Part) -> bool| case.flow.sum(|part| is_it(part) && is(part));
    let away = time(|part| matches!(part.root, Root::Downstream | Root::Outside));
    if away > 0.5 * time(|_| true) { Code::PoolConnections } else { Code::PoolThreads }
}

/// A number of threads, smaller than that of those that wait for them, all of them at work.
pub(super) fn pool(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_counted = |wait: &Wait<'_>| {
        let functions: Vec<&str> = account.user_functions(wait.stack).collect();
        wait.class == Class::Futex && kind(&functions) == Kind::Counted
    };
    // Waits of a semaphore or a condition while those who have what it counts wait for somebody else.
    let objects: HashSet<(u32, Option<&str>)> = account
        .waits
        .iter()
        .filter(|wait| is_counted(wait))
        .map(|wait| (account.nodes[wait.node].pid, wait.object))
        .collect();
    let is_it = |part: &Part| {
        part.hops.first().is_some_and(|hop| {
            matches!(hop.via, Via::Lock | Via::Queue)
                && objects.contains(&(account.nodes[part.from].pid, hop.object.as_deref()))
                && (hop.via == Via::Lock || is_busy(case, hop.to))
        }) && matches!(part.root, Root::Downstream | Root::Outside | Root::Timer | Root::OnCpu)
    };
    // A worker's pause is part of its work where its queue is never empty.
    let ns = case.flow.sum(is_it);
    let uncounted = case.flow.sum(|part| is_it(part) && !part.is_demand());
    let share = ns / (case.demand_ns + uncounted).max(1.0);
    if share < GATE {
        return None;
    }
    let waiters: HashSet<ThreadId> = account
        .waits
        .iter()
        .filter(|wait| objects.contains(&(account.nodes[wait.node].pid, wait.object)))
        .map(|wait| wait.thread)
        .collect();
    let members = case.flow.nodes(|part| part.hops.first().map_or(part.from, |hop| hop.to), is_it);
    let of_queue = case.flow.sum(|part| is_it(part) && part.hops[0].via == Via::Queue) > 0.5 * ns;
    let waits: Vec<&Wait<'_>> = account.waits.iter().filter(|wait| is_counted(wait)).collect();
    let size = if of_queue {
        members.iter().map(|node| account.nodes[*node].members).sum::<usize>() as f64
    } else {
        concurrency(case, &waiters, &waits).0
    };
    // One that works for all is a thread at its limit, not a pool; and as many as those who wait are not too few.
    if size < 1.5 || size >= waiters.len() as f64 {
        return None;
    }
    let code = pool_code(case, is_it);
    let what = if code == Code::PoolConnections { "connections" } else { "threads" };
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
    .proves("at work at a time", size, "1", "threads")
    .proves("threads that wait for one", waiters.len() as f64, "1", "wakers");
    if let Some(busy) = account.host_busy() {
        finding = finding.weighs(busy < 0.9, "host CPUs busy", busy * 100.0, "%", "signal cpu.utilization");
    }
    finding.functions =
        names(account.top_functions(waits.iter().map(|wait| (wait.stack, wait.ns)), |stack| {
            account.own_function(stack)
        }));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits = account.processes(members);
    finding.path = case.path(is_it);
    Some(finding)
}

/// Whether the threads of a node have hardly any time without work.
fn is_busy(case: &Case<'_>, node: usize) -> bool {
    let account = case.account;
    let waiting: u64 = account
        .waits
        .iter()
        .filter(|wait| {
            wait.node == node && matches!(wait.class, Class::Futex | Class::Event | Class::NetAccept)
        })
        .map(|wait| wait.ns)
        .sum();
    let node = &account.nodes[node];
    node.members > 0 && (waiting as f64) < (1.0 - MEMBERS_BUSY) * node.elapsed_ns as f64
}

/// Locks inside the kernel and on files.
pub(super) fn system(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let classes = [
        (Class::LockKernel, Via::KernelLock, Code::LockKernel, "a lock inside the kernel"),
        (Class::LockFile, Via::FileLock, Code::LockFile, "a lock on a file"),
    ];
    let is_via =
        |via: Via, part: &Part| (part.is_via(via) || part.root == Root::Held(via)) && is_own_doing(part);
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
    let share = case.share(time(via) + spinning);
    if share < GATE {
        return None;
    }
    let waits = || account.waits.iter().filter(|wait| wait.class == class).map(|wait| (wait.stack, wait.ns));
    let callers =
        account.top_functions(waits(), |stack| account.functions(stack).find(|name| !is_of_lock(name)));
    let mut finding =
        Finding::new(code, share, format!("threads wait {} of the time for {what}", percent(share)))
            .proves("of the demand, waiting for it", case.share(time(via)) * 100.0, "%", "wakers")
            .proves("of the demand, spinning for it", case.share(spinning) * 100.0, "%", "CPU samples");
    for (name, share) in &callers {
        finding = finding.proves(format!("of the waits, below {name}"), share * 100.0, "%", "stacks");
    }
    finding.functions = names(account.top_functions(waits(), |stack| account.own_function(stack)));
    finding.functions.extend(names(callers));
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
    // The innermost two: a pause or an atomic operation may be a function of its own.
    let is_spinning = |stack: StackId| {
        account.user_functions(stack).take(2).any(|name| {
            let name = name.to_ascii_lowercase();
            name.contains("spin")
                && (name.contains("lock") || name.contains("wait") || name.contains("acquire"))
        })
    };
    let spinning: Vec<_> =
        account.running.iter().filter(|running| !running.in_kernel && is_spinning(running.stack)).collect();
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
    .proves("of the demand, spinning", share * 100.0, "%", "CPU samples")
    .proves("threads that spin", threads as f64, "1", "threads");
    finding.functions = names(account.top_functions(stacks(), |stack| account.own_function(stack)));
    let mut nodes: Vec<_> = spinning.iter().map(|running| running.node).collect();
    nodes.dedup();
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    Some(finding)
}
