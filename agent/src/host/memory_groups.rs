//! The control groups that limit memory, by their ids.

use std::collections::HashMap;

use chokepoint_analysis::memory::Group;

use super::cgroups::{Hierarchy, Step, controlled_by, id_of, of_process};

/// Finds groups in the hierarchy of the memory controller.
#[derive(Debug)]
pub struct MemoryGroups {
    hierarchy: Option<Hierarchy>,
    paths: HashMap<u64, String>,
}

impl MemoryGroups {
    /// Finds the hierarchy.
    #[must_use]
    pub fn find() -> Self {
        Self { hierarchy: controlled_by("memory"), paths: HashMap::new() }
    }

    /// Takes note of the groups there are now: those that are removed later keep their names.
    pub fn look(&mut self) {
        let Some(hierarchy) = &self.hierarchy else { return };
        hierarchy.walk(|directory| {
            if let Some(id) = id_of(directory) {
                self.paths.insert(id, hierarchy.path_of(directory));
            }
            Step::Into
        });
    }

    /// The group with an id; without a path where no look has found it.
    #[must_use]
    pub fn group(&self, id: u64) -> Group {
        Group { id, path: self.paths.get(&id).cloned().unwrap_or_default() }
    }

    /// The group that a process or thread is in now.
    #[must_use]
    pub fn of_process(&self, pid: u32) -> Group {
        let memberships = of_process(pid);
        let path = path_among(&memberships).unwrap_or_default().to_owned();
        let directory = self.hierarchy.as_ref().map(|hierarchy| hierarchy.directory_of(&path));
        Group { id: directory.and_then(|directory| id_of(&directory)).unwrap_or_default(), path }
    }
}

/// The path of the group that limits memory, among a process's.
fn path_among(memberships: &[(String, String)]) -> Option<&str> {
    let find = |is_it: &dyn Fn(&str) -> bool| memberships.iter().find(|(names, _)| is_it(names));
    let version_1 = find(&|names| names.split(',').any(|name| name == "memory"));
    version_1.or_else(|| find(&str::is_empty)).map(|(_, path)| path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroups::memberships;

    #[test]
    fn version_one_goes_before_version_two() {
        let path = |text| {
            let owned: Vec<_> =
                memberships(text).map(|(names, path)| (names.to_owned(), path.to_owned())).collect();
            path_among(&owned).map(str::to_owned)
        };
        assert_eq!(path("8:pids:/p\n4:memory:/m:x\n0::/two\n").as_deref(), Some("/m:x"));
        assert_eq!(path("8:pids:/p\n0::/two\n").as_deref(), Some("/two"));
        assert_eq!(path("broken\n"), None);
    }

    #[test]
    fn this_process_is_in_a_group_that_a_look_finds() {
        let mut groups = MemoryGroups::find();
        if groups.hierarchy.is_none() {
            return eprintln!("skipped: no hierarchy of control groups is mounted");
        }
        groups.look();
        let own = groups.of_process(std::process::id());
        if own.id != 0 {
            assert_eq!(groups.group(own.id), own);
        }
    }
}
