//! Time that goes to a runtime's collector of garbage.

use super::{Case, percent};
use crate::collectors;
use crate::verdict::account::NodeId;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

/// A fifth of the time: less gains less than a quarter.
const GATE: f64 = 0.2;

/// What threads spend of their time on CPUs collecting, 0 to 1.
struct Collecting {
    of_node: Vec<f64>,
    of_all: f64,
}

impl Collecting {
    fn of(case: &Case<'_>) -> Self {
        let account = case.account;
        let mut sums = vec![(0, 0); account.nodes.len()];
        for running in &account.running {
            let (collecting, all) = &mut sums[running.node];
            *all += running.ns;
            if account.user_functions(running.stack).any(collectors::is_collecting) {
                *collecting += running.ns;
            }
        }
        let share = |(collecting, all): (u64, u64)| collecting as f64 / all.max(1) as f64;
        let all = sums.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        Self { of_node: sums.into_iter().map(share).collect(), of_all: share(all) }
    }

    fn share(&self, node: NodeId) -> f64 {
        self.of_node[node]
    }
}

pub(super) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let collecting = Collecting::of(case);
    let is_running = |part: &Part| matches!(part.root, Root::OnCpu | Root::Stolen | Root::RunQueue);
    let sum = |holds: &dyn Fn(&Part) -> bool| {
        let parts = case.flow.parts.iter().filter(|part| is_running(part) && holds(part));
        parts.fold(0.0, |sum, part| sum + part.ns * collecting.share(part.at))
    };
    let share = case.share(sum(&|_| true));
    if share < GATE {
        return None;
    }
    let waiting = case.share(sum(&|part| !part.hops.is_empty()));
    // Most of what is at such a node is its work.
    let is_it = |part: &Part| is_running(part) && collecting.share(part.at) >= 0.5;
    let mut finding = Finding::new(
        Code::MemGc,
        share,
        format!("the collection of garbage takes {} of the time", percent(share)),
    )
    .proves(
        "of the time on CPUs, in the functions of a collector of garbage",
        collecting.of_all * 100.0,
        "%",
        "CPU samples",
    )
    .proves("of the demand, threads that wait while it runs", waiting * 100.0, "%", "wakers");
    finding.functions = account
        .running_functions(|running| account.user_functions(running.stack).any(collectors::is_collecting));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.culprits = account.processes(case.flow.nodes(|part| part.at, is_it));
    finding.path = case.path(is_it);
    Some(finding)
}
