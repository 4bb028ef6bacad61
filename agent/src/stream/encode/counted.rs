//! What a window counts beside the time of threads: latencies by instance and bucket, what was sent again by peer, and how long processes
//! waited for the services of others.
//!
//! All of it becomes rows of profiles, whose subjects are the instances. There is a bounded number of them; the rest is summed under
//! [`OTHER`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use chokepoint_analysis::verdict::peers::{Peer, Side};
use chokepoint_ebpf::block::{BUCKETS, Histogram};
use chokepoint_ebpf::run_queue::{LATENCY_BUCKETS, latency_bucket_begin_ns};
use chokepoint_proto::latency::Latency;
use chokepoint_proto::stream::{self, Unit};

use super::dictionary::Entries;
use super::rows::process_name;
use crate::connections::{Connection, Ends};
use crate::disk_latencies::DiskLatency;
use crate::stream::owners::Labels;

/// The instance of what was too much to be told apart.
pub const OTHER: &str = "[other]";
/// What tells processes apart; a subject has a field of its own for it.
const PROCESS: &str = "process";
/// Instances of one kind in a window. A node of pods has some hundred services.
const MAX_INSTANCES: usize = 128;
/// The kind of what was sent again, by peer.
const PEERS: &str = "retransmits.peers";
/// The kind of waits for services, and of what services there are.
const SERVICES: &str = "waits.peers";

/// One of several of which the same is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What tells it apart: names with values, in the order of the names.
    pub labels: Vec<(&'static str, String)>,
    /// How many, or how long, by class; of what has no classes under the empty one.
    pub counts: BTreeMap<String, u64>,
}

impl Instance {
    fn new(mut labels: Vec<(&'static str, String)>) -> Self {
        labels.sort_unstable();
        labels.dedup_by_key(|(name, _)| *name);
        Self { labels, counts: BTreeMap::new() }
    }

    fn add(&mut self, class: String, count: u64) {
        if count > 0 {
            *self.counts.entry(class).or_default() += count;
        }
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// How long threads were queued, by whose they are: latencies of processes, by the bucket of the kernel programs.
#[must_use]
pub fn run_queue<'a>(processes: impl Iterator<Item = (Labels, &'a [u64; LATENCY_BUCKETS])>) -> Vec<Instance> {
    let mut by_owner: HashMap<Labels, [u64; LATENCY_BUCKETS]> = HashMap::new();
    for (labels, counts) in processes {
        let sums = by_owner.entry(labels).or_insert([0; LATENCY_BUCKETS]);
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let instances = by_owner.into_iter().map(|(labels, counts)| {
        let service = labels.iter().find(|(name, _)| *name == "service").map(|(_, value)| value.clone());
        let mut labels = labels.to_vec();
        labels.push(("instance", service.unwrap_or_default()));
        let mut instance = Instance::new(labels);
        for (bucket, count) in counts.into_iter().enumerate() {
            instance.add(Latency::RunQueue.class(latency_bucket_begin_ns(bucket)), count);
        }
        instance
    });
    bounded(instances.collect(), "instance")
}

/// How long requests of block devices took, by device and operation.
#[must_use]
pub fn disks(disks: &[DiskLatency]) -> Vec<Instance> {
    let instances = disks.iter().map(|disk| {
        let operation = chokepoint_analysis::block::Operation::ALL[disk.operation as usize].name();
        let mut instance = Instance::new(vec![
            ("device", disk.device.clone()),
            ("instance", format!("{} {operation}", disk.device)),
            ("operation", operation.to_owned()),
        ]);
        for bucket in 0..BUCKETS {
            // Two of the kernel programs' buckets are one here.
            instance.add(Latency::Disk.class(Histogram::lower_ns(bucket)), disk.device_times[bucket]);
        }
        instance
    });
    bounded(instances.collect(), "instance")
}

/// What connections sent again, by peer. Of each end only the service's port is told; the other was chosen by chance. `unplaced` is what was
/// sent again by connections that are not told apart.
#[must_use]
pub fn peers<'a>(
    connections: impl Iterator<Item = (&'a Ends, &'a Connection, Labels)>,
    unplaced: u64,
) -> Vec<Instance> {
    let mut by_peer: HashMap<(String, String, Labels), u64> = HashMap::new();
    for (ends, connection, labels) in connections {
        let (local, remote) = peer(ends);
        *by_peer.entry((local, remote, labels)).or_default() += connection.counts.retransmits();
    }
    let instances = by_peer.into_iter().map(|((local, remote, labels), count)| {
        let mut labels = labels.to_vec();
        labels.extend([("local", local), ("remote", remote)]);
        let mut instance = Instance::new(labels);
        instance.add(String::new(), count);
        instance
    });
    let mut instances: Vec<Instance> = instances.collect();
    if unplaced > 0 {
        let mut other = Instance::new(vec![("remote", OTHER.to_owned())]);
        other.add(String::new(), unplaced);
        instances.push(other);
    }
    bounded(instances, "remote")
}

/// How long processes waited for which services, by class, and where processes are services. Of each end only the service's port is told.
#[must_use]
pub fn services<'a>(peers: impl Iterator<Item = (&'a Peer, Labels)>) -> Vec<Instance> {
    let mut by_owner: HashMap<(&str, &Side, Labels), Instance> = HashMap::new();
    for (peer, labels) in peers {
        let make = || {
            let mut told = labels.to_vec();
            told.push((PROCESS, process_name(&peer.process).into_owned()));
            match &peer.side {
                Side::Asks { local, service } => {
                    told.extend([("local", local.clone()), ("remote", service.to_string())]);
                }
                Side::Serves(address) => told.push(("local", address.to_string())),
            }
            Instance::new(told)
        };
        let instance =
            by_owner.entry((&peer.process, &peer.side, Labels::clone(&labels))).or_insert_with(make);
        instance.add(peer.class.name().to_owned(), peer.ns);
    }
    bounded(by_owner.into_values().collect(), "remote")
}

/// Both ends of a connection with the port of the service alone: the lower of the two, as systems take ports for those who ask from the
/// upper end of the range.
fn peer(ends: &Ends) -> (String, String) {
    let address = |end: &SocketAddr| end.ip().to_string();
    if ends.remote.port() <= ends.local.port() {
        (address(&ends.local), ends.remote.to_string())
    } else {
        (ends.local.to_string(), address(&ends.remote))
    }
}

/// The instances of most, and all others in one that has [`OTHER`] for this label.
fn bounded(mut instances: Vec<Instance>, label: &'static str) -> Vec<Instance> {
    let is_other = |instance: &Instance| instance.labels == [(label, OTHER.to_owned())];
    instances.retain(|instance| !instance.counts.is_empty());
    instances.sort_by(|one, other| {
        (is_other(one), Reverse(one.total()), &one.labels).cmp(&(
            is_other(other),
            Reverse(other.total()),
            &other.labels,
        ))
    });
    if instances.len() > MAX_INSTANCES {
        let mut other = Instance::new(vec![(label, OTHER.to_owned())]);
        for instance in instances.drain(MAX_INSTANCES - 1..) {
            instance.counts.into_iter().for_each(|(class, count)| other.add(class, count));
        }
        instances.push(other);
    }
    instances
}

/// The rows of latencies.
pub(super) fn latencies(
    of: Latency,
    instances: &[Instance],
    entries: &mut Entries,
) -> Option<stream::Profile> {
    rows(of.kind(), Unit::Count, instances, entries)
}

/// The rows of what was sent again by peer.
pub(super) fn retransmits(instances: &[Instance], entries: &mut Entries) -> Option<stream::Profile> {
    rows(PEERS, Unit::Count, instances, entries)
}

/// The rows of waits for services.
pub(super) fn waits(instances: &[Instance], entries: &mut Entries) -> Option<stream::Profile> {
    rows(SERVICES, Unit::Nanoseconds, instances, entries)
}

fn rows(kind: &str, unit: Unit, instances: &[Instance], entries: &mut Entries) -> Option<stream::Profile> {
    let mut profile = stream::Profile { kind: kind.to_owned(), unit: unit.into(), ..Default::default() };
    for instance in instances {
        let all = || instance.labels.iter().map(|(name, value)| (*name, value.as_str()));
        let process = all().find(|(name, _)| *name == PROCESS).map_or("", |(_, value)| value);
        let labels = all().filter(|(name, value)| *name != PROCESS && !value.is_empty());
        let subject = entries.subject(process, "", labels);
        for (class, count) in &instance.counts {
            profile.subject.push(subject);
            profile.stack.push(0);
            if !class.is_empty() {
                profile.class.push(entries.string(class));
            }
            // Of times no samples are taken.
            profile.count.push(if unit == Unit::Count { *count } else { 0 });
            profile.weight.push(*count);
        }
    }
    (!profile.subject.is_empty()).then_some(profile)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chokepoint_analysis::activity::Class;

    use super::*;
    use crate::connections::Counts;

    fn owner(service: &str) -> Labels {
        Arc::from(vec![("cgroup", format!("/{service}")), ("service", service.to_owned())])
    }

    fn told(instance: &Instance, label: &str) -> String {
        instance
            .labels
            .iter()
            .find(|(name, _)| *name == label)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    #[test]
    fn the_kernel_programs_buckets_are_those_that_are_told() {
        let begins = (1..LATENCY_BUCKETS).map(latency_bucket_begin_ns);
        assert!(Latency::RunQueue.bounds_ns().eq(begins));
        // Each of the disks' bounds is one of the kernel programs'.
        for bound in Latency::Disk.bounds_ns() {
            assert_eq!(Histogram::lower_ns(Histogram::bucket(bound)), bound);
        }
    }

    #[test]
    fn run_queues_are_summed_by_whose_they_are_and_the_rest_together() {
        let mut counts = [0; LATENCY_BUCKETS];
        (counts[3], counts[LATENCY_BUCKETS - 1]) = (5, 1);
        let processes =
            [(owner("web"), &counts), (owner("web"), &counts), (owner("idle"), &[0; LATENCY_BUCKETS])];
        let instances = run_queue(processes.into_iter());
        assert_eq!(instances.len(), 1);
        assert_eq!(
            (told(&instances[0], "instance"), told(&instances[0], "cgroup")),
            ("web".into(), "/web".into())
        );
        let expected = BTreeMap::from([("1000".to_owned(), 10), ("more".to_owned(), 2)]);
        assert_eq!(instances[0].counts, expected);

        let many = (0..MAX_INSTANCES + 9).map(|number| (owner(&format!("s{number}")), &counts));
        let instances = run_queue(many);
        assert_eq!(instances.len(), MAX_INSTANCES);
        let other = instances.last().expect("there are some");
        assert_eq!(other.labels, [("instance", OTHER.to_owned())]);
        assert_eq!(other.total(), 10 * 6);
        assert_eq!(instances.iter().map(Instance::total).sum::<u64>(), (MAX_INSTANCES as u64 + 9) * 6);
    }

    #[test]
    fn a_disk_s_buckets_are_put_together_in_pairs() {
        let mut device_times = [0; BUCKETS];
        for (ns, count) in [(100, 1), (1_100, 2), (1_300, 4), (1_600, 8)] {
            device_times[Histogram::bucket(ns)] += count;
        }
        let operation = chokepoint_ebpf::block::Operation::Read;
        let instances = disks(&[DiskLatency { device: "vda".into(), operation, device_times }]);
        assert_eq!(told(&instances[0], "instance"), "vda read");
        let expected =
            [("1024", 1), ("1536", 6), ("2048", 8)].map(|(class, count)| (class.to_owned(), count));
        assert_eq!(instances[0].counts, BTreeMap::from(expected));
    }

    #[test]
    fn services_are_told_by_who_waits_for_them_and_who_they_are() {
        let asks = Side::Asks { local: "10.0.0.1".into(), service: "10.0.0.5:5432".parse().expect("one") };
        let peer = |pid, process: &str, side: &Side, class, ns| Peer {
            pid,
            process: process.into(),
            side: side.clone(),
            class,
            ns,
        };
        let serves = Side::Serves("10.0.0.1:80".parse().expect("one"));
        let peers = [
            peer(1, "nginx", &asks, Class::NetReceive, 7),
            peer(2, "nginx", &asks, Class::NetReceive, 5),
            peer(2, "nginx", &asks, Class::Event, 1),
            peer(2, "nginx", &serves, Class::NetAccept, 10),
        ];
        let instances = services(peers.iter().map(|peer| (peer, owner("web"))));
        let shown: Vec<_> = instances
            .iter()
            .map(|one| (told(one, "process"), told(one, "local"), told(one, "remote"), one.counts.clone()))
            .collect();
        let text = str::to_owned;
        let waits = BTreeMap::from([("event".to_owned(), 1), ("net.recv".to_owned(), 12)]);
        let expected = [
            (text("nginx"), text("10.0.0.1"), text("10.0.0.5:5432"), waits),
            (text("nginx"), text("10.0.0.1:80"), text(""), [("net.accept".to_owned(), 10)].into()),
        ];
        assert_eq!(shown, expected);
        let mut entries = Entries::default();
        let rows = waits_of(&instances, &mut entries);
        assert_eq!((rows.unit(), rows.count, rows.weight), (Unit::Nanoseconds, vec![0; 3], vec![1, 12, 10]));
        let known = entries.finish();
        assert!(known.subjects.iter().all(|one| known.strings[one.process as usize] == "nginx"));
    }

    fn waits_of(instances: &[Instance], entries: &mut Entries) -> stream::Profile {
        waits(instances, entries).expect("there are some")
    }

    #[test]
    fn peers_have_the_services_port_alone() {
        let ends = |local: &str, remote: &str| Ends {
            namespace: 1,
            local: local.parse().expect("an address"),
            remote: remote.parse().expect("an address"),
        };
        let lost = |segments| Connection::with_counts(Counts { segments, ..Counts::default() });
        let connections = [
            (ends("10.0.0.1:40001", "10.0.0.5:5432"), lost(7)),
            (ends("10.0.0.1:40002", "10.0.0.5:5432"), lost(5)),
            (ends("10.0.0.1:80", "10.0.0.9:51000"), lost(3)),
            (ends("[::1]:40000", "[2001:db8::1]:443"), lost(1)),
        ];
        let told_peers = peers(connections.iter().map(|(ends, lost)| (ends, lost, owner("web"))), 4);
        let shown: Vec<_> =
            told_peers.iter().map(|peer| (told(peer, "local"), told(peer, "remote"), peer.total())).collect();
        let expected = [
            ("10.0.0.1", "10.0.0.5:5432", 12),
            ("10.0.0.1:80", "10.0.0.9", 3),
            ("::1", "[2001:db8::1]:443", 1),
            ("", OTHER, 4),
        ];
        assert_eq!(
            shown,
            expected.map(|(local, remote, count)| (local.to_owned(), remote.to_owned(), count))
        );
    }
}
