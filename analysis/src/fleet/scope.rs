//! From the verdicts of a service on its hosts to that of the service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::code::Code;
use crate::verdict::finding::{Finding, Severity};

/// Part of a service's hosts from which on a constraint is the service's: of fewer it is more likely theirs.
const SERVICES: f64 = 0.1;
/// A single host of more than this many is an exception, whatever part of them it is.
const PEERS: usize = 2;
/// A finding that is less than half sure is as likely wrong.
const DOUBTFUL: f64 = 0.5;

/// A number that speaks for a verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What it is, in words.
    pub what: String,
    /// The number.
    pub value: f64,
    /// What it counts: `%`, `ms`, `1`.
    pub unit: String,
    /// Where it is from.
    pub source: String,
}

/// Who drew a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The collector, from what is stored of the service's threads.
    #[default]
    Collector,
    /// The host's agent, of the host: all that suffers there is of this service.
    Agent,
}

/// What limits a service on a host, or nothing does.
#[derive(Clone, Debug, PartialEq)]
pub struct HostVerdict {
    /// The host.
    pub host: String,
    /// What.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// How sure, 0 to 1.
    pub confidence: f64,
    /// The part of the service's demand there that it takes, 0 to 1; of the host's, where its agent says so.
    pub share: f64,
    /// In one sentence.
    pub summary: String,
    /// Names of processes that suffer.
    pub processes: Vec<String>,
    /// Names of those that cause it: of processes, or of other services where these have the CPUs.
    pub culprits: Vec<String>,
    /// Functions in which it happens.
    pub functions: Vec<String>,
    /// From the wait that is seen to what is behind it.
    pub path: Vec<String>,
    /// Numbers that speak for it.
    pub evidence: Vec<Evidence>,
    /// What to do first; empty where there is nothing to do.
    pub next_step: String,
    /// Who says so.
    pub source: Source,
}

impl HostVerdict {
    /// What the collector has found.
    #[must_use]
    pub fn of(host: &str, found: &Finding) -> Self {
        let evidence = found.evidence.iter().map(|fact| Evidence {
            what: fact.what.clone(),
            value: fact.value,
            unit: fact.unit.to_owned(),
            source: fact.source.clone(),
        });
        Self {
            host: host.to_owned(),
            code: found.code,
            severity: found.severity,
            confidence: found.confidence,
            share: found.share,
            summary: found.summary.clone(),
            processes: found.processes.clone(),
            culprits: found.culprits.clone(),
            functions: found.functions.clone(),
            path: found.path.clone(),
            evidence: evidence.collect(),
            next_step: found.next_steps.first().map_or_else(String::new, |step| step.action.clone()),
            source: Source::Collector,
        }
    }

    /// Whether it names something that limits the service there.
    #[must_use]
    pub fn limits(&self) -> bool {
        self.code.is_constraint() && self.severity > Severity::Low && self.confidence >= DOUBTFUL
    }
}

/// Whether what an agent found of its host is of this service: it names who suffers, and they are all of it. What is found without knowing
/// what ended waits comes first, but where nothing was.
#[must_use]
pub fn is_of_service(
    agents: &HostVerdict,
    collectors: &HostVerdict,
    is_own: impl Fn(&str) -> bool,
    is_of_others: impl Fn(&str) -> bool,
) -> bool {
    let suffers = &agents.processes;
    agents.limits()
        && !collectors.limits()
        && !suffers.is_empty()
        && suffers.iter().all(|name| is_own(name) && !is_of_others(name))
}

/// Hosts that have the same constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What.
    pub code: Code,
    /// The hosts, positions in what was judged, the worst first.
    pub hosts: Vec<usize>,
}

/// A service's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// What limits the service, what most suffers from first.
    pub constraints: Vec<Group>,
    /// What limits only a few of its hosts, which differ from the others in it.
    pub exceptions: Vec<Group>,
    /// Hosts on which nothing limits it.
    pub healthy: usize,
    /// Hosts on which it has next to nothing to do.
    pub idle: usize,
    /// Hosts of which not enough is known.
    pub unknown: usize,
}

/// Puts the verdicts of hosts together.
#[must_use]
pub fn judge(hosts: &[HostVerdict]) -> Judged {
    let mut judged = Judged::default();
    let mut by_code: BTreeMap<Code, Vec<usize>> = BTreeMap::new();
    for (at, host) in hosts.iter().enumerate() {
        match host.code {
            code if host.limits() => by_code.entry(code).or_default().push(at),
            Code::NoneIdle => judged.idle += 1,
            Code::Unknown => judged.unknown += 1,
            _ => judged.healthy += 1,
        }
    }
    // A service that has nothing to do on most of its hosts is limited where it works.
    let working = hosts.len() - judged.idle;
    let weight = |group: &[usize]| group.iter().map(|at| hosts[*at].share).sum::<f64>();
    for (code, mut group) in by_code {
        group.sort_by(|one, other| {
            let (one, other) = (&hosts[*one], &hosts[*other]);
            other.severity.cmp(&one.severity).then(other.share.total_cmp(&one.share))
        });
        let is_all = 2 * group.len() > working;
        let is_some = group.len() as f64 >= SERVICES * working as f64 && group.len() > 1;
        let is_services = is_all || is_some || working <= PEERS;
        let groups = if is_services { &mut judged.constraints } else { &mut judged.exceptions };
        groups.push(Group { code, hosts: group });
    }
    for groups in [&mut judged.constraints, &mut judged.exceptions] {
        groups.sort_by(|one, other| weight(&other.hosts).total_cmp(&weight(&one.hosts)));
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(at: usize, code: Code, severity: Severity, share: f64) -> HostVerdict {
        HostVerdict {
            host: format!("host-{at}"),
            code,
            severity,
            confidence: 0.8,
            share,
            summary: String::new(),
            processes: vec!["web".to_owned()],
            culprits: Vec::new(),
            functions: Vec::new(),
            path: Vec::new(),
            evidence: Vec::new(),
            next_step: String::new(),
            source: Source::Collector,
        }
    }

    /// Codes, and of how many hosts.
    type Told = Vec<(Code, usize)>;

    fn judged(limited: &[(Code, usize)], of: usize) -> (Told, Told) {
        let limited = limited.iter().flat_map(|(code, count)| std::iter::repeat_n(Some(*code), *count));
        let all = limited.chain(std::iter::repeat(None)).take(of).enumerate();
        let hosts: Vec<HostVerdict> = all
            .map(|(at, code)| match code {
                Some(code) => host(at, code, Severity::Critical, 0.6),
                None => host(at, Code::NoneHealthy, Severity::None, 0.0),
            })
            .collect();
        let judged = judge(&hosts);
        let told =
            |groups: Vec<Group>| groups.into_iter().map(|group| (group.code, group.hosts.len())).collect();
        (told(judged.constraints), told(judged.exceptions))
    }

    #[test]
    fn a_constraint_of_a_tenth_of_the_hosts_is_the_services_and_that_of_one_host_is_its_own() {
        assert_eq!(judged(&[(Code::CpuQuota, 6)], 20), (vec![(Code::CpuQuota, 6)], vec![]));
        assert_eq!(judged(&[(Code::IoRead, 1)], 20), (vec![], vec![(Code::IoRead, 1)]));
        assert_eq!(judged(&[(Code::IoRead, 3)], 100), (vec![], vec![(Code::IoRead, 3)]));
        assert_eq!(judged(&[(Code::IoRead, 1)], 5), (vec![], vec![(Code::IoRead, 1)]));
        // Of two hosts nobody can say which is odd.
        assert_eq!(judged(&[(Code::IoRead, 1)], 2), (vec![(Code::IoRead, 1)], vec![]));
        let both = judged(&[(Code::IoRead, 4), (Code::CpuQuota, 9)], 20);
        assert_eq!(both, (vec![(Code::CpuQuota, 9), (Code::IoRead, 4)], vec![]));
    }

    #[test]
    fn hosts_without_work_are_not_counted_among_those_that_are_well() {
        let mut hosts: Vec<HostVerdict> =
            (0..18).map(|at| host(at, Code::NoneIdle, Severity::None, 0.0)).collect();
        hosts.push(host(18, Code::IoRead, Severity::Warning, 0.4));
        hosts.push(host(19, Code::Unknown, Severity::None, 0.0));
        let judged = judge(&hosts);
        assert_eq!((judged.idle, judged.unknown, judged.healthy), (18, 1, 0));
        assert_eq!(judged.constraints, [Group { code: Code::IoRead, hosts: vec![18] }]);
    }

    #[test]
    fn an_agents_verdict_counts_where_all_that_suffers_is_of_the_service() {
        let well = host(0, Code::NoneHealthy, Severity::None, 0.0);
        let agents = host(0, Code::LockMutex, Severity::Critical, 0.7);
        let is = |own: &[&str], others: &[&str]| {
            is_of_service(&agents, &well, |name| own.contains(&name), |name| others.contains(&name))
        };
        assert!(is(&["web"], &["db"]));
        assert!(!is(&["web"], &["web"]) && !is(&["db"], &[]));
        let quota = host(0, Code::CpuQuota, Severity::Critical, 0.7);
        assert!(!is_of_service(&agents, &quota, |_| true, |_| false));
    }
}
