//! What cgroups are called: those of containers by the names that people know, of which their paths have only ids.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::containers::Container;
use crate::containers::groups::{ContainerGroup, ContainerId};

/// The names of the cgroups of containers, by their paths. Others are called as their paths are.
#[derive(Clone, Debug, Default)]
pub struct GroupNames(HashMap<Arc<str>, Arc<str>>);

impl GroupNames {
    /// Has the name of a cgroup where it is a container's, or below one. `look_up` is what the runtime knows of a container.
    pub fn learn(&mut self, path: &Arc<str>, look_up: impl FnOnce(&ContainerId) -> Option<Container>) {
        if !self.0.contains_key(path)
            && let Some(name) = name(path, look_up)
        {
            self.0.insert(Arc::clone(path), name.into());
        }
    }

    /// A container's name: `shop/web-0 server`, or `c0ffee012345 of Docker` where only the id is known; with what stands below its
    /// cgroup. `None` for what is in no container.
    #[must_use]
    pub fn container(&self, path: &str) -> Option<&Arc<str>> {
        self.0.get(path)
    }

    /// What a cgroup is called.
    #[must_use]
    pub fn name<'a>(&'a self, path: &'a str) -> &'a str {
        self.container(path).map_or(path, |name| name)
    }
}

fn name(path: &str, look_up: impl FnOnce(&ContainerId) -> Option<Container>) -> Option<String> {
    let group = Path::new(path).ancestors().find_map(ContainerGroup::at)?;
    let below = Path::new(path).strip_prefix(&group.path).ok()?.to_string_lossy().into_owned();
    let name = match look_up(&group.id) {
        Some(Container { name, pod, .. }) if !name.is_empty() => {
            format!("{}/{} {name}", pod.namespace, pod.name)
        }
        _ => group.id.to_string(),
    };
    Some(if below.is_empty() { name } else { format!("{name} {below}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Pod;

    #[test]
    fn containers_have_their_pods_names_or_their_ids() {
        let id = "0123456789abcdef".repeat(4);
        let web = Container {
            id: id.clone(),
            name: "server".into(),
            pod: Pod { namespace: "shop".into(), name: "web-0".into(), uid: "1".into() },
            image: String::new(),
        };
        let cases = [
            ("/system.slice/ssh.service", None, None),
            ("/system.slice/docker-ID.scope", None, Some("0123456789ab of Docker")),
            ("/kubepods/pod1/ID", Some(web.clone()), Some("shop/web-0 server")),
            ("/kubepods/pod1/ID/init.scope", Some(web), Some("shop/web-0 server init.scope")),
        ];
        for (path, known, expected) in cases {
            let path: Arc<str> = path.replace("ID", &id).into();
            let mut names = GroupNames::default();
            names.learn(&path, |_| known);
            assert_eq!(names.container(&path).map(|name| &**name), expected, "{path}");
            assert_eq!(names.name(&path), expected.unwrap_or(&path));
        }
    }
}
