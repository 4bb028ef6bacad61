//! Limits that are met. Who meets one often looks idle: its calls fail at once, and it tries again later.

use super::Case;
use crate::names;
use crate::signals::Signal;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;

/// At so much of a limit the next call fails.
const FULL_PCT: f64 = 99.0;
/// A part of the demand that a limit is taken to hold back when its victims only fail: without a number, the middle.
const SHARE: f64 = 0.5;

fn signals<'a>(case: &'a Case<'_>, name: &'a str, least: f64) -> impl Iterator<Item = &'a Signal> {
    let signals = case.account.profile.signals.iter().flat_map(|signals| &signals.signals);
    signals.filter(move |signal| signal.name == name && signal.value >= least)
}

fn found(code: Code, summary: String) -> Finding {
    let mut finding = Finding::new(code, SHARE, summary);
    finding.gain_upper_bound = None;
    finding
}

pub(super) fn files(case: &Case<'_>) -> Option<Finding> {
    let worst = signals(case, "limit.process_files", FULL_PCT)
        .filter(|signal| {
            case.is_host || pid_of(&signal.instance).is_some_and(|pid| case.account.has_process(pid))
        })
        .max_by(|a, b| a.value.total_cmp(&b.value))?;
    let process = names::printable(worst.instance.split(" (").next().unwrap_or_default());
    let mut finding = found(Code::LimitFd, format!("{process} has as many files open as it may")).proves(
        "of the files that it may have open, open",
        worst.value,
        "%",
        "signal limit.process_files",
    );
    (finding.processes, finding.culprits) = (vec![process.clone()], vec![process]);
    Some(finding)
}

/// `web (4242)`.
fn pid_of(instance: &str) -> Option<u32> {
    instance.rsplit_once('(')?.1.strip_suffix(')')?.parse().ok()
}

pub(super) fn processes(case: &Case<'_>) -> Option<Finding> {
    let failures =
        signals(case, "group.fork_failures", f64::MIN_POSITIVE).max_by(|a, b| a.value.total_cmp(&b.value));
    let full = signals(case, "group.threads", FULL_PCT).max_by(|a, b| a.value.total_cmp(&b.value));
    let worst = failures.or(full)?;
    let group = names::printable(&worst.instance);
    let mut finding = found(Code::LimitPids, format!("{group} has as many processes and threads as it may"));
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
    finding.path.push(group);
    Some(finding)
}

pub(super) fn listen_overflow(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let overflows = account.signal("tcp.listen_overflows").filter(|rate| *rate > 0.0)?;
    let opened = account.signal("tcp.opened").unwrap_or_default();
    let mut finding = found(
        Code::NetListenOverflow,
        format!("{overflows:.0} connections a second find the queue of a listening socket full"),
    )
    .proves("connections that found the queue full, a second", overflows, "/s", "signal tcp.listen_overflows")
    .proves("connections opened a second", opened, "/s", "signal tcp.opened");
    // One now and then is tried again after a second, and nobody notices.
    if overflows < 1.0 {
        finding.share = 0.1;
    }
    Some(finding)
}
