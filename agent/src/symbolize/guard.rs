//! The one place where code that parses foreign files is called.
//!
//! Two things would otherwise end the agent. A malformed file can run the parser into a panic. And a file that is
//! cut short while it is mapped raises SIGBUS at the next touch of the lost part: any user can do that to his own
//! shared library, and `cp new.so old.so` does it by accident. Within [`guarded`], the lost page is replaced by
//! zeros so that the parser can run to its end, and the outcome is a [`Fault`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::{Once, OnceLock};

/// Why guarded code has no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It panicked, with this message. What it worked on must be dropped.
    Panicked(String),
    /// A mapped file lost pages while it ran. What was parsed from it must be dropped.
    FileShrank,
}

/// Runs `f`; a panic or a lost file page becomes a [`Fault`].
///
/// The caller drops whatever `f` was changing when it gets one, and tells of it: a panic in here prints nothing, or
/// a directory of malformed files would fill the agent's log.
pub(super) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, Fault> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        install_handler();
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !ACTIVE.get() {
                report(panic);
            }
        }));
    });

    PAGES_LOST.set(false);
    ACTIVE.set(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    ACTIVE.set(false);

    match result {
        Err(payload) => Err(Fault::Panicked(message(payload.as_ref()))),
        Ok(_) if PAGES_LOST.get() => Err(Fault::FileShrank),
        Ok(value) => Ok(value),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

// Without a destructor and with a constant initial value these are plain thread-local memory, which a signal
// handler may touch.
thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static PAGES_LOST: Cell<bool> = const { Cell::new(false) };
}

static OTHER_HANDLER: OnceLock<libc::sigaction> = OnceLock::new();

fn install_handler() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    // SAFETY: sigaction is plain memory for which all zeros is valid; both pointers outlive the call. The handler
    // that was there (Rust's own stack-overflow report) is kept, and called for every SIGBUS that is not ours.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, std::ptr::null(), &mut old);
        let _ = OTHER_HANDLER.set(old);
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut new.sa_mask);
        libc::sigaction(libc::SIGBUS, &new, std::ptr::null_mut());
    }
}

/// Only async-signal-safe calls: `mmap`, `sigaction`, thread-local and static memory.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    /// From asm-generic/siginfo.h: the address exists, but the file behind it does not reach that far.
    const BUS_ADRERR: libc::c_int = 2;
    // A multiple of every page size in use would overwrite neighbours; x86-64 and the usual aarch64 have 4 KiB.
    const PAGE_BYTES: usize = 4096;

    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler. The page that is replaced belongs to a
    // file mapping that this thread was reading within `guarded`; the fault proves that it holds nothing. errno
    // is put back because the interrupted code may be about to read it.
    unsafe {
        if ACTIVE.get() && (*info).si_code == BUS_ADRERR {
            let errno = *libc::__errno_location();
            let page = ((*info).si_addr() as usize & !(PAGE_BYTES - 1)) as *mut libc::c_void;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let mapped = libc::mmap(page, PAGE_BYTES, libc::PROT_READ, flags, -1, 0);
            *libc::__errno_location() = errno;
            if mapped == page {
                PAGES_LOST.set(true);
                return;
            }
        }
        match OTHER_HANDLER.get() {
            Some(old) if old.sa_sigaction != libc::SIG_DFL && old.sa_sigaction != libc::SIG_IGN => {
                if old.sa_flags & libc::SA_SIGINFO != 0 {
                    let old: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(old.sa_sigaction);
                    old(signal, info, context);
                } else {
                    let old: extern "C" fn(libc::c_int) = std::mem::transmute(old.sa_sigaction);
                    old(signal);
                }
            }
            // The instruction runs again and the signal takes its default course.
            _ => {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbolize::file_of;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_value_passes_and_a_panic_does_not() {
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(guarded(|| -> u8 { panic!("bad unit") }), Err(Fault::Panicked("bad unit".to_owned())));
        assert_eq!(guarded(|| 8), Ok(8));
    }

    #[test]
    fn a_file_cut_short_while_mapped_is_a_fault() {
        const PAGES: usize = 16;
        let file = file_of(&[1; PAGES * 4096]);
        // SAFETY: a new mapping at an address of the kernel's choice, unmapped below.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGES * 4096,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: within the mapping; volatile, because the compiler must not think that it knows the bytes.
        let first_byte = |page| unsafe { start.cast::<u8>().add(page * 4096).read_volatile() };
        let sum = || (0..PAGES).map(|page| u32::from(first_byte(page))).sum::<u32>();
        assert_eq!(guarded(sum), Ok(PAGES as u32));
        file.set_len(2 * 4096).unwrap();
        assert_eq!(guarded(sum), Err(Fault::FileShrank));
        // SAFETY: the mapping made above, no longer used.
        unsafe { libc::munmap(start, PAGES * 4096) };
    }
}
