//! Another process at a pipe or a queue.

use super::found;
use crate::activity::Class;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, Turns};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    // What a member of the target does at the other end is told as that; but where two work in turns, neither of them is what limits.
    let is_it = |part: &Part| {
        (part.root == Root::Outside && !part.is_via(Via::Child))
            || (case.in_turns == Some(Turns::Ipc)
                && (part.hops.first().is_some_and(|hop| hop.via == Via::Ipc)
                    || (part.root == Root::RunQueue && part.hops.is_empty())))
    };
    found(case, Code::WaitIpc, is_it, &[Class::Ipc], "another process, through a pipe or a queue")
}
