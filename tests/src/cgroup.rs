//! Control groups made for a test.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workload::eventually;

/// A group that is removed when dropped, after its processes were killed.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group of this name below the mount of a hierarchy; `None` where that hierarchy is not mounted.
    #[must_use]
    pub fn new(hierarchy: &Path, name: &str) -> Option<Self> {
        if !hierarchy.join("cgroup.procs").exists() {
            return None;
        }
        let path = hierarchy.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).ok()?;
        Some(Self { path })
    }

    /// The mount of the version 2 hierarchy, if there is one.
    #[must_use]
    pub fn v2_mount() -> Option<PathBuf> {
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.join("cgroup.controllers").exists())
    }

    /// Makes a group whose threads may have this many milliseconds of CPU time in every 100; `None` where there is no controller
    /// for that.
    #[must_use]
    pub fn with_quota(name: &str, milliseconds: u32) -> Option<Self> {
        let quota_us = milliseconds * 1_000;
        if let Some(group) = Self::new(Path::new("/sys/fs/cgroup/cpu"), name) {
            fs::write(group.path.join("cpu.cfs_quota_us"), quota_us.to_string()).ok()?;
            return Some(group);
        }
        let mount = Self::v2_mount()?;
        let _ = fs::write(mount.join("cgroup.subtree_control"), "+cpu");
        let group = Self::new(&mount, name)?;
        fs::write(group.path.join("cpu.max"), format!("{quota_us} 100000")).ok()?;
        Some(group)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A group inside of this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let path = self.path.join(name);
        fs::create_dir_all(&path).expect("a group can be made in a group");
        Self { path }
    }

    /// Moves a process into it.
    pub fn add(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("a process can be moved");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = || {
            for pid in fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse() {
                    // SAFETY: only processes of this test are in this group.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
            (fs::remove_dir(&self.path).is_ok() || !self.path.exists()).then_some(())
        };
        eventually("an empty group", removed);
    }
}
