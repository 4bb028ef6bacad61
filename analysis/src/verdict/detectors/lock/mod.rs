//! Locks, and pools, which are locks that several may hold.

mod concurrency;
pub(super) mod database;
pub(super) mod pool;
pub(super) mod program;
pub(super) mod spin;
pub(super) mod system;

use super::{Case, Turns};
use crate::activity::Class;
use crate::profile::ThreadId;
use crate::verdict::account::{Account, End, Ender, Wait};
use crate::verdict::flow::{Part, Root};
use crate::verdict::lock_names::{self, Kind};

/// A fifth of the time: less gains less than a quarter.
const GATE: f64 = 0.2;

/// What a holder does for its own reasons; other roots are the constraint themselves.
fn is_own_doing(case: &Case<'_>, part: &Part) -> bool {
    matches!(part.root, Root::OnCpu | Root::Timer | Root::Held(_) | Root::Idle | Root::Work)
        || (part.root == Root::RunQueue && case.in_turns == Some(Turns::Lock))
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
