//! Files that may be open.

use super::{FULL_PCT, Failing, found, signals};
use crate::names;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let failing = Failing::of(case, |call| matches!(call.error.as_str(), "EMFILE" | "ENFILE"));
    let is_of_failing = |pid| failing.as_ref().is_none_or(|failing| failing.worst.pid == pid);
    let full = signals(case, "limit.process_files", FULL_PCT)
        .filter(|signal| {
            pid_of(&signal.instance)
                .is_some_and(|pid| is_of_failing(pid) && (case.is_host || case.account.has_process(pid)))
        })
        .max_by(|a, b| a.value.total_cmp(&b.value));
    let process = match (&failing, full) {
        (Some(failing), _) => names::printable(&failing.worst.process_name),
        (None, Some(full)) => names::printable(full.instance.split(" (").next().unwrap_or_default()),
        (None, None) => return None,
    };
    let summary = match &failing {
        Some(failing) => format!(
            "{} of the {} calls of {process} fail with {}",
            percent(failing.share()),
            failing.worst.call,
            failing.worst.error
        ),
        None => format!("{process} has as many files open as it may"),
    };
    let mut finding = found(Code::LimitFd, summary);
    if let Some(full) = full {
        let what = "of the files that it may have open, open";
        finding = finding.proves(what, full.value, "%", "signal limit.process_files");
    }
    if let Some(failing) = &failing {
        finding = failing.prove(finding, case);
    }
    (finding.processes, finding.culprits) = (vec![process.clone()], vec![process]);
    Some(finding)
}

/// `web (4242)`.
fn pid_of(instance: &str) -> Option<u32> {
    instance.rsplit_once('(')?.1.strip_suffix(')')?.parse().ok()
}
