//! What the path of a control group tells, with what the container runtime knows.

use std::path::Path;

use chokepoint_analysis::names::printable;

use crate::containers::Container;
use crate::containers::groups::{ContainerGroup, ContainerId};

/// Longest value of a label, bytes. Paths of pods' groups have some 250.
const MAX_VALUE_BYTES: usize = 512;
/// Units whose processes are one service. Scopes are started by hand or by other programs, and named by number.
const SERVICE: &str = ".service";

/// A control group, as labels tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Names with values, in no order.
    pub labels: Vec<(&'static str, String)>,
    /// What it calls its processes' service, if anything.
    pub service: Option<String>,
}

/// What is known of the group at this path. `look_up` is what the runtime knows of a container.
#[must_use]
pub fn group(path: &str, look_up: impl FnOnce(&ContainerId) -> Option<Container>) -> Group {
    let mut group = Group::default();
    group.add("cgroup", path);
    if let Some(id) = container(path) {
        group.add("container_id", id.short());
        let known = look_up(&id).unwrap_or_default();
        let name = if known.name.is_empty() { id.short() } else { &known.name };
        group.add("container", name);
        group.service = Some(name.to_owned());
        group.add("pod", &known.pod.name);
        group.add("namespace", &known.pod.namespace);
        group.add("image", &known.image);
    } else if let Some(unit) = unit(path) {
        group.add("unit", unit);
        group.service = unit.strip_suffix(SERVICE).map(str::to_owned);
    }
    group
}

impl Group {
    fn add(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.labels.push((name, shown(value)));
        }
    }
}

/// The service of a process: what the operator says, else its container, its unit or its own name.
#[must_use]
pub fn service(group: Option<&Group>, process_name: &str, operators: Option<&str>) -> String {
    let found = group.and_then(|group| group.service.as_deref());
    shown(operators.or(found).unwrap_or(process_name))
}

/// The innermost container that the path leads into.
fn container(path: &str) -> Option<ContainerId> {
    Path::new(path).ancestors().find_map(ContainerGroup::at).map(|group| group.id)
}

/// The innermost service or scope of systemd's on the path.
fn unit(path: &str) -> Option<&str> {
    path.rsplit('/').find(|name| name.ends_with(SERVICE) || name.ends_with(".scope"))
}

fn shown(value: &str) -> String {
    let mut value = printable(value);
    value.truncate(value.floor_char_boundary(MAX_VALUE_BYTES));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Pod;

    fn told(path: &str, known: Option<Container>) -> (String, Option<String>) {
        let mut group = group(path, |_| known);
        group.labels.retain(|(name, _)| *name != "cgroup");
        let labels = group.labels.iter().map(|(name, value)| format!("{name}={value}"));
        (labels.collect::<Vec<_>>().join(" "), group.service)
    }

    #[test]
    fn paths_tell_units_and_containers() {
        let id = "0123456789abcdef".repeat(4);
        let web = Container {
            id: id.clone(),
            name: "web".into(),
            pod: Pod { namespace: "shop".into(), name: "web-0".into(), uid: "1".into() },
            image: "registry/web:7".into(),
        };
        let pod = "container_id=0123456789ab container=web pod=web-0 namespace=shop image=registry/web:7";
        let cases = [
            ("/", None, "", None),
            ("/system.slice/ssh.service", None, "unit=ssh.service", Some("ssh")),
            // The manager of a user, and what it runs.
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/mail.service",
                None,
                "unit=mail.service",
                Some("mail"),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", None, "unit=session-3.scope", None),
            (
                "/system.slice/docker-ID.scope",
                None,
                "container_id=0123456789ab container=0123456789ab",
                Some("0123456789ab"),
            ),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
                Some(web.clone()),
                pod,
                Some("web"),
            ),
            // systemd in a container makes groups of its own.
            ("/kubepods/pod1/ID/system.slice/cron.service", Some(web), pod, Some("web")),
        ];
        for (path, known, labels, service) in cases {
            let expected = (labels.to_owned(), service.map(str::to_owned));
            assert_eq!(told(&path.replace("ID", &id), known), expected, "{path}");
        }
    }

    #[test]
    fn the_operator_names_the_service_then_the_group_then_the_process() {
        let named = Group { service: Some("web".into()), ..Group::default() };
        assert_eq!(service(Some(&named), "nginx", Some("shop")), "shop");
        assert_eq!(service(Some(&named), "nginx", None), "web");
        assert_eq!(service(Some(&Group::default()), "nginx", None), "nginx");
        assert_eq!(service(None, "a\x1b[1m", None), printable("a\x1b[1m"));
    }
}
