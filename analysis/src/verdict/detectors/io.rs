//! Constraints of block devices, and of limits on them.

use super::{Case, percent};
use crate::activity::Class;
use crate::block::{Latency, Totals};
use crate::verdict::code::Code;
use crate::verdict::finding::Finding;
use crate::verdict::flow::{Part, Root};

/// Of waits for a device, less than this leaves others to be looked at first.
const GATE: f64 = 0.3;
/// Writers that are held back wait for the same device as all, so that less is told.
const DIRTY_GATE: f64 = 0.1;
/// Where limits hold bios for so much of the wait, it is not the device.
const HELD: f64 = 0.5;
/// A wait that is so many times longer than what nearly all requests take is not explained by the device.
const UNEXPLAINED: f64 = 5.0;
/// Where waits are so many times the requests, threads wait together for what one of them asked for.
const TOGETHER: u64 = 2;
/// Fewer requests have no 95th percentile.
const MIN_REQUESTS: u64 = 20;

pub(super) fn find(case: &Case<'_>) -> Option<Finding> {
    let classes = [
        (Class::IoRead, Code::IoRead, "reads from"),
        (Class::IoWrite, Code::IoWrite, "writes to"),
        (Class::IoSync, Code::IoSyncWrite, "data to be safe on"),
        (Class::IoDirtyThrottled, Code::IoDirtyThrottle, "earlier writes to reach"),
    ];
    // Pages of files that are mapped are read like others, if not for want of memory; what a flush runs is part of it.
    let is_of = |class: Class, part: &Part| match part.root {
        Root::Io(of) => of == class,
        Root::FaultIo => class == Class::IoRead,
        Root::Flushing => class == Class::IoSync,
        _ => false,
    };
    let time = |class| case.flow.sum(|part| is_of(class, part));
    let (class, code, what) = classes.into_iter().max_by(|a, b| time(a.0).total_cmp(&time(b.0)))?;
    let is_it = |part: &Part| is_of(class, part);
    let wait_ns = time(class);
    let share = case.share(wait_ns);
    let gate = if class == Class::IoDirtyThrottled { DIRTY_GATE } else { GATE };
    if share < gate || (class == Class::IoRead && super::memory::rereads(case)) {
        return None;
    }
    let account = case.account;
    let block = account.profile.block.as_ref();
    // Data is made safe, and earlier writes are written, by threads of the kernel's own.
    let is_of_others = matches!(class, Class::IoSync | Class::IoDirtyThrottled);
    let mut totals = Totals::default();
    let mut devices: Vec<(String, u64)> = Vec::new();
    for requests in block
        .iter()
        .flat_map(|block| &block.requests)
        .filter(|requests| case.is_host || is_of_others || requests.key.of_target)
    {
        totals.add(&requests.totals);
        let (name, ns) = (requests.key.device.printable(), requests.totals.device.total_ns);
        match devices.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += ns,
            None => devices.push((name, ns)),
        }
    }
    devices.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    let device = devices.first().map_or_else(|| "a device".to_owned(), |(name, _)| name.clone());
    // Of the threads that ask the device themselves; others may wait for them.
    let own_ns: u64 = account.waits.iter().filter(|wait| wait.class == class).map(|wait| wait.ns).sum();
    let own_ns = own_ns.max(1) as f64;
    let held_ns = held_ns(case);
    let at_device = (totals.device.total_ns + totals.queue.total_ns) as f64;
    let (mean_ns, waits) = mean_wait_ns(case, class);
    let slowest_ns = totals.device.times.quantile_ns(0.95).unwrap_or_default() as f64
        + totals.queue.times.quantile_ns(0.95).unwrap_or_default() as f64;
    // A read or write waits for its own request; for a flush of others' data threads may wait together, and then there are more waits
    // than requests.
    let is_longer = mean_ns > UNEXPLAINED * slowest_ns
        || (own_ns > UNEXPLAINED * at_device && waits <= TOGETHER * totals.requests);
    let is_unexplained =
        matches!(class, Class::IoRead | Class::IoWrite) && totals.requests >= MIN_REQUESTS && is_longer;
    let is_held = held_ns > HELD * own_ns || is_unexplained;
    let (code, summary) = if is_held && class != Class::IoDirtyThrottled {
        let summary = format!(
            "a limit of a control group holds I/O to {device} back for {} of the time",
            percent(share)
        );
        (Code::IoThrottle, summary)
    } else {
        (code, format!("threads wait {} of their time for {what} {device}", percent(share)))
    };
    let mut finding = Finding::new(code, share, summary).proves(
        format!("of the demand, waiting for {what} a device"),
        share * 100.0,
        "%",
        "threads",
    );
    let flushing = case.flow.sum(|part| part.root == Root::Flushing);
    if class == Class::IoSync && flushing > 0.0 {
        let what = "of the demand, on a CPU or in the queue for one within flushes";
        finding = finding.proves(what, case.share(flushing) * 100.0, "%", "threads");
    }
    if block.is_some() {
        let explained = at_device / own_ns;
        if is_held {
            finding = finding
                .proves("time that limits held I/O, of the wait", held_ns / own_ns * 100.0, "%", "held bios")
                .proves("a wait, on average", mean_ns / 1e6, "ms", "threads")
                .proves("95 % of the requests take at most", slowest_ns / 1e6, "ms", "block requests");
        } else {
            // Several waits may be for one request, and a request may be waited for by nobody.
            finding = finding.weighs(
                explained > 0.3,
                "time in the queue and at the device, of the wait",
                explained * 100.0,
                "%",
                "block requests",
            );
        }
        finding = finding.proves("requests", totals.requests as f64, "1", "block requests");
        for (share, name) in [(0.5, "median"), (0.95, "95th percentile")] {
            if let Some(ns) = totals.device.times.quantile_ns(share) {
                finding = finding.proves(
                    format!("latency of the device, {name}"),
                    ns as f64 / 1e6,
                    "ms",
                    "block requests",
                );
            }
        }
        finding = queue(finding, &totals.queue);
    }
    if let Some(pressure) = account.signal("block.pressure") {
        finding =
            finding.proves("time in which somebody waited for I/O", pressure, "%", "signal block.pressure");
    }
    finding.functions = account.waiting_functions(|wait| wait.class == class);
    let nodes = case.flow.nodes(|part| part.at, is_it);
    finding.culprits = account.processes(nodes);
    finding.processes = account.processes(case.flow.nodes(|part| part.from, is_it));
    finding.path = case.path(is_it);
    finding.path.push(device);
    Some(finding)
}

fn queue(finding: Finding, queue: &Latency) -> Finding {
    match queue.times.quantile_ns(0.95) {
        Some(ns) => {
            finding.proves("time in the queue, 95th percentile", ns as f64 / 1e6, "ms", "block requests")
        }
        None => finding,
    }
}

/// How long a wait of this class is on average, and how many there were, of those whose end was seen.
fn mean_wait_ns(case: &Case<'_>, class: Class) -> (f64, u64) {
    let waits = case.account.waits.iter().filter(|wait| wait.class == class);
    let ends = waits.flat_map(|wait| &wait.ends).filter(|end| end.count > 0);
    let (ns, count) = ends.fold((0, 0), |(ns, count), end| (ns + end.ns, count + end.count));
    (ns as f64 / count.max(1) as f64, count)
}

/// Time that limits held back bios of the target.
fn held_ns(case: &Case<'_>) -> f64 {
    let Some(block) = &case.account.profile.block else { return 0.0 };
    let is_its = |of_target: bool| case.is_host || of_target;
    let ended: u64 =
        block.holds.iter().filter(|hold| is_its(hold.key.of_target)).map(|hold| hold.held.total_ns).sum();
    let under_way: u64 =
        block.held.iter().filter(|held| is_its(held.key.of_target)).map(|held| held.held_ns).sum();
    (ended + under_way) as f64
}
