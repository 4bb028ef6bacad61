//! What block devices did in a window: requests by device and operation, by process and group, and what held them up.

use crate::durations::Durations;
use crate::names;

/// The block devices of a host over a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// What was done, by device, operation, process and group. Those of a device add up to all that the device did.
    pub requests: Vec<Requests>,
    /// Requests that had not completed at the window's end, the oldest first.
    pub under_way: Vec<UnderWay>,
    /// Bios that were held back by the limit of a group, and came to the device in the window.
    pub holds: Vec<Hold>,
    /// Bios that were held back at the window's end.
    pub held: Vec<Held>,
    /// Whether what is [`Key::of_target`] is less than all of the host.
    pub has_target: bool,
}

/// A device, and a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Name of the whole device: `sda`, `dm-0`; its numbers where it is gone, empty where requests belong to none.
    pub name: String,
    /// Name of the partition; empty where requests are for the whole device.
    pub partition: String,
    /// What is behind the device, where it is not the device itself: the file of a loop device, the name of a mapped one.
    pub backing: String,
}

/// What a request asks of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Data from the device.
    Read,
    /// Data to the device.
    Write,
    /// The device's volatile cache is to be made durable.
    Flush,
    /// Sectors are not needed any more.
    Discard,
    /// Sectors are to read as zeros.
    WriteZeroes,
    /// Anything else.
    Other,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::WriteZeroes, Self::Other];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write-zeroes",
            Self::Other => "other",
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// Who requests come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// Process id of the submitter; 0 where none is known.
    pub pid: u32,
    /// Its name; empty where none is known.
    pub process_name: String,
    /// Id of the group that is charged, in the hierarchy of the io controller; 0 where it is not known. Of writeback it is the
    /// group that dirtied, where the kernel keeps that.
    pub cgroup_id: u64,
    /// Path of that group; empty where it is gone or not known.
    pub cgroup: String,
}

/// What requests and bios are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The device.
    pub device: Device,
    /// The operation.
    pub operation: Operation,
    /// Who they come from.
    pub owner: Owner,
    /// Whether they belong to the target.
    pub of_target: bool,
}

/// Requests of one device, operation and owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// Which.
    pub key: Key,
    /// What they came to.
    pub totals: Totals,
}

/// What requests came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests that completed.
    pub requests: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Those of them whose beginning or end was not seen, and whose times are not known.
    pub untimed: u64,
    /// Time from insertion into the queue to issue.
    pub queue: Latency,
    /// Time from issue to completion.
    pub device: Latency,
    /// Requests that began where the last one of the process on the device ended.
    pub sequential: u64,
    /// Requests that began elsewhere.
    pub random: u64,
    /// Requests that became part of others, which count in their place.
    pub merged: u64,
    /// Times that a device gave a request back.
    pub requeues: u64,
    /// Requests that failed, by kind. Kinds that did not occur are left out.
    pub errors: Vec<(String, u64)>,
}

impl Totals {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.untimed += other.untimed;
        self.queue.add(&other.queue);
        self.device.add(&other.device);
        self.sequential += other.sequential;
        self.random += other.random;
        self.merged += other.merged;
        self.requeues += other.requeues;
        for (kind, number) in &other.errors {
            match self.errors.iter_mut().find(|(known, _)| known == kind) {
                Some((_, sum)) => *sum += number,
                None => self.errors.push((kind.clone(), *number)),
            }
        }
    }

    /// Share of random requests among those of which it is known; `None` where it is known of none.
    #[must_use]
    pub fn random_share(&self) -> Option<f64> {
        let known = self.sequential + self.random;
        (known > 0).then(|| self.random as f64 / known as f64)
    }

    /// Requests that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.iter().map(|(_, number)| number).sum()
    }
}

/// Times, with their distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Their sum, nanoseconds.
    pub total_ns: u64,
    /// How long each was.
    pub times: Durations,
}

impl Latency {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.total_ns += other.total_ns;
        self.times.merge(&other.times);
    }
}

/// A request that had not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Which requests it belongs to.
    pub key: Key,
    /// Its size.
    pub bytes: u64,
    /// Time in the queue so far, nanoseconds.
    pub queue_ns: u64,
    /// Time at the device so far; `None` where it has not got there.
    pub device_ns: Option<u64>,
}

/// Bios of one owner that were held back by a limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// Which; the owner's group is the one whose limit, or whose ancestor's, held them.
    pub key: Key,
    /// Bios.
    pub bios: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Time they were held.
    pub held: Latency,
}

/// Bios of one owner that were still held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which; the owner's group is as for [`Hold`].
    pub key: Key,
    /// Bios.
    pub bios: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Time they were held so far, nanoseconds.
    pub held_ns: u64,
    /// The longest of it.
    pub held_max_ns: u64,
}

impl Device {
    /// Its name for people, without control characters.
    #[must_use]
    pub fn printable(&self) -> String {
        let name = if self.partition.is_empty() { &self.name } else { &self.partition };
        if name.is_empty() { "no device".to_owned() } else { names::printable(name) }
    }

    /// The whole device.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self { partition: String::new(), ..self.clone() }
    }
}

impl Block {
    /// What each device did, by operation; in the order of names.
    #[must_use]
    pub fn by_device(&self, of_target_alone: bool) -> Vec<((Device, Operation), Totals)> {
        self.grouped(of_target_alone, |requests| (requests.key.device.whole(), requests.key.operation))
    }

    /// What was done for each process, whatever it was; the one whose requests took their devices longest first.
    #[must_use]
    pub fn by_process(&self, of_target_alone: bool) -> Vec<((u32, String), Totals)> {
        let owner = |requests: &Requests| (requests.key.owner.pid, requests.key.owner.process_name.clone());
        longest_first(self.grouped(of_target_alone, owner))
    }

    /// The same for each group, by its id and path.
    #[must_use]
    pub fn by_cgroup(&self, of_target_alone: bool) -> Vec<((u64, String), Totals)> {
        let owner = |requests: &Requests| (requests.key.owner.cgroup_id, requests.key.owner.cgroup.clone());
        longest_first(self.grouped(of_target_alone, owner))
    }

    fn grouped<K: Ord>(&self, of_target_alone: bool, key: impl Fn(&Requests) -> K) -> Vec<(K, Totals)> {
        let mut groups = std::collections::BTreeMap::<K, Totals>::new();
        for requests in self.requests.iter().filter(|requests| requests.key.of_target || !of_target_alone) {
            groups.entry(key(requests)).or_default().add(&requests.totals);
        }
        groups.into_iter().collect()
    }
}

fn longest_first<K>(mut groups: Vec<(K, Totals)>) -> Vec<(K, Totals)> {
    groups.sort_by_key(|(_, totals)| {
        std::cmp::Reverse((totals.device.total_ns + totals.queue.total_ns, totals.requests))
    });
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(partition: &str, pid: u32, of_target: bool, device_ns: u64) -> Requests {
        Requests {
            key: Key {
                device: Device { name: "sda".into(), partition: partition.into(), backing: String::new() },
                operation: Operation::Read,
                owner: Owner { pid, process_name: "p".into(), ..Owner::default() },
                of_target,
            },
            totals: Totals {
                requests: 1,
                device: Latency { total_ns: device_ns, times: Durations::default() },
                errors: vec![("io".into(), 1)],
                ..Totals::default()
            },
        }
    }

    #[test]
    fn partitions_and_owners_add_up_to_their_device() {
        let block = Block {
            requests: vec![
                requests("", 1, true, 1024),
                requests("sda1", 2, false, 4096),
                requests("sda2", 1, true, 1024),
            ],
            has_target: true,
            ..Block::default()
        };
        let devices = block.by_device(false);
        assert_eq!(devices.len(), 1);
        assert_eq!((devices[0].1.requests, devices[0].1.failed()), (3, 3));
        assert_eq!(block.by_device(true)[0].1.requests, 2);
        let pids: Vec<u32> = block.by_process(false).iter().map(|((pid, _), _)| *pid).collect();
        assert_eq!(pids, [2, 1]);
        assert_eq!(block.by_process(true).len(), 1);
    }

    #[test]
    fn operations_are_known_by_name() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(operation));
        }
    }
}
