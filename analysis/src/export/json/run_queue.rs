//! Run queues in the format.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::ReadError;
use super::durations::{self, Bucket};
use crate::run_queue as model;

#[derive(Serialize, Deserialize)]
pub(super) struct RunQueue<'p> {
    processes: Vec<Queue<'p>>,
    cgroups: Vec<Queue<'p>>,
}

#[derive(Serialize, Deserialize)]
struct Queue<'p> {
    id: u64,
    name: Cow<'p, str>,
    queued_ns: u64,
    latencies: Latencies,
    behind: Vec<Behind<'p>>,
}

#[derive(Serialize, Deserialize)]
struct Latencies {
    /// This and the quantiles follow from the buckets; not read back.
    #[serde(default)]
    count: u64,
    #[serde(default)]
    p50_ns: u64,
    #[serde(default)]
    p95_ns: u64,
    #[serde(default)]
    p99_ns: u64,
    #[serde(default)]
    p999_ns: u64,
    max_ns: u64,
    buckets: Vec<Bucket>,
}

#[derive(Serialize, Deserialize)]
struct Behind<'p> {
    runner: Runner,
    id: u64,
    name: Cow<'p, str>,
    ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Runner {
    One,
    Idle,
    Unknown,
}

impl<'p> From<&'p model::RunQueue> for RunQueue<'p> {
    fn from(run_queue: &'p model::RunQueue) -> Self {
        Self {
            processes: run_queue.processes.iter().map(Queue::from).collect(),
            cgroups: run_queue.cgroups.iter().map(Queue::from).collect(),
        }
    }
}

impl<'p> From<&'p model::Queue> for Queue<'p> {
    fn from(queue: &'p model::Queue) -> Self {
        let quantile_ns = |share| queue.latencies.quantile_ns(share).unwrap_or_default();
        Self {
            id: queue.id,
            name: Cow::Borrowed(&queue.name),
            queued_ns: queue.queued_ns,
            latencies: Latencies {
                count: queue.latencies.count(),
                p50_ns: quantile_ns(0.5),
                p95_ns: quantile_ns(0.95),
                p99_ns: quantile_ns(0.99),
                p999_ns: quantile_ns(0.999),
                max_ns: queue.latencies.max_ns,
                buckets: durations::buckets(&queue.latencies),
            },
            behind: queue.behind.iter().map(|(runner, ns)| Behind::new(runner, *ns)).collect(),
        }
    }
}

impl<'p> Behind<'p> {
    fn new(runner: &'p model::Runner, ns: u64) -> Self {
        let (runner, id, name) = match runner {
            model::Runner::One { id, name } => (Runner::One, *id, name.as_str()),
            model::Runner::Idle => (Runner::Idle, 0, ""),
            model::Runner::Unknown => (Runner::Unknown, 0, ""),
        };
        Self { runner, id, name: Cow::Borrowed(name), ns }
    }
}

impl RunQueue<'_> {
    pub(super) fn into_model(self) -> Result<model::RunQueue, ReadError> {
        Ok(model::RunQueue {
            processes: self.processes.into_iter().map(Queue::into_model).collect::<Result<_, _>>()?,
            cgroups: self.cgroups.into_iter().map(Queue::into_model).collect::<Result<_, _>>()?,
        })
    }
}

impl Queue<'_> {
    fn into_model(self) -> Result<model::Queue, ReadError> {
        let Latencies { max_ns, buckets, .. } = self.latencies;
        let behind = |Behind { runner, id, name, ns }: Behind<'_>| {
            let runner = match runner {
                Runner::One => model::Runner::One { id, name: name.into_owned() },
                Runner::Idle => model::Runner::Idle,
                Runner::Unknown => model::Runner::Unknown,
            };
            (runner, ns)
        };
        Ok(model::Queue {
            id: self.id,
            name: self.name.into_owned(),
            queued_ns: self.queued_ns,
            latencies: durations::into_model(buckets, max_ns)?,
            behind: self.behind.into_iter().map(behind).collect(),
        })
    }
}
