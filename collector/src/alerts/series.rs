//! The fleet as Prometheus reads it: what limits each host and each service, how saturated their resources are, and what the threads of each
//! service do.
//!
//! Series are bounded, for hosts and services come and go: of each family the worst or heaviest are told, and how many there are beside
//! these.

use std::collections::BTreeMap;
use std::fmt::Write;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::signals;

use crate::query::QueryError;
use crate::query::fleet::recent::Latest;
use crate::query::fleet::{Constraint, Service};
use crate::query::limits::Limits;
use crate::query::overview::{Host, overview};
use crate::query::profile_type::WALL;
use crate::query::question::{Question, Range};
use crate::store::{Asker, Selection, SignalQuery, Store, SumQuery};

/// Hosts that are told.
const MAX_HOSTS: usize = 1_000;
/// Series of one signal.
const MAX_INSTANCES: usize = 2_000;
/// Services, each with a series for each group of classes.
const MAX_SERVICES: usize = 500;
/// How far back the last verdict of a host may be: an agent that was away sends what it has kept in some minutes.
const VERDICTS_NS: u64 = 300_000_000_000;
/// How far back the last value of a signal may be: some windows.
const SIGNALS_NS: u64 = 60_000_000_000;
/// Of what time the threads of services are told: it ends where most agents have sent all of it, and has whole minutes, for history is kept
/// in these.
const SERVICES_NS: u64 = 60_000_000_000;
const LATE_NS: u64 = 30_000_000_000;
/// What threads wait for that is a resource, and the classes in which they do.
const RESOURCES: [(&str, &str); 3] = [("cpu", "queue"), ("block", "io"), ("memory", "memory")];

/// All series, as text.
///
/// # Errors
/// The store cannot read.
pub fn series(
    store: &dyn Store,
    verdicts: &Latest,
    now_unix_ns: u64,
    limits: &Limits,
    asker: &Asker,
) -> Result<String, QueryError> {
    let scrape = Scrape { store, now_unix_ns, limits, asker };
    let mut page = Page::default();
    scrape.hosts(&mut page)?;
    scrape.saturation(&mut page)?;
    scrape.services(&mut page)?;
    of_services(verdicts, &mut page);
    Ok(page.finish())
}

/// What all parts are read from.
struct Scrape<'a> {
    store: &'a dyn Store,
    now_unix_ns: u64,
    limits: &'a Limits,
    asker: &'a Asker,
}

type Of = fn(&crate::query::overview::Verdict) -> f64;

fn name(host: &Host) -> &str {
    host.labels.get("host").map_or("", String::as_str)
}

impl Scrape<'_> {
    /// What limits each host, how bad, and since when.
    fn hosts(&self, page: &mut Page) -> Result<(), QueryError> {
        let Self { store, now_unix_ns, limits, asker } = *self;
        let range =
            Range { from_unix_ns: now_unix_ns.saturating_sub(VERDICTS_NS), until_unix_ns: now_unix_ns + 1 };
        let mut question = Question::new("{}", range, Vec::new(), limits)?;
        question.asker = asker.clone();
        // Codes are counted on all hosts, however many there are.
        let found = overview(store, &question, &Limits { max_series: usize::MAX, ..*limits })?;
        let told = &found.hosts[..found.hosts.len().min(MAX_HOSTS)];
        page.left_out("hosts", (found.hosts.len() - told.len()) as u64);
        let mut by_code: BTreeMap<&str, u64> = BTreeMap::new();
        page.family(
            "chokepoint_agent_last_window_timestamp_seconds",
            "When the last window of a host's agent ended.",
        );
        for host in told {
            page.value(&[("host", name(host))], host.last_window_unix_ms as f64 / 1e3);
        }
        let limited = || told.iter().filter_map(|host| Some((host, host.verdict.as_ref()?)));
        let families: [(&str, &str, Of); 4] = [
            (
                "chokepoint_constraint_severity",
                "How bad what limits a host is: 0 nothing is wrong, 1 low, 2 warning, 3 critical.",
                |verdict| f64::from(verdict.severity),
            ),
            (
                "chokepoint_constraint_share_ratio",
                "The part of a host's demand that what limits it takes, 0 to 1.",
                |verdict| verdict.share,
            ),
            ("chokepoint_constraint_confidence_ratio", "How sure the diagnosis is, 0 to 1.", |verdict| {
                verdict.confidence
            }),
            (
                "chokepoint_constraint_since_timestamp_seconds",
                "Since when the same limits a host without a break.",
                |verdict| verdict.since_unix_ms as f64 / 1e3,
            ),
        ];
        for (family, help, value) in families {
            page.family(family, help);
            for (host, verdict) in limited() {
                page.value(&[("host", name(host)), ("code", &verdict.code)], value(verdict));
            }
        }
        // Also of those that have no series of their own.
        for host in &found.hosts {
            if let Some(verdict) = &host.verdict {
                *by_code.entry(&verdict.code).or_default() += 1;
            }
        }
        page.family("chokepoint_constraint_hosts", "How many hosts have this as their last diagnosis.");
        for (code, hosts) in by_code {
            page.value(&[("code", code)], hosts as f64);
        }
        Ok(())
    }

    /// The last value of each signal that has levels, and its level.
    fn saturation(&self, page: &mut Page) -> Result<(), QueryError> {
        let Self { store, now_unix_ns, limits, asker } = *self;
        let mut values = String::new();
        page.family("chokepoint_signal", "The last value of a saturation signal, in its unit.");
        // The values of a name stand together.
        head(&mut values, "chokepoint_signal_level", "Its level: 0 none, 1 warning, 2 critical.");
        for definition in signals::definitions().filter(|definition| definition.thresholds.is_some()) {
            let found = store.signals(&SignalQuery {
                selection: Selection {
                    matchers: Vec::new(),
                    from_unix_ns: now_unix_ns.saturating_sub(SIGNALS_NS),
                    until_unix_ns: now_unix_ns + 1,
                    asker: asker.clone(),
                },
                name: definition.name.to_owned(),
                max_values: limits.max_signal_values,
            })?;
            let mut last: Vec<_> = found.iter().filter_map(|one| Some((one, one.values.last()?))).collect();
            // Stable, so that equals stay in the order of their labels.
            last.sort_by(|(_, one), (_, other)| {
                other.level.cmp(&one.level).then(other.value.total_cmp(&one.value))
            });
            page.left_out("signals", last.len().saturating_sub(MAX_INSTANCES) as u64);
            for (one, value) in last.into_iter().take(MAX_INSTANCES) {
                let label = |name: &str| one.labels.get(name).map_or("", String::as_str);
                let labels = [
                    ("signal", definition.name),
                    ("host", label("host")),
                    ("instance_name", label("instance")),
                    ("unit", &one.unit),
                ];
                page.value(&labels, value.value);
                write_value(&mut values, "chokepoint_signal_level", &labels[..3], f64::from(value.level));
            }
        }
        page.text.push_str(&values);
        Ok(())
    }

    /// What the threads of each service do: how many at a time, by group of classes.
    fn services(&self, page: &mut Page) -> Result<(), QueryError> {
        let Self { store, now_unix_ns, limits, asker } = *self;
        let until_unix_ns = now_unix_ns.saturating_sub(LATE_NS) / SERVICES_NS * SERVICES_NS;
        let sums = store.sums(&SumQuery {
            selection: Selection {
                matchers: Vec::new(),
                from_unix_ns: until_unix_ns.saturating_sub(SERVICES_NS),
                until_unix_ns,
                asker: asker.clone(),
            },
            kind: WALL.to_owned(),
            group_by: vec!["service".to_owned()],
            by_class: true,
            max_sums: limits.max_sums,
            ..SumQuery::default()
        })?;
        let mut services: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for sum in &sums.sums {
            let service = sum.group.first().map_or("", String::as_str);
            let Some(class) = Class::from_name(&sum.class) else { continue };
            let sum_of_group = services.entry(service).or_default().entry(class.group().name()).or_default();
            *sum_of_group = sum_of_group.saturating_add(sum.weight);
        }
        let demand = |groups: &BTreeMap<&str, u64>| -> u64 {
            let waited_for = groups.iter().filter(|(group, _)| **group != "idle");
            waited_for.fold(0, |all, (_, weight)| all.saturating_add(*weight))
        };
        let mut services: Vec<_> = services.into_iter().collect();
        services.sort_by_key(|(_, groups)| std::cmp::Reverse(demand(groups)));
        page.left_out("services", services.len().saturating_sub(MAX_SERVICES) as u64);
        page.family(
        "chokepoint_service_threads",
        "Threads of a service at a time that do this, the mean of a minute: cpu, queue, io, memory, lock, net, wait, idle.",
    );
        services.truncate(MAX_SERVICES);
        for (service, groups) in &services {
            for (group, weight) in groups {
                page.value(&[("service", service), ("group", group)], *weight as f64 / SERVICES_NS as f64);
            }
        }
        page.family(
            "chokepoint_service_saturation_ratio",
            "Of the time that threads of a service run or wait for a resource, the part that they wait, in the same minute: cpu, block, memory.",
        );
        for (service, groups) in &services {
            let of = |group: &str| groups.get(group).copied().unwrap_or_default();
            for (resource, group) in RESOURCES {
                let (waited, ran) = (of(group), of("cpu"));
                if waited + ran > 0 {
                    let labels = [("service", *service), ("resource", resource)];
                    page.value(&labels, waited as f64 / (waited + ran) as f64);
                }
            }
        }
        Ok(())
    }
}

type OfService = fn(&Service) -> u64;
type OfConstraint = fn(&Constraint) -> f64;

/// What limits services, as it was drawn last.
fn of_services(verdicts: &Latest, page: &mut Page) {
    page.family(
        "chokepoint_service_verdicts_failed",
        "Whether the last try to say what limits services failed: 1 it did.",
    );
    page.value(&[], if verdicts.failed.is_some() { 1.0 } else { 0.0 });
    let Some(fleet) = &verdicts.drawn else { return };
    page.family(
        "chokepoint_service_verdicts_timestamp_seconds",
        "Up to when was looked at what limits services.",
    );
    page.value(&[], fleet.until_unix_ms as f64 / 1e3);
    page.left_out("service_verdicts", fleet.left_out);
    let name = |service: &Service| service.labels.get("service").cloned().unwrap_or_default();
    let states: [(&str, OfService); 4] = [
        ("all", |service| service.hosts),
        ("healthy", |service| service.healthy),
        ("idle", |service| service.idle),
        ("unknown", |service| service.unknown),
    ];
    page.family(
        "chokepoint_service_hosts",
        "Hosts of a service: all, those where nothing limits it, where it has nothing to do, and of which not enough is known.",
    );
    for service in &fleet.services {
        for (state, hosts) in states {
            page.value(&[("service", &name(service)), ("state", state)], hosts(service) as f64);
        }
    }
    let families: [(&str, &str, OfConstraint); 6] = [
        (
            "chokepoint_service_constraint_severity",
            "How bad what limits a service is where it is worst: 1 low, 2 warning, 3 critical.",
            |constraint| f64::from(constraint.severity),
        ),
        ("chokepoint_service_constraint_hosts", "On how many hosts it limits the service.", |constraint| {
            constraint.hosts as f64
        }),
        (
            "chokepoint_service_constraint_hosts_ratio",
            "Their part of those on which the service has something to do, 0 to 1.",
            |constraint| constraint.share_of_hosts,
        ),
        (
            "chokepoint_service_constraint_share_ratio",
            "The part of the service's demand there that it takes, 0 to 1: more than that is not to be gained.",
            |constraint| constraint.share,
        ),
        (
            "chokepoint_service_constraint_confidence_ratio",
            "How sure the diagnosis is, 0 to 1.",
            |constraint| constraint.confidence,
        ),
        (
            "chokepoint_service_constraint_since_timestamp_seconds",
            "Since when it limits the service; 0 where that is not known.",
            |constraint| constraint.since_unix_ms as f64 / 1e3,
        ),
    ];
    for (family, help, value) in families {
        page.family(family, help);
        for service in &fleet.services {
            for constraint in &service.constraints {
                page.value(&[("service", &name(service)), ("code", &constraint.code)], value(constraint));
            }
        }
    }
    page.family(
        "chokepoint_service_exception_hosts",
        "Single hosts on which something limits a service that does not limit it elsewhere.",
    );
    for service in &fleet.services {
        for constraint in &service.exceptions {
            page.value(&[("service", &name(service)), ("code", &constraint.code)], constraint.hosts as f64);
        }
    }
}

/// A page in the making.
#[derive(Default)]
struct Page {
    text: String,
    family: &'static str,
    left_out: BTreeMap<&'static str, u64>,
}

impl Page {
    fn family(&mut self, name: &'static str, help: &str) {
        self.family = name;
        head(&mut self.text, name, help);
    }

    fn value(&mut self, labels: &[(&str, &str)], value: f64) {
        write_value(&mut self.text, self.family, labels, value);
    }

    fn left_out(&mut self, part: &'static str, series: u64) {
        *self.left_out.entry(part).or_default() += series;
    }

    fn finish(mut self) -> String {
        self.family(
            "chokepoint_fleet_left_out",
            "Hosts, signals, services and verdicts of services that have no series, for there are too many.",
        );
        for (part, series) in std::mem::take(&mut self.left_out) {
            self.value(&[("part", part)], series as f64);
        }
        self.text
    }
}

fn head(text: &mut String, name: &str, help: &str) {
    // Writing to memory does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
}

fn write_value(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    text.push_str(name);
    for (number, (label, value)) in labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"{}\"", if number == 0 { '{' } else { ',' }, escaped(value));
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(text, "{end} {value}");
}

/// A label's value as the format has it: an agent may have called a host by anything.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::fleet::Fleet;
    use crate::store_in_memory::fleet;

    /// When the fleet's last window has ended.
    const NOW_NS: u64 = 1_000_020_000_000_000;

    /// What limits services: one of them, on three of ten hosts, and another on a single one.
    fn limited() -> Latest {
        let constraint = |code: &str, hosts| Constraint {
            code: code.to_owned(),
            hosts,
            share_of_hosts: hosts as f64 / 10.0,
            severity: 3,
            confidence: 0.9,
            share: 0.5,
            since_unix_ms: 999_000_000,
            ..Constraint::default()
        };
        let service = Service {
            labels: [("service".to_owned(), "web".to_owned())].into(),
            hosts: 10,
            healthy: 6,
            constraints: vec![constraint("cpu.quota", 3)],
            exceptions: vec![constraint("io.read", 1)],
            ..Service::default()
        };
        let drawn =
            Fleet { until_unix_ms: 1_000_020_000, services: vec![service], left_out: 2, ..Fleet::default() };
        Latest { drawn: Some(std::sync::Arc::new(drawn)), failed: None }
    }

    fn page(now_unix_ns: u64) -> String {
        series(&fleet::store(), &limited(), now_unix_ns, &Limits::default(), &Asker::default())
            .expect("series")
    }

    #[test]
    fn hosts_have_their_last_verdict_and_signals_their_last_value() {
        let page = page(NOW_NS);
        for line in [
            "chokepoint_constraint_severity{host=\"a\",code=\"lock.mutex\"} 3",
            "chokepoint_constraint_share_ratio{host=\"a\",code=\"lock.mutex\"} 0.9",
            "chokepoint_constraint_severity{host=\"b\",code=\"none.healthy\"} 0",
            "chokepoint_constraint_hosts{code=\"lock.mutex\"} 1",
            "chokepoint_constraint_since_timestamp_seconds{host=\"a\",code=\"lock.mutex\"} 1000000",
            "chokepoint_signal{signal=\"cpu.utilization\",host=\"a\",instance_name=\"vda\",unit=\"%\"} 42",
            "chokepoint_signal_level{signal=\"cpu.utilization\",host=\"a\",instance_name=\"vda\"} 1",
            "chokepoint_fleet_left_out{part=\"hosts\"} 0",
            "chokepoint_fleet_left_out{part=\"service_verdicts\"} 2",
            "chokepoint_service_verdicts_failed 0",
            "chokepoint_service_verdicts_timestamp_seconds 1000020",
            "chokepoint_service_hosts{service=\"web\",state=\"healthy\"} 6",
            "chokepoint_service_constraint_severity{service=\"web\",code=\"cpu.quota\"} 3",
            "chokepoint_service_constraint_hosts_ratio{service=\"web\",code=\"cpu.quota\"} 0.3",
            "chokepoint_service_constraint_share_ratio{service=\"web\",code=\"cpu.quota\"} 0.5",
            "chokepoint_service_constraint_since_timestamp_seconds{service=\"web\",code=\"cpu.quota\"} 999000",
            "chokepoint_service_exception_hosts{service=\"web\",code=\"io.read\"} 1",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
        // Each name is introduced once, and before its values.
        let mut introduced = Vec::new();
        for line in page.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
                assert!(!introduced.contains(&name), "{name}");
                introduced.push(name);
            } else if !line.starts_with('#') {
                assert_eq!(introduced.last().copied(), line.split(['{', ' ']).next(), "{line}");
            }
        }
    }

    #[test]
    fn services_have_the_threads_of_the_last_whole_minute() {
        // 1000000 s are in the minute that begins at 999960 s, and is told from 1000050 s on.
        let page = page(1_000_050_000_000_000);
        let threads: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("chokepoint_service_threads{service=\"web\""))
            .collect();
        assert!(!threads.is_empty(), "{page}");
    }

    #[test]
    fn names_cannot_be_lines_of_their_own() {
        assert_eq!(escaped("a\"} 1\nup 1\\"), "a\\\"} 1\\nup 1\\\\");
    }
}
