//! The groups of processes whose CPU time the kernel controls.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories that are looked at for the names of groups.
const MAX_DIRECTORIES: usize = 20_000;

/// The hierarchy that controls CPUs: that of the version 1 controller where there is one, else that of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuHierarchy {
    mount: PathBuf,
    is_version_1: bool,
}

impl CpuHierarchy {
    /// Finds it among the mounts; `None` where none is mounted.
    #[must_use]
    pub fn find() -> Option<Self> {
        Self::among(&fs::read_to_string("/proc/self/mountinfo").ok()?)
    }

    fn among(mounts: &str) -> Option<Self> {
        let mut version_2 = None;
        for line in mounts.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let Some(mount) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut file_system = file_system.split(' ');
            let kind = file_system.next();
            let options = file_system.nth(1).unwrap_or_default();
            if kind == Some("cgroup") && options.split(',').any(|option| option == "cpu") {
                return Some(Self { mount, is_version_1: true });
            }
            if kind == Some("cgroup2") && version_2.is_none() {
                version_2 = Some(Self { mount, is_version_1: false });
            }
        }
        version_2
    }

    /// Whether it is a version 1 hierarchy.
    #[must_use]
    pub fn is_version_1(&self) -> bool {
        self.is_version_1
    }

    /// Paths below the mount of the groups with these ids, which are the inode numbers of their directories. Groups that are gone are
    /// left out, and what lies behind very many others.
    #[must_use]
    pub fn paths(&self, wanted: &HashSet<u64>) -> HashMap<u64, String> {
        let mut paths = HashMap::new();
        self.walk(|directory, id| {
            if wanted.contains(&id) {
                let below = directory.strip_prefix(&self.mount).unwrap_or(directory);
                paths.insert(id, format!("/{}", below.display()));
            }
            paths.len() < wanted.len()
        });
        paths
    }

    /// Hands over each group's directory and id, those above first, until it is told to stop.
    pub(crate) fn walk(&self, mut visit: impl FnMut(&Path, u64) -> bool) {
        let mut directories = vec![self.mount.clone()];
        let mut looked_at = 0;
        while let Some(directory) = directories.pop() {
            looked_at += 1;
            let Ok(facts) = fs::metadata(&directory) else { continue };
            if looked_at > MAX_DIRECTORIES || !visit(&directory, facts.ino()) {
                return;
            }
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            directories.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_1_controller_of_cpus_comes_before_version_2() {
        let mounts = "25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            28 25 0:25 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n\
            27 25 0:24 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
        let found = CpuHierarchy::among(mounts).unwrap();
        assert_eq!((found.mount.to_str(), found.is_version_1), (Some("/sys/fs/cgroup/unified"), false));
        let with_version_1 = format!(
            "{mounts}26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
        );
        let found = CpuHierarchy::among(&with_version_1).unwrap();
        assert_eq!((found.mount.to_str(), found.is_version_1), (Some("/sys/fs/cgroup/cpu,cpuacct"), true));
        assert_eq!(CpuHierarchy::among("nonsense"), None);
    }
}
