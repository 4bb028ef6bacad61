//! Limits that are met. Who meets one often looks idle: its calls fail at once, and it tries again later.

pub(super) mod files;
pub(super) mod listen_overflow;
pub(super) mod processes;

use super::Case;
use crate::activity::Class;
use crate::failed_calls::FailedCall;
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
