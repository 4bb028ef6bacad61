//! What recordings on demand cost: processes of their own, of which the agent's own time tells nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::host::cost::{of_ended_children, of_process};

/// Since the agent began.
#[derive(Debug, Default)]
pub struct Costs {
    running: Mutex<BTreeSet<u32>>,
    program_ns: AtomicU64,
}

impl Costs {
    /// A recording's process has begun.
    pub(super) fn begun(&self, pid: u32) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    /// It was waited for.
    pub(super) fn ended(&self, pid: u32) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }

    /// A recording's kernel programs took so long.
    pub(super) fn add_programs(&self, program_ns: u64) {
        self.program_ns.fetch_add(program_ns, Ordering::Relaxed);
    }

    /// CPU time of all processes, those that run included.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // One that ends in between is missing for once: so the sum may only be used as the greatest that was seen.
        let running: Duration = running.iter().filter_map(|pid| of_process(*pid)).sum();
        of_ended_children() + running
    }

    /// CPU time of the kernel programs of those that have ended, as far as it was measured.
    #[must_use]
    pub fn program_ns(&self) -> u64 {
        self.program_ns.load(Ordering::Relaxed)
    }
}
