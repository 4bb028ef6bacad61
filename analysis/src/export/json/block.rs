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
struct Of<'p> {
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
    of: Of<'p>,
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
    of: Of<'p>,
    bytes: u64,
    queue_ns: u64,
    device_ns: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Hold<'p> {
    #[serde(flatten)]
    of: Of<'p>,
    bios: u64,
    bytes: u64,
    held: Latency,
}

#[derive(Serialize, Deserialize)]
struct Held<'p> {
    #[serde(flatten)]
    of: Of<'p>,
    bios: u64,
    bytes: u64,
    held_ns: u64,
    held_max_ns: u64,
}

impl<'p> Of<'p> {
    fn new(
        device: &'p block::Device,
        operation: Operation,
        owner: &'p block::Owner,
        of_target: bool,
    ) -> Self {
        Self {
            device: Cow::Borrowed(&device.name),
            partition: Cow::Borrowed(&device.partition),
            backing: Cow::Borrowed(&device.backing),
            operation: Cow::Borrowed(operation.name()),
            pid: owner.pid,
            process_name: Cow::Borrowed(&owner.process_name),
            cgroup_id: owner.cgroup_id,
            cgroup: Cow::Borrowed(&owner.cgroup),
            of_target,
        }
    }

    fn into_model(self) -> Result<(block::Device, Operation, block::Owner, bool), ReadError> {
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
        Ok((device, operation, owner, self.of_target))
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
                    of: Of::new(&requests.device, requests.operation, &requests.owner, requests.of_target),
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
                    of: Of::new(&request.device, request.operation, &request.owner, request.of_target),
                    bytes: request.bytes,
                    queue_ns: request.queue_ns,
                    device_ns: request.device_ns,
                })
                .collect(),
            holds: block
                .holds
                .iter()
                .map(|hold| Hold {
                    of: Of::new(&hold.device, hold.operation, &hold.owner, hold.of_target),
                    bios: hold.bios,
                    bytes: hold.bytes,
                    held: Latency::from(&hold.held),
                })
                .collect(),
            held: block
                .held
                .iter()
                .map(|held| Held {
                    of: Of::new(&held.device, held.operation, &held.owner, held.of_target),
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
            let (device, operation, owner, of_target) = requests.of.into_model()?;
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
            Ok(block::Requests { device, operation, owner, of_target, totals })
        });
        let under_way = self.under_way.into_iter().map(|request| {
            let (device, operation, owner, of_target) = request.of.into_model()?;
            Ok(block::UnderWay {
                device,
                operation,
                owner,
                of_target,
                bytes: request.bytes,
                queue_ns: request.queue_ns,
                device_ns: request.device_ns,
            })
        });
        let holds = self.holds.into_iter().map(|hold| {
            let (device, operation, owner, of_target) = hold.of.into_model()?;
            let held = hold.held.into_model()?;
            Ok(block::Hold { device, operation, owner, of_target, bios: hold.bios, bytes: hold.bytes, held })
        });
        let held = self.held.into_iter().map(|held| {
            let (device, operation, owner, of_target) = held.of.into_model()?;
            Ok(block::Held {
                device,
                operation,
                owner,
                of_target,
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
