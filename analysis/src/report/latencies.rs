//! What took how long: run queues, block devices, memory, connections; with percentiles where each time was measured.

use super::Recorded;
use super::document::{Block, Cell, Table, name, text};
use crate::block::Latency;
use crate::durations::Durations;
use crate::units::{bytes, duration};

/// Rows of a table: those that come after take less than those that are told.
const MOST: usize = 12;
/// Shares of which the duration is told.
const SHARES: [f64; 4] = [0.5, 0.95, 0.99, 0.999];

/// A table for each source that has something to tell.
pub(super) fn blocks<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let tables = [
        run_queue(recorded),
        block_devices(recorded),
        held_bios(recorded),
        memory(recorded),
        connections(recorded),
    ];
    let told = tables.into_iter().flatten().filter(|table| !table.rows.is_empty());
    told.map(Block::Table).collect()
}

fn run_queue(recorded: &Recorded<'_>) -> Option<Table> {
    let processes = &recorded.profile.run_queue.as_ref()?.processes;
    let rows = processes.iter().map(|queue| {
        let mut row =
            vec![name(format!("{} ({})", queue.name, queue.id)), text(queue.latencies.count().to_string())];
        row.extend(percentiles(&queue.latencies));
        row.push(text(duration(queue.queued_ns)));
        row
    });
    Some(Table::new(
        "Waits for a CPU, by process",
        "run queue (every wait; percentiles are up to half above the true ones, the longest is exact)",
        &["process", "#waits", "#p50", "#p95", "#p99", "#p99.9", "#max", "#in all"],
        MOST,
        rows,
    ))
}

fn block_devices(recorded: &Recorded<'_>) -> Option<Table> {
    let block = recorded.profile.block.as_ref()?;
    let rows = block.by_device(false).into_iter().flat_map(|((device, operation), totals)| {
        let row = |part: &str, latency: &Latency| {
            let mut row = vec![
                name(device.printable()),
                text(operation.name()),
                text(totals.requests.to_string()),
                text(bytes(totals.bytes)),
                text(part),
            ];
            row.extend(percentiles(&latency.times));
            row
        };
        [row("device", &totals.device), row("queue", &totals.queue)]
    });
    Some(Table::new(
        "Requests of block devices, of the whole host",
        "block requests (every one; percentiles are up to a quarter above the true ones, the longest is exact)",
        &["device", "operation", "#requests", "#bytes", "time", "#p50", "#p95", "#p99", "#p99.9", "#max"],
        MOST,
        rows,
    ))
}

/// Bios that a group's limit held back, which the device never sees.
fn held_bios(recorded: &Recorded<'_>) -> Option<Table> {
    let rows = recorded.profile.block.as_ref()?.holds.iter().map(|hold| {
        let mut row = vec![
            name(hold.key.device.printable()),
            text(hold.key.operation.name()),
            name(&hold.key.owner.cgroup),
            text(hold.bios.to_string()),
            text(bytes(hold.bytes)),
        ];
        row.extend(percentiles(&hold.held.times));
        row
    });
    Some(Table::new(
        "Bios that a group's limit held back",
        "block requests (held bios; percentiles are up to a quarter above the true ones, the longest is exact)",
        &["device", "operation", "group", "#bios", "#bytes", "#p50", "#p95", "#p99", "#p99.9", "#max"],
        MOST,
        rows,
    ))
}

fn memory(recorded: &Recorded<'_>) -> Option<Table> {
    let mut processes: Vec<_> = recorded.profile.memory.as_ref()?.processes.iter().collect();
    processes.sort_by_key(|process| {
        let waited = process.fault_wait_ns.unwrap_or_default().saturating_add(process.reclaim.total_ns);
        std::cmp::Reverse((waited, process.major_faults, process.minor_faults))
    });
    let time = |ns: u64, count: u64| text(if count == 0 { "-".to_owned() } else { duration(ns) });
    let rows = processes.into_iter().map(|process| {
        let reclaim = &process.reclaim;
        let mut row = vec![
            name(format!("{} ({})", process.process_name, process.pid)),
            text(process.major_faults.to_string()),
            text(process.minor_faults.to_string()),
            text(process.fault_wait_ns.map_or_else(|| "-".to_owned(), duration)),
            text(reclaim.count.to_string()),
        ];
        row.extend(
            [reclaim.p50_ns, reclaim.p95_ns, reclaim.p99_ns, reclaim.max_ns]
                .map(|ns| time(ns, reclaim.count)),
        );
        row
    });
    Some(Table::new(
        "Page faults and reclaims, by process",
        "memory (every fault and direct reclaim; percentiles of reclaims are up to 3 % above the true ones)",
        &[
            "process",
            "#major faults",
            "#minor faults",
            "#waited in them",
            "#reclaims",
            "#p50",
            "#p95",
            "#p99",
            "#max",
        ],
        MOST,
        rows,
    ))
}

fn connections(recorded: &Recorded<'_>) -> Option<Table> {
    let rtt = |us: u32| text(duration(u64::from(us) * 1_000));
    let rows = recorded.profile.connections.iter().map(|connection| {
        vec![
            name(format!("{}-{}", connection.local, connection.remote)),
            name(&connection.process_name),
            text(bytes(connection.bytes_sent)),
            text(bytes(connection.bytes_received)),
            text(connection.retransmits.to_string()),
            rtt(connection.rtt_us),
            text(duration(connection.busy_ns)),
        ]
    });
    Some(Table::new(
        "TCP connections that carried most",
        "sockets (the kernel's statistics of each connection, as of the last look at it)",
        &[
            "connection",
            "process",
            "#sent",
            "#received",
            "#segments sent again",
            "#round trip",
            "#had to send",
        ],
        MOST,
        rows,
    ))
}

/// Those of [`SHARES`], and the longest.
fn percentiles(durations: &Durations) -> Vec<Cell> {
    let told = |ns: Option<u64>| text(ns.map_or_else(|| "-".to_owned(), duration));
    let longest = (durations.count() > 0).then_some(durations.max_ns);
    SHARES.iter().map(|share| durations.quantile_ns(*share)).chain([longest]).map(told).collect()
}
