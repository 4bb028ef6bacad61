//! Latencies as lines of text, for the screen and for pipes.

use chokepoint_analysis::durations::Durations;

use super::columns::whole;
use super::fitted::{cut, cut_left, pad, printable};
use super::latencies::{By, DiskRow, QueueRow};
use super::snapshot::Snapshot;

/// Width of a time, the gap before it included.
const TIME_WIDTH: usize = 7;
/// Of a number a second.
const RATE_WIDTH: usize = 7;
/// Of a process id, without a gap.
const ID_WIDTH: usize = 7;
/// Of what is asked of a device, the gap included.
const OPERATION_WIDTH: usize = 9;
/// Quantiles of run queues.
const QUANTILES: [(&str, f64); 4] = [("P50", 0.5), ("P95", 0.95), ("P99", 0.99), ("P99.9", 0.999)];
/// Width of the numbers of a line.
const QUEUE_NUMBERS: usize = 2 * RATE_WIDTH + 5 * TIME_WIDTH;
const DISK_NUMBERS: usize = 2 * RATE_WIDTH + 6 * TIME_WIDTH;

/// The heading of run queues.
#[must_use]
pub fn queue_title(by: By, width: usize) -> String {
    let name = match by {
        By::Cgroup => "CGROUP".to_owned(),
        By::Process | By::Device => format!("{:>ID_WIDTH$} PROCESS", "PID"),
    };
    let quantiles = QUANTILES.map(|(name, _)| format!("{name:>TIME_WIDTH$}"));
    let name = pad(&name, width.saturating_sub(QUEUE_NUMBERS));
    format!("{name}{:>RATE_WIDTH$}{:>RATE_WIDTH$}{}{:>TIME_WIDTH$}", "RUNQ", "N/s", quantiles.concat(), "MAX")
}

/// How long the threads of a process or cgroup queued: per cent of the window, how often a second, and how long each time.
#[must_use]
pub fn queue_line(row: &QueueRow, snapshot: &Snapshot, width: usize) -> String {
    let name = name(row.pid, &row.name, width.saturating_sub(QUEUE_NUMBERS));
    let quantiles = QUANTILES.map(|(_, share)| quantile(&row.latencies, share));
    format!(
        "{name}{:>RATE_WIDTH$.1}{:>RATE_WIDTH$}{}{:>TIME_WIDTH$}",
        snapshot.pct(row.queued_ns),
        per_s(row.latencies.count(), snapshot),
        quantiles.concat(),
        time(row.latencies.max_ns),
    )
}

/// The heading of block devices. `Q` is the time in the device's queue, `D` that with the device.
#[must_use]
pub fn disk_title(by: By, width: usize) -> String {
    let room = width.saturating_sub(DISK_NUMBERS);
    let name = match by {
        By::Device => {
            format!("{}{:<OPERATION_WIDTH$}", pad("DEVICE", room.saturating_sub(OPERATION_WIDTH)), "ASKED")
        }
        By::Process => format!("{:>ID_WIDTH$} PROCESS", "PID"),
        By::Cgroup => "CGROUP".to_owned(),
    };
    let times =
        ["Q P50", "Q P99", "D P50", "D P99", "MAX", "HELD"].map(|title| format!("{title:>TIME_WIDTH$}"));
    format!("{}{:>RATE_WIDTH$}{:>RATE_WIDTH$}{}", pad(&name, room), "REQ/s", "MB/s", times.concat())
}

/// The requests of a device, process or cgroup: how many and how large a second, their times, the longest of them with what is not over,
/// and the longest that a limit held something back.
#[must_use]
pub fn disk_line(row: &DiskRow, snapshot: &Snapshot, width: usize) -> String {
    let room = width.saturating_sub(DISK_NUMBERS);
    let name = match row.operation {
        Some(operation) => {
            let name = cut(&printable(&row.name), room.saturating_sub(OPERATION_WIDTH + 1));
            let operation = cut(operation.name(), OPERATION_WIDTH - 1);
            format!("{}{operation:<OPERATION_WIDTH$}", pad(&name, room.saturating_sub(OPERATION_WIDTH)))
        }
        None => name(row.pid, &row.name, room),
    };
    let totals = &row.totals;
    let megabytes = totals.bytes as f64 / 1e6 / snapshot.length.as_secs_f64().max(1e-9);
    let times = [(&totals.queue, 0.5), (&totals.queue, 0.99), (&totals.device, 0.5), (&totals.device, 0.99)]
        .map(|(latency, share)| quantile(&latency.times, share));
    format!(
        "{name}{:>RATE_WIDTH$}{megabytes:>RATE_WIDTH$.1}{}{:>TIME_WIDTH$}{:>TIME_WIDTH$}",
        per_s(totals.requests, snapshot),
        times.concat(),
        time(row.longest_ns),
        time(row.longest_held_ns),
    )
}

fn name(pid: Option<u32>, name: &str, width: usize) -> String {
    let name = printable(name);
    match pid {
        Some(pid) => {
            pad(&format!("{pid:>ID_WIDTH$} {}", cut(&name, width.saturating_sub(ID_WIDTH + 2))), width)
        }
        None => pad(&cut_left(&name, width.saturating_sub(1)), width),
    }
}

fn per_s(number: u64, snapshot: &Snapshot) -> String {
    whole(number as f64 / snapshot.length.as_secs_f64().max(1e-9))
}

fn quantile(times: &Durations, share: f64) -> String {
    format!("{:>TIME_WIDTH$}", times.quantile_ns(share).map_or_else(|| ".".to_owned(), time))
}

/// A time in at most six characters; a dot for none.
fn time(ns: u64) -> String {
    let three = |value: f64, unit: &str| match value {
        _ if value < 9.995 => format!("{value:.2}{unit}"),
        _ if value < 99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    };
    match ns as f64 {
        0.0 => ".".to_owned(),
        ns if ns < 999_500.0 => three(ns / 1e3, "µs"),
        ns if ns < 999_500_000.0 => three(ns / 1e6, "ms"),
        ns => three(ns / 1e9, "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_analysis::block::{Latency, Operation, Totals};
    use std::time::Duration;

    #[test]
    fn times_have_three_digits_in_six_characters() {
        let shown =
            [0, 1, 950, 9_994, 9_996, 99_960, 999_400, 999_600, 12_345_678, 999_600_000, 61_000_000_000];
        let expected = [
            ".", "0.00µs", "0.95µs", "9.99µs", "10.0µs", "100µs", "999µs", "1.00ms", "12.3ms", "1.00s",
            "61.0s",
        ];
        assert_eq!(shown.map(time), expected);
    }

    #[test]
    fn lines_stand_below_their_headings_at_eighty_columns() {
        let snapshot = Snapshot { length: Duration::from_secs(1), ..Snapshot::default() };
        let mut times = Durations::default();
        (1..=100).for_each(|ms| times.add(ms * 1_000_000));
        let queue = QueueRow {
            pid: Some(4_194_304),
            name: "a-process-with-a-long-name".to_owned(),
            queued_ns: 12_345_000_000,
            latencies: times.clone(),
        };
        let latency = Latency { total_ns: 1, times };
        let disk = |pid, operation, name: &str| DiskRow {
            pid,
            name: name.to_owned(),
            operation,
            totals: Totals {
                requests: 12_345,
                bytes: 987_654_321,
                queue: latency.clone(),
                device: latency.clone(),
                ..Totals::default()
            },
            longest_ns: 61_000_000_000,
            longest_held_ns: 0,
        };
        let group = "/kubepods.slice/kubepods-burstable.slice/a-very-long-name.scope";
        let lines = [
            queue_title(By::Process, 80),
            queue_line(&queue, &snapshot, 80),
            queue_title(By::Cgroup, 80),
            queue_line(&QueueRow { pid: None, name: group.to_owned(), ..queue.clone() }, &snapshot, 80),
            disk_title(By::Device, 80),
            disk_line(&disk(None, Some(Operation::WriteZeroes), "nvme10n1"), &snapshot, 80),
            disk_title(By::Process, 80),
            disk_line(&disk(Some(4_194_304), None, "a-process-with-a-long-name"), &snapshot, 80),
            disk_title(By::Cgroup, 80),
            disk_line(&disk(None, None, group), &snapshot, 80),
        ];
        assert_eq!(lines.clone().map(|line| line.chars().count()), [80; 10], "{lines:#?}");
        assert!(lines[1].contains(" 1234.5    100 ") && lines[1].ends_with("  100ms"), "{lines:#?}");
    }
}
