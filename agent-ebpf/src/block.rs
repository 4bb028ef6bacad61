//! Block devices: requests from their insertion to their completion, summed in the kernel, and bios that a group's limit holds
//! back before they become requests.
//!
//! Nothing is told of a single request: the programs keep what is under way in one map and add what is over to another, which
//! the agent reads.

use crate::COMM_LEN;

/// What a request asks of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Operation {
    /// Data from the device.
    Read = 0,
    /// Data to the device.
    Write = 1,
    /// What the device has in its volatile cache is to be made durable.
    Flush = 2,
    /// Sectors are not needed any more; erasing them securely included.
    Discard = 3,
    /// Sectors are to read as zeros, without data.
    WriteZeroes = 4,
    /// Zone management, and commands that only the device's driver knows.
    Other = 5,
}

impl Operation {
    /// Every operation, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::WriteZeroes, Self::Other];

    /// From the low byte of the kernel's flags of a request or bio.
    #[must_use]
    pub const fn from_kernel(operation: u8) -> Self {
        match operation {
            0 => Self::Read,
            // Writing one sector many times was an operation of its own before 5.18; later kernels append to zones by its number.
            1 | 7 => Self::Write,
            2 => Self::Flush,
            3 | 5 => Self::Discard,
            9 => Self::WriteZeroes,
            _ => Self::Other,
        }
    }

    /// The operation with this number; `None` for an unknown one.
    #[must_use]
    pub fn from_u32(value: u32) -> Option<Self> {
        Self::ALL.get(value as usize).copied()
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum ErrorKind {
    /// The device does not know the operation.
    NotSupported = 0,
    /// The device did not answer in time.
    Timeout = 1,
    /// There is no space, as on a thin pool.
    NoSpace = 2,
    /// The way to the device failed.
    Transport = 3,
    /// The device refused for good.
    Target = 4,
    /// Another host has reserved the device.
    Reservation = 5,
    /// The medium is damaged.
    Medium = 6,
    /// Checksums do not match.
    Protection = 7,
    /// Memory or something like it was missing.
    Resource = 8,
    /// An error without a kind of its own.
    Io = 9,
    /// It would have had to wait and was not to.
    Again = 10,
    /// One that this list does not have.
    Other = 11,
}

impl ErrorKind {
    /// Number of kinds.
    pub const COUNT: usize = 12;
    /// Every kind, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::NotSupported,
        Self::Timeout,
        Self::NoSpace,
        Self::Transport,
        Self::Target,
        Self::Reservation,
        Self::Medium,
        Self::Protection,
        Self::Resource,
        Self::Io,
        Self::Again,
        Self::Other,
    ];

    /// From what the tracepoint tells: the block layer's own status, or, before 5.16, a negative errno. `None` for success.
    #[must_use]
    pub const fn from_kernel(status: i32) -> Option<Self> {
        Some(match status {
            0 => return None,
            // EOPNOTSUPP, ETIMEDOUT, ENOSPC, ENOLINK, EREMOTEIO, EBADE, ENODATA, EILSEQ, ENOMEM, EIO, EAGAIN.
            1 | -95 => Self::NotSupported,
            2 | -110 => Self::Timeout,
            3 | -28 => Self::NoSpace,
            4 | -67 => Self::Transport,
            5 | -121 => Self::Target,
            6 | -52 => Self::Reservation,
            7 | -61 => Self::Medium,
            8 | -84 => Self::Protection,
            9 | -12 => Self::Resource,
            10 | -5 => Self::Io,
            12 | -11 => Self::Again,
            _ => Self::Other,
        })
    }
}

/// Buckets of a [`Histogram`]: a power of two, so that an index can be masked.
pub const BUCKETS: usize = 128;
/// Binary logarithm of the nanoseconds below which everything is in the first bucket.
const FIRST_LOG2: u32 = 10;
/// Binary logarithm of the buckets in which each power of two is cut, all equally wide: a bucket is at most a quarter of its
/// lower end wide.
const CUTS_LOG2: u32 = 2;

/// How many times took how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Histogram {
    /// The bucket of a time in nanoseconds. The last one has all that is longer than half an hour.
    #[must_use]
    #[inline(always)]
    pub const fn bucket(ns: u64) -> usize {
        let log2 = log2(ns);
        if log2 < FIRST_LOG2 {
            return 0;
        }
        let cut = (ns >> (log2 - CUTS_LOG2)) & ((1 << CUTS_LOG2) - 1);
        let bucket = 1 + ((log2 - FIRST_LOG2) as usize) * (1 << CUTS_LOG2) + cut as usize;
        if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
    }

    /// The shortest time of a bucket, nanoseconds.
    #[must_use]
    pub const fn lower_ns(bucket: usize) -> u64 {
        if bucket == 0 {
            return 0;
        }
        let position = bucket as u64 - 1;
        let log2 = FIRST_LOG2 as u64 + (position >> CUTS_LOG2);
        let cut = position & ((1 << CUTS_LOG2) - 1);
        (1 << log2) + (cut << (log2 - CUTS_LOG2 as u64))
    }

    /// What was added since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(core::array::from_fn(|bucket| self.0[bucket].saturating_sub(earlier.0[bucket])))
    }
}

/// Rounded down; 0 for 0. In steps, as the processor of the kernel programs has no instruction for it.
#[inline(always)]
const fn log2(mut number: u64) -> u32 {
    let mut log2 = 0;
    if number >> 32 != 0 {
        number >>= 32;
        log2 += 32;
    }
    if number >> 16 != 0 {
        number >>= 16;
        log2 += 16;
    }
    if number >> 8 != 0 {
        number >>= 8;
        log2 += 8;
    }
    if number >> 4 != 0 {
        number >>= 4;
        log2 += 4;
    }
    if number >> 2 != 0 {
        number >>= 2;
        log2 += 2;
    }
    log2 + (number >> 1) as u32
}

/// Requests under way that can be followed; those that begin when there are as many count
/// [`crate::counters::Counter::BlockRequestsFull`]. More than a few thousand tags a device are rare. 2.5 MB.
pub const MAX_REQUESTS: u32 = 16_384;
/// Entries that may stay when their requests are over, for the next at the same addresses: as many as the tags of some devices. The agent
/// reads them with each window, in about a microsecond each.
pub const MAX_KEPT_REQUESTS: u32 = 1_024;
/// Sums kept apart by [`Key`]. Requests of others are added to their device's, without a process and group, and count
/// [`crate::counters::Counter::BlockOwnersFull`]. 2,200 bytes each.
pub const MAX_SUMS: u32 = 2_048;
/// The same by device and operation alone, for what finds no room above.
pub const MAX_DEVICE_SUMS: u32 = 256;
/// Pairs of device and process of which the last sector is remembered; the ones used least make room. 24 bytes each.
pub const MAX_POSITIONS: u32 = 8_192;
/// Bios held back at a time that can be followed; more count [`crate::counters::Counter::BlockHeldFull`]. 1.3 MB.
pub const MAX_HELD: u32 = 16_384;
/// Sums of held bios by [`Key`]; those of others count [`crate::counters::Counter::BlockHoldsFull`].
pub const MAX_HOLDS: u32 = 512;
/// Bios that were held and are not yet part of a request, of which the submitter is remembered; the oldest make room.
pub const MAX_RELEASED: u32 = 4_096;

/// What requests are summed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Key {
    /// The whole device, as the kernel numbers it: the major number above [`MINOR_BITS`] of the minor one; 0 for none.
    pub device: u32,
    /// The partition, or the device again where the request is for none.
    pub partition: u32,
    /// An [`Operation`].
    pub operation: u32,
    /// Process id of the submitter in the initial PID namespace; 0 where there is none.
    pub tgid: u32,
    /// The group that the request is charged to, in the hierarchy of the io controller: of writeback the one that dirtied. 0
    /// where it is not known.
    pub cgroup_id: u64,
    /// 1 where it is part of the target.
    pub of_target: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
}

/// Bits of a minor device number in the kernel's own form.
pub const MINOR_BITS: u32 = 20;

/// What the requests of one [`Key`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sums {
    /// Requests that completed.
    pub requests: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Those of them whose beginning or end was not seen: they are in no time and no histogram.
    pub untimed: u64,
    /// Time from their insertion to the device's queue until they were issued to the device.
    pub queue_ns: u64,
    /// Time from their issue until their completion.
    pub device_ns: u64,
    /// The longest time in the queue.
    pub queue_max_ns: u64,
    /// The longest time at the device.
    pub device_max_ns: u64,
    /// Requests that began where the last one of the same process on the same device ended.
    pub sequential: u64,
    /// Requests that began elsewhere. Of the first one nothing can be said.
    pub random: u64,
    /// Requests that became part of others before they were issued; they are not among those that completed.
    pub merged: u64,
    /// Times that a device gave a request back to the queue.
    pub requeues: u64,
    /// Requests that failed, by [`ErrorKind`].
    pub errors: [u64; ErrorKind::COUNT],
    /// Name of the process, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Time in the queue.
    pub queue: Histogram,
    /// Time at the device.
    pub device: Histogram,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// In the device's queue.
    Queued = 0,
    /// At the device.
    Issued = 1,
    /// It is over, and its entry waits for the next request at its address.
    Over = 2,
}

/// Whether a request began where the one before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Position {
    /// Nothing is known of the one before.
    Unknown = 0,
    /// It did.
    Sequential = 1,
    /// It did not.
    Random = 2,
}

/// A request under way: the value of a map by the address of the kernel's `struct request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// What it is summed by.
    pub key: Key,
    /// Since when it is at its stage, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// Time in the queue before that.
    pub queue_ns: u64,
    /// The kernel's own time of its beginning, which tells it from a later one at the same address; 0 where it keeps none.
    pub kernel_start_ns: u64,
    /// Its size.
    pub bytes: u32,
    /// A [`Stage`].
    pub stage: u32,
    /// 1 once it has been issued.
    pub was_issued: u32,
    /// A [`Position`].
    pub position: u32,
    /// Times that it was given back to the queue.
    pub requeues: u32,
    /// 1 + an [`ErrorKind`] once a part of it has failed.
    pub failed: u32,
    /// Name of the submitter, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// What bios held back came to, once they were released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Holds {
    /// Bios.
    pub bios: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Time they were held.
    pub held_ns: u64,
    /// The longest of it.
    pub held_max_ns: u64,
    /// Name of the process, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Time they were held.
    pub held: Histogram,
}

/// A bio that is held back: the value of a map by the address of the kernel's `struct bio`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HeldBio {
    /// What it is summed by.
    pub key: Key,
    /// Since when.
    pub since_ns: u64,
    /// Its first sector, which tells it from a later one at the same address.
    pub sector: u64,
    /// Its size.
    pub bytes: u32,
    /// 1 once it has come by the limit again.
    pub returned: u32,
    /// Name of the submitter, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Words that a [`Peek`] shows.
pub const PEEK_WORDS: usize = 8;

/// A piece of the kernel's memory that the agent asked to see, where it has to look for held bios itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Peek {
    /// What is there.
    pub words: [u64; PEEK_WORDS],
    /// 1 where it could be read.
    pub is_read: u64,
}

const _: () = assert!(BUCKETS.is_power_of_two());
const _: () = assert!(MAX_KEPT_REQUESTS < MAX_REQUESTS / 2, "most of the room is for requests under way");
const _: () = assert!(size_of::<Key>() == 32 && size_of::<Request>() == 96, "no holes");
const _: () = assert!(size_of::<HeldBio>() == 72, "no holes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_lies_in_its_bucket_and_buckets_follow_each_other() {
        for bucket in 0..BUCKETS {
            let lower_ns = Histogram::lower_ns(bucket);
            assert_eq!(Histogram::bucket(lower_ns), bucket);
            if bucket + 1 < BUCKETS {
                let upper_ns = Histogram::lower_ns(bucket + 1);
                assert_eq!(Histogram::bucket(upper_ns - 1), bucket);
                assert!(bucket == 0 || upper_ns - lower_ns <= lower_ns / 4, "{lower_ns} to {upper_ns}");
            }
        }
        assert_eq!(Histogram::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn logarithms_are_rounded_down() {
        for number in [1, 2, 3, 4, 1023, 1024, 1025, u64::MAX / 2, u64::MAX] {
            assert_eq!(log2(number), number.ilog2(), "{number}");
        }
        assert_eq!(log2(0), 0);
    }

    #[test]
    fn numbers_and_kinds_agree() {
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
            assert_eq!(Operation::from_u32(number as u32), Some(operation));
        }
        for (number, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
        assert_eq!(ErrorKind::from_kernel(0), None);
        // As an errno and as a status.
        assert_eq!(
            (ErrorKind::from_kernel(-5), ErrorKind::from_kernel(10)),
            (Some(ErrorKind::Io), Some(ErrorKind::Io))
        );
    }
}
