//! What became of what was asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the collector began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    begun: AtomicU64,
    refused: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

impl Counts {
    /// Somebody has asked for a profile.
    pub(super) fn asked(&self, is_begun: bool) {
        let count = if is_begun { &self.begun } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A profile is there, or never will be. Those that were cancelled are neither.
    pub(super) fn ended(&self, is_done: bool) {
        let count = if is_done { &self.done } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of a recording have come.
    pub(super) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// As Prometheus reads them.
    pub(super) fn metrics(&self, agents: usize, under_way: usize, kept_bytes: usize) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let totals = [
            ("demand_begun", of(&self.begun)),
            ("demand_refused", of(&self.refused)),
            ("demand_done", of(&self.done)),
            ("demand_failed", of(&self.failed)),
            ("demand_bytes", of(&self.bytes)),
        ];
        let now = [("agents", agents), ("demand_under_way", under_way), ("demand_kept_bytes", kept_bytes)];
        let counter = |(name, value): (&str, u64)| {
            format!(
                "# TYPE chokepoint_collector_{name}_total counter\nchokepoint_collector_{name}_total {value}\n"
            )
        };
        let gauge = |(name, value): (&str, usize)| {
            format!("# TYPE chokepoint_collector_{name} gauge\nchokepoint_collector_{name} {value}\n")
        };
        totals.into_iter().map(counter).chain(now.into_iter().map(gauge)).collect()
    }
}
