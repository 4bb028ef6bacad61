//! The verdict: what limits a target now, how sure that is, and what to do.
//!
//! [`Account`] says what the time of the target's threads went into and who ended their waits, [`Flow`] follows the waits to what is
//! behind them, detectors look for one constraint each, and [`diagnose`] ranks what they found. A false alarm is worse than silence:
//! below its gate a detector says nothing, and `none.idle`, `none.healthy` and `unknown` are answers.

pub mod account;
mod advice;
pub mod code;
mod confidence;
pub mod confirm;
mod detectors;
pub mod finding;
pub mod flow;
mod leaders;
mod lock_names;
mod modifiers;
pub mod peers;
mod polls;
mod roles;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::profile::Profile;
use account::Account;
use code::Code;
use confirm::Confirmation;
use detectors::Case;
use finding::{Fact, Finding, Severity, round};
use flow::{Flow, Part, Root};
use peers::Peer;

/// Version of the JSON of a diagnosis.
const SCHEMA: u32 = 1;
/// Findings that are told.
const TOLD: usize = 5;
/// Below this part of one CPU's time a target does next to nothing.
const IDLE: f64 = 0.05;
/// Two scores that differ by less are the same: the order is then by what is cheapest to test.
const SAME: f64 = 0.1;
/// Pauses shorter than this, over and over, may be looks for what is not there yet: who asks again asks after 1 to 20 ms, who keeps house
/// after 100 ms or more.
const SHORT_PAUSE_NS: u64 = 50_000_000;
/// From so much of one thread's time in them on, they speak against an answer that nothing is in the way.
const PAUSES: f64 = 0.3;
/// A finding that is less than half sure is no verdict: it is as likely wrong.
const DOUBTFUL: f64 = 0.5;

/// Everything that is said of a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// Version of this structure. Fields may be added without a new one.
    pub schema: u32,
    /// Name of the host.
    pub host: String,
    /// What was looked at, in words.
    pub target: String,
    /// Length of the window, seconds.
    pub window_s: f64,
    /// What limits the target.
    pub verdict: Finding,
    /// The verdict, and what else was found, the most important first.
    pub ranked: Vec<Finding>,
    /// Seconds of the target's threads by class.
    pub decomposition: BTreeMap<&'static str, f64>,
    /// The same after waits for other threads were followed: by what is at their end.
    pub behind: BTreeMap<String, f64>,
    /// Seconds that somebody wants shorter, by what the target's own threads spend them on: what they do, or how they wait for each
    /// other.
    pub demand: BTreeMap<String, f64>,
    /// Numbers that say what changes all others: what the host did not get, whatever limits the target.
    pub modifiers: Vec<Fact>,
    /// What the verdict rests on.
    pub coverage: Basis,
    /// Whether the verdict held at a second look, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<Confirmation>,
}

/// What a verdict rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Basis {
    /// Threads of the target.
    pub threads: usize,
    /// Samples of running and waiting threads.
    pub samples: u64,
    /// Samples that were lost.
    pub lost: u64,
    /// Share of the waiting time of which it is known what ended it, 0 to 1.
    pub ends_known: f64,
    /// What is missing, in sentences.
    pub missing: Vec<String>,
}

/// Draws the verdict from a recording of everything (`-e all`).
#[must_use]
pub fn diagnose(profile: &Profile) -> Diagnosis {
    of_account(&Account::of(profile))
}

/// The same, and whom the target's processes wait for over TCP, and where they are asked themselves.
#[must_use]
pub fn diagnose_with_peers(profile: &Profile) -> (Diagnosis, Vec<Peer>) {
    let account = Account::of(profile);
    (of_account(&account), peers::of(&account))
}

fn of_account(account: &Account<'_>) -> Diagnosis {
    let profile = account.profile;
    let flow = Flow::of(account);
    let case = Case::new(account, &flow);
    let coverage = Basis::of(account);
    let has_demand = case.demand_ns >= IDLE * account.window_ns as f64;
    let mut ranked: Vec<Finding> = detectors::all(&case, has_demand)
        .into_iter()
        .map(|finding| advice::advise(judged(finding, &case, &coverage)))
        .collect();
    rank(&mut ranked, &case);
    ranked.truncate(TOLD);
    let limits = |finding: &&Finding| finding.severity > Severity::Low;
    let is_sure = |finding: &Finding| finding.confidence >= DOUBTFUL;
    let first = ranked.iter().position(|finding| limits(&finding) && is_sure(finding));
    let verdict = match first {
        Some(first) => {
            let verdict = ranked.remove(first);
            ranked.insert(0, verdict.clone());
            verdict
        }
        None => {
            let doubtful = ranked.iter().find(limits).map(|finding| finding.code);
            let none = advice::advise(without_constraint(&case, has_demand, doubtful));
            ranked.insert(0, none.clone());
            none
        }
    };
    let mut behind: BTreeMap<String, f64> = BTreeMap::new();
    let mut demand: BTreeMap<String, f64> = BTreeMap::new();
    for part in &flow.parts {
        *behind.entry(root_code(part.root)).or_default() += part.ns / 1e9;
        if part.is_demand() {
            *demand.entry(spent_on(part)).or_default() += part.ns / 1e9;
        }
    }
    Diagnosis {
        schema: SCHEMA,
        host: profile.header.host.clone(),
        target: profile.header.target.clone(),
        window_s: account.window_ns as f64 / 1e9,
        verdict,
        ranked,
        decomposition: account
            .by_class()
            .into_iter()
            .map(|(class, ns)| (class.name(), round(ns as f64 / 1e9)))
            .collect(),
        behind: behind.into_iter().map(|(root, seconds)| (root, round(seconds))).collect(),
        demand: demand.into_iter().map(|(of, seconds)| (of, round(seconds))).collect(),
        modifiers: modifiers::of(account),
        coverage,
        confirmation: None,
    }
}

/// How sure and how bad a finding is: by its share of the demand, and by how much demand there is.
fn judged(mut finding: Finding, case: &Case<'_>, basis: &Basis) -> Finding {
    confidence::of_constraint(&mut finding, case, basis);
    finding.severity = Severity::of(lost(&finding, case));
    finding
}

/// The part of one thread's time, or of several's, that a finding takes.
fn lost(finding: &Finding, case: &Case<'_>) -> f64 {
    let threads = (case.demand_ns / case.account.window_ns as f64).min(1.0);
    if finding.code.is_counted() { finding.share } else { finding.share * threads }
}

/// The most important first.
fn rank(findings: &mut Vec<Finding>, case: &Case<'_>) {
    let score = |finding: &Finding| lost(finding, case) * finding.confidence;
    findings.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let Some(best) = findings.first().map(score) else { return };
    let is_same = |finding: &Finding| score(finding) >= best * (1.0 - SAME);
    let same = findings.iter().take_while(|finding| is_same(finding)).count();
    findings[..same].sort_by_key(|finding| finding.code.precedence());
    // What says why comes before what it explains.
    for at in 1..findings.len() {
        let (code, is_bad) = (findings[at].code, findings[at].severity > Severity::Low);
        let explained = findings[..at].iter().position(|before| code.explains(before.code));
        if let Some(first) = explained.filter(|_| is_bad) {
            let finding = findings.remove(at);
            findings.insert(first, finding);
        }
    }
}

/// What is said where nothing limits the target, or nothing is known to.
fn without_constraint(case: &Case<'_>, has_demand: bool, doubtful: Option<Code>) -> Finding {
    let account = case.account;
    let window = account.window_ns as f64;
    let of_cpu = case.flow.sum(|part| part.root == Root::OnCpu && part.hops.is_empty()) / window;
    let unexplained = case.flow.sum(|part| matches!(part.root, Root::Unexplained(_) | Root::Held(_)));
    let demand = case.demand_ns / window;
    let mut finding = if let Some(code) = doubtful {
        Finding::new(Code::Unknown, 0.0, format!("it may be {code}, but as much speaks against it"))
    } else if !has_demand {
        Finding::new(
            Code::NoneIdle,
            0.0,
            format!("there is next to nothing to do: {demand:.2} of one thread's time"),
        )
    } else if unexplained > case.demand_ns {
        Finding::new(
            Code::Unknown,
            0.0,
            "more of the time is waited for something unknown than is explained".to_owned(),
        )
    } else {
        Finding::new(
            Code::NoneHealthy,
            0.0,
            format!("there is work for {demand:.2} threads at a time, and nothing holds it up"),
        )
    }
    .proves("demand, in threads at a time", demand, "1", "threads")
    .proves("CPUs used", of_cpu, "1", "threads")
    .proves("time that is not explained, in threads at a time", unexplained / window, "1", "threads");
    if let Some(cpus) = case.cpus {
        finding = finding.proves("CPUs of the host", cpus, "1", "host");
    }
    if let Some(busy) = account.host_busy() {
        finding = finding.proves("host CPUs busy", busy * 100.0, "%", "signal cpu.utilization");
    }
    if let Some(ns) = confidence::short_pauses_ns(account) {
        let what = "short pauses, over and over, for which it is not known what for, in threads at a time";
        finding = finding.weighs(false, what, ns / window, "1", "threads");
    }
    finding.severity = Severity::None;
    finding.gain_upper_bound = None;
    // As much as the explained part.
    let known = case.demand_ns + unexplained;
    let certain = if has_demand { case.demand_ns / known.max(1.0) } else { 1.0 };
    let is_known = finding.code != Code::Unknown;
    confidence::of_nothing(&mut finding, is_known, certain);
    finding
}

impl Basis {
    fn of(account: &Account<'_>) -> Self {
        let profile = account.profile;
        let (mut waited, mut known) = (0, 0);
        for wait in &account.waits {
            waited += wait.ns;
            let ends = wait.ends.iter().filter(|end| end.by != account::Ender::Unknown);
            known += ends.map(|end| end.ns).sum::<u64>();
        }
        let mut missing = profile.coverage.notes.clone();
        if profile.signals.is_none() {
            missing.push("the host's saturation signals were not read".to_owned());
        }
        if profile.block.is_none() {
            missing.push("requests of block devices were not watched".to_owned());
        }
        if profile.run_queue.is_none() {
            missing.push("queueing for CPUs was not watched".to_owned());
        }
        if profile.memory.is_none() {
            missing.push("page faults and reclaims were not watched".to_owned());
        }
        if profile.thread_times.is_empty() {
            missing.push("the times of threads were not recorded: record with -e all".to_owned());
        }
        Self {
            threads: account.threads.len(),
            samples: profile.coverage.captured,
            lost: profile.coverage.total_lost(),
            ends_known: round(known as f64 / waited.max(1) as f64),
            missing,
        }
    }
}

/// What a thread itself spends a part of its time on.
fn spent_on(part: &Part) -> String {
    part.hops.first().map_or_else(|| root_code(part.root), |hop| root_code(Root::Held(hop.via)))
}

fn root_code(root: Root) -> String {
    match root {
        Root::OnCpu => "cpu".to_owned(),
        Root::Stolen => "cpu.stolen".to_owned(),
        Root::RunQueue => "run-queue".to_owned(),
        Root::Throttled => "throttled".to_owned(),
        Root::Io(class) => class.name().to_owned(),
        Root::Flushing => "io.flushing".to_owned(),
        Root::FaultIo => "io.fault".to_owned(),
        Root::Memory => "mem.reclaim".to_owned(),
        Root::Held(via) => via.name().replace(' ', "-"),
        Root::Timer => "wait.timer".to_owned(),
        Root::Polling => "wait.polling".to_owned(),
        Root::Downstream => "net.downstream".to_owned(),
        Root::Outside => "outside".to_owned(),
        Root::Work => "work".to_owned(),
        Root::Idle => "idle".to_owned(),
        Root::Unexplained(class) => format!("unexplained.{class}"),
    }
}

#[cfg(test)]
mod tests;
