//! Pauses that somebody waits for.

use super::{GATE, found};
use crate::activity::Class;
use crate::verdict::account::Wait;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};
use crate::verdict::polls::{self, Polls};

/// Only the pattern tells pauses for another's work from a pace that somebody wants.
const INFERRED: f64 = 0.6;

/// Pauses that somebody waits for.
pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let is_it = |part: &Part| {
        part.root == Root::Timer
            && part.hops.first().is_some_and(|hop| {
                hop.asks && !hop.via.is_lock() && hop.via != Via::Socket && hop.via != Via::Event
            })
    };
    let pauses = found(case, Code::WaitTimer, is_it, &[Class::Timer], "pauses of the program's own");
    pauses.or_else(|| polling(case))
}

/// Pauses after which a thread looks whether another is done with what it was given.
fn polling(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let is_it = |part: &Part| part.root == Root::Polling;
    let share = case.share(case.flow.sum(is_it));
    if share < GATE {
        return None;
    }
    let polls = polls::of(account);
    let all = polls.values().fold(Polls::default(), |sum, of| Polls {
        ns: sum.ns + of.ns,
        pauses: sum.pauses + of.pauses,
        pieces: sum.pieces + of.pieces,
    });
    let each_ms = all.ns as f64 / 1e6 / all.pauses.max(1) as f64;
    let seconds = account.window_ns as f64 / 1e9;
    let summary = format!(
        "threads pause {each_ms:.1} ms for each piece of work, and look then whether it is done: {} of the time",
        percent(share)
    );
    let mut finding = Finding::new(Code::WaitTimer, share, summary)
        .proves("of the demand, in pauses between looks", share * 100.0, "%", "threads")
        .proves("a pause, on average", each_ms, "ms", "wakers")
        .proves("pauses a second", all.pauses as f64 / seconds, "/s", "wakers")
        .proves(
            "pieces of work a second handed to other threads",
            all.pieces as f64 / seconds,
            "/s",
            "wakers",
        );
    let is_pause = |wait: &Wait<'_>| wait.class == Class::Timer && polls.contains_key(&wait.thread);
    finding.functions = account.waiting_functions(is_pause);
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits = account.processes(case.flow.nodes(|part| part.at, is_it));
    finding.path = case.path(is_it);
    // The pauses do not grow with the work: what could be done without them does not follow.
    finding.gain_upper_bound = None;
    finding.at_most = INFERRED;
    Some(finding)
}
