//! How long things took, over time: a histogram for each instance and step.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_proto::latency::{Latency, MORE};
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question};
use super::series::labels_of;
use super::tree::heaviest;
use crate::labels::Labels;
use crate::store::{Store, SumQuery};

/// What instances are told apart by: the first is their own name, the others are whose they are and what they are of.
const LABELS: [&str; 10] =
    ["instance", "host", "service", "cgroup", "unit", "container", "pod", "namespace", "device", "operation"];

/// Latencies of a selection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// Of what: `run-queue` or `disk`.
    pub of: String,
    /// Of the bounds: `ns`.
    pub unit: String,
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// Length of a step.
    pub step_ms: u64,
    /// The upper bounds of the buckets, exclusive, each bucket beginning where the one before ends and the first at 0; `None` for the bucket
    /// of all that is longer. Buckets below the first and above the last in which anything was counted are left out.
    pub bounds: Vec<Option<u64>>,
    /// Those of which most was counted first.
    pub instances: Vec<Instance>,
    /// Instances that are left out, because there are more than can be told apart.
    pub left_out: u64,
}

/// What latencies are of, over time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name: a service, or a device with an operation; `[other]` of what agents could not tell apart.
    pub instance: String,
    /// Whose it is, and on which host.
    pub labels: Labels,
    /// When the steps began of which anything is stored.
    pub times: Vec<u64>,
    /// For each of them, how many there were in each bucket.
    pub counts: Vec<Vec<u64>>,
}

/// What `of` says.
///
/// # Errors
/// It names no latency.
pub fn latency(of: &str) -> Result<Latency, QueryError> {
    Latency::ALL.into_iter().find(|latency| latency.name() == of).ok_or_else(|| {
        QueryError::bad(format!(
            "of={of:?}: latencies are of {}",
            Latency::ALL.map(Latency::name).join(" or ")
        ))
    })
}

/// The latencies that a question asks for.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn latencies(
    store: &dyn Store,
    question: &Question,
    of: Latency,
    step_ns: Option<u64>,
    max_instances: usize,
    limits: &Limits,
) -> Result<Latencies, QueryError> {
    let steps = question.range.steps(step_ns, limits)?;
    let selection = Question { range: steps.range, ..question.clone() }.selection_of_any()?;
    let names = LABELS.map(str::to_owned).to_vec();
    let sums = store.sums(&SumQuery {
        selection,
        kind: of.kind().to_owned(),
        classes: Vec::new(),
        group_by: names.clone(),
        step_ns: Some(steps.step_ns),
        by_class: true,
        by_stack: false,
        max_sums: limits.max_sums,
    })?;
    let mut found: BTreeMap<&[String], BTreeMap<u64, BTreeMap<Bound, u64>>> = BTreeMap::new();
    for sum in &sums.sums {
        // Of a class that is no bucket, nothing can be told.
        let (Some(bound), Some(position)) = (Bound::of(&sum.class), steps.position(sum.start_unix_ns)) else {
            continue;
        };
        let time_ms = (steps.range.from_unix_ns + position as u64 * steps.step_ns) / MS_NS;
        *found.entry(&sum.group).or_default().entry(time_ms).or_default().entry(bound).or_default() +=
            sum.count;
    }
    let bounds = bounds(of, found.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys).copied());
    let count = found.len();
    let instances = found.into_iter().map(|(group, steps)| {
        let of_step = |counts: &BTreeMap<Bound, u64>| {
            bounds.iter().map(|bound| counts.get(bound).copied().unwrap_or_default()).collect()
        };
        Instance {
            instance: group[0].clone(),
            labels: labels_of(&names[1..], &group[1..]),
            counts: steps.values().map(of_step).collect(),
            times: steps.into_keys().collect(),
        }
    });
    let total = |instance: &Instance| instance.counts.iter().flatten().sum();
    let mut instances = heaviest(instances, count, total);
    let left_out = instances.len().saturating_sub(max_instances);
    instances.truncate(max_instances);
    Ok(Latencies {
        of: of.name().to_owned(),
        unit: "ns".to_owned(),
        from_unix_ms: steps.range.from_unix_ns / MS_NS,
        until_unix_ms: steps.range.until_unix_ns / MS_NS,
        step_ms: steps.step_ns / MS_NS,
        bounds: bounds.into_iter().map(Bound::shown).collect(),
        instances,
        left_out: left_out as u64,
    })
}

/// The upper bound of a bucket, nanoseconds; the greatest there is stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound(u64);

impl Bound {
    const NONE: Self = Self(u64::MAX);

    fn of(class: &str) -> Option<Self> {
        if class == MORE { Some(Self::NONE) } else { class.parse().ok().map(Self) }
    }

    fn shown(self) -> Option<u64> {
        (self != Self::NONE).then_some(self.0)
    }
}

/// The bounds of all buckets from the first to the last that are used, those without anything between them included. The bound below the
/// first is told too, as that is where the first begins.
fn bounds(of: Latency, used: impl Iterator<Item = Bound>) -> Vec<Bound> {
    let used: BTreeSet<Bound> = used.collect();
    let (Some(first), Some(last)) = (used.first().copied(), used.last().copied()) else { return Vec::new() };
    let known: Vec<Bound> = of.bounds_ns().map(Bound).collect();
    let below = known.iter().rev().find(|bound| **bound < first).copied();
    let between = known.into_iter().filter(|bound| (first..=last).contains(bound));
    below
        .into_iter()
        .chain(between)
        .chain(used.iter().copied())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::counted_fleet::{self, START_S};
    use super::*;
    use crate::query::question::Range;

    const S: u64 = 1_000_000_000;

    fn ask(text: &str, of: Latency, step_s: u64) -> Result<Latencies, QueryError> {
        let range = Range { from_unix_ns: START_S * S, until_unix_ns: (START_S + 20) * S };
        let question = Question::new(text, range, Vec::new(), &Limits::default()).expect(text);
        latencies(&counted_fleet::store(), &question, of, Some(step_s * S), 50, &Limits::default())
    }

    #[test]
    fn histograms_have_every_bucket_between_the_first_and_the_last() {
        let found = ask("{host='a'}", Latency::Disk, 10).expect("an answer");
        // From 1,024 to 3,072 ns, and longer than 68 minutes.
        assert_eq!(found.bounds[..5], [1_536, 2_048, 3_072, 4_096, 6_144].map(Some));
        assert_eq!(found.bounds.last(), Some(&None));
        assert!(found.bounds.len() > 50);
        let [disk] = &found.instances[..] else { panic!("{:?}", found.instances) };
        assert_eq!(disk.instance, "vda read");
        let labels = [("device", "vda"), ("host", "a"), ("operation", "read")];
        assert_eq!(disk.labels, labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(disk.times, [START_S * 1_000, (START_S + 10) * 1_000]);
        assert_eq!(disk.counts[0][..4], [0, 3, 1, 0]);
        assert_eq!(disk.counts[1][..4], [0, 5, 0, 0]);
        assert_eq!((disk.counts[0].last(), disk.counts[1].last()), (Some(&0), Some(&2)));
        assert_eq!((found.of.as_str(), found.unit.as_str(), found.step_ms), ("disk", "ns", 10_000));
    }

    #[test]
    fn steps_are_added_up_and_hosts_are_not() {
        let found = ask("{}", Latency::RunQueue, 20).expect("an answer");
        let told: Vec<_> = found
            .instances
            .iter()
            .map(|told| {
                (told.instance.as_str(), told.labels["host"].as_str(), told.times.len(), &told.counts[0])
            })
            .collect();
        assert_eq!(found.bounds, [750, 1_000].map(Some));
        assert_eq!(told, [("web", "b", 1, &vec![0, 8]), ("web", "a", 1, &vec![0, 6])]);
        assert!(ask("{host='c'}", Latency::RunQueue, 20).expect("an answer").bounds.is_empty());
        assert!(matches!(ask("cpu{}", Latency::Disk, 20), Err(QueryError::Bad(_))));
        assert!(latency("disk").is_ok() && latency("tape").is_err());
    }
}
