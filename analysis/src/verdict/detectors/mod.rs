//! Detectors, one a file, in families: each looks for one cause, and is silent where its gate is not reached.

mod cpu;
mod gc;
mod io;
mod limits;
mod lock;
mod memory;
mod net;
mod process;
mod wait;

use super::account::Account;
use super::finding::Finding;
use super::flow::{Flow, Hop, Part, Root, Via};

/// What detectors look at.
pub(super) struct Case<'a> {
    pub account: &'a Account<'a>,
    pub flow: &'a Flow,
    /// Time of the target that somebody wants shorter, nanoseconds.
    pub demand_ns: f64,
    /// CPUs of the host; `None` where that is not known.
    pub cpus: Option<f64>,
    /// Whether the target is the whole host.
    pub is_host: bool,
    /// What lets threads work in turns, where they queue for CPUs since it does: those that are woken queue behind those that woke
    /// them, on CPUs of which the target uses only a part.
    pub in_turns: Option<Turns>,
    /// Whose turn it was while the target's threads queued.
    behind: cpu::behind::Behind,
}

/// What lets threads work one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// A lock.
    Lock,
    /// A pipe, or another means between processes.
    Ipc,
}

/// Part of the demand that is waited for each other from which on threads work in turns.
const IN_TURNS: f64 = 0.15;
/// A target that uses less of the CPUs could use more, if it were not for its turns.
const USED: f64 = 0.75;

impl<'a> Case<'a> {
    pub(super) fn new(account: &'a Account<'a>, flow: &'a Flow) -> Self {
        let header = &account.profile.header;
        let cpus = (header.cpus > 0).then(|| f64::from(header.cpus));
        let demand_ns = flow.demand_ns();
        let waited = |is: fn(&Hop) -> bool| flow.sum(|part| part.hops.first().is_some_and(is));
        let (by_lock, by_ipc) = (waited(|hop| hop.via.is_lock()), waited(|hop| hop.via == Via::Ipc));
        let used = flow.sum(|part| matches!(part.root, Root::OnCpu | Root::Stolen) && part.hops.is_empty());
        let behind = cpu::behind::Behind::of(account);
        let capacity = cpus.unwrap_or(1.0) * account.window_ns as f64;
        // Who waits for an idle CPU to wake up waits behind nobody.
        let is_own = behind.is_known && behind.others < cpu::behind::BEHIND_OTHERS;
        let has_turns = by_lock + by_ipc >= IN_TURNS * demand_ns && used < USED * capacity && is_own;
        Self {
            account,
            flow,
            demand_ns,
            cpus,
            is_host: header.target == "host",
            in_turns: has_turns.then_some(if by_lock >= by_ipc { Turns::Lock } else { Turns::Ipc }),
            behind,
        }
    }

    /// A time's part of the demand, 0 to 1.
    fn share(&self, ns: f64) -> f64 {
        (ns / self.demand_ns.max(1.0)).min(1.0)
    }

    /// From the wait that takes longest to what is behind it, in words.
    fn path(&self, holds: impl Fn(&Part) -> bool) -> Vec<String> {
        let Some(part) = self.flow.longest(holds) else { return Vec::new() };
        let mut path = vec![self.account.nodes[part.from].name()];
        for hop in &part.hops {
            let object = hop.object.as_deref().map(|object| format!(" {}", crate::names::printable(object)));
            let node = self.account.nodes[hop.to].name();
            path.push(format!("{}{} of {node}", hop.via.name(), object.unwrap_or_default()));
        }
        path.push(root_name(part.root).to_owned());
        path
    }
}

fn root_name(root: Root) -> &'static str {
    match root {
        Root::OnCpu => "runs",
        Root::Stolen => "CPU taken by the hypervisor",
        Root::RunQueue => "queue for a CPU",
        Root::Throttled => "CPU quota",
        Root::Io(class) | Root::Unexplained(class) => class.name(),
        Root::Flushing => "flush",
        Root::FaultIo => "page fault that reads",
        Root::Memory => "memory to be freed",
        Root::Held(via) => via.name(),
        Root::Timer => "pause",
        Root::Polling => "pause between looks",
        Root::Downstream => "another service",
        Root::Outside => "a process outside of the target",
        Root::Work => "work to come",
        Root::Idle => "nothing",
    }
}

type Detector = fn(&Case<'_>) -> Option<Finding>;

/// Every detector.
const ALL: &[Detector] = &[
    cpu::single_thread::find,
    cpu::queueing::find,
    cpu::all_busy::find,
    cpu::quota::find,
    cpu::steal::find,
    cpu::kernel::find,
    process::find,
    io::find,
    memory::reclaim::find,
    memory::faults::find,
    gc::find,
    lock::program::find,
    lock::pool::find,
    lock::system::find,
    lock::database::find,
    lock::spin::find,
    net::downstream::find,
    net::loss::find,
    net::retry_storm::find,
    limits::files::find,
    limits::processes::find,
    limits::listen_overflow::find,
    wait::ipc::find,
    wait::child::find,
    wait::timer::find,
];

/// Those that need no demand: who meets a limit may look idle.
const OF_LIMITS: &[Detector] = &[limits::files::find, limits::processes::find, limits::listen_overflow::find];

/// What all detectors find; of a target without demand, what those of limits do.
pub(super) fn all(case: &Case<'_>, has_demand: bool) -> Vec<Finding> {
    let detectors = if has_demand { ALL } else { OF_LIMITS };
    detectors.iter().filter_map(|detector| detector(case)).map(with_share).collect()
}

/// Has the share among the numbers, where it is made of several of them.
fn with_share(finding: Finding) -> Finding {
    let share = finding.share * 100.0;
    let is_told = finding.evidence.iter().any(|fact| fact.unit == "%" && (fact.value - share).abs() < 1e-6);
    let Some(first) = finding.evidence.first().filter(|_| !is_told) else { return finding };
    let source = first.source.clone();
    let what = match finding.code.is_counted() {
        true => "of the work, taken to be held back by it",
        false => "of the demand, all of this together",
    };
    finding.proves(what, share, "%", &source)
}

/// Functions without their shares.
fn only_names(functions: Vec<(String, f64)>) -> Vec<String> {
    functions.into_iter().map(|(name, _)| name).collect()
}

/// `42 %`.
fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
