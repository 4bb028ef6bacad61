//! Locks inside the kernel and on files.

use super::{GATE, is_own_doing};
use crate::activity::Class;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, Turns, only_names, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

/// Locks inside the kernel and on files.
pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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

/// Functions of the kernel that take a lock or wait for it, and say nothing of which.
fn is_of_lock(function: &str) -> bool {
    ["rwsem", "mutex", "schedule", "down_", "percpu_", "preempt", "locks_lock", "osq_", "wait_event"]
        .iter()
        .any(|part| function.contains(part))
}
