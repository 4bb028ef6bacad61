//! Limits that are met. Who meets one often looks idle: its calls fail at once, and it tries again later.

use super::{Case, percent};
use crate::activity::Class;
use crate::failed_calls::FailedCall;
use crate::names;
use crate::signals::Signal;
use crate::verdict::account::{Account, Running, Wait};
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;

/// At so much of a limit the next call fails.
const FULL_PCT: f64 = 99.0;
/// A part of the demand that a limit is taken to hold back when its victims only fail: without a number, the middle.
const SHARE: f64 = 0.5;
/// A call in a hundred that fails is one that is noticed.
const NOW_AND_THEN: f64 = 0.01;
/// Part of its threads' time from which on a process that is refused pauses.
const PAUSES: f64 = 0.3;

fn signals<'a>(case: &'a Case<'_>, name: &'a str, least: f64) -> impl Iterator<Item = &'a Signal> {
    let signals = case.account.profile.signals.iter().flat_map(|signals| &signals.signals);
    signals.filter(move |signal| signal.name == name && signal.value >= least)
}

fn found(code: Code, summary: String) -> Finding {
    let mut finding = Finding::new(code, SHARE, summary);
    finding.gain_upper_bound = None;
    finding
}

/// The calls that a limit lets fail.
struct Failing<'a> {
    worst: &'a FailedCall,
    /// Failures a second while calls were looked at.
    rate: f64,
}

impl<'a> Failing<'a> {
    /// Of those that `is` holds for; `None` where none failed.
    fn of(case: &Case<'a>, is: impl Fn(&FailedCall) -> bool) -> Option<Self> {
        let failed = case.account.profile.failed_calls.as_ref()?;
        let worst = failed.calls.iter().find(|call| is(call))?;
        Some(Self { worst, rate: failed.rate(|call| is(call) && call.pid == worst.pid) })
    }

    /// The part of the process's calls of this kind that fail.
    fn share(&self) -> f64 {
        self.worst.failed as f64 / self.worst.attempts.max(1) as f64
    }

    fn prove(&self, finding: Finding, case: &Case<'_>) -> Finding {
        let FailedCall { pid, call, error, .. } = self.worst;
        let mut finding = finding
            .proves(format!("times a second {call} fails with {error}"), self.rate, "/s", "failed calls")
            .proves(format!("of the calls of {call} fail"), self.share() * 100.0, "%", "failed calls");
        // Of many calls that make up one piece of work, each that fails holds up all of it.
        finding.share = if self.share() >= NOW_AND_THEN { self.share().max(SHARE) } else { self.share() };
        let account = case.account;
        let nodes = || account.nodes.iter().filter(|node| node.pid == *pid);
        let elapsed_ns: u64 = nodes().map(|node| node.elapsed_ns).sum();
        let pauses_ns: u64 = nodes().map(|node| node.time_ns(Class::Timer)).sum();
        let pauses = pauses_ns as f64 / elapsed_ns.max(1) as f64;
        // Who is refused tries again later.
        if pauses >= PAUSES {
            let what = "of the time of the process's threads, in pauses";
            finding = finding.proves(what, pauses * 100.0, "%", "threads");
        }
        finding.functions = self.functions(account);
        finding
    }

    /// Where the process makes such calls, by the samples within them, or else where it pauses.
    fn functions(&self, account: &Account<'_>) -> Vec<String> {
        let FailedCall { pid, call, .. } = self.worst;
        // `__x64_sys_openat`, `__arm64_sys_openat`, `__se_sys_openat`.
        let entry = format!("_sys_{call}");
        let makes = |running: &Running| {
            account.nodes[running.node].pid == *pid
                && running.in_kernel
                && account.functions(running.stack).any(|function| function.ends_with(&entry))
        };
        let made_in = account.running_functions(makes);
        if !made_in.is_empty() {
            return made_in;
        }
        let pauses = |wait: &Wait<'_>| wait.class == Class::Timer && account.nodes[wait.node].pid == *pid;
        account.waiting_functions(pauses)
    }
}

pub(super) fn files(case: &Case<'_>) -> Option<Finding> {
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

pub(super) fn processes(case: &Case<'_>) -> Option<Finding> {
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
