//! Too little memory.

use super::{is_reclaiming, rereads};
use crate::activity::Class;
use crate::verdict::code::Code;
use crate::verdict::detectors::{Case, percent};
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

/// From a tenth of the time on, more memory gains something that can be noticed.
const GATE: f64 = 0.1;
/// Pages swapped in a second below which swap is no more than a remainder of earlier times.
const SWAP_PER_S: f64 = 100.0;

pub(in crate::verdict) fn find(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let rereads = rereads(case);
    let swaps = account.signal("memory.swap_in").unwrap_or_default();
    let is_it = |part: &Part| match part.root {
        Root::Memory => true,
        Root::FaultIo | Root::Io(Class::IoRead) => rereads,
        _ => false,
    };
    let waits = case.flow.sum(is_it);
    let of_reclaim =
        account.running.iter().filter(|running| account.functions(running.stack).any(is_reclaiming));
    let on_cpu: u64 = of_reclaim.map(|running| running.ns).sum();
    let share = case.share(waits + on_cpu as f64);
    if share < GATE {
        return None;
    }
    let is_swap = swaps > SWAP_PER_S;
    let (code, what) = if is_swap {
        (Code::MemSwap, "for memory that was swapped out")
    } else {
        (Code::MemReclaim, "since memory is short: it is freed, and read again")
    };
    let hits = account.signal("group.memory_limit_hits").unwrap_or_default();
    let refaults = account.signal("memory.refaults").unwrap_or_default();
    let direct = account.signal("memory.direct_reclaim").unwrap_or_default();
    let mut finding =
        Finding::new(code, share, format!("threads spend {} of their time {what}", percent(share)))
            .proves(
                "of the demand, waiting for memory or reading it again",
                case.share(waits) * 100.0,
                "%",
                "threads",
            )
            .proves(
                "of the demand, freeing memory on the CPU",
                case.share(on_cpu as f64) * 100.0,
                "%",
                "CPU samples",
            )
            .weighs(
                refaults > 100.0 || direct > 0.0 || hits > 0.0 || is_swap,
                "pages read again a second",
                refaults,
                "/s",
                "signal memory.refaults",
            )
            .proves(
                "pages that processes must free themselves, a second",
                direct,
                "/s",
                "signal memory.direct_reclaim",
            )
            .proves(
                "times a second that a group met its limit",
                hits,
                "/s",
                "signal group.memory_limit_hits",
            );
    if is_swap {
        finding = finding.proves("pages swapped in a second", swaps, "/s", "signal memory.swap_in");
    }
    let stacks = account
        .waits
        .iter()
        .filter(|wait| {
            wait.class == Class::MemoryReclaim || wait.in_fault || (rereads && wait.class == Class::IoRead)
        })
        .map(|wait| (wait.stack, wait.ns));
    finding.functions = account.functions_of(stacks);
    finding.culprits = account.processes(case.flow.nodes(|part| part.at, is_it));
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.path = case.path(is_it);
    Some(finding)
}
