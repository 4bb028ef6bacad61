//! Hierarchies of control groups: where they are mounted, what they control, and their groups by path and id.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories of a hierarchy that are looked at, some ten microseconds each. A node full of pods has a few thousand.
const MAX_DIRECTORIES: usize = 20_000;

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    root: PathBuf,
    /// What a mount of version 1 is for: its controllers, or `name=` where it has none, among other options. `None` of version 2.
    options: Option<Vec<String>>,
}

/// What a walk does after a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Goes on, to the groups in this one, too.
    Into,
    /// Goes on past the groups in this one.
    Past,
    /// Ends.
    End,
}

/// The mounted hierarchies, each once.
///
/// # Errors
/// Where the mounts cannot be read.
pub fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(among(&fs::read_to_string("/proc/self/mountinfo")?))
}

fn among(mountinfo: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let (mount, super_block) = line.split_once(" - ")?;
        let root = PathBuf::from(mount.split(' ').nth(4)?);
        let mut super_block = super_block.split(' ');
        match super_block.next()? {
            "cgroup2" => Some(Hierarchy { root, options: None }),
            "cgroup" => {
                let options = super_block.nth(1)?.split(',').map(str::to_owned).collect();
                Some(Hierarchy { root, options: Some(options) })
            }
            _ => None,
        }
    };
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mountinfo.lines().filter_map(hierarchy) {
        // The same hierarchy may be mounted again.
        if !found.iter().any(|known| known.options == hierarchy.options) {
            found.push(hierarchy);
        }
    }
    found
}

/// The hierarchy that a controller is in: that of version 1 which names it, else version 2. `None` where neither is mounted.
#[must_use]
pub fn controlled_by(controller: &str) -> Option<Hierarchy> {
    pick(hierarchies().ok()?, controller)
}

fn pick(hierarchies: Vec<Hierarchy>, controller: &str) -> Option<Hierarchy> {
    let mut version_2 = None;
    for hierarchy in hierarchies {
        if hierarchy.controls(controller) {
            return Some(hierarchy);
        }
        if !hierarchy.is_version_1() {
            version_2 = Some(hierarchy);
        }
    }
    version_2
}

#[cfg(test)]
impl Hierarchy {
    pub(crate) fn version_2_at(root: &Path) -> Self {
        Self { root: root.to_owned(), options: None }
    }

    pub(crate) fn version_1_at(root: &Path, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { root: root.to_owned(), options: Some(options) }
    }
}

impl Hierarchy {
    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is one of version 1.
    #[must_use]
    pub fn is_version_1(&self) -> bool {
        self.options.is_some()
    }

    /// The mount's options, of version 1: controllers and others.
    pub fn options(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flatten().map(String::as_str)
    }

    /// Whether it is the version 1 hierarchy of a controller.
    #[must_use]
    pub fn controls(&self, controller: &str) -> bool {
        self.options().any(|option| option == controller)
    }

    /// Whether it is one of version 1 without controllers, of which the kernel keeps nothing in a task.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.options().any(|option| option.starts_with("name="))
    }

    /// A group's path below the root, by its directory.
    #[must_use]
    pub fn path_of(&self, directory: &Path) -> String {
        format!("/{}", directory.strip_prefix(&self.root).unwrap_or(directory).display())
    }

    /// The directory of a group, by its path below the root.
    #[must_use]
    pub fn directory_of(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Hands over the directory of each group, those above first. Whether that was all: there may be too many.
    pub fn walk(&self, mut visit: impl FnMut(&Path) -> Step) -> bool {
        let mut directories = vec![self.root.clone()];
        let mut looked_at = 0;
        while let Some(directory) = directories.pop() {
            looked_at += 1;
            if looked_at > MAX_DIRECTORIES {
                return false;
            }
            match visit(&directory) {
                Step::Into => {}
                Step::Past => continue,
                Step::End => break,
            }
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            let groups = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            directories.extend(groups.map(|entry| entry.path()));
        }
        true
    }

    /// Paths of groups by their ids. Those that are gone are left out, and what lies behind very many others.
    #[must_use]
    pub fn paths(&self, ids: &HashSet<u64>) -> HashMap<u64, String> {
        let mut paths = HashMap::new();
        self.walk(|directory| {
            if let Some(id) = id_of(directory)
                && ids.contains(&id)
            {
                paths.insert(id, self.path_of(directory));
            }
            if paths.len() < ids.len() { Step::Into } else { Step::End }
        });
        paths
    }
}

/// The id of the group at a directory: on a 64-bit kernel, the inode number.
#[must_use]
pub fn id_of(directory: &Path) -> Option<u64> {
    Some(fs::metadata(directory).ok()?.ino())
}

/// The groups of a process or thread: names of the hierarchy, separated by commas and empty of version 2, and the group's path.
#[must_use]
pub fn of_process(pid: u32) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    memberships(&text).map(|(names, path)| (names.to_owned(), path.to_owned())).collect()
}

/// The same of the text of `/proc/PID/cgroup`.
pub fn memberships(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
28 25 0:25 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw
27 25 0:24 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
29 25 0:26 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
30 25 0:25 / /elsewhere rw - cgroup2 cgroup2 rw
broken";

    #[test]
    fn each_hierarchy_of_a_mixed_host_is_found_once() {
        let found = among(MIXED);
        let roots: Vec<&Path> = found.iter().map(Hierarchy::root).collect();
        let expected = ["unified", "cpuset", "cpu,cpuacct", "systemd"];
        assert_eq!(roots, expected.map(|name| Path::new("/sys/fs/cgroup").join(name)));
        assert_eq!(found[2].options().collect::<Vec<_>>(), ["rw", "cpu", "cpuacct"]);
        assert_eq!(found.iter().map(Hierarchy::is_named).collect::<Vec<_>>(), [false, false, false, true]);
    }

    #[test]
    fn the_version_1_controller_comes_before_version_2() {
        let of = |controller| pick(among(MIXED), controller).map(|found| found.root);
        assert_eq!(of("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(of("memory"), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(pick(among("25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"), "memory"), None);
    }

    #[test]
    fn groups_have_paths_and_ids_and_those_past_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir_all(root.path().join("c/d")).unwrap();
        let hierarchy = Hierarchy::version_2_at(root.path());
        let mut seen = Vec::new();
        assert!(hierarchy.walk(|directory| {
            seen.push(hierarchy.path_of(directory));
            if directory.ends_with("c") { Step::Past } else { Step::Into }
        }));
        seen.sort();
        assert_eq!(seen, ["/", "/a", "/a/b", "/c"]);
        let ids: HashSet<u64> =
            ["/a/b", "/"].map(|path| id_of(&hierarchy.directory_of(path)).unwrap()).into();
        let paths = hierarchy.paths(&ids);
        let mut paths: Vec<&str> = paths.values().map(String::as_str).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/", "/a/b"]);
    }

    #[test]
    fn groups_of_a_process() {
        let text = "8:pids:/p\n4:memory,x:/m:x\n0::/two\nbroken\n";
        assert_eq!(
            memberships(text).collect::<Vec<_>>(),
            [("pids", "/p"), ("memory,x", "/m:x"), ("", "/two")]
        );
    }
}
