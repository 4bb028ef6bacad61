//! Control groups of the hierarchy that block requests are charged in: version 2's, or that of version 1's `blkio` controller.

use std::collections::{HashMap, HashSet};
use std::fs;

use super::cgroups::{Hierarchy, hierarchies};

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
    hierarchy().map(|hierarchy| hierarchy.paths(ids)).unwrap_or_default()
}

/// The hierarchy, where it is mounted.
fn hierarchy() -> Option<Hierarchy> {
    let is_version_1 = is_version_1()?;
    let is_it =
        |found: &Hierarchy| if is_version_1 { found.controls("blkio") } else { !found.is_version_1() };
    hierarchies().ok()?.into_iter().find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroups::id_of;

    #[test]
    fn the_version_of_the_controller_is_found() {
        let of =
            |hierarchy| format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\nblkio\t{hierarchy}\t3\t1\n");
        assert_eq!(parse_is_version_1(&of(7)), Some(true));
        assert_eq!(parse_is_version_1(&of(0)), Some(false));
        assert_eq!(parse_is_version_1(""), None);
    }

    #[test]
    fn the_root_of_the_hierarchy_has_its_path() {
        let Some(hierarchy) = hierarchy() else { return eprintln!("skipped: no hierarchy") };
        let id = id_of(hierarchy.root()).unwrap();
        assert_eq!(paths(&HashSet::from([id])).get(&id).map(String::as_str), Some("/"));
    }
}
