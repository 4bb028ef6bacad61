//! One number a cause, on each CPU.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use chokepoint_ebpf::counters::Counter;

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the entry belongs to this CPU. An interrupt between load and store may lose one count of the same
        // counter; each counter is touched by one program kind, and a program does not interrupt itself. Those of TCP, and the
        // one of files that could not be announced, are touched in interrupts and outside of them: of losses at the same moment one may
        // go uncounted, never all.
        unsafe { *value += 1 };
    }
}
