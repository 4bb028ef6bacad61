//! What limits services across hosts: drawn from what is stored of their threads, by the code that diagnoses a host.
//!
//! First everything is read but stacks ([`read`]), then scope by scope the stacks ([`service`]): one profile of each scope on each host, which is
//! diagnosed like a recording. What the hosts have in common is the scope's verdict, what only a few have is theirs. Then waits for
//! other services are followed, and it is looked at what was before ([`history`]).

mod answer;
mod history;
mod read;
pub mod recent;
pub mod regressions;
mod service;

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::activity::{Class, Group as ClassGroup};
use chokepoint_analysis::fleet::callees::{Callees, Served, Wait, follow};
use chokepoint_analysis::fleet::differs::{self, Measure};
use chokepoint_analysis::fleet::scope::{Evidence, Group, HostVerdict, Judged, Source, judge};
use chokepoint_analysis::signals;
use chokepoint_analysis::verdict::code::Code;
use chokepoint_analysis::verdict::finding::Severity;

pub use self::answer::{
    Callee, Change, Constraint, Deviation, Difference, Fleet, Neighbour, Outlier, Service,
};
use self::history::History;
pub use self::history::Past;
use self::read::{Known, Reader, Scope, labels_of, name_of};
use self::service::{Hosts, Judge};
use super::QueryError;
use super::limits::Limits;
use super::parallel::in_parallel;
use super::question::{MS_NS, Question};
use crate::store::Store;

/// What scopes have in common where nobody says.
const SERVICE: &str = "service";
/// Hosts of a constraint that are named; all are counted.
const NAMED_HOSTS: usize = 100;
/// Outliers and neighbours that are told, each.
const MAX_TOLD: usize = 100;
/// The source of what a signal says begins so.
const SIGNAL: &str = "signal ";
/// Requests of a healthy solid-state disk take less than a millisecond, those of a turning one some ten: from here on somebody waits.
const SLOW_DISK_MS: f64 = 10.0;

/// What limits the services, or what else is asked for, of a selection.
///
/// # Errors
/// The question is of a type of profile, or the store cannot.
pub fn fleet(
    store: &dyn Store,
    question: &Question,
    max_services: usize,
    past: &Past,
    limits: &Limits,
) -> Result<Fleet, QueryError> {
    let by = if question.by.is_empty() { vec![SERVICE.to_owned()] } else { question.by.clone() };
    let reader = Reader { store, question, limits };
    let known = reader.known(&by)?;
    let mut scopes: Vec<&Scope> = known.times.keys().collect();
    // Stable, so that equals stay in the order of their names.
    scopes.sort_by_key(|scope| std::cmp::Reverse(activity(&known, scope)));
    let left_out = scopes.len().saturating_sub(max_services) as u64;
    scopes.truncate(max_services);
    let judging = Judge { reader, by: &by, known: &known };
    let found = in_parallel(&scopes, |scope| Found::new(&judging, scope))?;
    let found: BTreeMap<Scope, Found> = scopes.iter().map(|scope| (*scope).clone()).zip(found).collect();
    let waits = waits(&by, &known);
    let history = History { reader, by: &by, past };
    let telling = Telling { by: &by, known: &known, found: &found, waits: &waits, history: &history };
    let mut services = in_parallel(&scopes, |scope| telling.service(scope))?;
    services.sort_by_key(|service| {
        let worst =
            service.constraints.iter().map(|constraint| (constraint.severity, constraint.hosts)).max();
        let exceptions = service.exceptions.iter().map(|constraint| constraint.severity).max();
        std::cmp::Reverse((worst, exceptions))
    });
    Ok(Fleet {
        from_unix_ms: question.range.from_unix_ns / MS_NS,
        until_unix_ms: question.range.until_unix_ns / MS_NS,
        outliers: outliers(&by, &known, &found),
        neighbours: neighbours(&by, &found),
        services,
        left_out,
        missing: known.missing,
    })
}

/// Time in which a scope's threads work, or are held up by what is no work of others.
fn activity(known: &Known, scope: &Scope) -> u64 {
    let is_busy = |class: &Class| {
        matches!(class.group(), ClassGroup::Cpu | ClassGroup::Queue | ClassGroup::Io | ClassGroup::Memory)
            || matches!(class, Class::LockKernel | Class::LockFile)
    };
    let times = known.times.get(scope).into_iter().flat_map(BTreeMap::values).flatten();
    times.filter(|(class, _)| is_busy(class)).map(|(_, ns)| *ns).sum()
}

/// What was found of a scope.
struct Found {
    hosts: Vec<HostVerdict>,
    judged: Judged,
    /// Of each constraint, then of each exception, what its hosts have together.
    together: BTreeMap<Code, HostVerdict>,
    missing: Vec<String>,
}

impl Found {
    fn new(judging: &Judge<'_>, scope: &Scope) -> Result<Self, QueryError> {
        let Hosts { verdicts: hosts, rows, missing } = judging.hosts(scope)?;
        let judged = judge(&hosts);
        let mut together = BTreeMap::new();
        for group in judged.constraints.iter().chain(&judged.exceptions) {
            let of: Vec<&HostVerdict> = group.hosts.iter().map(|at| &hosts[*at]).collect();
            let merged = judging.together(scope, &rows, &of, group.code);
            let worst = of[0];
            let mut told = merged.map_or_else(|| worst.clone(), |found| HostVerdict::of("", &found));
            // How bad and how sure it is says the worst host, and so do its signals: they are of hosts.
            (told.severity, told.confidence, told.source) = (worst.severity, worst.confidence, worst.source);
            told.evidence.retain(|fact| !fact.source.starts_with(SIGNAL));
            told.evidence.extend(signals_of(worst));
            together.insert(group.code, told);
        }
        Ok(Self { hosts, judged, together, missing })
    }

    /// What limits most of it.
    fn code(&self) -> Option<Code> {
        let groups = self.judged.constraints.iter().chain(&self.judged.exceptions);
        groups.map(|group| group.code).next()
    }
}

/// What of a host's signals speaks for its verdict.
fn signals_of(host: &HostVerdict) -> impl Iterator<Item = Evidence> {
    let signals = host.evidence.iter().filter(|fact| fact.source.starts_with(SIGNAL));
    signals.map(|fact| Evidence { what: format!("{}: {}", host.host, fact.what), ..fact.clone() })
}

/// Who waits for whom, as far as addresses are known.
fn waits(by: &[String], known: &Known) -> Vec<Wait> {
    let mut callees = Callees::default();
    for (host, address) in &known.addresses {
        if let Ok(address) = address.parse() {
            callees.has(host, address);
        }
    }
    for (scope, host, address) in &known.served {
        if let Ok(address) = address.parse() {
            callees.serves(Served { scope: name_of(by, scope), host: host.clone() }, address);
        }
    }
    let mut waits = Vec::new();
    for (scope, hosts) in &known.waited {
        for (host, waited) in hosts {
            for one in waited {
                let Ok(address) = one.service.parse() else { continue };
                if let Some(to) = callees.find(host, address) {
                    waits.push(Wait { from: name_of(by, scope), to: to.clone(), address, ns: one.ns });
                }
            }
        }
    }
    waits
}

/// Puts what was found into words.
struct Telling<'a> {
    by: &'a [String],
    known: &'a Known,
    found: &'a BTreeMap<Scope, Found>,
    waits: &'a [Wait],
    history: &'a History<'a>,
}

impl Telling<'_> {
    fn service(&self, scope: &Scope) -> Result<Service, QueryError> {
        let found = &self.found[scope];
        let told = |groups: &[Group], is_exception| -> Result<Vec<Constraint>, QueryError> {
            groups.iter().map(|group| self.constraint(scope, found, group, is_exception)).collect()
        };
        Ok(Service {
            labels: labels_of(self.by, scope),
            hosts: found.hosts.len() as u64,
            healthy: found.judged.healthy as u64,
            idle: found.judged.idle as u64,
            unknown: found.judged.unknown as u64,
            cpu_free_pct: self.known.cpu_free_pct(scope),
            constraints: told(&found.judged.constraints, false)?,
            exceptions: told(&found.judged.exceptions, true)?,
            missing: found.missing.clone(),
        })
    }

    fn constraint(
        &self,
        scope: &Scope,
        found: &Found,
        group: &Group,
        is_exception: bool,
    ) -> Result<Constraint, QueryError> {
        let code = group.code;
        let hosts: Vec<&HostVerdict> = group.hosts.iter().map(|at| &found.hosts[*at]).collect();
        let names: BTreeSet<&str> = hosts.iter().map(|host| host.host.as_str()).collect();
        let told = &found.together[&code];
        let is_all = hosts.len() == found.hosts.len();
        let since = self.history.since(scope, code, (!is_all).then_some(&names))?;
        let changes = match &since {
            // What began before what is looked at began with nothing that can be seen.
            Some(since) if !since.is_earlier => self.history.changes(scope, since.unix_ns)?,
            _ => Vec::new(),
        };
        let working = found.hosts.len() - found.judged.idle;
        Ok(Constraint {
            code: code.name().to_owned(),
            hosts: hosts.len() as u64,
            share_of_hosts: hosts.len() as f64 / working.max(1) as f64,
            named_hosts: hosts.iter().take(NAMED_HOSTS).map(|host| host.host.clone()).collect(),
            severity: level(told.severity),
            confidence: told.confidence,
            share: told.share,
            summary: told.summary.clone(),
            since_unix_ms: since.as_ref().map_or(0, |since| since.unix_ns / MS_NS),
            since_is_earlier: since.is_some_and(|since| since.is_earlier),
            changes,
            processes: told.processes.clone(),
            culprits: culprits(&hosts, told),
            functions: told.functions.clone(),
            path: told.path.clone(),
            evidence: told.evidence.clone(),
            // The usual of a service is that of all its hosts.
            usual: if is_exception { None } else { self.history.deviation(scope, code)? },
            waits_for: if code == Code::NetDownstream { self.waits_for(scope) } else { Vec::new() },
            next_step: told.next_step.clone(),
            source: told.source,
        })
    }

    fn waits_for(&self, scope: &Scope) -> Vec<Callee> {
        let by_name: BTreeMap<String, &Scope> =
            self.found.keys().map(|scope| (name_of(self.by, scope), scope)).collect();
        let limited_by = |name: &str| self.found[*by_name.get(name)?].code();
        follow(&name_of(self.by, scope), self.waits, limited_by)
            .into_iter()
            .map(|step| Callee {
                labels: by_name.get(&step.scope).map_or_else(
                    || [(self.by.join(","), step.scope.clone())].into(),
                    |scope| labels_of(self.by, scope),
                ),
                address: step.address.to_string(),
                hosts: step.hosts,
                code: step.code.map(|code| code.name().to_owned()),
            })
            .collect()
    }
}

/// Whoever causes it on most of the hosts first: neighbours differ from host to host.
fn culprits(hosts: &[&HostVerdict], told: &HostVerdict) -> Vec<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for name in hosts.iter().flat_map(|host| &host.culprits) {
        *counts.entry(name).or_default() += 1;
    }
    let mut names: Vec<&String> = counts.keys().copied().collect();
    names.sort_by_key(|name| std::cmp::Reverse(counts[*name]));
    if names.is_empty() { told.culprits.clone() } else { names.into_iter().take(8).cloned().collect() }
}

fn level(severity: Severity) -> u8 {
    match severity {
        Severity::None => 0,
        Severity::Low => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    }
}

/// Hosts that differ from those of the same service: by what limits the service there alone, or by a number that is worth a warning.
fn outliers(by: &[String], known: &Known, found: &BTreeMap<Scope, Found>) -> Vec<Outlier> {
    let mut told: BTreeMap<&str, Outlier> = BTreeMap::new();
    // A host is compared with those of the service that has most.
    let mut scopes: Vec<(&Scope, &Found)> = found.iter().collect();
    scopes.sort_by_key(|(_, found)| std::cmp::Reverse(found.hosts.len()));
    let mut compared: BTreeSet<&str> = BTreeSet::new();
    for (scope, found) in scopes {
        let hosts = found.hosts.len() as u64;
        let outlier = |host: &str| Outlier {
            host: host.to_owned(),
            among: labels_of(by, scope),
            hosts,
            ..Outlier::default()
        };
        for group in &found.judged.exceptions {
            for at in &group.hosts {
                let host = found.hosts[*at].host.as_str();
                let outlier = told.entry(host).or_insert_with(|| outlier(host));
                if outlier.code.is_empty() {
                    outlier.code = group.code.name().to_owned();
                }
            }
        }
        let names: BTreeSet<&str> = found.hosts.iter().map(|host| host.host.as_str()).collect();
        for measure in measures(known, &names) {
            for difference in differs::differences(&measure) {
                let Some(host) = names.get(difference.host.as_str()).copied() else { continue };
                if compared.contains(host) {
                    continue;
                }
                let outlier = told.entry(host).or_insert_with(|| outlier(host));
                outlier.differences.push(Difference {
                    name: difference.name,
                    unit: difference.unit,
                    value: difference.value,
                    median: difference.median,
                });
            }
        }
        compared.extend(names);
    }
    told.into_values().take(MAX_TOLD).collect()
}

/// Numbers of these hosts that can be compared: signals from their warning on, and how slow disks are.
fn measures(known: &Known, hosts: &BTreeSet<&str>) -> Vec<Measure> {
    let mut signals_of: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for (host, signals) in known.signals.iter().filter(|(host, _)| hosts.contains(host.as_str())) {
        for signal in signals {
            let most = signals_of.entry(&signal.name).or_default().entry(host).or_insert(signal.value);
            *most = most.max(signal.value);
        }
    }
    let mut measures: Vec<Measure> = Vec::new();
    for (name, values) in signals_of {
        let Some(definition) = signals::definition(name) else { continue };
        // Of a number that is neither good nor bad nobody wants to know.
        let Some(thresholds) = definition.thresholds else { continue };
        measures.push(Measure {
            name: name.to_owned(),
            unit: unit(definition.unit),
            least: thresholds.warning,
            values: values.into_iter().map(|(host, value)| (host.to_owned(), value)).collect(),
        });
    }
    let disks = known.disks.iter().filter(|(host, _)| hosts.contains(host.as_str()));
    measures.push(Measure {
        name: "95th percentile of latency.disk".to_owned(),
        unit: "ms".to_owned(),
        least: SLOW_DISK_MS,
        values: disks.map(|(host, value)| (host.clone(), *value)).collect(),
    });
    measures
}

fn unit(unit: signals::Unit) -> String {
    match serde_json::to_value(unit) {
        Ok(serde_json::Value::String(unit)) => unit,
        _ => String::new(),
    }
}

/// Who queues behind whom, those that do for the largest part of their demand first.
fn neighbours(by: &[String], found: &BTreeMap<Scope, Found>) -> Vec<Neighbour> {
    let mut told: Vec<Neighbour> = Vec::new();
    for (scope, found) in found {
        let noisy = found.hosts.iter().filter(|host| host.code == Code::CpuNoisyNeighbour && host.limits());
        told.extend(noisy.filter(|host| host.source == Source::Collector).map(|host| Neighbour {
            host: host.host.clone(),
            victim: labels_of(by, scope),
            culprits: host.culprits.clone(),
            share: host.share,
        }));
    }
    told.sort_by(|one, other| other.share.total_cmp(&one.share));
    told.truncate(MAX_TOLD);
    told
}
