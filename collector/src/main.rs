//! The collector.

use std::process::ExitCode;

/// Bytes from which on memory is the kernel's again when it is freed: what a stream's first window is read into, the rows of a segment.
#[cfg(target_env = "gnu")]
const RETURNED_BYTES: i32 = 64 << 10;
/// Heaps that threads share. By default each thread that waits for the disk comes to have one, with the largest window that it ever took in.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

fn main() -> ExitCode {
    keep_little();
    chokepoint_collector::cli::main(give_back)
}

/// Has the allocator keep little of what is free. Where it takes none of this, it goes on as it is, and the collector takes more memory.
fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, HEAPS),
        (libc::M_MMAP_THRESHOLD, RETURNED_BYTES),
        (libc::M_TRIM_THRESHOLD, RETURNED_BYTES),
    ] {
        // SAFETY: it takes two numbers, and no other thread runs yet.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Has the allocator give back what is free between what is not: thousands of streams begin with large windows and go on with small ones.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
