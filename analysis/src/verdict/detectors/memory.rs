//! Constraints of memory: too little of it, or too many pages touched for the first time.

use super::{Case, percent};
use crate::activity::Class;
use crate::kernel_frames;
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

/// From a tenth of the time on, more memory gains something that can be noticed.
const GATE: f64 = 0.1;
/// Of the pages that are read, at least so many had been in memory before: most of the reads are for want of it.
const REREAD: f64 = 0.5;
/// A page has 4 KiB, and what is read is counted in bytes.
const PAGE_BYTES: f64 = 4096.0;
/// Pages swapped in a second below which swap is no more than a remainder of earlier times.
const SWAP_PER_S: f64 = 100.0;
/// Of the CPU time, faults take so much only where pages are touched once and given back.
const FAULTS: f64 = 0.3;

/// Whether most of what is read from devices had been in memory before.
pub(super) fn rereads(case: &Case<'_>) -> bool {
    let account = case.account;
    let refaults = account.signal("memory.refaults").unwrap_or_default();
    let read = account.signal("block.read_bytes").unwrap_or_default() / PAGE_BYTES;
    // The host's counter may be of others. Whose reads are for want of memory has to free some for them.
    let frees = case.is_host
        || account.waits.iter().any(|wait| wait.class == Class::MemoryReclaim)
        || account.running.iter().any(|running| account.functions(running.stack).any(is_reclaiming));
    // A hundred a second are 0.4 MB/s: less is no thrashing.
    refaults > 100.0 && refaults >= REREAD * read && frees
}

/// Whether a function of the kernel frees memory, or gets back what was freed.
fn is_reclaiming(function: &str) -> bool {
    function.starts_with("shrink_")
        || function.starts_with("try_to_free_")
        || matches!(function, "do_swap_page" | "swap_writepage")
}

pub(super) fn reclaim(case: &Case<'_>) -> Option<Finding> {
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

pub(super) fn faults(case: &Case<'_>) -> Option<Finding> {
    let account = case.account;
    let all: u64 = account.running.iter().map(|running| running.ns).sum();
    let faulting: Vec<_> = account
        .running
        .iter()
        .filter(|running| running.in_kernel && account.functions(running.stack).any(kernel_frames::is_fault))
        .collect();
    let in_faults: u64 = faulting.iter().map(|running| running.ns).sum();
    let part = in_faults as f64 / all.max(1) as f64;
    let on_cpu = case.flow.sum(|part| part.root == Root::OnCpu);
    let share = case.share(on_cpu * part);
    if part < FAULTS || share < 0.15 {
        return None;
    }
    let mut finding = Finding::new(
        Code::MemFault,
        share,
        format!("{} of the CPU time goes into page faults", percent(part)),
    )
    .proves("of the CPU time, in page faults", part * 100.0, "%", "CPU samples");
    // Windows of a baseline are not counted in.
    if let Some(memory) = &account.profile.memory {
        let seconds = account.window_ns as f64 / 1e9;
        let (minor, major) = memory.processes.iter().fold((0, 0), |(minor, major), process| {
            (minor + process.minor_faults, major + process.major_faults)
        });
        finding = finding
            .weighs(minor > 1000, "page faults a second", minor as f64 / seconds, "/s", "page faults")
            .weighs(
                major * 10 < minor.max(1),
                "of them, read from a device",
                major as f64 / seconds,
                "/s",
                "page faults",
            );
    }
    let stacks = faulting.iter().map(|running| (running.stack, running.ns));
    finding.functions = account.functions_of(stacks);
    let mut nodes: Vec<_> = faulting.iter().map(|running| running.node).collect();
    nodes.dedup();
    (finding.processes, finding.culprits) =
        (account.processes(nodes.iter().copied()), account.processes(nodes));
    Some(finding)
}
