//! What the benchmarks ask of the operating system beyond the standard library.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    ptr,
    time::Duration,
};

/// What a process and the children it waited for have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel on the process's own behalf; interrupts count for whom they interrupted.
    pub system: Duration,
    /// The most memory that was resident at one time in one of them.
    pub peak_resident_bytes: u64,
}

impl Usage {
    /// CPU time in either mode.
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// Waits for a child's end.
#[expect(unsafe_code, reason = "the standard library waits without telling the usage")]
pub fn wait(mut child: Child) -> io::Result<(ExitStatus, Usage)> {
    // A child that reads its input would never end.
    drop(child.stdin.take());
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are valid for the call; `child` has not been waited for, so the id is still its own.
        if unsafe { libc::wait4(pid, &mut status, 0, &mut usage) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let duration = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    let usage = Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // Linux gives KiB.
        peak_resident_bytes: usage.ru_maxrss as u64 * 1024,
    };
    Ok((ExitStatus::from_raw(status), usage))
}

/// How often the calling thread has given up its CPU, or lost it to another one.
#[expect(unsafe_code, reason = "the standard library has no rusage")]
pub fn context_switches() -> i64 {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call, which cannot fail for the calling thread.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nvcsw + usage.ru_nivcsw
}

/// Time of the clock that perf is told to stamp its samples with.
pub fn monotonic() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

#[expect(unsafe_code, reason = "the standard library keeps the values of these clocks to itself")]
fn clock(id: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the call, which cannot fail for the clocks asked for here.
    unsafe { libc::clock_gettime(id, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Writes to each of so many new pages, none of them huge. The CPU time that took, which what else runs on the machine has no part in.
#[expect(unsafe_code, reason = "the standard library's memory may be used already, or huge")]
pub fn touch_fresh_pages(pages: usize) -> io::Result<Duration> {
    const PAGE: usize = 4096;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping disturbs nothing.
    let memory = unsafe { libc::mmap(ptr::null_mut(), pages * PAGE, access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is this function's. Where there are no huge pages, this is refused and not needed.
    unsafe { libc::madvise(memory, pages * PAGE, libc::MADV_NOHUGEPAGE) };
    let start = clock(libc::CLOCK_THREAD_CPUTIME_ID);
    for page in 0..pages {
        // SAFETY: within the mapping.
        unsafe { memory.cast::<u8>().add(page * PAGE).write_volatile(1) };
    }
    let spent = clock(libc::CLOCK_THREAD_CPUTIME_ID).saturating_sub(start);
    // SAFETY: nothing points into it any more.
    unsafe { libc::munmap(memory, pages * PAGE) };
    Ok(spent)
}

/// Makes a process that ends at once, and waits for its end.
#[expect(unsafe_code, reason = "the standard library's children run another program")]
pub fn fork_and_wait() -> io::Result<()> {
    // SAFETY: the child does nothing but end.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: nothing of the parent's is cleaned up.
        0 => unsafe { libc::_exit(0) },
        _ => {}
    }
    // SAFETY: no status is asked for.
    if unsafe { libc::waitpid(child, ptr::null_mut(), 0) } == child {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_childs_usage_is_its_own() {
        let loops = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3";
        let (status, usage) = wait(Command::new("sh").args(["-c", loops]).spawn().unwrap()).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(usage.user > Duration::from_millis(5), "{usage:?}");
        assert!(usage.peak_resident_bytes > 500_000, "{usage:?}");
    }

    #[test]
    fn sleeping_gives_up_the_cpu() {
        let before = context_switches();
        std::thread::sleep(Duration::from_millis(1));
        assert!(context_switches() > before);
    }

    #[test]
    fn the_clock_goes_on() {
        let earlier = monotonic();
        assert!(monotonic() >= earlier && !earlier.is_zero());
    }
}
