//! Bios that the limits of groups hold back, found by looking at the kernel's queues from time to time: for kernels that let no
//! program see them come and go.
//!
//! Looks are some milliseconds apart. A bio counts from the look before the first that has it to the last that has it: what is
//! added at one end is missing at the other, and one that is held for less than the time between two looks is met as rarely as
//! it counts more. So the sum is right on average, and bios that were held for a shorter time than that may be missing from the
//! number.

use std::collections::HashMap;

use chokepoint_ebpf::block::{BUCKETS, HeldBio, Histogram, Holds, Key, MINOR_BITS, Operation, PEEK_WORDS};

use crate::load::layout::KernelLayout;

/// Devices that are looked at.
const MAX_QUEUES: usize = 256;
/// Groups that are looked at on each of them.
const MAX_GROUPS: usize = 256;
/// Bios that are followed; of more at a time, the number and the group's time are too low.
const MAX_BIOS: usize = 2_048;
/// Groups above a group, and queues of bios of one.
const MAX_DEPTH: usize = 64;
/// Addresses of the kernel are above this, on the processors that this runs on.
const KERNEL_ADDRESSES: u64 = 1 << 63;

/// The kernel's memory.
pub trait KernelMemory {
    /// What is at an address; at 0, the address of the current thread's structure. `None` where nothing can be read.
    fn read(&mut self, address: u64) -> Option<[u64; PEEK_WORDS]>;
}

/// Where the fields are that lead to held bios.
#[derive(Clone, Debug)]
pub struct Fields {
    task_groups: u64,
    /// Of the io controller in the array of a set's groups.
    set_state: u64,
    state_parent: u64,
    group_node: u64,
    node_id: u64,
    blkcg_state: u64,
    blkcg_group: u64,
    blkcg_blkgs: u64,
    blkg_link: u64,
    blkg_blkcg: u64,
    blkg_queue: u64,
    queue_throttle: u64,
    throttle_queued: u64,
    throttle_tree: u64,
    throttled_link: u64,
    throttled_tree: u64,
    throttled_queued: u64,
    queued_link: u64,
    queued_bios: Vec<u64>,
    bio_next: u64,
    bio_flags: u64,
    bio_bytes: u64,
    bio_sector: u64,
    bio_blkg: u64,
    bio_device: Result<u64, u64>,
    device_disk: u64,
    device_number: u64,
    disk_major: u64,
    disk_minor: u64,
}

impl Fields {
    /// `None` on kernels that have no limits for block devices.
    #[must_use]
    pub fn of(layout: &KernelLayout) -> Option<Self> {
        let at = |structure, field| layout.followed(structure, field);
        let io = u64::from(layout.controller("io")?);
        let bios: Vec<u64> = ["bios", "bios_bps", "bios_iops"]
            .into_iter()
            .filter_map(|field| at("throtl_qnode", field))
            .collect();
        Some(Self {
            task_groups: at("task_struct", "cgroups")?,
            set_state: at("css_set", "subsys")? + 8 * io,
            state_parent: at("cgroup_subsys_state", "parent")?,
            group_node: at("cgroup", "kn")?,
            node_id: at("kernfs_node", "id")?,
            blkcg_state: at("blkcg", "css")?,
            blkcg_group: at("blkcg", "css.cgroup")?,
            blkcg_blkgs: at("blkcg", "blkg_list")?,
            blkg_link: at("blkcg_gq", "blkcg_node")?,
            blkg_blkcg: at("blkcg_gq", "blkcg")?,
            blkg_queue: at("blkcg_gq", "q")?,
            queue_throttle: at("request_queue", "td")?,
            throttle_queued: at("throtl_data", "nr_queued")?,
            throttle_tree: at("throtl_data", "service_queue.pending_tree")?,
            throttled_link: at("throtl_grp", "rb_node")?,
            throttled_tree: at("throtl_grp", "service_queue.pending_tree")?,
            throttled_queued: at("throtl_grp", "service_queue.queued")?,
            queued_link: at("throtl_qnode", "node")?,
            queued_bios: bios,
            bio_next: at("bio", "bi_next")?,
            bio_flags: at("bio", "bi_opf")?,
            bio_bytes: at("bio", "bi_iter.bi_size")?,
            bio_sector: at("bio", "bi_iter.bi_sector")?,
            bio_blkg: at("bio", "bi_blkg")?,
            bio_device: match at("bio", "bi_bdev") {
                Some(device) => Ok(device),
                None => Err(at("bio", "bi_disk")?),
            },
            device_disk: at("block_device", "bd_disk")?,
            device_number: at("block_device", "bd_dev")?,
            disk_major: at("gendisk", "major")?,
            disk_minor: at("gendisk", "first_minor")?,
        })
    }
}

/// A bio that a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    address: u64,
    sector: u64,
    bytes: u32,
    key: Key,
}

/// One way through the kernel's structures. They change meanwhile: what is read is checked, and every loop ends.
struct Walk<'a, M> {
    memory: &'a mut M,
    fields: &'a Fields,
}

impl<M: KernelMemory> Walk<'_, M> {
    fn word(&mut self, address: u64) -> Option<u64> {
        self.memory.read(address).map(|words| words[0])
    }

    fn half_word(&mut self, address: u64) -> Option<u32> {
        self.word(address).map(|word| word as u32)
    }

    /// The pointer at an address; `None` where it leads nowhere.
    fn follow(&mut self, address: u64) -> Option<u64> {
        self.word(address).filter(|pointer| *pointer >= KERNEL_ADDRESSES)
    }

    /// The limits' side of every device: the hierarchy's root has a link to each.
    fn throttles(&mut self) -> Vec<u64> {
        let mut throttles = Vec::new();
        let mut link = self.root().and_then(|root| self.follow(root + self.fields.blkcg_blkgs));
        while let Some(at) = link.filter(|_| throttles.len() < MAX_QUEUES) {
            let blkg = at - self.fields.blkg_link;
            let queue = self.follow(blkg + self.fields.blkg_queue);
            throttles.extend(queue.and_then(|queue| self.follow(queue + self.fields.queue_throttle)));
            link = self.follow(at);
        }
        throttles
    }

    fn root(&mut self) -> Option<u64> {
        let current = self.word(0)?;
        let set = self.follow(current + self.fields.task_groups)?;
        let mut state = self.follow(set + self.fields.set_state)?;
        for _ in 0..MAX_DEPTH {
            match self.follow(state + self.fields.state_parent) {
                Some(parent) => state = parent,
                None => return Some(state - self.fields.blkcg_state),
            }
        }
        None
    }

    /// Whether anything is held on a device: most of the time one look at two numbers.
    fn holds_any(&mut self, throttle: u64) -> bool {
        self.word(throttle + self.fields.throttle_queued)
            .is_some_and(|reads_and_writes| reads_and_writes != 0)
    }

    fn held_on(&mut self, throttle: u64, found: &mut Vec<Found>) {
        let mut nodes: Vec<u64> = self.follow(throttle + self.fields.throttle_tree).into_iter().collect();
        let mut groups = 0;
        while let Some(node) = nodes.pop() {
            groups += 1;
            if groups > MAX_GROUPS {
                break;
            }
            // A node's own parent and color, then both its children.
            for child in [8, 16] {
                nodes.extend(self.follow(node + child));
            }
            let group = node - self.fields.throttled_link;
            nodes.extend(self.follow(group + self.fields.throttled_tree));
            for direction in 0..2 {
                self.queued_in(group + self.fields.throttled_queued + 16 * direction, found);
            }
        }
    }

    /// The bios of a list of queues.
    fn queued_in(&mut self, head: u64, found: &mut Vec<Found>) {
        let mut link = self.follow(head);
        for _ in 0..MAX_DEPTH {
            let Some(at) = link.filter(|at| *at != head) else { return };
            let queue = at - self.fields.queued_link;
            for bios in self.fields.queued_bios.clone() {
                let mut bio = self.follow(queue + bios);
                while let Some(address) = bio.filter(|_| found.len() < MAX_BIOS) {
                    found.extend(self.bio(address));
                    bio = self.follow(address + self.fields.bio_next);
                }
            }
            link = self.follow(at);
        }
    }

    fn bio(&mut self, address: u64) -> Option<Found> {
        let fields = self.fields;
        let (device, partition) = match fields.bio_device {
            Ok(at) => {
                let device = self.follow(address + at)?;
                let disk = self.follow(device + fields.device_disk)?;
                (self.disk(disk)?, self.half_word(device + fields.device_number)?)
            }
            Err(at) => {
                let disk = self.follow(address + at)?;
                let number = self.disk(disk)?;
                (number, number)
            }
        };
        let blkcg =
            self.follow(address + fields.bio_blkg).and_then(|blkg| self.follow(blkg + fields.blkg_blkcg));
        let node = blkcg
            .and_then(|blkcg| self.follow(blkcg + fields.blkcg_group))
            .and_then(|group| self.follow(group + fields.group_node));
        let cgroup_id = node.and_then(|node| self.word(node + fields.node_id)).unwrap_or_default();
        let operation = Operation::from_kernel(self.word(address + fields.bio_flags)? as u8) as u32;
        Some(Found {
            address,
            sector: self.word(address + fields.bio_sector)?,
            bytes: self.half_word(address + fields.bio_bytes)?,
            key: Key { device, partition, operation, cgroup_id, ..Key::default() },
        })
    }

    fn disk(&mut self, disk: u64) -> Option<u32> {
        let major = self.half_word(disk + self.fields.disk_major)?;
        Some(major << MINOR_BITS | self.half_word(disk + self.fields.disk_minor)?)
    }
}

/// A bio that the last look has found.
#[derive(Clone, Copy, Debug)]
struct Followed {
    since_ns: u64,
    sector: u64,
    bytes: u32,
}

/// What looks have found so far.
#[derive(Debug, Default)]
pub struct HeldBios {
    throttles: Vec<u64>,
    searched_ns: u64,
    last_look_ns: u64,
    last_found_ns: u64,
    now: HashMap<(u64, Key), Followed>,
    holds: HashMap<Key, Holds>,
    /// Looks that did not see all: there was too much.
    short: u64,
}

/// Time between two searches for devices.
const SEARCH_INTERVAL_NS: u64 = 1_000_000_000;
/// How long after the last held bio looks are frequent.
const FREQUENT_NS: u64 = 2_000_000_000;

impl HeldBios {
    /// Looks at every device.
    pub fn look(&mut self, memory: &mut impl KernelMemory, fields: &Fields, now_ns: u64) {
        let mut walk = Walk { memory, fields };
        if self.searched_ns == 0 || now_ns - self.searched_ns >= SEARCH_INTERVAL_NS {
            self.throttles = walk.throttles();
            self.searched_ns = now_ns;
        }
        let mut found = Vec::new();
        for throttle in &self.throttles {
            if walk.holds_any(*throttle) {
                walk.held_on(*throttle, &mut found);
            }
        }
        self.short += u64::from(found.len() >= MAX_BIOS);
        self.add(&found, now_ns);
    }

    fn add(&mut self, found: &[Found], now_ns: u64) {
        let before_ns = if self.last_look_ns == 0 { now_ns } else { self.last_look_ns };
        let mut before = std::mem::take(&mut self.now);
        for bio in found {
            let known = before.remove(&(bio.address, bio.key)).filter(|known| known.sector == bio.sector);
            let begins = Followed { since_ns: before_ns, sector: bio.sector, bytes: bio.bytes };
            self.now.insert((bio.address, bio.key), known.unwrap_or(begins));
        }
        // The others are over since some time after the last look.
        for ((_, key), bio) in before {
            self.sum_up(key, &bio, before_ns);
        }
        if !found.is_empty() {
            self.last_found_ns = now_ns;
        }
        self.last_look_ns = now_ns;
    }

    fn sum_up(&mut self, key: Key, bio: &Followed, end_ns: u64) {
        let held_ns = end_ns.saturating_sub(bio.since_ns);
        let nothing = Holds {
            bios: 0,
            bytes: 0,
            held_ns: 0,
            held_max_ns: 0,
            comm: [0; chokepoint_ebpf::COMM_LEN],
            held: Histogram([0; BUCKETS]),
        };
        let holds = self.holds.entry(key).or_insert(nothing);
        holds.bios += 1;
        holds.bytes += u64::from(bio.bytes);
        holds.held_ns += held_ns;
        holds.held_max_ns = holds.held_max_ns.max(held_ns);
        holds.held.0[Histogram::bucket(held_ns)] += 1;
    }

    /// Whether something is held, or was a moment ago, so that the next look is to come soon.
    #[must_use]
    pub fn is_pressing(&self, now_ns: u64) -> bool {
        self.last_found_ns != 0 && now_ns.saturating_sub(self.last_found_ns) < FREQUENT_NS
    }

    /// Looks that did not see all, since this was asked last.
    pub fn take_short(&mut self) -> u64 {
        std::mem::take(&mut self.short)
    }

    /// What was held and is not any more since the last window, and what the last look has found.
    #[must_use]
    pub fn close_window(&mut self) -> (Vec<(Key, Holds)>, Vec<HeldBio>) {
        let held = self.now.iter().map(|((_, key), bio)| HeldBio {
            key: *key,
            since_ns: bio.since_ns,
            sector: bio.sector,
            bytes: bio.bytes,
            returned: 0,
            comm: [0; chokepoint_ebpf::COMM_LEN],
        });
        (self.holds.drain().collect(), held.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key =
        Key { device: 1, partition: 1, operation: 0, tgid: 0, cgroup_id: 5, of_target: 0, reserved: 0 };

    fn found(address: u64, sector: u64) -> Found {
        Found { address, sector, bytes: 512, key: KEY }
    }

    #[test]
    fn a_bio_counts_from_the_look_before_it_to_the_last_that_has_it() {
        let mut bios = HeldBios::default();
        bios.add(&[], 100);
        bios.add(&[found(1, 0)], 110);
        bios.add(&[found(1, 0), found(2, 8)], 120);
        bios.add(&[found(2, 8)], 130);
        assert!(bios.is_pressing(140));
        let (holds, held) = bios.close_window();
        let [(KEY, holds)] = holds.as_slice() else { panic!("{holds:?}") };
        assert_eq!((holds.bios, holds.bytes, holds.held_ns, holds.held_max_ns), (1, 512, 20, 20));
        assert_eq!(held.iter().map(|bio| (bio.since_ns, bio.sector)).collect::<Vec<_>>(), [(110, 8)]);
    }

    #[test]
    fn another_bio_at_the_same_address_is_another() {
        let mut bios = HeldBios::default();
        bios.add(&[found(1, 0)], 10);
        bios.add(&[found(1, 64)], 20);
        let (_, held) = bios.close_window();
        assert_eq!(held[0].since_ns, 10);
        assert_eq!(held[0].sector, 64);
    }

    /// All that is read leads to the same place.
    struct Circle;

    impl KernelMemory for Circle {
        fn read(&mut self, _: u64) -> Option<[u64; PEEK_WORDS]> {
            Some([KERNEL_ADDRESSES + 4096; PEEK_WORDS])
        }
    }

    #[test]
    fn structures_that_lead_in_circles_come_to_an_end() {
        let Ok(bytes) = std::fs::read(crate::load::layout::KERNEL_BTF) else {
            return eprintln!("skipped: no type information");
        };
        let layout = KernelLayout::from_btf(&bytes).unwrap();
        let Some(fields) = Fields::of(&layout) else { return eprintln!("skipped: no limits") };
        let mut bios = HeldBios::default();
        bios.look(&mut Circle, &fields, 1);
        let mut walk = Walk { memory: &mut Circle, fields: &fields };
        let mut found = Vec::new();
        walk.held_on(KERNEL_ADDRESSES, &mut found);
        assert!(found.len() <= MAX_BIOS);
    }
}
