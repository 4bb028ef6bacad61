//! How many threads get on at a time.

use crate::activity::Class;
use crate::profile::ThreadId;
use crate::verdict::account::Wait;
use crate::verdict::detectors::{Case, Turns};
use crate::verdict::lock_names::{self, Kind};
use std::collections::HashSet;

/// How many of the threads that want it were not waiting for it, on average, and which share of their time they were.
pub(super) fn concurrency(case: &Case<'_>, waiters: &HashSet<ThreadId>, waits: &[&Wait<'_>]) -> (f64, f64) {
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
