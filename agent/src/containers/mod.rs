//! Finds the control group of a container or a pod.
//!
//! A node's container runtime knows names: it is asked by [`cri`], the interface that Kubernetes drives it by. Without one, or
//! for containers that it does not know (Docker's, Podman's), the names of [`groups`] tell the containers' ids. Either way the
//! group is found by the id in its name, which works for every layout that runtimes and systemd make of the tree. The other way round,
//! [`known`] tells what a container is called whose group was met.

pub mod cri;
pub mod groups;
pub mod known;
pub mod kubelet;

use std::path::{Path, PathBuf};

use thiserror::Error;

use cri::{Runtime, RuntimeError};
use groups::{ContainerGroup, ContainerId};

/// Names that are told where another was not found.
const TOLD_NAMES: usize = 10;

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A container, by its name in its pod or by its id's beginning.
    Container(String),
    /// A pod, by its namespace and name.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A container that a runtime knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name in its pod.
    pub name: String,
    /// Its pod.
    pub pod: Pod,
    /// The image as it was asked for; empty where the runtime does not tell.
    pub image: String,
}

/// A pod that a runtime knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id.
    pub uid: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The group's directory.
    pub group: PathBuf,
    /// What it is, in words: `pod shop/web-0`, `container nginx of pod shop/web-0`.
    pub name: String,
}

/// Why there is no such container or pod.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// Nothing has this name.
    #[error("no running {what}{}", others(.running))]
    NotFound {
        /// What was asked for.
        what: String,
        /// What there is.
        running: Vec<String>,
    },
    /// More than one is meant.
    #[error("{what} may be one of several: {}; pass more of an id", .found.join(", "))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// What it may be.
        found: Vec<String>,
    },
    /// Names of pods are known to the runtime only.
    #[error("no container runtime answers, which alone knows pods by name ({}): pass its socket with --cri-socket, or --cgroup", .0.join("; "))]
    NoRuntime(Vec<String>),
    /// A runtime knows the container, and the kernel does not.
    #[error("{what} has no control group on this host: chokepoint must run in the host's cgroup namespace")]
    NoGroup {
        /// What was asked for.
        what: String,
    },
    /// The pod's containers are not together in a group.
    #[error("the containers of {what} are in no group of their own: pass one of them with --container: {}", .containers.join(", "))]
    NoCommonGroup {
        /// What was asked for.
        what: String,
        /// Its containers.
        containers: Vec<String>,
    },
    /// A socket was asked for that does not answer as a runtime does.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

fn others(running: &[String]) -> String {
    match running.len() {
        0 => "; none runs on this host".to_owned(),
        number if number > TOLD_NAMES => {
            format!("; {number} run on this host, among them {}", running[..TOLD_NAMES].join(", "))
        }
        _ => format!("; on this host run {}", running.join(", ")),
    }
}

/// Finds the group. `socket` is that of the runtime; where it is `None`, the usual places are looked at.
///
/// # Errors
/// [`ContainerError`] where there is no such thing, or none that is clearly meant.
pub async fn find(wanted: &Wanted, socket: Option<&Path>) -> Result<Found, ContainerError> {
    let (runtime, silent) = match socket {
        Some(socket) => (Some(Runtime::connect(socket).await?), Vec::new()),
        None => Runtime::usual().await,
    };
    let known = match runtime {
        Some(mut runtime) => Some(runtime.containers().await?),
        None => None,
    };
    let groups = groups::all();
    match (wanted, known) {
        (Wanted::Container(name), known) => find_container(name, &known.unwrap_or_default(), &groups),
        (Wanted::Pod { namespace, name }, Some(known)) => find_pod(namespace, name, &known, &groups),
        (Wanted::Pod { .. }, None) => Err(ContainerError::NoRuntime(silent)),
    }
}

impl Pod {
    fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }
}

impl Container {
    fn describe(&self) -> String {
        let Pod { namespace, name, .. } = &self.pod;
        format!("container {} of pod {namespace}/{name}", self.name)
    }
}

/// Fewer characters of an id are taken for a name.
const MIN_ID_PREFIX: usize = 4;

fn find_container(
    name: &str,
    known: &[Container],
    groups: &[ContainerGroup],
) -> Result<Found, ContainerError> {
    let what = || format!("container {name}");
    let is_id = |id: &str| name.len() >= MIN_ID_PREFIX && id.starts_with(name);
    let mut found: Vec<(String, String)> = known
        .iter()
        .filter(|container| container.name == name || is_id(&container.id))
        .map(|container| (container.id.clone(), container.describe()))
        .collect();
    if found.is_empty() {
        // Of a runtime that was not asked.
        let mut ids: Vec<&ContainerId> =
            groups.iter().map(|group| &group.id).filter(|id| is_id(&id.id)).collect();
        ids.sort();
        ids.dedup();
        found = ids.into_iter().map(|id| (id.id.clone(), format!("container {id}"))).collect();
    }
    match &found[..] {
        [] => {
            let mut running: Vec<String> = known.iter().map(|container| container.name.clone()).collect();
            let is_known = |id: &str| known.iter().any(|container| container.id == id);
            let unnamed = groups.iter().filter(|group| !is_known(&group.id.id) && group.has_processes());
            running.extend(unnamed.map(|group| group.id.short().to_owned()));
            running.sort();
            running.dedup();
            Err(ContainerError::NotFound { what: what(), running })
        }
        [(id, described)] => {
            let group =
                group_of(id, groups).ok_or_else(|| ContainerError::NoGroup { what: described.clone() })?;
            Ok(Found { group: group.path.clone(), name: described.clone() })
        }
        several => {
            let found =
                several.iter().map(|(id, described)| format!("{} ({described})", short(id))).collect();
            Err(ContainerError::Ambiguous { what: what(), found })
        }
    }
}

fn find_pod(
    namespace: &str,
    name: &str,
    known: &[Container],
    groups: &[ContainerGroup],
) -> Result<Found, ContainerError> {
    let what = format!("pod {namespace}/{name}");
    let containers: Vec<&Container> =
        known.iter().filter(|container| container.pod.is(namespace, name)).collect();
    let Some(first) = containers.first() else {
        let mut running: Vec<String> = known
            .iter()
            .map(|container| format!("{}/{}", container.pod.namespace, container.pod.name))
            .collect();
        running.sort();
        running.dedup();
        return Err(ContainerError::NotFound { what, running });
    };
    let paths: Vec<&Path> =
        containers.iter().filter_map(|container| Some(&*group_of(&container.id, groups)?.path)).collect();
    let Some(parent) = paths.first().and_then(|path| path.parent()) else {
        return Err(ContainerError::NoGroup { what });
    };
    // The kubelet makes a group for each pod, named by its id.
    let is_pods_own = groups::is_of_pod(parent, &first.pod.uid);
    if is_pods_own && paths.iter().all(|path| path.starts_with(parent)) {
        return Ok(Found { group: parent.to_owned(), name: what });
    }
    match paths[..] {
        [only] => Ok(Found { group: only.to_owned(), name: what }),
        _ => Err(ContainerError::NoCommonGroup {
            what,
            containers: containers.iter().map(|container| container.name.clone()).collect(),
        }),
    }
}

/// A container's group, of several hierarchies the one that its processes are in.
fn group_of<'a>(id: &str, groups: &'a [ContainerGroup]) -> Option<&'a ContainerGroup> {
    let mut own = groups.iter().filter(|group| group.id.id == id);
    let first = own.clone().next()?;
    Some(own.find(|group| group.has_processes()).unwrap_or(first))
}

/// As much of an id as people read.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> String {
        letter.to_string().repeat(64)
    }

    fn container(letter: char, name: &str, pod: &str) -> Container {
        Container {
            id: id(letter),
            name: name.to_owned(),
            pod: Pod { namespace: "shop".to_owned(), name: pod.to_owned(), uid: format!("uid-of-{pod}") },
            image: String::new(),
        }
    }

    fn group(path: &str) -> ContainerGroup {
        ContainerGroup::at(Path::new(path)).unwrap()
    }

    fn message(result: Result<Found, ContainerError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn containers_by_name_and_by_id() {
        let known = [
            container('a', "nginx", "web-0"),
            container('b', "nginx", "web-1"),
            container('c', "redis", "cache"),
        ];
        let groups = [
            group(&format!("/cg/podx/{}", id('a'))),
            group(&format!("/cg/pody/{}", id('c'))),
            group(&format!("/cg/system.slice/docker-{}.scope", id('d'))),
        ];
        let find = |name| find_container(name, &known, &groups);
        let redis = find("redis").unwrap();
        assert_eq!(redis.name, "container redis of pod shop/cache");
        assert_eq!(redis.group, Path::new("/cg/pody").join(id('c')));
        assert_eq!(find("aaaaaaaa").unwrap().name, "container nginx of pod shop/web-0");
        assert_eq!(find("dddd").unwrap().name, "container dddddddddddd of Docker");
        let ambiguous = message(find("nginx"));
        assert!(ambiguous.contains("aaaaaaaaaaaa (container nginx of pod shop/web-0), bbbb"), "{ambiguous}");
        // Its runtime knows it, this host's kernel does not.
        assert!(message(find("bbbb")).contains("cgroup namespace"));
        let missing = message(find("postgres"));
        assert_eq!(missing, "no running container postgres; on this host run nginx, redis");
        assert!(message(find("d")).starts_with("no running container d;"));
    }

    #[test]
    fn pods_by_the_group_that_the_kubelet_made_for_them() {
        let known =
            [container('a', "nginx", "web"), container('b', "side", "web"), container('c', "redis", "cache")];
        let at = |parents: [&str; 3]| {
            let ids = ['a', 'b', 'c'].map(id);
            let groups: Vec<_> =
                parents.iter().zip(ids).map(|(parent, id)| group(&format!("/cg/{parent}/{id}"))).collect();
            groups
        };
        let pod = |name, groups: &[ContainerGroup]| find_pod("shop", name, &known, groups);
        let usual = at(["kubepods/poduid-of-web", "kubepods/poduid-of-web", "custom"]);
        let web = pod("web", &usual).unwrap();
        assert_eq!(
            (web.name.as_str(), web.group.as_path()),
            ("pod shop/web", Path::new("/cg/kubepods/poduid-of-web"))
        );
        // One container is all of its pod, whatever the group is called.
        assert_eq!(pod("cache", &usual).unwrap().group, Path::new("/cg/custom").join(id('c')));
        let together = at(["custom", "custom", "custom"]);
        assert!(message(pod("web", &together)).ends_with("--container: nginx, side"));
        let missing = message(pod("db", &usual));
        assert_eq!(missing, "no running pod shop/db; on this host run shop/cache, shop/web");
    }
}
