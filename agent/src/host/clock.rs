//! Ties the kernel's monotonic clock, in which every event is stamped, to the time of day. Done once, here.

use std::time::{SystemTime, UNIX_EPOCH};

/// The monotonic clock and the time of day at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ClockTie {
    monotonic_ns: u64,
    unix_ns: u64,
}

impl ClockTie {
    /// Reads both clocks now.
    #[must_use]
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { monotonic_ns: monotonic_ns(), unix_ns: unix.as_nanos() as u64 }
    }

    /// The time of day of an event, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn unix_ns(self, monotonic_ns: u64) -> u64 {
        self.unix_ns.wrapping_add(monotonic_ns.wrapping_sub(self.monotonic_ns))
    }
}

/// `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`, nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Length of a tick of the kernel's clock, in which it counts some times, nanoseconds.
#[must_use]
pub fn tick_ns() -> u64 {
    let mut tick = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call. This clock goes by ticks, so its resolution is one.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut tick) };
    tick.tv_sec as u64 * 1_000_000_000 + tick.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_before_and_after_the_tie() {
        let tie = ClockTie { monotonic_ns: 1_000, unix_ns: 50_000 };
        assert_eq!((tie.unix_ns(1_500), tie.unix_ns(400)), (50_500, 49_400));
    }
}
