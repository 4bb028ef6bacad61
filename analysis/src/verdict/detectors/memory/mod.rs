//! Constraints of memory: too little of it, or too many pages touched for the first time.

pub(super) mod faults;
pub(super) mod reclaim;

use super::Case;
use crate::activity::Class;

/// Of the pages that are read, at least so many had been in memory before: most of the reads are for want of it.
const REREAD: f64 = 0.5;
/// A page has 4 KiB, and what is read is counted in bytes.
const PAGE_BYTES: f64 = 4096.0;

/// Whether most of what is read from devices had been in memory before.
pub(super) fn rereads(case: &Case<'_>) -> bool {
    let account = case.account;
    let refaults = account.signal("memory.refaults").unwrap_or_default();
    let read = account.signal("block.read_bytes").unwrap_or_default() / PAGE_BYTES;
    // The host's counter may be of others. Whose reads are for want of memory has to free some for them.
    let frees = case.is_host
        || account.waits.iter().any(|wait| wait.class == Class::MemoryReclaim)
        || account.running.iter().any(|running| account.functions(running.stack).any(is_reclaiming));
    // A hundred a second are 0.4 MB/s: less is no thrashing.
    refaults > 100.0 && refaults >= REREAD * read && frees
}

/// Whether a function of the kernel frees memory, or gets back what was freed.
fn is_reclaiming(function: &str) -> bool {
    function.starts_with("shrink_")
        || function.starts_with("try_to_free_")
        || matches!(function, "do_swap_page" | "swap_writepage")
}
