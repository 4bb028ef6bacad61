//! Turns the block source's sums since a session began into those of one window.
//!
//! The kernel programs add up and know no windows. What was told of a key is kept here and taken from what they say next. In a session
//! without an end processes come and go, so keys to which nothing is added make room for others.

use std::collections::HashMap;

use chokepoint_ebpf::block::{BUCKETS, Histogram, Holds, Key, MAX_HOLDS, MAX_SUMS, Sums};

use crate::load::block::BlockMaps;

/// Windows in which nothing was added to a key before it makes room.
const IDLE_WINDOWS: u64 = 30;

/// What was told so far. There is no more than the kernel programs' own maps hold: 2,200 bytes for each key of the sums.
#[derive(Debug, Default)]
pub struct BlockWindows {
    sums: HashMap<Key, Told<Sums>>,
    holds: HashMap<Key, Told<Holds>>,
    window: u64,
}

/// Keys to be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Idle {
    /// Of requests.
    pub sums: Vec<Key>,
    /// Of held bios.
    pub holds: Vec<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Told<T> {
    sums: T,
    /// The window in which something was added.
    changed: u64,
}

/// Sums of which the part since an earlier reading can be told.
trait Since: Copy + PartialEq {
    fn since(&self, earlier: &Self) -> Self;
}

impl BlockWindows {
    /// Leaves in the maps what was added since the last window. Bios that looks have found are those of the window already.
    /// Returns the keys that are to make room.
    pub fn close(&mut self, maps: &mut BlockMaps, has_looked: bool) -> Idle {
        let Self { sums, holds, window } = self;
        *window += 1;
        maps.sums = since(sums, &maps.sums, *window);
        let mut idle = Idle { sums: idle(sums, MAX_SUMS, *window), holds: Vec::new() };
        if !has_looked {
            maps.holds = since(holds, &maps.holds, *window);
            idle.holds = self::idle(holds, MAX_HOLDS, *window);
        }
        idle
    }
}

fn since<T: Since>(told: &mut HashMap<Key, Told<T>>, now: &[(Key, T)], window: u64) -> Vec<(Key, T)> {
    let mut added = Vec::new();
    for (key, sums) in now {
        match told.get_mut(key) {
            Some(known) if known.sums == *sums => {}
            Some(known) => {
                added.push((*key, sums.since(&known.sums)));
                *known = Told { sums: *sums, changed: window };
            }
            None => {
                added.push((*key, *sums));
                told.insert(*key, Told { sums: *sums, changed: window });
            }
        }
    }
    added
}

/// The keys that are to make room, where more than half of it is taken. What has no owner stays: there is little of it.
fn idle<T>(told: &mut HashMap<Key, Told<T>>, room: u32, window: u64) -> Vec<Key> {
    if told.len() <= room as usize / 2 {
        return Vec::new();
    }
    let is_idle = |key: &Key, known: &mut Told<T>| key.tgid != 0 && window - known.changed >= IDLE_WINDOWS;
    told.extract_if(is_idle).map(|(key, _)| key).collect()
}

impl Since for Sums {
    fn since(&self, earlier: &Self) -> Self {
        let (queue, device) = (self.queue.since(&earlier.queue), self.device.since(&earlier.device));
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            untimed: self.untimed.saturating_sub(earlier.untimed),
            queue_ns: self.queue_ns.saturating_sub(earlier.queue_ns),
            device_ns: self.device_ns.saturating_sub(earlier.device_ns),
            queue_max_ns: longest(&queue, self.queue_max_ns, earlier.queue_max_ns),
            device_max_ns: longest(&device, self.device_max_ns, earlier.device_max_ns),
            sequential: self.sequential.saturating_sub(earlier.sequential),
            random: self.random.saturating_sub(earlier.random),
            merged: self.merged.saturating_sub(earlier.merged),
            requeues: self.requeues.saturating_sub(earlier.requeues),
            errors: std::array::from_fn(|kind| self.errors[kind].saturating_sub(earlier.errors[kind])),
            comm: self.comm,
            queue,
            device,
        }
    }
}

impl Since for Holds {
    fn since(&self, earlier: &Self) -> Self {
        let held = self.held.since(&earlier.held);
        Self {
            bios: self.bios.saturating_sub(earlier.bios),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            held_ns: self.held_ns.saturating_sub(earlier.held_ns),
            held_max_ns: longest(&held, self.held_max_ns, earlier.held_max_ns),
            comm: self.comm,
            held,
        }
    }
}

/// The longest time of a window: exact where it is the longest of all so far, else what its bucket allows.
fn longest(window: &Histogram, now_ns: u64, earlier_ns: u64) -> u64 {
    if now_ns > earlier_ns {
        return now_ns;
    }
    let last = window.0.iter().rposition(|count| *count > 0);
    last.map_or(0, |bucket| match bucket + 1 {
        BUCKETS => now_ns,
        next => (Histogram::lower_ns(next) - 1).min(now_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_ebpf::{COMM_LEN, block::ErrorKind};

    fn key(tgid: u32) -> Key {
        Key { device: 7, tgid, ..Key::default() }
    }

    fn sums(times_ns: &[u64]) -> Sums {
        let mut device = Histogram([0; BUCKETS]);
        times_ns.iter().for_each(|ns| device.0[Histogram::bucket(*ns)] += 1);
        Sums {
            requests: times_ns.len() as u64,
            bytes: 4096 * times_ns.len() as u64,
            untimed: 0,
            queue_ns: 0,
            device_ns: times_ns.iter().sum(),
            queue_max_ns: 0,
            device_max_ns: times_ns.iter().copied().max().unwrap_or_default(),
            sequential: 0,
            random: 0,
            merged: 0,
            requeues: 0,
            errors: [0; ErrorKind::COUNT],
            comm: [0; COMM_LEN],
            queue: Histogram([0; BUCKETS]),
            device,
        }
    }

    fn close(windows: &mut BlockWindows, sums: Vec<(Key, Sums)>) -> (Vec<(Key, Sums)>, Idle) {
        let mut maps = BlockMaps { sums, ..BlockMaps::default() };
        let idle = windows.close(&mut maps, false);
        (maps.sums, idle)
    }

    #[test]
    fn a_window_has_what_was_added_in_it() {
        let mut windows = BlockWindows::default();
        let (first, _) = close(&mut windows, vec![(key(1), sums(&[90_000, 5_000]))]);
        assert_eq!((first[0].1.requests, first[0].1.device_max_ns), (2, 90_000));
        // Nothing was added to the one, and the other is new.
        let (second, _) =
            close(&mut windows, vec![(key(1), sums(&[90_000, 5_000])), (key(2), sums(&[7_000]))]);
        assert_eq!(second.iter().map(|(key, _)| key.tgid).collect::<Vec<_>>(), [2]);
        let (third, _) = close(&mut windows, vec![(key(1), sums(&[90_000, 5_000, 4_200]))]);
        let added = &third[0].1;
        assert_eq!((added.requests, added.bytes, added.device_ns), (1, 4096, 4_200));
        assert_eq!(added.device.0.iter().sum::<u64>(), 1);
        // No longer than its bucket, which is a quarter of its lower end wide.
        assert!((4_200..5_250).contains(&added.device_max_ns), "{}", added.device_max_ns);
    }

    #[test]
    fn keys_that_are_idle_make_room_where_it_is_short() {
        let mut windows = BlockWindows::default();
        let few = vec![(key(1), sums(&[1_000]))];
        for _ in 0..=IDLE_WINDOWS {
            assert_eq!(close(&mut windows, few.clone()).1, Idle::default());
        }
        let many: Vec<_> = (0..=MAX_SUMS / 2).map(|tgid| (key(tgid), sums(&[1_000]))).collect();
        assert_eq!(close(&mut windows, many.clone()).1.sums, [key(1)]);
        // The others are new, and what has no owner stays.
        for _ in 1..IDLE_WINDOWS {
            let _ = close(&mut windows, many.clone());
        }
        let mut idle = close(&mut windows, many).1.sums;
        idle.sort_by_key(|key| key.tgid);
        assert_eq!((idle.len(), idle[0].tgid), (MAX_SUMS as usize / 2 - 1, 2));
    }

    #[test]
    fn holds_that_looks_found_are_the_windows_own() {
        let mut windows = BlockWindows::default();
        let held = |ns: u64| Holds {
            bios: 1,
            bytes: 512,
            held_ns: ns,
            held_max_ns: ns,
            comm: [0; COMM_LEN],
            held: Histogram([0; BUCKETS]),
        };
        for has_looked in [false, false, true] {
            let mut maps = BlockMaps { holds: vec![(key(1), held(5_000))], ..BlockMaps::default() };
            windows.close(&mut maps, has_looked);
            assert_eq!(maps.holds.len(), usize::from(has_looked || windows.window == 1));
        }
    }
}
