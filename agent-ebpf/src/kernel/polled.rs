//! Which file descriptor a thread polls, where it is a single one: then the wait is for that file, as a read of it would be.

use aya_ebpf::helpers::bpf_probe_read_user;
use chokepoint_ebpf::sched::{NO_DESCRIPTOR, SYSCALL_ARGUMENTS};

use super::arch;

/// Descriptors in the part of a set that is read.
const OF_WORD: u64 = u64::BITS as u64;

/// The descriptor that the current thread waits for in `poll` or reads by `select`; [`NO_DESCRIPTOR`] in other calls, of several, and
/// where the memory that says it is not there.
#[inline(always)]
pub fn descriptor(syscall: u64, arguments: &[u64; SYSCALL_ARGUMENTS]) -> u64 {
    let [first, second, _] = *arguments;
    if arch::is_poll(syscall) && second == 1 {
        // SAFETY: the helper checks the address and fails instead of faulting.
        return match unsafe { bpf_probe_read_user(first as *const i32) } {
            Ok(descriptor) if descriptor >= 0 => descriptor as u64,
            _ => NO_DESCRIPTOR,
        };
    }
    if arch::is_select(syscall) && first > 0 && first <= OF_WORD {
        // SAFETY: as above.
        return match unsafe { bpf_probe_read_user(second as *const u64) } {
            Ok(set) => single(set & (u64::MAX >> (OF_WORD - first))),
            Err(_) => NO_DESCRIPTOR,
        };
    }
    NO_DESCRIPTOR
}

/// The only bit of a set.
#[inline(always)]
fn single(set: u64) -> u64 {
    if set == 0 || set & (set - 1) != 0 {
        return NO_DESCRIPTOR;
    }
    // The processor of these programs cannot count zeros.
    let bit = |mask: u64, position: u32| u64::from(set & mask != 0) << position;
    bit(0xaaaa_aaaa_aaaa_aaaa, 0)
        | bit(0xcccc_cccc_cccc_cccc, 1)
        | bit(0xf0f0_f0f0_f0f0_f0f0, 2)
        | bit(0xff00_ff00_ff00_ff00, 3)
        | bit(0xffff_0000_ffff_0000, 4)
        | bit(0xffff_ffff_0000_0000, 5)
}
