//! The time of day.

use std::time::SystemTime;

/// Nanoseconds since the Unix epoch by this host's clock; 0 where that is before it.
pub(crate) fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
