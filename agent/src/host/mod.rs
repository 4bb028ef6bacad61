//! Facts about the host that do not change while the agent runs.

pub mod capabilities;
pub mod clock;
pub mod cost;

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
