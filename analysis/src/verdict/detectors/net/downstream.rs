//! Another service takes long to answer.

use super::LOST_PCT;
use crate::activity::Group;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

/// Two fifths of the time: services wait for others as a matter of course.
const DOWNSTREAM: f64 = 0.4;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    // A peer within the target that naps is as good as another host's.
    let is_it = |part: &Part| {
        part.root == Root::Downstream
            || (part.root == Root::Timer
                && part
                    .hops
                    .first()
                    .is_some_and(|hop| hop.asks && matches!(hop.via, Via::Socket | Via::Event)))
    };
    let share = case.share(case.flow.sum(is_it));
    if share < DOWNSTREAM {
        return None;
    }
    let worst = case.flow.longest(is_it)?;
    let peer = worst.hops.last().and_then(|hop| hop.object.clone()).or_else(|| worst.object.clone());
    let peer =
        peer.map_or_else(|| "another service".to_owned(), |peer| crate::names::printable(&remote(&peer)));
    let mut finding = Finding::new(
        Code::NetDownstream,
        share,
        format!("threads wait {} of their time for answers from {peer}", percent(share)),
    )
    .proves("of the demand, waiting for answers", share * 100.0, "%", "threads");
    if let Some(lost) = account.signal("tcp.retransmit_share") {
        // What is lost is the network's doing, not the service's.
        finding = finding.weighs(
            lost < LOST_PCT,
            "of the segments, sent again",
            lost,
            "%",
            "signal tcp.retransmit_share",
        );
    }
    let rtt =
        account.profile.connections.iter().filter(|c| c.pid.is_some_and(|pid| account.has_process(pid)));
    if let Some(worst) = rtt.max_by_key(|connection| connection.bytes()) {
        finding = finding.proves(
            "round-trip time of the busiest connection",
            f64::from(worst.rtt_us) / 1e3,
            "ms",
            "connections",
        );
    }
    finding.functions = account.waiting_functions(|wait| wait.class.group() == Group::Net);
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    // Where the peer's process is seen, it is the one to ask.
    finding.culprits =
        account.processes(case.flow.nodes(|part| part.at, |part| is_it(part) && part.at != part.from));
    finding.path = case.path(is_it);
    finding.path.push(peer);
    finding.path.extend(finding.culprits.first().cloned());
    Some(finding)
}

/// The far end of a connection's name.
fn remote(object: &str) -> String {
    match (object.split_once(' '), object.split_once('-')) {
        (Some((kind, _)), Some((_, remote))) if kind == "tcp" || kind == "udp" => format!("{kind} {remote}"),
        (Some(("unix", path)), _) => format!("unix {}", path.strip_prefix('-').unwrap_or(path)),
        _ => object.to_owned(),
    }
}
