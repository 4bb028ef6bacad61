//! What this process itself has cost the host.

use std::time::Duration;

/// Resources used since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of all its threads, in user mode and in the kernel.
    pub cpu: Duration,
    /// The most memory that was resident at one time.
    pub peak_resident_bytes: u64,
}

impl Cost {
    /// As of now.
    #[must_use]
    pub fn of_this_process() -> Self {
        let usage = usage(libc::RUSAGE_SELF);
        Self {
            cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
            // Linux gives KiB.
            peak_resident_bytes: usage.ru_maxrss as u64 * 1024,
        }
    }
}

/// Memory of this process that is resident now, bytes; 0 where the kernel does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    // SAFETY: reads a constant of the system.
    pages * u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// CPU time of the children that have ended and were waited for.
#[must_use]
pub fn of_ended_children() -> Duration {
    let usage = usage(libc::RUSAGE_CHILDREN);
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// CPU time of a process that runs, to the nearest hundredth of a second; `None` where there is none.
#[must_use]
pub fn of_process(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    // User and system time, in ticks of which Linux tells user space 100 a second on all that it runs on.
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// CPU time of the calling thread.
#[must_use]
pub fn thread_cpu() -> Duration {
    let usage = usage(libc::RUSAGE_THREAD);
    duration(usage.ru_utime) + duration(usage.ru_stime)
}

/// Says at the log target `chokepoint::phase` that a phase is over, and the CPU time it brought the process (or, where it
/// has a thread of its own, that thread) to. Benchmarks read it.
pub fn log_phase(phase: &'static str, cpu: Duration) {
    tracing::info!(target: "chokepoint::phase", cpu_us = cpu.as_micros() as u64, "{phase}");
}

fn usage(who: libc::c_int) -> libc::rusage {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::getrusage(who, &mut usage) };
    usage
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000)
}
