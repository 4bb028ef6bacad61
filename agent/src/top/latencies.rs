//! How long threads queued for a CPU and requests took with their devices, in a window: by process, by cgroup and by device.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use chokepoint_analysis::block::{Block, Key, Operation, Totals};
use chokepoint_analysis::durations::Durations;

use super::snapshot::Snapshot;

/// What latencies are summed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A device, and what is asked of it.
    Device,
    /// A process.
    Process,
    /// A cgroup.
    Cgroup,
}

impl By {
    /// What run queues may be summed by.
    pub const OF_QUEUES: [Self; 2] = [Self::Process, Self::Cgroup];
    /// What requests may be summed by.
    pub const OF_DISKS: [Self; 3] = [Self::Device, Self::Process, Self::Cgroup];

    /// The one after it.
    #[must_use]
    pub fn next(self, among: &[Self]) -> Self {
        let at = among.iter().position(|by| *by == self).unwrap_or_default();
        among[(at + 1) % among.len()]
    }
}

/// How long the threads of a process queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Process id; 0 for all that were too many.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Path of its cgroup.
    pub cgroup: Arc<str>,
    /// Time that its threads queued, nanoseconds.
    pub queued_ns: u64,
    /// How long each time was that ended in the window.
    pub latencies: Durations,
}

/// Run-queue latencies of a process or cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRow {
    /// The process; `None` of a cgroup.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
    /// Time that its threads queued, nanoseconds.
    pub queued_ns: u64,
    /// How long each time was that ended in the window.
    pub latencies: Durations,
}

/// The run queue's rows, those that queued longest first.
#[must_use]
pub fn queue_rows(snapshot: &Snapshot, by: By) -> Vec<QueueRow> {
    let mut rows: HashMap<(u32, &str), QueueRow> = HashMap::new();
    for queued in &snapshot.queues {
        let (key, pid, name) = match by {
            By::Cgroup => ((0, &*queued.cgroup), None, snapshot.groups.name(&queued.cgroup)),
            By::Process | By::Device => ((queued.pid, ""), Some(queued.pid), &*queued.name),
        };
        let row = rows.entry(key).or_insert_with(|| QueueRow {
            pid,
            name: name.to_owned(),
            queued_ns: 0,
            latencies: Durations::default(),
        });
        row.queued_ns += queued.queued_ns;
        row.latencies.merge(&queued.latencies);
    }
    let mut rows: Vec<QueueRow> = rows.into_values().filter(|row| row.queued_ns > 0).collect();
    rows.sort_by(|one, other| {
        let order = |row: &QueueRow| (Reverse(row.queued_ns), row.pid);
        order(one).cmp(&order(other)).then_with(|| one.name.cmp(&other.name))
    });
    rows
}

/// Requests of a device, process or cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskRow {
    /// The process; `None` of devices and cgroups.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
    /// What was asked of the device; `None` of processes and cgroups.
    pub operation: Option<Operation>,
    /// The requests that ended in the window.
    pub totals: Totals,
    /// The longest time of a request in the queue or with the device, nanoseconds; of those that are not over, their time so far.
    pub longest_ns: u64,
    /// The longest that a limit held something back, nanoseconds; of what it still holds, the time so far. 0 where it held nothing.
    pub longest_held_ns: u64,
}

/// The rows of block devices, those first whose requests took longest together, with what is not over. Of a target, its requests
/// alone.
#[must_use]
pub fn disk_rows(snapshot: &Snapshot, by: By) -> Vec<DiskRow> {
    let Some(block) = &snapshot.block else { return Vec::new() };
    let mut rows = Rows { snapshot, by, rows: HashMap::new() };
    rows.add_all(block);
    let mut rows: Vec<(u64, DiskRow)> = rows.rows.into_values().collect();
    rows.sort_by(|(one_ns, one), (other_ns, other)| {
        let order = |row: &DiskRow| (row.pid, row.operation);
        (other_ns.cmp(one_ns))
            .then_with(|| one.name.cmp(&other.name))
            .then_with(|| order(one).cmp(&order(other)))
    });
    rows.into_iter().map(|(_, row)| row).collect()
}

#[derive(PartialEq, Eq, Hash)]
enum RowKey<'a> {
    Device(&'a str, Operation),
    Process(u32),
    Cgroup(&'a str),
}

struct Rows<'a> {
    snapshot: &'a Snapshot,
    by: By,
    /// With the time that each is sorted by.
    rows: HashMap<RowKey<'a>, (u64, DiskRow)>,
}

impl<'a> Rows<'a> {
    fn add_all(&mut self, block: &'a Block) {
        for requests in block.requests.iter().filter(|requests| requests.key.of_target) {
            let (time_ns, row) = self.at(&requests.key);
            let totals = &requests.totals;
            *time_ns += totals.queue.total_ns + totals.device.total_ns;
            row.longest_ns = row.longest_ns.max(totals.device.times.max_ns).max(totals.queue.times.max_ns);
            row.totals.add(totals);
        }
        for request in block.under_way.iter().filter(|request| request.key.of_target) {
            let so_far_ns = request.queue_ns + request.device_ns.unwrap_or_default();
            let (time_ns, row) = self.at(&request.key);
            *time_ns += so_far_ns;
            row.longest_ns = row.longest_ns.max(request.queue_ns).max(request.device_ns.unwrap_or_default());
        }
        for hold in block.holds.iter().filter(|hold| hold.key.of_target) {
            let (time_ns, row) = self.at(&hold.key);
            *time_ns += hold.held.total_ns;
            row.longest_held_ns = row.longest_held_ns.max(hold.held.times.max_ns);
        }
        for held in block.held.iter().filter(|held| held.key.of_target) {
            let (time_ns, row) = self.at(&held.key);
            *time_ns += held.held_ns;
            row.longest_held_ns = row.longest_held_ns.max(held.held_max_ns);
        }
    }

    fn at(&mut self, key: &'a Key) -> &mut (u64, DiskRow) {
        let Key { device, operation, owner, .. } = key;
        let (row_key, pid, name, operation) = match self.by {
            By::Device => {
                (RowKey::Device(&device.name, *operation), None, device.whole().printable(), Some(*operation))
            }
            By::Process => (RowKey::Process(owner.pid), Some(owner.pid), process_name(key), None),
            By::Cgroup => {
                let name = match self.snapshot.groups.name(&owner.cgroup) {
                    "" => "[unknown]".to_owned(),
                    name => name.to_owned(),
                };
                (RowKey::Cgroup(&owner.cgroup), None, name, None)
            }
        };
        self.rows.entry(row_key).or_insert_with(|| {
            let row = DiskRow {
                pid,
                name,
                operation,
                totals: Totals::default(),
                longest_ns: 0,
                longest_held_ns: 0,
            };
            (0, row)
        })
    }
}

/// Flushes are made of many processes', and of some requests nobody knows whose they are.
fn process_name(key: &Key) -> String {
    if key.owner.pid == 0 { "[no process]".to_owned() } else { key.owner.process_name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_analysis::block::{Device, Held, Latency, Owner, Requests, UnderWay};

    fn durations(all_ns: &[u64]) -> Durations {
        let mut durations = Durations::default();
        all_ns.iter().for_each(|ns| durations.add(*ns));
        durations
    }

    fn queued(pid: u32, cgroup: &str, all_ns: &[u64]) -> Queued {
        let (name, queued_ns) = (format!("p{pid}"), all_ns.iter().sum());
        Queued { pid, name, cgroup: cgroup.into(), queued_ns, latencies: durations(all_ns) }
    }

    #[test]
    fn queueing_adds_up_by_process_and_by_cgroup() {
        let queues = vec![
            queued(1, "/a", &[10, 20]),
            queued(2, "/b", &[50]),
            queued(3, "/a", &[30]),
            queued(4, "/c", &[]),
        ];
        let snapshot = Snapshot { queues, ..Snapshot::default() };
        let told = |by| {
            let rows = queue_rows(&snapshot, by);
            rows.iter()
                .map(|row| format!("{} {} {}", row.name, row.queued_ns, row.latencies.count()))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(By::Process), ["p2 50 1", "p1 30 2", "p3 30 1"]);
        assert_eq!(told(By::Cgroup), ["/a 60 3", "/b 50 1"]);
    }

    fn key(device: &str, operation: Operation, pid: u32, of_target: bool) -> Key {
        let device = Device { name: device.into(), ..Device::default() };
        let owner = Owner { pid, process_name: format!("p{pid}"), cgroup: "/a".into(), ..Owner::default() };
        Key { device, operation, owner, of_target }
    }

    #[test]
    fn what_is_not_over_counts_with_its_time_so_far() {
        let requests = |device: &str, pid, all_ns: &[u64], of_target| Requests {
            key: key(device, Operation::Read, pid, of_target),
            totals: Totals {
                requests: all_ns.len() as u64,
                device: Latency { total_ns: all_ns.iter().sum(), times: durations(all_ns) },
                ..Totals::default()
            },
        };
        let block = Block {
            requests: vec![
                requests("vda", 1, &[100, 300], true),
                requests("vda", 2, &[200], true),
                requests("vda", 3, &[999], false),
            ],
            under_way: vec![UnderWay {
                key: key("vdb", Operation::Write, 1, true),
                bytes: 512,
                queue_ns: 5_000,
                device_ns: Some(1_000),
            }],
            held: vec![Held {
                key: key("vda", Operation::Read, 2, true),
                bios: 2,
                bytes: 1024,
                held_ns: 50,
                held_max_ns: 40,
            }],
            ..Block::default()
        };
        let snapshot = Snapshot { block: Some(block), ..Snapshot::default() };
        let told = |by| {
            let rows = disk_rows(&snapshot, by);
            let line = |row: &DiskRow| {
                format!("{} {} {} {}", row.name, row.totals.requests, row.longest_ns, row.longest_held_ns)
            };
            rows.iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(told(By::Device), ["vdb 0 5000 0", "vda 3 300 40"]);
        assert_eq!(told(By::Process), ["p1 2 5000 0", "p2 1 200 40"]);
        assert_eq!(told(By::Cgroup), ["/a 3 5000 40"]);
    }
}
