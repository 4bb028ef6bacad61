//! Run queues: how long threads were queued until they ran, and who ran meanwhile.

use crate::COMM_LEN;

/// How much of run queues is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum QueueDetail {
    /// Nothing but the time that threads queued.
    #[default]
    Nothing = 0,
    /// Latencies, too.
    Latencies = 1,
    /// And who ran meanwhile.
    WhoRan = 2,
}

/// Buckets of a thread's run-queue latencies: two an octave, from 250 ns to 3.1 s and more. The powers of two of a microsecond are
/// among their bounds.
pub const LATENCY_BUCKETS: usize = 48;
/// What the first bucket is wide.
pub const LATENCY_UNIT_NS: u64 = 250;

/// The bucket that a latency falls into.
#[must_use]
#[inline(always)]
pub const fn latency_bucket(latency_ns: u64) -> usize {
    let units = latency_ns / LATENCY_UNIT_NS;
    if units < 2 {
        return units as usize;
    }
    let octave = units.ilog2() as usize;
    let bucket = 2 * octave + (units >> (octave - 1) & 1) as usize;
    if bucket < LATENCY_BUCKETS { bucket } else { LATENCY_BUCKETS - 1 }
}

/// Where a bucket begins, nanoseconds.
#[must_use]
pub const fn latency_bucket_begin_ns(bucket: usize) -> u64 {
    if bucket < 2 {
        return bucket as u64 * LATENCY_UNIT_NS;
    }
    let half = 1 << (bucket / 2 - 1);
    (2 * half + (bucket as u64 & 1) * half) * LATENCY_UNIT_NS
}

/// Turns on each CPU that are remembered, to be told to who queued meanwhile; a power of two. Of a longer queue only the last of it
/// is known.
pub const REMEMBERED_TURNS: usize = 32;

/// By which queued time is chosen to be told apart by who ran: one of length t with the probability min(1, t / period), so that it
/// stands for max(t, period). At least this much of queued time lies between two of them, whatever the rate of switches.
pub const QUEUE_PERIOD_NS: u64 = 100_000;

/// Pairs of processes on each CPU, in the map of them; more count [`crate::counters::Counter::QueuePairsFull`]. 100 bytes each.
pub const MAX_QUEUE_PAIRS: u32 = 32_768;

/// Process id in [`QueuePair::runner`] for time of which it is not known who ran.
pub const UNKNOWN_RUNNER: u32 = u32::MAX;

/// Who queued, and who ran on that CPU meanwhile: a key of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct QueuePair {
    /// Process that queued.
    pub queued: u32,
    /// Process that ran; 0 is an idle CPU on its way to the thread.
    pub runner: u32,
    /// The CPU that says so, which alone writes the entry.
    pub cpu: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
}

/// How long, and who that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Behind {
    /// Queued time that this stands for, nanoseconds.
    pub ns: u64,
    /// Group of the thread that ran, in the hierarchy that controls CPUs; 0 where it could not be read.
    pub runner_cgroup: u64,
    /// Name of the thread that ran, zero-terminated.
    pub runner_comm: [u8; COMM_LEN],
}

const _: () = assert!(REMEMBERED_TURNS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_the_bucket_that_begins_before_it() {
        for bucket in 0..LATENCY_BUCKETS {
            let begin = latency_bucket_begin_ns(bucket);
            assert_eq!(latency_bucket(begin), bucket);
            if bucket > 0 {
                assert_eq!(latency_bucket(begin - 1), bucket - 1);
            }
        }
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
        assert!((0..LATENCY_BUCKETS).any(|bucket| latency_bucket_begin_ns(bucket) == 1_024_000));
    }
}
