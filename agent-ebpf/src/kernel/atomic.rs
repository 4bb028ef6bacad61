//! Numbers that programs on several CPUs change at the same time.

use core::arch::asm;

/// Adds to a number. The standard library has no atomic numbers for this target; the instruction is one of the first it had.
///
/// # Safety
/// `number` must be in a map's entry or the program's own, and aligned.
#[inline(always)]
pub unsafe fn add(number: *mut u64, by: u64) {
    // SAFETY: as the caller's; the instruction changes nothing else.
    unsafe {
        asm!("lock *(u64 *)({number} + 0) += {by}", number = in(reg) number, by = in(reg) by, options(nostack));
    }
}
