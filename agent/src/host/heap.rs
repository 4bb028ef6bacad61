//! What the C library does with memory that was freed.

/// Arenas of a process that goes on for weeks. By default each thread has its own, and keeps what its busiest window took: a storm of processes
/// left twice as much resident. The threads of a continuous session work one after the other, so that they hardly wait for each other.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Has the threads that are started from now on share their heaps, where the C library has one for each.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no memory is involved; a value that the C library does not like changes nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Returns freed memory to the kernel, where the C library has a call for it.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that could be wrong; safe to call at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
