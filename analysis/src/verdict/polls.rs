//! Threads that look again and again whether what they had another thread do is done.
//!
//! A pause says nothing of what it is for. But who hands work to a thread of its own process, is told by nobody when that is done, and pauses
//! a moment for each piece, goes on when a pause is over and not when the work is. Two that look alike are left out: who pauses until a set
//! time keeps to a pace, and who is woken by the other waits for it.

use std::collections::{HashMap, HashSet};

use super::account::{Account, Ender};
use super::{PAUSES, SHORT_PAUSE_NS};
use crate::activity::Class;
use crate::profile::ThreadId;

/// What a pause is for that ends at a set time, whatever was done before: the agent tells it by the system call's flag.
pub(super) const AT_A_TIME: &str = "until a set time";
/// Pieces of work for each pause from which on pauses are for them: of more pauses a piece, most of the time is the work's.
const PIECES: f64 = 0.5;
/// Part of a thread's waits that end by one thread from which on all of its work comes from there.
const ALL_OF_IT: f64 = 0.8;
/// Part of the pauses up to which waits for others are beside the point.
const BESIDE: f64 = 0.05;

/// How often a thread looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Polls {
    /// Time in pauses, nanoseconds.
    pub ns: u64,
    /// How many pauses.
    pub pauses: u64,
    /// Pieces of work that it handed to other threads.
    pub pieces: u64,
}

/// How long a thread waited for others.
#[derive(Default)]
struct Waited {
    ns: u64,
    /// For each of those that may poll: how long, nanoseconds, and how often.
    by_polling: HashMap<ThreadId, (u64, u64)>,
}

/// The threads that poll.
pub(super) fn of(account: &Account<'_>) -> HashMap<ThreadId, Polls> {
    let mut polls = pauses(account);
    if polls.is_empty() {
        return polls;
    }
    let mut waited: HashMap<ThreadId, Waited> = HashMap::new();
    let mut told: HashMap<ThreadId, u64> = HashMap::new();
    for wait in account.waits.iter().filter(|wait| wait.class != Class::Timer) {
        let pid = account.nodes[wait.node].pid;
        for end in &wait.ends {
            let Ender::Thread(node, by) = end.by else { continue };
            let is_own = account.nodes[node].pid == pid && by != wait.thread;
            let waited = waited.entry(wait.thread).or_default();
            waited.ns += end.ns;
            if is_own && polls.contains_key(&by) {
                let (ns, count) = waited.by_polling.entry(by).or_default();
                (*ns, *count) = (*ns + end.ns, *count + end.count);
            }
            *told.entry(wait.thread).or_default() += end.ns;
        }
    }
    for waited in waited.into_values() {
        for (by, (ns, count)) in waited.by_polling {
            if ns as f64 >= ALL_OF_IT * waited.ns as f64
                && let Some(polls) = polls.get_mut(&by)
            {
                polls.pieces += count;
            }
        }
    }
    polls.retain(|thread, polls| {
        let is_told = told.get(thread).is_some_and(|ns| *ns as f64 > BESIDE * polls.ns as f64);
        !is_told && polls.pieces as f64 >= PIECES * polls.pauses as f64
    });
    polls
}

/// The threads that pause for short, over and over, for a good part of the window, and never until a set time.
fn pauses(account: &Account<'_>) -> HashMap<ThreadId, Polls> {
    let (mut pauses, mut paced): (HashMap<ThreadId, Polls>, HashSet<ThreadId>) = Default::default();
    for wait in account.waits.iter().filter(|wait| wait.class == Class::Timer) {
        if wait.object == Some(AT_A_TIME) {
            paced.insert(wait.thread);
        }
        let of_thread = pauses.entry(wait.thread).or_default();
        for end in wait.ends.iter().filter(|end| end.count > 0) {
            of_thread.ns += end.ns;
            of_thread.pauses += end.count;
        }
    }
    pauses.retain(|thread, polls| {
        !paced.contains(thread)
            && polls.pauses > 1
            && polls.ns / polls.pauses < SHORT_PAUSE_NS
            && polls.ns as f64 >= PAUSES * account.window_ns as f64
    });
    pauses
}
