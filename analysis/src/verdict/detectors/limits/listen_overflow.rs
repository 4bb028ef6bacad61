//! Connections that may wait to be accepted.

use super::found;
use crate::verdict::code::Code;
use crate::verdict::detectors::Case;
use crate::verdict::finding::Finding;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
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
