//! Constraints of the network and of services behind it.

use std::collections::HashSet;

use super::{Case, percent};
use crate::activity::{Class, Group};
use crate::verdict::account::NodeId;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

/// Two fifths of the time: services wait for others as a matter of course.
const DOWNSTREAM: f64 = 0.4;
/// One segment in a hundred: below, TCP makes up for it within a round trip.
const LOST_PCT: f64 = 1.0;
/// Fewer connections a second are no storm.
const OPENED_PER_S: f64 = 20.0;
/// A server may reset some; a third are given up.
const GIVEN_UP: f64 = 0.3;
/// Fewer a second are what any network loses.
const RETRANSMITS_PER_S: f64 = 5.0;
/// What an Ethernet packet carries.
const SEGMENT_BYTES: f64 = 1448.0;

pub(super) fn downstream(case: &Case<'_>) -> Option<Finding> {
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

pub(super) fn loss(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let mut connections: Vec<_> = account
        .profile
        .connections
        .iter()
        .filter(|c| c.retransmits > 0 && (case.is_host || c.pid.is_some_and(|pid| account.has_process(pid))))
        .collect();
    connections.sort_by_key(|connection| std::cmp::Reverse(connection.retransmits));
    let worst = connections.first()?;
    let again: u64 = connections.iter().map(|connection| connection.retransmits).sum();
    let bytes: u64 = connections.iter().map(|connection| connection.bytes_sent).sum();
    // Segments of large sends are as long as packets may be; of short ones there are more, and the share is less than this.
    let segments = (bytes as f64 / SEGMENT_BYTES).max(again as f64);
    let lost = 100.0 * again as f64 / segments.max(1.0);
    if lost < LOST_PCT || (again as f64) < RETRANSMITS_PER_S * account.window_ns as f64 / 1e9 {
        return None;
    }
    // What threads wait for on the network while segments are sent again.
    let is_network = |part: &Part| matches!(part.root, Root::Downstream) || part.is_via(Via::Socket);
    let share = case.share(case.flow.sum(is_network));
    let peer = format!("tcp {}", worst.remote);
    let mut finding = Finding::new(
        Code::NetLoss,
        share,
        format!("{lost:.1} % of the TCP segments are lost and sent again, most to {peer}"),
    )
    .proves("of the segments, sent again", lost, "%", "connections")
    .proves("segments sent again on the worst connection", worst.retransmits as f64, "1", "connections")
    .proves("of the demand, waiting for the network", share * 100.0, "%", "threads")
    .proves(
        "round-trip time of the worst connection",
        f64::from(worst.rtt_us) / 1e3,
        "ms",
        "connections",
    );
    finding.processes = vec![crate::names::printable(&worst.process_name)];
    finding.functions = account.waiting_functions(|wait| wait.class.group() == Group::Net);
    finding.path = case.path(is_network);
    finding.path.push(peer);
    finding.gain_upper_bound = None;
    Some(finding)
}

/// Connections that are given up before they are of use, and opened again.
pub(super) fn retry_storm(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let [resets, opened] = ["tcp.resets", "tcp.opened"].map(|name| account.signal(name).unwrap_or_default());
    // The host's counters may be of others: a server of the target takes the connections.
    let accepts =
        account.waits.iter().filter(|wait| wait.class == Class::NetAccept).flat_map(|wait| &wait.ends);
    let accepted = accepts.map(|end| end.count).sum::<u64>() as f64 * 1e9 / account.window_ns as f64;
    if opened < OPENED_PER_S || resets < GIVEN_UP * opened || (!case.is_host && accepted < OPENED_PER_S) {
        return None;
    }
    let share = (resets / opened).min(1.0);
    let mut finding = Finding::new(
        Code::NetRetryStorm,
        share,
        format!("{opened:.0} connections a second are opened, and {} of them reset", percent(share)),
    )
    .proves("connections opened a second", opened, "/s", "signal tcp.opened")
    .proves("connections reset a second", resets, "/s", "signal tcp.resets");
    let work = case.flow.sum(|part| matches!(part.root, Root::OnCpu | Root::RunQueue));
    // Otherwise nobody is busy with what is given up.
    finding = finding.weighs(
        case.share(work) > 0.3,
        "of the demand, on CPUs or waiting for one",
        case.share(work) * 100.0,
        "%",
        "threads",
    );
    finding.processes = account.processes(case.flow.nodes(|part| part.at, |part| part.root == Root::OnCpu));
    // Those that are given up live too short to be listed: it is who opens them, and takes none.
    let accepting: HashSet<u32> = account
        .waits
        .iter()
        .filter(|wait| wait.class == Class::NetAccept)
        .map(|wait| account.nodes[wait.node].pid)
        .collect();
    let is_client = |node: &NodeId| {
        let node = &account.nodes[*node];
        node.members > 0 && !accepting.contains(&node.pid)
    };
    finding.culprits = account.processes((0..account.nodes.len()).filter(is_client));
    finding.gain_upper_bound = None;
    Some(finding)
}
