//! The control groups that limit memory, by their ids.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chokepoint_analysis::memory::Group;

/// Groups that are looked at, at most; some ten microseconds each.
const MAX_GROUPS: usize = 20_000;

/// Finds groups in the hierarchy of the memory controller.
#[derive(Debug)]
pub struct MemoryGroups {
    mount: Option<PathBuf>,
    paths: HashMap<u64, String>,
}

impl MemoryGroups {
    /// Finds the hierarchy.
    #[must_use]
    pub fn find() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self { mount: hierarchy(&mounts), paths: HashMap::new() }
    }

    /// Takes note of the groups there are now: those that are removed later keep their names.
    pub fn look(&mut self) {
        let Some(mount) = &self.mount else { return };
        let mut waiting = vec![mount.clone()];
        let mut looked_at = 0;
        while let Some(directory) = waiting.pop() {
            looked_at += 1;
            if looked_at > MAX_GROUPS {
                return;
            }
            let Ok(facts) = fs::metadata(&directory) else { continue };
            let path = directory.strip_prefix(mount).unwrap_or(&directory);
            // On a 64-bit kernel the inode number is the group's id.
            self.paths.insert(facts.ino(), format!("/{}", path.display()));
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            waiting.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }

    /// The group with an id; without a path where no look has found it.
    #[must_use]
    pub fn group(&self, id: u64) -> Group {
        Group { id, path: self.paths.get(&id).cloned().unwrap_or_default() }
    }

    /// The group that a process or thread is in now.
    #[must_use]
    pub fn of_process(&self, pid: u32) -> Group {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let path = path_of(&text).unwrap_or_default().to_owned();
        let directory = self.mount.as_ref().map(|mount| mount.join(path.trim_start_matches('/')));
        let id = directory.and_then(|path| fs::metadata(path).ok()).map_or(0, |facts| facts.ino());
        Group { id, path }
    }
}

/// Where the hierarchy with the memory controller is mounted: a version 1 mount that names it, or version 2.
fn hierarchy(mountinfo: &str) -> Option<PathBuf> {
    let mounts = || {
        mountinfo.lines().filter_map(|line| {
            let (mount, super_block) = line.split_once(" - ")?;
            let mut super_block = super_block.split(' ');
            Some((mount.split(' ').nth(4)?, super_block.next()?, super_block.nth(1)?))
        })
    };
    let names_memory = |options: &str| options.split(',').any(|option| option == "memory");
    let v1 = mounts().find(|(_, kind, options)| *kind == "cgroup" && names_memory(options));
    let found = v1.or_else(|| mounts().find(|(_, kind, _)| *kind == "cgroup2"));
    found.map(|(path, ..)| Path::new(path).to_owned())
}

/// The path in `/proc/PID/cgroup` of the group that limits memory.
fn path_of(groups: &str) -> Option<&str> {
    let parts = |line: &'_ str| -> Option<(String, String)> {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
    };
    let is_v1 =
        |line: &&str| parts(line).is_some_and(|(names, _)| names.split(',').any(|name| name == "memory"));
    let is_v2 = |line: &&str| parts(line).is_some_and(|(names, _)| names.is_empty());
    let line = groups.lines().find(is_v1).or_else(|| groups.lines().find(is_v2))?;
    line.splitn(3, ':').nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_goes_before_version_two() {
        let v2 = "28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let v1 = "26 25 0:23 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";
        assert_eq!(hierarchy(v2), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(hierarchy(&format!("{v2}{v1}")), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(hierarchy("25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"), None);
        assert_eq!(path_of("8:pids:/p\n4:memory:/m:x\n0::/two\n"), Some("/m:x"));
        assert_eq!(path_of("8:pids:/p\n0::/two\n"), Some("/two"));
        assert_eq!(path_of("broken\n"), None);
    }

    #[test]
    fn this_process_is_in_a_group_that_a_look_finds() {
        let mut groups = MemoryGroups::find();
        if groups.mount.is_none() {
            return eprintln!("skipped: no hierarchy of control groups is mounted");
        }
        groups.look();
        let own = groups.of_process(std::process::id());
        if own.id != 0 {
            assert_eq!(groups.group(own.id), own);
        }
    }
}
