//! The format's section of block devices.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ReadError;
use super::durations::{self, Bucket};
use crate::block::{self, Operation};

#[derive(Serialize, Deserialize)]
pub(super) struct Block<'p> {
    has_target: bool,
    requests: Vec<Requests<'p>>,
    under_way: Vec<UnderWay<'p>>,
    holds: Vec<Hold<'p>>,
    held: Vec<Held<'p>>,
}

/// What every entry says of what it is about.
#[derive(Serialize, Deserialize)]
struct Key<'p> {
    device: Cow<'p, str>,
    partition: Cow<'p, str>,
    backing: Cow<'p, str>,
    operation: Cow<'p, str>,
    pid: u32,
    process_name: Cow<'p, str>,
    cgroup_id: u64,
    cgroup: Cow<'p, str>,
    of_target: bool,
}

#[derive(Serialize, Deserialize)]
struct Requests<'p> {
    #[serde(flatten)]
    key: Key<'p>,
    requests: u64,
    bytes: u64,
    untimed: u64,
    queue: Latency,
    device_time: Latency,
    sequential: u64,
    random: u64,
    merged: u64,
    requeues: u64,
    errors: Vec<Failed<'p>>,
}

#[derive(Serialize, Deserialize)]
struct Failed<'p> {
    kind: Cow<'p, str>,
    requests: u64,
}

#[derive(Serialize, Deserialize)]
struct Latency {
    total_ns: u64,
    max_ns: u64,
    buckets: Vec<Bucket>,
}

#[derive(Serialize, Deserialize)]
struct UnderWay<'p> {
    #[serde(flatten)]
    key: Key<'p>,
    bytes: u64,
    queue_ns: u64,
    device_ns: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Hold<'p> {
    #[serde(flatten)]
    key: Key<'p>,
    bios: u64,
    bytes: u64,
    held: Latency,
}

#[derive(Serialize, Deserialize)]
struct Held<'p> {
    #[serde(flatten)]
    key: Key<'p>,
    bios: u64,
    bytes: u64,
    held_ns: u64,
    held_max_ns: u64,
}

impl<'p> From<&'p block::Key> for Key<'p> {
    fn from(key: &'p block::Key) -> Self {
        Self {
            device: Cow::Borrowed(&key.device.name),
            partition: Cow::Borrowed(&key.device.partition),
            backing: Cow::Borrowed(&key.device.backing),
            operation: Cow::Borrowed(key.operation.name()),
            pid: key.owner.pid,
            process_name: Cow::Borrowed(&key.owner.process_name),
            cgroup_id: key.owner.cgroup_id,
            cgroup: Cow::Borrowed(&key.owner.cgroup),
            of_target: key.of_target,
        }
    }
}

impl Key<'_> {
    fn into_model(self) -> Result<block::Key, ReadError> {
        let operation = Operation::from_name(&self.operation)
            .ok_or_else(|| ReadError::Operation(self.operation.clone().into_owned()))?;
        let device = block::Device {
            name: self.device.into_owned(),
            partition: self.partition.into_owned(),
            backing: self.backing.into_owned(),
        };
        let owner = block::Owner {
            pid: self.pid,
            process_name: self.process_name.into_owned(),
            cgroup_id: self.cgroup_id,
            cgroup: self.cgroup.into_owned(),
        };
        Ok(block::Key { device, operation, owner, of_target: self.of_target })
    }
}

impl<'p> From<&'p block::Block> for Block<'p> {
    fn from(block: &'p block::Block) -> Self {
        Self {
            has_target: block.has_target,
            requests: block
                .requests
                .iter()
                .map(|requests| Requests {
                    key: Key::from(&requests.key),
                    requests: requests.totals.requests,
                    bytes: requests.totals.bytes,
                    untimed: requests.totals.untimed,
                    queue: Latency::from(&requests.totals.queue),
                    device_time: Latency::from(&requests.totals.device),
                    sequential: requests.totals.sequential,
                    random: requests.totals.random,
                    merged: requests.totals.merged,
                    requeues: requests.totals.requeues,
                    errors: requests
                        .totals
                        .errors
                        .iter()
                        .map(|(kind, requests)| Failed { kind: Cow::Borrowed(kind), requests: *requests })
                        .collect(),
                })
                .collect(),
            under_way: block
                .under_way
                .iter()
                .map(|request| UnderWay {
                    key: Key::from(&request.key),
                    bytes: request.bytes,
                    queue_ns: request.queue_ns,
                    device_ns: request.device_ns,
                })
                .collect(),
            holds: block
                .holds
                .iter()
                .map(|hold| Hold {
                    key: Key::from(&hold.key),
                    bios: hold.bios,
                    bytes: hold.bytes,
                    held: Latency::from(&hold.held),
                })
                .collect(),
            held: block
                .held
                .iter()
                .map(|held| Held {
                    key: Key::from(&held.key),
                    bios: held.bios,
                    bytes: held.bytes,
                    held_ns: held.held_ns,
                    held_max_ns: held.held_max_ns,
                })
                .collect(),
        }
    }
}

impl Block<'_> {
    pub(super) fn into_model(self) -> Result<block::Block, ReadError> {
        let requests = self.requests.into_iter().map(|requests| {
            let errors = requests.errors.into_iter();
            let totals = block::Totals {
                requests: requests.requests,
                bytes: requests.bytes,
                untimed: requests.untimed,
                queue: requests.queue.into_model()?,
                device: requests.device_time.into_model()?,
                sequential: requests.sequential,
                random: requests.random,
                merged: requests.merged,
                requeues: requests.requeues,
                errors: errors.map(|failed| (failed.kind.into_owned(), failed.requests)).collect(),
            };
            Ok(block::Requests { key: requests.key.into_model()?, totals })
        });
        let under_way = self.under_way.into_iter().map(|request| {
            Ok(block::UnderWay {
                key: request.key.into_model()?,
                bytes: request.bytes,
                queue_ns: request.queue_ns,
                device_ns: request.device_ns,
            })
        });
        let holds = self.holds.into_iter().map(|hold| {
            Ok(block::Hold {
                key: hold.key.into_model()?,
                bios: hold.bios,
                bytes: hold.bytes,
                held: hold.held.into_model()?,
            })
        });
        let held = self.held.into_iter().map(|held| {
            Ok(block::Held {
                key: held.key.into_model()?,
                bios: held.bios,
                bytes: held.bytes,
                held_ns: held.held_ns,
                held_max_ns: held.held_max_ns,
            })
        });
        Ok(block::Block {
            has_target: self.has_target,
            requests: requests.collect::<Result<_, ReadError>>()?,
            under_way: under_way.collect::<Result<_, ReadError>>()?,
            holds: holds.collect::<Result<_, ReadError>>()?,
            held: held.collect::<Result<_, ReadError>>()?,
        })
    }
}

impl From<&block::Latency> for Latency {
    fn from(latency: &block::Latency) -> Self {
        Self {
            total_ns: latency.total_ns,
            max_ns: latency.times.max_ns,
            buckets: durations::buckets(&latency.times),
        }
    }
}

impl Latency {
    fn into_model(self) -> Result<block::Latency, ReadError> {
        let times = durations::into_model(self.buckets, self.max_ns)?;
        Ok(block::Latency { total_ns: self.total_ns, times })
    }
}
