//! The kernel's own record of its events, kept apart from others'.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// Of each CPU: more than any test's events.
const BUFFER_KIB: &str = "8192";

/// An instance of tracefs. Removed when dropped.
pub struct Trace(PathBuf);

impl Trace {
    /// Begins to keep events, such as `block/block_rq_issue`; their times are of `CLOCK_MONOTONIC`. `None` where the kernel has no
    /// tracefs, or not these.
    #[must_use]
    pub fn new(events: &[&str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("{INSTANCES}/chokepoint-{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let trace = Self(path);
        let set = |file: &str, text: &str| fs::write(trace.0.join(file), text).ok();
        set("trace_clock", "mono")?;
        set("buffer_size_kb", BUFFER_KIB)?;
        events.iter().try_for_each(|event| set(&format!("events/{event}/enable"), "1"))?;
        Some(trace)
    }

    /// The events so far as text, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(self.0.join("trace")).expect("the events can be read")
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
