//! What may be told: a constraint of a host or of a service, as far as it is bad enough.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::verdict::code::Code;
use serde::Serialize;

use crate::labels::Labels;
use crate::query::fleet::{Constraint, Fleet};
use crate::query::overview::{Host, Verdict};

/// How old a host's last verdict may be: that of one of which nothing is heard is no longer known.
pub(super) const MAX_AGE_MS: u64 = 300_000;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A host, by its own verdict.
    Host,
    /// A service, by what its hosts have in common.
    Service,
}

/// A constraint of a host or a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// Of what.
    pub scope: Scope,
    /// The host's labels, or the service's.
    pub labels: Labels,
    /// The constraint's code.
    pub code: String,
    /// 1 low, 2 warning, 3 critical.
    pub severity: u8,
    /// How sure the diagnosis is, 0 to 1.
    pub confidence: f64,
    /// The part of the demand that it takes, 0 to 1: more than that is not to be gained.
    pub share: f64,
    /// In one sentence.
    pub summary: String,
    /// Since when it holds, milliseconds since the Unix epoch; 0 where that is not known.
    pub since_unix_ms: u64,
    /// What to do first; empty where the diagnosis does not say.
    pub next_step: String,
    /// The hosts, the worst first; of very many the first.
    pub hosts: Vec<String>,
    /// How many they are.
    pub hosts_count: u64,
    /// Of a service, their part of those on which it has something to do, 0 to 1; of a host 1.
    pub share_of_hosts: f64,
    /// Up to when that was looked at.
    #[serde(skip)]
    pub(super) until_unix_ms: u64,
    /// Classes of thread time that show it.
    #[serde(skip)]
    pub(super) shows_in: Vec<String>,
}

/// Whether a host's last verdict names a constraint of this severity or above, and is of late.
pub(super) fn is_beyond(verdict: &Verdict, level: u8, now_unix_ms: u64) -> bool {
    verdict.is_constraint
        && verdict.severity >= level
        && now_unix_ms.saturating_sub(verdict.until_unix_ms) <= MAX_AGE_MS
}

/// What limits hosts, from this severity on.
pub(super) fn of_hosts(hosts: &[Host], level: u8, now_unix_ms: u64) -> Vec<Case> {
    let case = |host: &Host| {
        let verdict = host.verdict.as_ref().filter(|verdict| is_beyond(verdict, level, now_unix_ms))?;
        Some(Case {
            scope: Scope::Host,
            labels: host.labels.clone(),
            code: verdict.code.clone(),
            severity: verdict.severity,
            confidence: verdict.confidence,
            share: verdict.share,
            summary: verdict.summary.clone(),
            since_unix_ms: verdict.since_unix_ms,
            next_step: verdict.next_step.clone(),
            hosts: host.labels.get("host").cloned().into_iter().collect(),
            hosts_count: 1,
            share_of_hosts: 1.0,
            until_unix_ms: verdict.until_unix_ms,
            shows_in: verdict.shows_in.clone(),
        })
    };
    hosts.iter().filter_map(case).collect()
}

/// What limits services, from this severity on. What has no service is none.
pub(super) fn of_services(fleet: &Fleet, level: u8) -> Vec<Case> {
    let case = |labels: &Labels, constraint: &Constraint| Case {
        scope: Scope::Service,
        labels: labels.clone(),
        code: constraint.code.clone(),
        severity: constraint.severity,
        confidence: constraint.confidence,
        share: constraint.share,
        summary: constraint.summary.clone(),
        since_unix_ms: constraint.since_unix_ms,
        next_step: constraint.next_step.clone(),
        hosts: constraint.named_hosts.clone(),
        hosts_count: constraint.hosts,
        share_of_hosts: constraint.share_of_hosts,
        until_unix_ms: fleet.until_unix_ms,
        shows_in: Code::from_name(&constraint.code).map_or_else(Vec::new, |code| {
            code.shows_in().iter().map(|class| Class::name(*class).to_owned()).collect()
        }),
    };
    let named = fleet.services.iter().filter(|service| !name(&service.labels, Scope::Service).is_empty());
    let all = named
        .flat_map(|service| service.constraints.iter().map(|constraint| case(&service.labels, constraint)));
    all.filter(|case| case.severity >= level).collect()
}

/// The services of which it is known what limits them, if anything does; `None`: it is known of all.
pub(super) fn known_services(fleet: &Fleet) -> Option<BTreeSet<String>> {
    let is_whole = fleet.left_out == 0 && fleet.missing.is_empty();
    let names = fleet.services.iter().map(|service| name(&service.labels, Scope::Service).to_owned());
    (!is_whole).then(|| names.collect())
}

/// What it is called.
pub(super) fn name(labels: &Labels, scope: Scope) -> &str {
    let label = match scope {
        Scope::Host => "host",
        Scope::Service => "service",
    };
    labels.get(label).map_or("", String::as_str)
}

impl Case {
    /// What is limited is called so.
    pub(super) fn name(&self) -> &str {
        name(&self.labels, self.scope)
    }

    /// Where to look, by what is there, where people reach the collector at this address.
    pub(super) fn links(&self, link: &str) -> BTreeMap<&'static str, String> {
        let label = match self.scope {
            Scope::Host => "host",
            Scope::Service => "service",
        };
        let is_it = format!("{label}={}", quoted(self.name()));
        let classes =
            self.shows_in.iter().map(|class| class.replace('.', "[.]")).collect::<Vec<_>>().join("|");
        let flame = match classes.as_str() {
            "" => format!("wall{{{is_it}}}"),
            classes => format!("wall{{{is_it},class=~\"{classes}\"}}"),
        };
        // What began long ago has too many rows for one picture: then its last day shows it, and where nobody knows when, the last hour.
        let begin = match self.since_unix_ms {
            0 => self.until_unix_ms.saturating_sub(HOUR_MS),
            since => since.max(self.until_unix_ms.saturating_sub(DAY_MS)),
        };
        let [from, until] = [begin, self.until_unix_ms].map(|ms| (ms / 1000).to_string());
        let url = |path: &str, parameters: &[(&str, &str)]| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(parameters).append_pair("from", &from).append_pair("until", &until);
            format!("{link}{path}?{}", query.finish())
        };
        let selector = format!("{{{is_it}}}");
        let mut links = BTreeMap::from([("flamegraph", url("/api/v1/svg", &[("query", &flame)]))]);
        match self.scope {
            Scope::Host => {
                links.insert("page", url("/verdict", &[("host", self.name())]));
                let asked = [("query", selector.as_str()), ("diagnosis", "true")];
                links.insert("constraints", url("/api/v1/constraints", &asked));
            }
            Scope::Service => {
                links.insert("page", url("/explore", &[("query", &flame)]));
                links.insert("fleet", url("/api/v1/fleet", &[("query", &selector)]));
                if let Some(worst) = self.hosts.first() {
                    links.insert("worst_host", url("/verdict", &[("host", worst)]));
                }
            }
        }
        links
    }
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}
