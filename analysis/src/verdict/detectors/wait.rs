//! Waits for other processes, children and times that are no resource's.

use super::{Case, Turns, percent};
use crate::activity::Class;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

/// As for any wait that others may explain better.
const GATE: f64 = 0.3;

pub(super) fn ipc(case: &Case<'_>) -> Option<Finding> {
    // What a member of the target does at the other end is told as that; but where two work in turns, neither of them is what limits.
    let is_it = |part: &Part| {
        (part.root == Root::Outside && !part.is_via(Via::Child))
            || (case.in_turns == Some(Turns::Ipc)
                && (part.hops.first().is_some_and(|hop| hop.via == Via::Ipc)
                    || (part.root == Root::RunQueue && part.hops.is_empty())))
    };
    found(case, Code::WaitIpc, is_it, &[Class::Ipc], "another process, through a pipe or a queue")
}

pub(super) fn child(case: &Case<'_>) -> Option<Finding> {
    let is_it = |part: &Part| part.root == Root::Outside && part.is_via(Via::Child);
    found(case, Code::WaitChild, is_it, &[Class::Child], "a child process")
}

/// Pauses that somebody waits for.
pub(super) fn timer(case: &Case<'_>) -> Option<Finding> {
    let is_it = |part: &Part| {
        part.root == Root::Timer
            && part.hops.first().is_some_and(|hop| {
                hop.asks && !hop.via.is_lock() && hop.via != Via::Socket && hop.via != Via::Event
            })
    };
    found(case, Code::WaitTimer, is_it, &[Class::Timer], "pauses of the program's own")
}

fn found(
    case: &Case<'_>,
    code: Code,
    is_it: impl Fn(&Part) -> bool,
    classes: &[Class],
    what: &str,
) -> Option<Finding> {
    let account = case.account;
    let share = case.share(case.flow.sum(&is_it));
    if share < GATE {
        return None;
    }
    let mut finding =
        Finding::new(code, share, format!("threads wait {} of their time for {what}", percent(share)))
            .proves("of the demand, waiting for it", share * 100.0, "%", "wakers");
    // Where it happens, and where it is waited for.
    let waiting = [Class::Ipc, Class::Child];
    finding.functions =
        account.waiting_functions(|wait| classes.contains(&wait.class) || waiting.contains(&wait.class));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, &is_it));
    finding.culprits =
        account.processes(case.flow.nodes(|part| part.at, |part| is_it(part) && part.at != part.from));
    finding.path = case.path(&is_it);
    Some(finding)
}
