//! Whose samples are, from the attributes or labels that other programs have.

use std::collections::BTreeMap;

use crate::labels::Labels;

/// Bytes of a label's value at most.
const MAX_VALUE: usize = 256;
/// Bytes of a host's name at most: what DNS has.
const MAX_HOST: usize = 253;
/// Labels of a subject at most.
const MAX_LABELS: usize = 24;
/// What rows are labelled by already, and nobody may label them by.
const RESERVED: [&str; 5] = ["host", "process", "thread", "instance", "class"];
/// Names that say which host it is, those that say it best first.
const HOSTS: [&str; 7] = ["host.name", "hostname", "host", "k8s.node.name", "node", "host.id", "instance"];
/// Names that say which process it is.
const PROCESSES: [&str; 4] = ["process.executable.name", "process.command", "process_name", "process"];
/// Names that say which thread it is.
const THREADS: [&str; 2] = ["thread.name", "thread"];
/// What others call what is called so here, by the semantic conventions of OpenTelemetry and by Pyroscope's. Of several names of one thing the
/// first is what it is sent as.
const NAMES: [(&str, &str); 16] = [
    ("service.name", "service"),
    ("service_name", "service"),
    ("service.namespace", "service_namespace"),
    ("service.version", "version"),
    ("deployment.environment.name", "environment"),
    ("deployment.environment", "environment"),
    ("k8s.namespace.name", "namespace"),
    ("k8s.pod.name", "pod"),
    ("k8s.container.name", "container"),
    ("container.name", "container"),
    ("container.id", "container_id"),
    ("container.image.name", "image"),
    ("k8s.deployment.name", "deployment"),
    ("k8s.cluster.name", "cluster"),
    ("cloud.availability_zone", "zone"),
    ("process.linux.cgroup", "cgroup"),
];
/// The host of those that do not say theirs.
const UNKNOWN_HOST: &str = "unknown";

/// Whose samples are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Described {
    pub(in super::super) host: String,
    pub(in super::super) process: String,
    /// With `*` for each number in it, as agents have it.
    pub(in super::super) thread: String,
    /// All else, always with `service` and with `source`, the protocol.
    pub(in super::super) labels: Labels,
}

impl Described {
    /// From what is known. Of names that are not known here, those are kept that `keeps` admits.
    pub(in super::super) fn new(
        known: &BTreeMap<String, String>,
        source: &str,
        keeps: impl Fn(&str) -> bool,
    ) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| known.get(*name)).map(|value| plain(value));
        let mut labels = Labels::new();
        for (name, value) in known {
            let named = NAMES.iter().find(|(theirs, _)| theirs == name).map(|(_, ours)| *ours);
            let name = match named {
                Some(ours) => ours,
                None if keeps(name) && is_label(name) => name,
                None => continue,
            };
            if labels.len() < MAX_LABELS {
                labels.entry(name.to_owned()).or_insert_with(|| plain(value));
            }
        }
        let host = first(&HOSTS).filter(|host| !host.is_empty()).unwrap_or_else(|| UNKNOWN_HOST.to_owned());
        let service = labels.get("service").cloned().unwrap_or_default();
        let process = first(&PROCESSES).filter(|name| !name.is_empty()).unwrap_or_else(|| service.clone());
        if service.is_empty() {
            let of =
                labels.get("deployment").or(labels.get("pod")).cloned().unwrap_or_else(|| process.clone());
            labels.insert("service".to_owned(), of);
        }
        labels.insert("source".to_owned(), source.to_owned());
        labels.retain(|_, value| !value.is_empty());
        let thread = without_numbers(&first(&THREADS).unwrap_or_default());
        Self { host: bounded(&host, MAX_HOST), process, thread, labels }
    }
}

/// What others call a label: by the semantic conventions where these have a name for it, else by its own.
pub(in super::super) fn attribute_of(label: &str, is_in_pod: bool) -> String {
    // A container that no pod has is none of Kubernetes'.
    if label == "container" && !is_in_pod {
        return "container.name".to_owned();
    }
    let named = NAMES.iter().find(|(_, ours)| *ours == label).map(|(theirs, _)| *theirs);
    named.unwrap_or(label).to_owned()
}

fn is_label(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    !RESERVED.contains(&name)
        && !HOSTS.contains(&name)
        && !PROCESSES.contains(&name)
        && !THREADS.contains(&name)
        && (1..=64).contains(&name.len())
        && !name.starts_with("__")
        && name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// A value as it is kept: bounded, and without control characters.
fn plain(value: &str) -> String {
    bounded(value, MAX_VALUE)
}

fn bounded(value: &str, most: usize) -> String {
    let mut plain = String::new();
    for c in value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }) {
        if plain.len() + c.len_utf8() > most {
            break;
        }
        plain.push(c);
    }
    plain
}

/// Threads of a pool are one: `worker-17` is `worker-*`.
fn without_numbers(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut is_in_number = false;
    for c in name.chars() {
        if !c.is_ascii_digit() {
            text.push(c);
        } else if !is_in_number {
            text.push('*');
        }
        is_in_number = c.is_ascii_digit();
    }
    text
}

/// Bytes written as hexadecimal digits.
pub(in super::super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(known: &[(&str, &str)]) -> Described {
        let known = known.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Described::new(&known, "otlp", |name| name == "region")
    }

    #[test]
    fn attributes_become_the_labels_that_agents_have() {
        let found = of(&[
            ("host.name", "a1"),
            ("service.name", "shop"),
            ("k8s.pod.name", "shop-0"),
            ("process.executable.name", "shopd"),
            ("thread.name", "worker-17-2"),
            ("process.pid", "17"),
            ("region", "eu\n"),
            ("class", "x"),
        ]);
        assert_eq!(
            (found.host.as_str(), found.process.as_str(), found.thread.as_str()),
            ("a1", "shopd", "worker-*-*")
        );
        let labels: Vec<String> =
            found.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(labels, ["pod=shop-0", "region=eu\u{fffd}", "service=shop", "source=otlp"]);
    }

    #[test]
    fn who_says_nothing_is_somebody_all_the_same() {
        let found = of(&[("process.executable.name", "shopd")]);
        assert_eq!((found.host.as_str(), found.labels["service"].as_str()), ("unknown", "shopd"));
        assert_eq!(of(&[("host.name", &"ä".repeat(500))]).host.chars().count(), 126);
    }
}
