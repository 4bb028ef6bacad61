//! The network loses packets.

use super::LOST_PCT;
use crate::activity::Group;
use crate::verdict::code::Code;
use crate::verdict::detectors::Case;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root, Via};

/// Fewer a second are what any network loses.
const RETRANSMITS_PER_S: f64 = 5.0;
/// What an Ethernet packet carries.
const SEGMENT_BYTES: f64 = 1448.0;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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
