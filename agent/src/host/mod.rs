//! Facts about the host that belong to no process: its CPUs and limits here, a subject a file for the rest.

pub mod capabilities;
pub mod cgroups;
pub mod clock;
pub mod cost;
pub mod devices;
pub mod heap;
pub mod io_groups;
pub mod memory_groups;

use std::fs;
use std::io;

/// The CPUs that are online, in order.
///
/// # Errors
/// Where `/sys` cannot be read or is not as expected.
pub fn online_cpus() -> io::Result<Vec<u32>> {
    const ONLINE: &str = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(ONLINE)?;
    parse_cpu_list(text.trim()).ok_or_else(|| io::Error::other(format!("{ONLINE} says {text:?}")))
}

/// Threads that there are now; 0 where the kernel does not tell.
#[must_use]
pub fn threads() -> u32 {
    // `0.20 0.18 0.12 1/80 11206`: running and all threads.
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let threads = text.split(' ').nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    threads.unwrap_or_default()
}

/// CPUs that the kernel may have: one more than the highest number.
///
/// # Errors
/// As for [`online_cpus`].
pub fn possible_cpus() -> io::Result<u32> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let text = fs::read_to_string(POSSIBLE)?;
    parse_cpu_list(text.trim())
        .and_then(|cpus| cpus.last().map(|last| last + 1))
        .ok_or_else(|| io::Error::other(format!("{POSSIBLE} says {text:?}")))
}

/// `0-3,8` as numbers.
fn parse_cpu_list(list: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// A number below `/proc/sys`, by its dotted name; `None` where this kernel does not have it.
#[must_use]
pub fn sysctl(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Release of the running kernel: `6.1.0-28-amd64`.
#[must_use]
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The first two numbers of a kernel's release.
#[must_use]
pub fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// From this release on BPF memory is charged to the cgroup; before, to RLIMIT_MEMLOCK.
const FIRST_WITHOUT_MEMLOCK: (u32, u32) = (5, 11);
/// The maps, with a ring buffer for a large host.
const MEMLOCK_NEEDED_BYTES: u64 = 16 << 20;

/// Whether a kernel of this release counts BPF maps against a limit of locked memory that is too small for them.
#[must_use]
pub fn is_memlock_too_small(release: Option<(u32, u32)>, limit_bytes: u64) -> bool {
    release.is_some_and(|release| release < FIRST_WITHOUT_MEMLOCK) && limit_bytes < MEMLOCK_NEEDED_BYTES
}

/// This process's limit of locked memory.
#[must_use]
pub fn memlock_limit_bytes() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for the call.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_cur
}

/// Lets this process open as many files as it may: one stays open for each mapped binary, and the usual soft limit of 1,024
/// is there for programs that use `select`, not to save anything.
pub fn raise_open_files_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are valid for the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// Debian's and Ubuntu's kernels know levels of `kernel.perf_event_paranoid` above the original ones; at those CAP_PERFMON is
/// not enough.
pub const STRICTEST_PARANOID_FOR_PERFMON: i64 = 2;

/// The host's name; `localhost` where the kernel does not tell.
#[must_use]
pub fn name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-1,4,6-7"), Some(vec![0, 1, 4, 6, 7]));
        assert_eq!(parse_cpu_list("0"), Some(vec![0]));
        assert_eq!(parse_cpu_list(""), None);
        assert_eq!(parse_cpu_list("1-x"), None);
    }
}
