//! Control groups of containers, told by their names.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::host::cgroups::{Hierarchy, Step, hierarchies};

/// Which program made a container's group, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// containerd, driven by Kubernetes.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker.
    Docker,
    /// Podman and others that are built on libpod.
    Podman,
    /// One that leaves no name.
    Unknown,
}

/// A container, as its group is named after it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Who made it.
    pub engine: Engine,
}

impl ContainerId {
    /// As much of it as people read.
    #[must_use]
    pub fn short(&self) -> &str {
        super::short(&self.id)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())?;
        match self.engine {
            Engine::Containerd => f.write_str(" of containerd"),
            Engine::Crio => f.write_str(" of CRI-O"),
            Engine::Docker => f.write_str(" of Docker"),
            Engine::Podman => f.write_str(" of Podman"),
            Engine::Unknown => Ok(()),
        }
    }
}

/// A container's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerGroup {
    /// The container.
    pub id: ContainerId,
    /// The group's directory.
    pub path: PathBuf,
}

impl ContainerGroup {
    /// The group at this directory; `None` where its name is that of no container.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let parent = path.parent().and_then(Path::file_name).and_then(|parent| parent.to_str());
        let (engine, id) = parse(name, parent.unwrap_or_default())?;
        Some(Self { id: ContainerId { id: id.to_owned(), engine }, path: path.to_owned() })
    }

    /// Whether a process is in it or below it.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        let has = |directory: &Path| {
            fs::read(directory.join("cgroup.procs")).is_ok_and(|processes| !processes.is_empty())
        };
        has(&self.path) || {
            let children = fs::read_dir(&self.path).into_iter().flatten().flatten();
            children.map(|child| child.path()).any(|child| has(&child))
        }
    }
}

/// The engine and the id that a group's name and its parent's tell.
fn parse<'a>(name: &'a str, parent: &str) -> Option<(Engine, &'a str)> {
    // systemd's form: `cri-containerd-ID.scope`; else the bare id, or with the engine's name before it.
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (engine, id) = match name.rsplit_once('-') {
        None if parent == "docker" => (Engine::Docker, name),
        None => (Engine::Unknown, name),
        Some(("cri-containerd", id)) => (Engine::Containerd, id),
        Some(("crio", id)) => (Engine::Crio, id),
        Some(("docker", id)) => (Engine::Docker, id),
        Some(("libpod", id)) => (Engine::Podman, id),
        // `crio-conmon-ID` is what watches a container, not the container.
        Some(_) => return None,
    };
    let is_id = id.len() == 64 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_id.then_some((engine, id))
}

/// Whether the kubelet made this group for the pod of this unique id.
#[must_use]
pub fn is_of_pod(group: &Path, uid: &str) -> bool {
    let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // systemd takes a `-` for a level of the tree, so the kubelet writes `_`.
    let systemd = uid.replace('-', "_");
    !uid.is_empty()
        && (name == format!("pod{uid}")
            || name.strip_suffix(".slice").is_some_and(|name| name.ends_with(&format!("pod{systemd}"))))
}

/// The groups of all containers, those of version 2 first. What runs in a container makes groups of its own below; they belong to
/// it. Groups of named hierarchies are left out: kernel programs cannot tell them.
#[must_use]
pub fn all() -> Vec<ContainerGroup> {
    let mut hierarchies = hierarchies().unwrap_or_default();
    hierarchies.retain(|hierarchy| !hierarchy.is_named());
    hierarchies.sort_by_key(Hierarchy::is_version_1);
    let mut found = Vec::new();
    for hierarchy in hierarchies {
        let is_all = hierarchy.walk(|directory| match ContainerGroup::at(directory) {
            Some(group) => {
                found.push(group);
                Step::Past
            }
            None => Step::Into,
        });
        if !is_all {
            tracing::warn!(root = %hierarchy.root().display(), "containers may be missing: there are too many control groups");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_engines_give() {
        let id = "0123456789abcdef".repeat(4);
        let at = |path: &str| {
            let group = ContainerGroup::at(Path::new(&path.replace("ID", &id)));
            group.map(|group| (group.id.engine, group.id.id == id))
        };
        let cases = [
            ("/docker/ID", Engine::Docker),
            ("/system.slice/docker-ID.scope", Engine::Docker),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-ID.scope",
                Engine::Containerd,
            ),
            ("/kubepods/besteffort/pod1-2/ID", Engine::Unknown),
            ("/kubepods/pod1/crio-ID", Engine::Crio),
            ("/machine.slice/libpod-ID.scope", Engine::Podman),
        ];
        for (path, engine) in cases {
            assert_eq!(at(path), Some((engine, true)), "{path}");
        }
        for path in [
            "/",
            "/system.slice",
            "/x/crio-conmon-ID.scope",
            "/x/libpod-conmon-ID.scope",
            "/x/IDf",
            "/x/short",
            "/x/ID.service",
        ] {
            assert_eq!(at(path), None, "{path}");
        }
    }

    #[test]
    fn groups_that_the_kubelet_makes() {
        let of = |path: &str| is_of_pod(Path::new(path), "9f-1a");
        assert!(of("/kubepods/burstable/pod9f-1a"));
        assert!(of("/kubepods.slice/kubepods-pod9f_1a.slice"));
        assert!(!of("/kubepods/burstable/pod9f-1ab"));
        assert!(!of("/kubepods.slice/kubepods-pod9f_1ab.slice"));
        assert!(!is_of_pod(Path::new("/kubepods/pod"), ""));
    }
}
