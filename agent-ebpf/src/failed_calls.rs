//! System calls that fail for want of something that is limited.
//!
//! Who meets a limit looks idle: its call fails at once, and it tries again later. Every call of the host ends in this source's
//! program, so the agent attaches it for a part of the time only, the smaller the more calls there are.

use crate::COMM_LEN;

/// Entries of the map of calls, two to four for each process that meets a limit; calls of more count
/// [`crate::counters::Counter::FailedCallsFull`]. 90 bytes each.
pub const MAX_FAILED_CALLS: u32 = 4_096;

/// [`CallKey::error`] of calls that did not fail. They are counted from the first failure on, of the same process and system call.
pub const NO_ERROR: u16 = 0;

/// Which calls: the key of the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct CallKey {
    /// Process id in the initial PID namespace.
    pub tgid: u32,
    /// Number of the system call.
    pub syscall: u16,
    /// Number of the error, or [`NO_ERROR`].
    pub error: u16,
}

/// How often: the value of the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CallTotals {
    /// Calls that ended so.
    pub calls: u64,
    /// Name of the process, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Whether an error says that something limited is used up. `makes_process` is whether the call was to make a thread or process: only
/// there does `EAGAIN` say so.
#[inline(always)]
#[must_use]
pub const fn is_of_limit(error: u16, makes_process: bool) -> bool {
    const EAGAIN: u16 = 11;
    const ENOMEM: u16 = 12;
    const ENFILE: u16 = 23;
    const EMFILE: u16 = 24;
    const ENOSPC: u16 = 28;
    const EADDRNOTAVAIL: u16 = 99;
    const ENOBUFS: u16 = 105;
    const EDQUOT: u16 = 122;
    matches!(error, ENOMEM | ENFILE | EMFILE | ENOSPC | EADDRNOTAVAIL | ENOBUFS | EDQUOT)
        || (makes_process && error == EAGAIN)
}
