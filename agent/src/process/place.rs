//! Parents and cgroups of processes, from `/proc`, read once and again from time to time.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use crate::host::cgroups::memberships;

/// A process is looked up again after this many windows: it may be in another cgroup by then.
const WINDOWS: u64 = 16;
/// Cgroup of a process that had ended before it was looked up.
pub const ENDED: &str = "[ended]";
/// In hybrid and version 1 hierarchies, whose path names the cgroup: the first of these in which it is not the root.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "name=systemd"];

/// Names a process for good: its number may be another's later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Process id.
    pub pid: u32,
    /// When it started, `CLOCK_BOOTTIME` nanoseconds.
    pub start_ns: u64,
}

/// What is known of a process beyond its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its parent; 0 where it is not known.
    pub parent: u32,
    /// Path of its cgroup.
    pub cgroup: Arc<str>,
}

/// The processes of the last window.
#[derive(Debug, Default)]
pub struct Processes {
    known: HashMap<ProcessKey, (Process, u64)>,
    window: u64,
}

impl Processes {
    /// What is known of a process that lived in this window.
    pub fn look_up(&mut self, key: ProcessKey) -> &Process {
        let is_due = (self.window + u64::from(key.pid)).is_multiple_of(WINDOWS);
        let entry = self.known.entry(key);
        let (process, window) = entry
            .and_modify(|(known, last)| {
                // Each is read once a window at most, and what was known of one that ended stays.
                if is_due
                    && *last != self.window
                    && let Some(fresh) = read(key.pid)
                {
                    *known = fresh;
                }
            })
            .or_insert_with(|| {
                let unknown = || Process { parent: 0, cgroup: ENDED.into() };
                (read(key.pid).unwrap_or_else(unknown), self.window)
            });
        *window = self.window;
        process
    }

    /// The window is over: forgets the processes that were not in it.
    pub fn end_window(&mut self) {
        let window = self.window;
        self.known.retain(|_, (_, last)| *last == window);
        self.window += 1;
    }
}

fn read(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    Some(Process { parent: parent(&stat).unwrap_or(0), cgroup: cgroup(&cgroups).into() })
}

/// The name before the last parenthesis may contain anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The path by which people know the group.
fn cgroup(text: &str) -> &str {
    let groups: Vec<(&str, &str)> = memberships(text).collect();
    let path_of = |controller: &str| {
        groups
            .iter()
            .find(|(names, _)| names.split(',').any(|name| name == controller))
            .map(|(_, path)| *path)
    };
    [""].iter().chain(&CONTROLLERS).filter_map(|name| path_of(name)).find(|path| *path != "/").unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_first_that_is_not_the_root() {
        assert_eq!(cgroup("0::/system.slice/ssh.service\n"), "/system.slice/ssh.service");
        assert_eq!(cgroup("4:memory:/a\n2:cpu,cpuacct:/\n0::/\n"), "/a");
        assert_eq!(cgroup("4:memory:/a\n2:cpu,cpuacct:/docker/b:c\n0::/\n"), "/docker/b:c");
        assert_eq!((cgroup("0::/\n"), cgroup("")), ("/", "/"));
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (a) b (c) S 7 12 12"), Some(7));
        assert_eq!(parent("12 (a"), None);
    }

    #[test]
    fn processes_that_are_gone_are_forgotten() {
        let mut processes = Processes::default();
        let own = ProcessKey { pid: std::process::id(), start_ns: 1 };
        // SAFETY: getppid has no preconditions.
        let parent = unsafe { libc::getppid() } as u32;
        assert_eq!(processes.look_up(own).parent, parent);
        let gone = ProcessKey { pid: 1 << 23, start_ns: 1 };
        assert_eq!(&*processes.look_up(gone).cgroup, ENDED);
        processes.end_window();
        let _ = processes.look_up(own);
        processes.end_window();
        assert_eq!(processes.known.len(), 1);
    }
}
