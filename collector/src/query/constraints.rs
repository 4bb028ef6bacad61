//! What limits each scope: services, zones, or hosts; on how many hosts, how bad, and since when.

use std::collections::{BTreeMap, BTreeSet};

use chokepoint_analysis::verdict::code::Code;
use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question};
use super::series::labels_of;
use crate::labels::Labels;
use crate::store::{Store, VerdictSpan};

/// The label that tells hosts apart.
const HOST: &str = "host";
/// Hosts of a constraint that are named; all are counted.
const NAMED_HOSTS: usize = 20;

/// Constraints by scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// The scopes, the worst first.
    pub scopes: Vec<Scope>,
    /// How many scopes there are beside these.
    pub left_out: u64,
}

/// What limits a scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// What the hosts have in common.
    pub labels: Labels,
    /// How many hosts were diagnosed.
    pub hosts: u64,
    /// Constraints: those that hold now first, of these the worst, then those that most hosts have.
    pub constraints: Vec<Constraint>,
}

/// A constraint in a scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constraint {
    /// Its code.
    pub code: String,
    /// Hosts whose last diagnosis it is.
    pub hosts_now: u64,
    /// Hosts that had it at some time.
    pub hosts_ever: u64,
    /// Some of the hosts whose last diagnosis it is, or that had it where there are none of these.
    pub named_hosts: Vec<String>,
    /// Since when one of those whose last diagnosis it is has it without a break; where there are none of these, when it began last. It may
    /// have begun before the time asked for.
    pub since_unix_ms: u64,
    /// When the last window with it ended.
    pub until_unix_ms: u64,
    /// Windows with it, on all hosts.
    pub windows: u64,
    /// The worst that it is: 0 nothing is wrong, 1 low, 2 warning, 3 critical.
    pub severity: u8,
    /// How sure the diagnosis is where it is worst, 0 to 1.
    pub confidence: f64,
    /// The largest part of a host's demand that it takes, 0 to 1.
    pub share: f64,
    /// In one sentence, of the host where it is worst.
    pub summary: String,
    /// Classes of thread time that show it: a flame graph of it is of these.
    pub shows_in: Vec<String>,
    /// The diagnosis of the host where it is worst, as `chokepoint diagnose --json` writes it; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<serde_json::Value>,
}

/// The constraints that a question asks for, kept apart by its labels, or by host.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn constraints(
    store: &dyn Store,
    question: &Question,
    with_diagnosis: bool,
    limits: &Limits,
) -> Result<Constraints, QueryError> {
    let spans = store.verdicts(&question.selection_of_any()?)?;
    let by = if question.by.is_empty() { vec![HOST.to_owned()] } else { question.by.clone() };
    let mut groups: BTreeMap<Vec<String>, Vec<&VerdictSpan>> = BTreeMap::new();
    for span in &spans {
        let group = by.iter().map(|name| span.labels.get(name).cloned().unwrap_or_default()).collect();
        groups.entry(group).or_default().push(span);
    }
    let mut scopes: Vec<Scope> = groups
        .into_iter()
        .map(|(group, spans)| scope(labels_of(&by, &group), &spans, with_diagnosis))
        .collect();
    // Stable, so that equals stay in the order of their labels.
    scopes.sort_by_key(|scope| {
        let worst = scope.constraints.first();
        std::cmp::Reverse(worst.map_or((0, 0), |worst| (worst.severity, worst.hosts_now)))
    });
    let left_out = scopes.len().saturating_sub(limits.max_series) as u64;
    scopes.truncate(limits.max_series);
    Ok(Constraints {
        from_unix_ms: question.range.from_unix_ns / MS_NS,
        until_unix_ms: question.range.until_unix_ns / MS_NS,
        scopes,
        left_out,
    })
}

fn scope(labels: Labels, spans: &[&VerdictSpan], with_diagnosis: bool) -> Scope {
    let mut last: BTreeMap<&str, &VerdictSpan> = BTreeMap::new();
    let mut by_code: BTreeMap<&str, Vec<&VerdictSpan>> = BTreeMap::new();
    for span in spans {
        by_code.entry(&span.code).or_default().push(span);
        let of_host = last.entry(host(span)).or_insert(span);
        if span.until_unix_ns > of_host.until_unix_ns {
            *of_host = span;
        }
    }
    let mut constraints: Vec<Constraint> = by_code
        .into_iter()
        .map(|(code, spans)| {
            let now: Vec<&VerdictSpan> = last.values().filter(|span| span.code == code).copied().collect();
            constraint(code, &spans, &now, with_diagnosis)
        })
        .collect();
    constraints.sort_by_key(|constraint| {
        std::cmp::Reverse((
            constraint.hosts_now > 0,
            constraint.severity,
            constraint.hosts_now,
            constraint.windows,
        ))
    });
    Scope { labels, hosts: last.len() as u64, constraints }
}

/// Of the spans with one code, and of those of them that are a host's last.
fn constraint(code: &str, spans: &[&VerdictSpan], now: &[&VerdictSpan], with_diagnosis: bool) -> Constraint {
    let hosts_ever: BTreeSet<&str> = spans.iter().map(|span| host(span)).collect();
    let hosts_now: BTreeSet<&str> = now.iter().map(|span| host(span)).collect();
    let telling = if now.is_empty() { spans } else { now };
    let since = now.iter().map(|span| span.from_unix_ns).min();
    let since = since.or_else(|| spans.iter().map(|span| span.from_unix_ns).max());
    let worst = telling
        .iter()
        .max_by(|one, other| one.severity.cmp(&other.severity).then(one.share.total_cmp(&other.share)));
    let named = if now.is_empty() { &hosts_ever } else { &hosts_now };
    Constraint {
        code: code.to_owned(),
        hosts_now: hosts_now.len() as u64,
        hosts_ever: hosts_ever.len() as u64,
        named_hosts: named.iter().take(NAMED_HOSTS).map(|host| (*host).to_owned()).collect(),
        since_unix_ms: since.unwrap_or_default() / MS_NS,
        until_unix_ms: spans.iter().map(|span| span.until_unix_ns).max().unwrap_or_default() / MS_NS,
        windows: spans.iter().map(|span| span.windows).sum(),
        severity: worst.map_or(0, |span| span.severity),
        confidence: worst.map_or(0.0, |span| span.confidence),
        share: worst.map_or(0.0, |span| span.share),
        summary: worst.map_or_else(String::new, |span| span.summary.clone()),
        shows_in: shows_in(code),
        // An agent may have sent anything: what is no JSON is told as text.
        diagnosis: worst.filter(|_| with_diagnosis).map(|span| {
            serde_json::from_str(&span.diagnosis)
                .unwrap_or_else(|_| serde_json::Value::String(span.diagnosis.clone()))
        }),
    }
}

/// The classes of thread time in which a constraint shows; none where it takes no time, or is not known here.
pub(super) fn shows_in(code: &str) -> Vec<String> {
    let classes = Code::from_name(code).map_or(&[][..], Code::shows_in);
    classes.iter().map(|class| class.name().to_owned()).collect()
}

fn host(span: &VerdictSpan) -> &str {
    span.labels.get(HOST).map_or("", String::as_str)
}
