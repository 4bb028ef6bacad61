//! Processes and threads that a group or a user may have.

use super::{FULL_PCT, Failing, found, signals};
use crate::names;
use crate::verdict::code::Code;
use crate::verdict::detectors::Case;
use crate::verdict::finding::Finding;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let failures =
        signals(case, "group.fork_failures", f64::MIN_POSITIVE).max_by(|a, b| a.value.total_cmp(&b.value));
    let full = signals(case, "group.threads", FULL_PCT).max_by(|a, b| a.value.total_cmp(&b.value));
    let failing = Failing::of(case, |call| call.error == "EAGAIN");
    let (who, group) = match (failures.or(full), &failing) {
        (Some(worst), _) => {
            let group = names::printable(&worst.instance);
            (group.clone(), Some(group))
        }
        (None, Some(failing)) => (names::printable(&failing.worst.process_name), None),
        (None, None) => return None,
    };
    let mut finding = found(Code::LimitPids, format!("{who} has as many processes and threads as it may"));
    if let Some(failing) = &failing {
        finding = failing.prove(finding, case);
        finding.processes.push(names::printable(&failing.worst.process_name));
    }
    if let Some(failures) = failures {
        finding =
            finding.proves("forks that failed, a second", failures.value, "/s", "signal group.fork_failures");
    }
    if let Some(full) = full {
        finding = finding.proves(
            "of the threads that the group may have, there",
            full.value,
            "%",
            "signal group.threads",
        );
    }
    finding.path.extend(group);
    Some(finding)
}
