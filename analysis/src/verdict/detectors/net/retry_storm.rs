//! Connections that are given up and opened again.

use crate::activity::Class;
use crate::verdict::account::NodeId;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::Root;
use std::collections::HashSet;

/// Fewer connections a second are no storm.
const OPENED_PER_S: f64 = 20.0;
/// A server may reset some; a third are given up.
const GIVEN_UP: f64 = 0.3;

/// Connections that are given up before they are of use, and opened again.
pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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
