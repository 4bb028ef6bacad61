//! What block devices did, in the closing summary.

use std::fmt::{Result, Write as _};

use chokepoint_analysis::block::{Block, Latency, Owner, Totals};
use chokepoint_analysis::names;
use chokepoint_analysis::profile::Header;
use chokepoint_analysis::units::bytes;

use super::summary::Style;

/// Processes, groups and other owners listed of each kind.
const TOP: usize = 5;
/// Columns of a name.
const NAME: usize = 24;

/// Writes the tables: of the target, where there is one, and of all of each device.
pub(super) fn write(text: &mut String, block: &Block, header: &Header, style: Style) -> Result {
    let seconds = header.duration_ns as f64 / 1e9;
    if block.has_target {
        devices(
            text,
            block,
            true,
            seconds,
            &format!("block requests of {}", names::printable(&header.target)),
            style,
        )?;
        devices(text, block, false, seconds, "whole device, for comparison", style)?;
    } else {
        devices(text, block, false, seconds, "block device", style)?;
    }
    owners(text, block, style)?;
    holds(text, block, style)?;
    under_way(text, block, style)
}

fn devices(
    text: &mut String,
    block: &Block,
    of_target: bool,
    seconds: f64,
    title: &str,
    style: Style,
) -> Result {
    let devices = block.by_device(of_target);
    let Style { bold, dim, reset, warn } = style;
    if devices.is_empty() {
        return writeln!(text, "{dim}{title}: no requests completed{reset}");
    }
    writeln!(
        text,
        "{dim}{title}\n  device       operation    requests     bytes      IOPS  time      p50    p95    p99  p99.9    max  random{reset}"
    )?;
    for ((device, operation), totals) in devices {
        let random =
            totals.random_share().map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
        writeln!(
            text,
            "  {bold}{:12}{reset} {:12} {:8} {:>9} {:9.1}  device {}  {random:>6}",
            cut(&device.printable(), 12),
            operation.name(),
            totals.requests,
            bytes(totals.bytes),
            totals.requests as f64 / seconds.max(1e-9),
            percentiles(&totals.device),
        )?;
        writeln!(text, "  {:55}  queue  {}", "", percentiles(&totals.queue))?;
        for (kind, number) in &totals.errors {
            writeln!(text, "  {warn}{number} failed: {}{reset}", names::printable(kind))?;
        }
        for (number, what) in [
            (totals.merged, "became part of others in the queue"),
            (totals.requeues, "times the device gave one back to the queue"),
        ] {
            if number > 0 {
                writeln!(text, "  {dim}{number} {what}{reset}")?;
            }
        }
    }
    Ok(())
}

/// The processes and groups whose requests took longest.
fn owners(text: &mut String, block: &Block, Style { bold, dim, reset, .. }: Style) -> Result {
    let processes = block.by_process(block.has_target).into_iter().map(|((pid, name), totals)| {
        let name = match (pid, name.as_str()) {
            (0, _) => "no process".to_owned(),
            (pid, name) => format!("{} ({pid})", names::printable(name)),
        };
        (name, totals)
    });
    let groups =
        block.by_cgroup(block.has_target).into_iter().map(|((id, path), totals)| (group(id, &path), totals));
    let lists: [(&str, Vec<(String, Totals)>); 2] =
        [("submitted by", processes.take(TOP).collect()), ("charged to", groups.take(TOP).collect())];
    for (title, owners) in lists {
        if owners.is_empty() {
            continue;
        }
        writeln!(
            text,
            "{dim}  {title:NAME$} requests     bytes  at devices   p50    p95    p99  p99.9    max  random{reset}"
        )?;
        for (name, totals) in owners {
            let random = totals
                .random_share()
                .map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
            writeln!(
                text,
                "  {bold}{:NAME$}{reset} {:8} {:>9} {:>8} {}  {random:>6}",
                cut(&name, NAME),
                totals.requests,
                bytes(totals.bytes),
                time(totals.device.total_ns),
                percentiles(&totals.device),
            )?;
        }
    }
    Ok(())
}

/// What limits of groups held back, which no device tells.
fn holds(text: &mut String, block: &Block, Style { bold, reset, .. }: Style) -> Result {
    for hold in block.holds.iter().filter(|hold| hold.key.of_target || !block.has_target).take(TOP) {
        writeln!(
            text,
            "  {bold}held back by a limit{reset}: {} bios ({}, {} on {}) of {}, {}: {} in all, p50 {}, p99 {}, longest {}",
            hold.bios,
            bytes(hold.bytes),
            hold.key.operation.name(),
            hold.key.device.printable(),
            group(hold.key.owner.cgroup_id, &hold.key.owner.cgroup),
            process(&hold.key.owner),
            time(hold.held.total_ns),
            time(hold.held.times.quantile_ns(0.5).unwrap_or_default()),
            time(hold.held.times.quantile_ns(0.99).unwrap_or_default()),
            time(hold.held.times.max_ns),
        )?;
    }
    for held in block.held.iter().filter(|held| held.key.of_target || !block.has_target).take(TOP) {
        writeln!(
            text,
            "  {bold}still held back by a limit{reset}: {} bios ({}, {} on {}) of {}, {}: {} in all so far, longest {}",
            held.bios,
            bytes(held.bytes),
            held.key.operation.name(),
            held.key.device.printable(),
            group(held.key.owner.cgroup_id, &held.key.owner.cgroup),
            process(&held.key.owner),
            time(held.held_ns),
            time(held.held_max_ns),
        )?;
    }
    Ok(())
}

fn under_way(text: &mut String, block: &Block, Style { bold, dim, reset, .. }: Style) -> Result {
    let mut requests = block.under_way.iter().filter(|request| request.key.of_target || !block.has_target);
    let number = requests.clone().count();
    if number == 0 {
        return Ok(());
    }
    writeln!(text, "{dim}  {number} requests under way at the end, the oldest of them:{reset}")?;
    requests.by_ref().take(TOP).try_for_each(|request| {
        let at_device = match request.device_ns {
            Some(ns) => format!("{} at the device so far", time(ns)),
            None => "not issued yet".to_owned(),
        };
        writeln!(
            text,
            "  {bold}{}{reset} {} of {}, {} ({}): {} in the queue, {at_device}",
            request.key.device.printable(),
            request.key.operation.name(),
            bytes(request.bytes),
            names::printable(&request.key.owner.process_name),
            request.key.owner.pid,
            time(request.queue_ns),
        )
    })
}

fn process(owner: &Owner) -> String {
    match owner.pid {
        0 => "process not known".to_owned(),
        pid => format!("{} ({pid})", names::printable(&owner.process_name)),
    }
}

fn group(id: u64, path: &str) -> String {
    match (id, path) {
        (0, _) => "no group".to_owned(),
        (id, "") => format!("group {id}, gone"),
        (_, path) => names::printable(path),
    }
}

fn percentiles(latency: &Latency) -> String {
    let mut text = String::new();
    for share in [0.5, 0.95, 0.99, 0.999] {
        let _ = write!(text, "{:>6} ", latency.times.quantile_ns(share).map_or_else(|| "-".to_owned(), time));
    }
    let max = if latency.times.count() == 0 { "-".to_owned() } else { time(latency.times.max_ns) };
    let _ = write!(text, "{max:>6}");
    text
}

/// A time in at most six columns.
fn time(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    match us {
        us if us < 9.95 => format!("{us:.1}µs"),
        us if us < 999.5 => format!("{us:.0}µs"),
        us if us < 9_950.0 => format!("{:.1}ms", us / 1e3),
        us if us < 999_500.0 => format!("{:.0}ms", us / 1e3),
        us if us < 99_500_000.0 => format!("{:.1}s", us / 1e6),
        us => format!("{:.0}s", us / 1e6),
    }
}

/// The end of a long name is what tells it from others.
fn cut(name: &str, columns: usize) -> String {
    let length = name.chars().count();
    if length <= columns {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(length - (columns - 1)).collect();
    format!("…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fit_their_columns() {
        for (ns, expected) in [
            (0, "0.0µs"),
            (9_940, "9.9µs"),
            (9_960, "10µs"),
            (999_600, "1.0ms"),
            (9_960_000, "10ms"),
            (999_600_000, "1.0s"),
            (1_800_000_000_000, "1800s"),
        ] {
            assert_eq!(time(ns), expected);
            assert!(time(ns).chars().count() <= 6);
        }
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(cut("/kubepods.slice/pod-17", 10), "…ce/pod-17");
        assert_eq!(cut("sda", 10), "sda");
    }
}
