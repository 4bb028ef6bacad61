//! The clock that every record's times are of.

use aya_ebpf::helpers::bpf_ktime_get_ns;

/// Now, `CLOCK_MONOTONIC` nanoseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
