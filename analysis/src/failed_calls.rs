//! System calls that failed for want of something that is limited: files, processes, memory, room on a device, ports.
//!
//! They are looked at for a part of the time only, since every call of the host has to be seen for it.

use serde::{Deserialize, Serialize};

/// What was seen of them in a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCalls {
    /// For how long of the window calls were looked at, nanoseconds.
    pub looked_ns: u64,
    /// Those of which some failed, the most failures first.
    pub calls: Vec<FailedCall>,
}

/// Calls of one kind by one process that failed with the same error.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailedCall {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub process_name: String,
    /// Name of the system call: `accept4`; its number where the name is not known.
    pub call: String,
    /// The error: `EMFILE`.
    pub error: String,
    /// How many failed so, of those that were looked at.
    pub failed: u64,
    /// How many of these calls there were since the first that failed, that and the failed ones included.
    pub attempts: u64,
}

impl FailedCalls {
    /// Failures a second of those that `is` holds for.
    #[must_use]
    pub fn rate(&self, is: impl Fn(&FailedCall) -> bool) -> f64 {
        let failed: u64 = self.calls.iter().filter(|call| is(call)).map(|call| call.failed).sum();
        if self.looked_ns == 0 { 0.0 } else { failed as f64 * 1e9 / self.looked_ns as f64 }
    }
}
