//! Which agent has a target: by the labels of what agents told lately, or as the user says.

use chokepoint_proto::stream::profile_now::Target;

use super::Refusal;
use super::ask::{Wanted, described};
use crate::labels::{Matcher, Operator};
use crate::store::{Asker, Selection, Store};

/// How far back a target may have been seen last. Windows come every ten seconds, and later where a collector was away.
const LATELY_NS: u64 = 900_000_000_000;
/// Clocks of hosts may be ahead.
const AHEAD_NS: u64 = 300_000_000_000;
/// Hosts that are looked at, and then told.
const MAX_HOSTS: usize = 10_000;
const MAX_TOLD: usize = 10;
/// Digits of an agent's identity that are enough to name it.
const MIN_DIGITS: usize = 8;
/// Digits of a container's id that agents tell.
const TOLD_DIGITS: usize = 12;
/// Where control groups are seen as files.
const GROUPS: &str = "/sys/fs/cgroup";

/// An agent that has a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its identity, in hexadecimal digits.
    pub agent: String,
    /// Its host's name.
    pub host: String,
}

/// The agent that is meant. A host that is named is taken at the user's word: the agent itself says whether it has the target.
///
/// # Errors
/// None or several may be meant, or the store cannot read.
pub fn find(
    store: &dyn Store,
    wanted: &Wanted,
    connected: &[Agent],
    now_unix_ns: u64,
    asker: &Asker,
) -> Result<Agent, Refusal> {
    if connected.is_empty() {
        return Err(nobody());
    }
    if let Some(host) = &wanted.host {
        return of_host(host, connected);
    }
    let target = described(&wanted.target);
    if matches!(wanted.target, Target::Host(_) | Target::Pid(_)) {
        return match connected {
            [agent] => Ok(agent.clone()),
            _ => Err(several(&target, &connected.iter().collect::<Vec<_>>())),
        };
    }
    let hosts = hosts(store, &wanted.target, now_unix_ns, asker)?;
    let found: Vec<&Agent> = connected.iter().filter(|agent| hosts.contains(&agent.host)).collect();
    match (&found[..], &hosts[..]) {
        ([agent], _) => Ok((*agent).clone()),
        ([], []) => Err(Refusal::NotFound(format!(
            "no host has told of {target} in the last {} minutes; name a host to ask its agent all the same",
            LATELY_NS / 60_000_000_000
        ))),
        ([], hosts) => {
            let hosts: Vec<&str> = hosts.iter().take(MAX_TOLD).map(String::as_str).collect();
            Err(Refusal::NotFound(format!(
                "{target} was seen on {}, and its agent has no stream to this collector now",
                hosts.join(", ")
            )))
        }
        _ => Err(several(&target, &found)),
    }
}

/// The agent of a host, by the host's name or the beginning of the agent's identity.
///
/// # Errors
/// None or several may be meant.
pub fn of_host(host: &str, connected: &[Agent]) -> Result<Agent, Refusal> {
    let found: Vec<&Agent> = connected.iter().filter(|agent| agent.is_called(host)).collect();
    match found[..] {
        [agent] => Ok(agent.clone()),
        [] if connected.is_empty() => Err(nobody()),
        [] => Err(Refusal::NotFound(format!(
            "no agent of a host {host:?} has a stream to this collector now; those that have: {}",
            told(connected.iter())
        ))),
        _ => Err(several(&format!("host {host:?}"), &found)),
    }
}

fn nobody() -> Refusal {
    Refusal::NotFound("no agent has a stream to this collector now".to_owned())
}

impl Agent {
    fn is_called(&self, name: &str) -> bool {
        self.host == name || (name.len() >= MIN_DIGITS && self.agent.starts_with(name))
    }
}

fn several(what: &str, found: &[&Agent]) -> Refusal {
    Refusal::Ambiguous(format!(
        "{what} may be on several hosts, name the one you mean: {}",
        told(found.iter().copied())
    ))
}

/// Hosts by name, and of those of one name their agents, too.
fn told<'a>(agents: impl Iterator<Item = &'a Agent> + Clone) -> String {
    let is_twice = |host: &str| agents.clone().filter(|agent| agent.host == host).count() > 1;
    let shown = |agent: &Agent| match is_twice(&agent.host) {
        true => format!("{} (agent {})", agent.host, agent.agent),
        false => agent.host.clone(),
    };
    let count = agents.clone().count();
    let mut names: Vec<String> = agents.clone().take(MAX_TOLD).map(shown).collect();
    names.sort();
    if count > names.len() {
        names.push(format!("and {} more", count - names.len()));
    }
    names.join(", ")
}

/// Hosts that have told of a target lately.
fn hosts(
    store: &dyn Store,
    target: &Target,
    now_unix_ns: u64,
    asker: &Asker,
) -> Result<Vec<String>, Refusal> {
    for matchers in selections(target) {
        let selection = Selection {
            matchers,
            from_unix_ns: now_unix_ns.saturating_sub(LATELY_NS),
            until_unix_ns: now_unix_ns.saturating_add(AHEAD_NS),
            asker: asker.clone(),
        };
        let labels = store.labels(&selection, MAX_HOSTS)?;
        let hosts = labels.into_iter().find(|(name, _)| name == "host").map(|(_, hosts)| hosts);
        if let Some(hosts) = hosts.filter(|hosts| !hosts.is_empty()) {
            return Ok(hosts);
        }
    }
    Ok(Vec::new())
}

/// What labels are to fulfil: the first that finds anything counts.
fn selections(target: &Target) -> Vec<Vec<Matcher>> {
    let is = |name, value: &str| Matcher::new(name, Operator::Is, value);
    let begins =
        |name, value: &str| Matcher::new(name, Operator::Matches, &format!("{}.*", regex::escape(value)));
    let within =
        |name, value: &str| Matcher::new(name, Operator::Matches, &format!("{}(/.*)?", regex::escape(value)));
    let selections = match target {
        Target::Pod(pod) => {
            let (namespace, name) = pod.split_once('/').unwrap_or(("", pod));
            vec![vec![is("namespace", namespace), is("pod", name)]]
        }
        Target::Container(name) => {
            let is_id = name.bytes().all(|byte| byte.is_ascii_hexdigit());
            let told = if is_id { &name[..name.len().min(TOLD_DIGITS)] } else { name };
            vec![vec![is("container", name)], vec![begins("container_id", told)]]
        }
        Target::Cgroup(path) => {
            let path = path.strip_prefix(GROUPS).unwrap_or(path).trim_end_matches('/');
            vec![vec![within("cgroup", path)]]
        }
        Target::Host(_) | Target::Pid(_) => Vec::new(),
    };
    // A name of some thousand letters may be more than an expression is allowed: then nothing has it.
    selections
        .into_iter()
        .filter_map(|matchers| matchers.into_iter().collect::<Result<_, _>>().ok())
        .collect()
}
