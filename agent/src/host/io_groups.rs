//! Control groups of the hierarchy that block requests are charged in: version 2's, or that of version 1's `blkio` controller.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Groups that are looked at in search of names, at most: a search takes some microseconds each.
const MAX_GROUPS: usize = 20_000;

/// Whether the io controller is one of version 1; `None` where the kernel does not tell.
#[must_use]
pub fn is_version_1() -> Option<bool> {
    parse_is_version_1(&fs::read_to_string("/proc/cgroups").ok()?)
}

/// By the number of its hierarchy, which is 0 for version 2's.
fn parse_is_version_1(controllers: &str) -> Option<bool> {
    let line = controllers.lines().find(|line| line.split_ascii_whitespace().next() == Some("blkio"))?;
    Some(line.split_ascii_whitespace().nth(1)? != "0")
}

/// The paths of groups, from the hierarchy's root, by their ids. Those that are gone are not in it.
#[must_use]
pub fn paths(ids: &HashSet<u64>) -> HashMap<u64, String> {
    let Some(mount) = mount_point() else { return HashMap::new() };
    let mut found = HashMap::new();
    let mut open = vec![mount.clone()];
    let mut looked_at = 0;
    while let Some(directory) = open.pop() {
        looked_at += 1;
        if found.len() == ids.len() || looked_at > MAX_GROUPS {
            break;
        }
        // The inode number is the group's id.
        if let Ok(facts) = directory.metadata()
            && ids.contains(&facts.ino())
        {
            let path = directory.strip_prefix(&mount).unwrap_or(&directory);
            found.insert(facts.ino(), format!("/{}", path.display()));
        }
        let groups = fs::read_dir(&directory).into_iter().flatten().flatten();
        let groups = groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(groups.map(|entry| entry.path()));
    }
    found
}

/// Where the hierarchy is mounted.
fn mount_point() -> Option<PathBuf> {
    let is_version_1 = is_version_1()?;
    find_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?, is_version_1)
}

fn find_mount(mountinfo: &str, is_version_1: bool) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, super_block) = line.split_once(" - ")?;
        let mut super_block = super_block.split(' ');
        let kind = super_block.next()?;
        let mut has_controller =
            || super_block.nth(1).is_some_and(|options| options.split(',').any(|o| o == "blkio"));
        let is_it = if is_version_1 { kind == "cgroup" && has_controller() } else { kind == "cgroup2" };
        let mount_point = mount.split(' ').nth(4)?;
        is_it.then(|| Path::new(mount_point).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 25 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
28 25 0:25 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_hierarchy_of_the_controller_is_found() {
        let of =
            |hierarchy| format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\nblkio\t{hierarchy}\t3\t1\n");
        assert_eq!(parse_is_version_1(&of(7)), Some(true));
        assert_eq!(parse_is_version_1(&of(0)), Some(false));
        assert_eq!(parse_is_version_1(""), None);
        assert_eq!(find_mount(MOUNTS, true), Some("/sys/fs/cgroup/blkio".into()));
        assert_eq!(find_mount(MOUNTS, false), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_mount("", false), None);
    }

    #[test]
    fn the_root_of_the_hierarchy_has_its_path() {
        let Some(mount) = mount_point() else { return eprintln!("skipped: no hierarchy") };
        let id = mount.metadata().unwrap().ino();
        assert_eq!(paths(&HashSet::from([id])).get(&id).map(String::as_str), Some("/"));
    }
}
