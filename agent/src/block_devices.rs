//! What the block source's maps say, with names: the values of the kernel programs as the model's.

use std::collections::{BTreeMap, HashMap, HashSet};

use chokepoint_analysis::block::{
    self as model, Block, Held, Hold, Latency, Operation, Owner, Requests, Totals, UnderWay,
};
use chokepoint_analysis::durations::{Bucket, Durations};
use chokepoint_ebpf::block::{
    self, BUCKETS, ErrorKind, HeldBio, Histogram, Holds, Key, Request, Stage, Sums,
};

use crate::drain::decode::comm;
use crate::held_bios::KernelMemory;
use crate::host::devices::Devices;
use crate::load::block::BlockMaps;
use crate::load::layout::KernelLayout;

/// Requests under way that are told one by one; those under way longest.
const MAX_UNDER_WAY: usize = 1_000;

/// The groups that requests were charged to.
#[must_use]
pub fn groups(maps: &BlockMaps) -> HashSet<u64> {
    let of_sums = maps.sums.iter().map(|(key, _)| key);
    let of_holds = maps.holds.iter().map(|(key, _)| key);
    let keys = of_sums.chain(of_holds).chain(maps.requests.iter().map(|(_, request)| &request.key));
    let keys = keys.chain(maps.held.iter().map(|bio| &bio.key));
    keys.map(|key| key.cgroup_id).filter(|id| *id != 0).collect()
}

/// Takes out the requests that seem to be under way and are not: that ended, or whose place another one took, without being seen.
pub fn take_ended_unseen(
    maps: &mut BlockMaps,
    memory: &mut impl KernelMemory,
    layout: RequestFields,
) -> Vec<Request> {
    let has_ended = |(address, request): &mut (u64, Request)| !layout.is_under_way(memory, *address, request);
    maps.requests.extract_if(.., has_ended).map(|(_, request)| request).collect()
}

/// Counts the requests that seem to be under way and are not. How many there were.
pub fn settle(maps: &mut BlockMaps, memory: &mut impl KernelMemory, layout: RequestFields) -> u64 {
    let ended = take_ended_unseen(maps, memory, layout);
    let settled = ended.len() as u64;
    for request in ended {
        let position = maps.sums.iter().position(|(key, _)| *key == request.key).unwrap_or_else(|| {
            maps.sums.push((request.key, Sums { comm: request.comm, ..NO_SUMS }));
            maps.sums.len() - 1
        });
        let sums = &mut maps.sums[position].1;
        sums.requests += 1;
        sums.untimed += 1;
        sums.bytes += u64::from(request.bytes);
    }
    settled
}

pub(crate) const NO_SUMS: Sums = Sums {
    requests: 0,
    bytes: 0,
    untimed: 0,
    queue_ns: 0,
    device_ns: 0,
    queue_max_ns: 0,
    device_max_ns: 0,
    sequential: 0,
    random: 0,
    merged: 0,
    requeues: 0,
    errors: [0; ErrorKind::COUNT],
    comm: [0; chokepoint_ebpf::COMM_LEN],
    queue: Histogram([0; BUCKETS]),
    device: Histogram([0; BUCKETS]),
};

/// Where a request says how far it is.
#[derive(Clone, Copy, Debug)]
pub struct RequestFields {
    state: Option<u64>,
    start: Option<u64>,
}

impl RequestFields {
    /// Those of this kernel.
    #[must_use]
    pub fn of(layout: &KernelLayout) -> Self {
        Self {
            state: layout.followed("request", "state"),
            start: layout.followed("request", "start_time_ns"),
        }
    }

    /// Whether a request is still the one that was followed. Of what cannot be read, it is.
    fn is_under_way(self, memory: &mut impl KernelMemory, address: u64, request: &Request) -> bool {
        // `MQ_RQ_IDLE`: not with the device.
        const IDLE: u32 = 0;
        let mut at = |offset: Option<u64>| Some(memory.read(address + offset?)?[0]);
        let is_later = at(self.start).is_some_and(|start_ns| start_ns > request.kernel_start_ns);
        let is_issued = request.stage == Stage::Issued as u32;
        let is_idle = is_issued && at(self.state).is_some_and(|state| state as u32 == IDLE);
        !is_later && !is_idle
    }
}

/// Says which held bios belong to the target, where looks found them: a bio tells its group and not its submitter. `target` is the
/// target's group, where it is one that requests are charged to.
pub fn mark_target(
    maps: &mut BlockMaps,
    cgroups: &HashMap<u64, String>,
    has_target: bool,
    target: Option<u64>,
) {
    let target = target.and_then(|id| cgroups.get(&id));
    let is_in_target = |id: u64| match (target, cgroups.get(&id)) {
        (Some(target), Some(group)) => {
            group == target || group.strip_prefix(target.as_str()).is_some_and(|rest| rest.starts_with('/'))
        }
        _ => false,
    };
    let of_holds = maps.holds.iter_mut().map(|(key, _)| key);
    for key in of_holds.chain(maps.held.iter_mut().map(|bio| &mut bio.key)) {
        key.of_target = u32::from(!has_target || is_in_target(key.cgroup_id));
    }
}

/// What devices did up to `end_ns`, the monotonic end of the window. `cgroups` are the paths of [`groups`], as far as they are
/// known.
#[must_use]
pub fn block(
    maps: &BlockMaps,
    devices: &mut Devices,
    cgroups: &HashMap<u64, String>,
    has_target: bool,
    end_ns: u64,
) -> Block {
    let mut named = |key: &Key, name: &[u8]| model::Key {
        device: devices.get(key.device, key.partition),
        operation: operation(key),
        owner: Owner {
            pid: key.tgid,
            process_name: comm(name),
            cgroup_id: key.cgroup_id,
            cgroup: cgroups.get(&key.cgroup_id).cloned().unwrap_or_default(),
        },
        of_target: key.of_target != 0,
    };
    let mut requests: Vec<Requests> = maps
        .sums
        .iter()
        .map(|(key, sums)| Requests { key: named(key, &sums.comm), totals: totals(sums) })
        .collect();
    requests.sort_by(|one, other| one.key.cmp(&other.key));

    let mut under_way: Vec<&Request> = maps
        .requests
        .iter()
        .map(|(_, request)| request)
        .filter(|request| request.since_ns < end_ns)
        .collect();
    under_way.sort_by_key(|request| request.since_ns.saturating_sub(request.queue_ns));
    under_way.truncate(MAX_UNDER_WAY);
    let under_way = under_way
        .into_iter()
        .map(|request| {
            let so_far_ns = end_ns.saturating_sub(request.since_ns);
            let is_issued = request.stage == Stage::Issued as u32;
            UnderWay {
                key: named(&request.key, &request.comm),
                bytes: u64::from(request.bytes),
                queue_ns: request.queue_ns + if is_issued { 0 } else { so_far_ns },
                device_ns: is_issued.then_some(so_far_ns),
            }
        })
        .collect();

    let mut holds: Vec<Hold> = maps
        .holds
        .iter()
        .map(|(key, holds)| Hold {
            key: named(key, &holds.comm),
            bios: holds.bios,
            bytes: holds.bytes,
            held: held_times(holds),
        })
        .collect();
    holds.sort_by_key(|hold| std::cmp::Reverse(hold.held.total_ns));

    let mut held: BTreeMap<_, Held> = BTreeMap::new();
    for bio in maps.held.iter().filter(|bio| bio.since_ns < end_ns) {
        let HeldBio { key, since_ns, bytes, .. } = bio;
        let sum = held
            .entry((key.device, key.partition, key.operation, key.tgid, key.cgroup_id, key.of_target))
            .or_insert_with(|| Held {
                key: named(key, &bio.comm),
                bios: 0,
                bytes: 0,
                held_ns: 0,
                held_max_ns: 0,
            });
        let held_ns = end_ns - since_ns;
        sum.bios += 1;
        sum.bytes += u64::from(*bytes);
        sum.held_ns += held_ns;
        sum.held_max_ns = sum.held_max_ns.max(held_ns);
    }
    Block { requests, under_way, holds, held: held.into_values().collect(), has_target }
}

fn operation(key: &Key) -> Operation {
    match block::Operation::from_u32(key.operation) {
        Some(block::Operation::Read) => Operation::Read,
        Some(block::Operation::Write) => Operation::Write,
        Some(block::Operation::Flush) => Operation::Flush,
        Some(block::Operation::Discard) => Operation::Discard,
        Some(block::Operation::WriteZeroes) => Operation::WriteZeroes,
        Some(block::Operation::Other) | None => Operation::Other,
    }
}

fn totals(sums: &Sums) -> Totals {
    let errors = ErrorKind::ALL.into_iter().zip(sums.errors).filter(|(_, number)| *number > 0);
    Totals {
        requests: sums.requests,
        bytes: sums.bytes,
        untimed: sums.untimed,
        queue: latency(&sums.queue, sums.queue_ns, sums.queue_max_ns),
        device: latency(&sums.device, sums.device_ns, sums.device_max_ns),
        sequential: sums.sequential,
        random: sums.random,
        merged: sums.merged,
        requeues: sums.requeues,
        errors: errors.map(|(kind, number)| (error_name(kind).to_owned(), number)).collect(),
    }
}

fn held_times(holds: &Holds) -> Latency {
    latency(&holds.held, holds.held_ns, holds.held_max_ns)
}

fn latency(histogram: &Histogram, total_ns: u64, max_ns: u64) -> Latency {
    let counts = histogram.0.into_iter().enumerate().filter(|(_, count)| *count > 0);
    let bucket = |(bucket, count)| Bucket {
        from_ns: Histogram::lower_ns(bucket),
        to_ns: if bucket + 1 < BUCKETS { Histogram::lower_ns(bucket + 1) } else { u64::MAX },
        count,
    };
    let buckets: Vec<Bucket> = counts.map(bucket).collect();
    // The kernel programs may lose the longest of two times at once, but not its bucket.
    let longest_ns = buckets.last().map_or(0, |bucket| bucket.from_ns);
    Latency { total_ns, times: Durations { buckets, max_ns: max_ns.max(longest_ns) } }
}

const fn error_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotSupported => "not supported",
        ErrorKind::Timeout => "timeout",
        ErrorKind::NoSpace => "no space",
        ErrorKind::Transport => "transport",
        ErrorKind::Target => "target",
        ErrorKind::Reservation => "reservation",
        ErrorKind::Medium => "medium",
        ErrorKind::Protection => "protection",
        ErrorKind::Resource => "resource",
        ErrorKind::Io => "I/O",
        ErrorKind::Again => "would wait",
        ErrorKind::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key {
        device: 4000 << block::MINOR_BITS,
        partition: 4000 << block::MINOR_BITS,
        operation: block::Operation::Write as u32,
        tgid: 7,
        cgroup_id: 9,
        of_target: 1,
        reserved: 0,
    };

    fn request(since_ns: u64, queue_ns: u64, stage: Stage) -> Request {
        Request {
            key: KEY,
            since_ns,
            queue_ns,
            kernel_start_ns: 0,
            bytes: 4096,
            stage: stage as u32,
            was_issued: 0,
            position: 0,
            requeues: 0,
            failed: 0,
            comm: *b"writer\0\0\0\0\0\0\0\0\0\0",
        }
    }

    fn of(maps: &BlockMaps) -> Block {
        assert_eq!(groups(maps), HashSet::from([9]));
        block(maps, &mut Devices::default(), &HashMap::from([(9, "/pods".to_owned())]), true, 1_000)
    }

    #[test]
    fn requests_under_way_are_told_with_their_time_so_far() {
        let requests = vec![
            request(900, 50, Stage::Issued),
            request(300, 0, Stage::Queued),
            request(1_000, 0, Stage::Queued),
        ];
        let requests = requests.into_iter().zip(0..).map(|(request, address)| (address, request)).collect();
        let block = of(&BlockMaps { requests, ..BlockMaps::default() });
        let times: Vec<_> =
            block.under_way.iter().map(|request| (request.queue_ns, request.device_ns)).collect();
        // The oldest first; one that began after the window is not part of it.
        assert_eq!(times, [(700, None), (50, Some(100))]);
        let owner = &block.under_way[0].key.owner;
        assert_eq!((owner.pid, owner.process_name.as_str(), owner.cgroup.as_str()), (7, "writer", "/pods"));
        assert_eq!(block.under_way[0].key.operation, Operation::Write);
    }

    /// Requests that began at the time their address says, all with their device.
    struct Kernel;

    impl KernelMemory for Kernel {
        fn read(&mut self, address: u64) -> Option<[u64; 8]> {
            Some([address; 8])
        }
    }

    #[test]
    fn requests_that_ended_unseen_are_counted_without_their_times() {
        let of = |kernel_start_ns| Request { kernel_start_ns, ..request(10, 0, Stage::Issued) };
        let mut maps = BlockMaps { requests: vec![(100, of(100)), (300, of(200))], ..BlockMaps::default() };
        let fields = RequestFields { state: None, start: Some(0) };
        assert_eq!(settle(&mut maps, &mut Kernel, fields), 1);
        assert_eq!(maps.requests.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [100]);
        let totals = totals(&maps.sums[0].1);
        assert_eq!(
            (totals.requests, totals.untimed, totals.bytes, totals.device.times.count()),
            (1, 1, 4096, 0)
        );
        // One that is idle is not with its device.
        let fields = RequestFields { state: Some(8), start: None };
        assert_eq!(settle(&mut maps, &mut Zeros, fields), 1);
    }

    struct Zeros;

    impl KernelMemory for Zeros {
        fn read(&mut self, _: u64) -> Option<[u64; 8]> {
            Some([0; 8])
        }
    }

    #[test]
    fn held_bios_add_up_by_owner() {
        let bio =
            |since_ns| HeldBio { key: KEY, since_ns, sector: 0, bytes: 512, returned: 0, comm: [0; 16] };
        let block = of(&BlockMaps { held: vec![bio(400), bio(900)], ..BlockMaps::default() });
        let [held] = block.held.as_slice() else { panic!("{:?}", block.held) };
        assert_eq!((held.bios, held.bytes, held.held_ns, held.held_max_ns), (2, 1024, 700, 600));
    }

    #[test]
    fn the_longest_time_is_at_least_its_buckets() {
        let mut histogram = Histogram([0; BUCKETS]);
        histogram.0[Histogram::bucket(5_000)] = 2;
        let Durations { buckets, max_ns } = latency(&histogram, 10_000, 0).times;
        assert_eq!((buckets[0].count, max_ns), (2, Histogram::lower_ns(Histogram::bucket(5_000))));
    }
}
