//! How long requests of block devices took, window after window, where nothing else is asked of them: by device and operation.
//!
//! The kernel programs count on from the session's start; here is what they had counted with the window before.

use std::collections::HashMap;

use chokepoint_ebpf::block::{BUCKETS, Histogram, Key, Operation, Sums};

use crate::host::devices::Devices;

/// The times of one device's requests of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskLatency {
    /// The whole device's name.
    pub device: String,
    /// What the requests asked of it.
    pub operation: Operation,
    /// From issue to completion: requests by the bucket of [`Histogram`].
    pub device_times: [u64; BUCKETS],
}

/// See the module's documentation. As many entries as the kernel programs' map has.
#[derive(Debug, Default)]
pub struct DiskLatencies {
    told: HashMap<Key, Histogram>,
    devices: Devices,
}

impl DiskLatencies {
    /// What has come since the last window; `sums` is what the kernel programs have counted in all.
    #[must_use]
    pub fn close_window(&mut self, sums: Vec<(Key, Sums)>) -> Vec<DiskLatency> {
        let mut latencies: Vec<DiskLatency> = Vec::new();
        for (key, sums) in sums {
            let before = self.told.insert(key, sums.device).unwrap_or(Histogram([0; BUCKETS]));
            let Histogram(new) = sums.device.since(&before);
            if new.iter().all(|count| *count == 0) {
                continue;
            }
            let operation = Operation::from_u32(key.operation).unwrap_or(Operation::Other);
            let device = self.devices.get(key.device, key.device).name;
            let same = |known: &&mut DiskLatency| known.device == device && known.operation == operation;
            // Partitions of a device have sums of their own.
            match latencies.iter_mut().find(same) {
                Some(known) => known.device_times.iter_mut().zip(new).for_each(|(sum, new)| *sum += new),
                None => latencies.push(DiskLatency { device, operation, device_times: new }),
            }
        }
        latencies.sort_by(|one, other| (&one.device, one.operation).cmp(&(&other.device, other.operation)));
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_devices::NO_SUMS;

    #[test]
    fn each_window_has_what_came_since_the_last_with_partitions_put_together() {
        let key = |partition, operation: Operation| Key {
            device: 0xfff_0000,
            partition,
            operation: operation as u32,
            ..Key::default()
        };
        let sums = |requests: &[(u64, u64)]| {
            let mut sums = NO_SUMS;
            requests.iter().for_each(|(ns, count)| sums.device.0[Histogram::bucket(*ns)] += count);
            sums
        };
        let mut latencies = DiskLatencies::default();
        let seen = latencies.close_window(vec![
            (key(1, Operation::Write), sums(&[(50_000, 3)])),
            (key(2, Operation::Write), sums(&[(50_000, 2), (9_000_000, 1)])),
            (key(2, Operation::Read), sums(&[(80_000, 7)])),
        ]);
        let told: Vec<_> =
            seen.iter().map(|seen| (seen.operation, seen.device_times.iter().sum::<u64>())).collect();
        assert_eq!(told, [(Operation::Read, 7), (Operation::Write, 6)]);
        assert_eq!(seen[1].device_times[Histogram::bucket(50_000)], 5);
        let seen = latencies.close_window(vec![
            (key(1, Operation::Write), sums(&[(50_000, 3)])),
            (key(2, Operation::Read), sums(&[(80_000, 8)])),
        ]);
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].operation, seen[0].device_times.iter().sum::<u64>()), (Operation::Read, 1));
    }
}
