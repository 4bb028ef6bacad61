//! Waits for other processes, children and times that are no resource's.

pub(super) mod child;
pub(super) mod ipc;
pub(super) mod timer;

use super::{Case, percent};
use crate::activity::Class;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::Part;

/// As for any wait that others may explain better.
const GATE: f64 = 0.3;

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
