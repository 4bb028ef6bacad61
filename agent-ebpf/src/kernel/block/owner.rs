//! Whose a request or bio is, and which device it is for. All of it is read by plain loads.

use core::mem;

use aya_ebpf::helpers::bpf_get_current_task_btf;
use chokepoint_ebpf::{
    COMM_LEN,
    block::{Key, MINOR_BITS, Operation},
};

use super::super::{
    config::{
        BIO_DEVICE, BIO_DISK, BIO_FLAGS, BIO_GROUP, BLKCG_CGROUP, BLOCK_GATE_BY_GROUP, CGROUP_KN,
        DEVICE_DISK, DEVICE_NUMBER, DISK_FIRST_MINOR, DISK_MAJOR, GROUP_BLKCG, HAS_BIO_DEVICE, HAS_BIO_GROUP,
        HAS_QUEUE_DISK, HAS_TASK_PT_REGS, KERNFS_NODE_ID, PARTITION_DEVICE, QUEUE_DISK, REQUEST_BIO,
        REQUEST_DISK, REQUEST_FLAGS, REQUEST_PARTITION, REQUEST_QUEUE, TASK_COMM, TASK_GROUP_LEADER,
    },
    gate,
    sample::Ids,
    task,
    trusted::Trusted,
};
use super::holds;

/// Who a request comes from.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Submitter {
    pub tgid: u32,
    pub of_target: u32,
    pub comm: [u8; COMM_LEN],
}

impl Submitter {
    /// Nobody in particular.
    #[inline(always)]
    pub fn nobody() -> Self {
        Self { tgid: 0, of_target: u32::from(gate::admits_everything()), comm: [0; COMM_LEN] }
    }

    /// The current thread's process. It is of the target where it or the group that is charged belongs to that.
    #[inline(always)]
    fn current(charged: Option<Trusted>) -> Self {
        let ids = Ids::current();
        let by_group = BLOCK_GATE_BY_GROUP.load() != 0
            && charged.is_some_and(|group| gate::is_in_target(group.untrusted()).unwrap_or(false));
        Self {
            tgid: ids.tgid,
            of_target: u32::from(by_group || gate::admits(task::current(), ids.tgid)),
            comm: current_process_name(),
        }
    }
}

/// What a bio is summed by, and its submitter, which is the current thread's process.
#[inline(always)]
pub fn of_bio(bio: Trusted) -> (Key, Submitter) {
    let (cgroup, cgroup_id) = group_of(Some(bio));
    let submitter = Submitter::current(cgroup);
    let operation = Operation::from_kernel(bio.field(&BIO_FLAGS));
    (key(device_of_bio(bio), operation, cgroup_id, &submitter), submitter)
}

/// What a request is summed by, and its submitter: the current thread's process, but for bios that a kernel thread has released and for
/// flushes.
#[inline(always)]
pub fn of_request(request: Trusted) -> (Key, Submitter) {
    let operation = Operation::from_kernel(request.field(&REQUEST_FLAGS));
    let bio = request.follow(&REQUEST_BIO);
    let (cgroup, cgroup_id) = group_of(bio);
    let submitter = match bio.and_then(holds::submitter_of_released) {
        Some(submitter) => submitter,
        // The kernel makes one flush of many, in whatever thread or interrupt.
        None if operation == Operation::Flush => Submitter::nobody(),
        None => Submitter::current(cgroup),
    };
    (key(device_of(request), operation, cgroup_id, &submitter), submitter)
}

/// The same of a request whose beginning nobody saw: all that is known of its owner is the group.
#[inline(always)]
pub fn of_unseen(request: Trusted) -> Key {
    let operation = Operation::from_kernel(request.field(&REQUEST_FLAGS));
    let (_, cgroup_id) = group_of(request.follow(&REQUEST_BIO));
    key(device_of(request), operation, cgroup_id, &Submitter::nobody())
}

#[inline(always)]
fn key((device, partition): (u32, u32), operation: Operation, cgroup_id: u64, submitter: &Submitter) -> Key {
    Key {
        device,
        partition,
        operation: operation as u32,
        tgid: submitter.tgid,
        cgroup_id,
        of_target: submitter.of_target,
        reserved: 0,
    }
}

/// Name of the current thread's process.
#[inline(always)]
fn current_process_name() -> [u8; COMM_LEN] {
    // The helper that gives a pointer of known type is older than the one that the global tells of.
    if HAS_TASK_PT_REGS.load() == 0 {
        let current = task::current();
        return task::comm(task::group_leader(current).unwrap_or(current));
    }
    // SAFETY: the helper has no preconditions.
    let current = Trusted::new(unsafe { bpf_get_current_task_btf() }.cast());
    let leader = current.follow(&TASK_GROUP_LEADER).unwrap_or(current);
    let halves: [u64; 2] = [leader.field(&TASK_COMM), leader.field_at(&TASK_COMM, 8)];
    // SAFETY: both are sixteen bytes of anything.
    unsafe { mem::transmute::<[u64; 2], [u8; COMM_LEN]>(halves) }
}

/// The whole device of a request, and its partition.
#[inline(always)]
fn device_of(request: Trusted) -> (u32, u32) {
    let disk = if HAS_QUEUE_DISK.load() != 0 {
        request.follow(&REQUEST_QUEUE).and_then(|queue| queue.follow(&QUEUE_DISK))
    } else {
        request.follow(&REQUEST_DISK)
    };
    let device = device_of_disk(disk);
    let partition: u32 = request.follow(&REQUEST_PARTITION).map_or(0, |part| part.field(&PARTITION_DEVICE));
    (device, if partition == 0 { device } else { partition })
}

#[inline(always)]
fn device_of_bio(bio: Trusted) -> (u32, u32) {
    if HAS_BIO_DEVICE.load() != 0 {
        let Some(device) = bio.follow(&BIO_DEVICE) else { return (0, 0) };
        (device_of_disk(device.follow(&DEVICE_DISK)), device.field(&DEVICE_NUMBER))
    } else {
        // By now it is one of the whole disk.
        let disk = device_of_disk(bio.follow(&BIO_DISK));
        (disk, disk)
    }
}

#[inline(always)]
fn device_of_disk(disk: Option<Trusted>) -> u32 {
    let Some(disk) = disk else { return 0 };
    let major: u32 = disk.field(&DISK_MAJOR);
    let minor: u32 = disk.field(&DISK_FIRST_MINOR);
    major << MINOR_BITS | minor
}

/// The group that a bio is charged to, and its id; 0 where there is none.
#[inline(always)]
fn group_of(bio: Option<Trusted>) -> (Option<Trusted>, u64) {
    if HAS_BIO_GROUP.load() == 0 {
        return (None, 0);
    }
    let control = bio.and_then(|bio| bio.follow(&BIO_GROUP)?.follow(&GROUP_BLKCG));
    let cgroup = control.and_then(|control| control.follow(&BLKCG_CGROUP));
    let node = cgroup.and_then(|cgroup| cgroup.follow(&CGROUP_KN));
    (cgroup, node.map_or(0, |node| node.field(&KERNFS_NODE_ID)))
}
