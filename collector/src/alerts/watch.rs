//! When to tell somebody: a constraint of a host has crossed its level, or is over. Without a clock or a network.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::labels::Labels;
use crate::query::overview::{Host, Verdict};

/// What was told, and when, that is remembered: constraints of ten thousand hosts.
const MAX_TOLD: usize = 10_000;
/// How old a host's last verdict may be: that of one of which nothing is heard is no longer known.
const MAX_AGE_MS: u64 = 300_000;

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Of this form; a later one may have more fields.
    pub version: u32,
    /// Whether it has begun or is over.
    pub status: Status,
    /// The host's labels.
    pub labels: Labels,
    /// The constraint's code.
    pub code: String,
    /// 1 low, 2 warning, 3 critical.
    pub severity: u8,
    /// How sure the diagnosis is, 0 to 1.
    pub confidence: f64,
    /// The part of the demand that it takes, 0 to 1.
    pub share: f64,
    /// In one sentence.
    pub summary: String,
    /// Since when it holds without a break, milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// What to do first; empty where the diagnosis does not say.
    pub next_step: String,
    /// Where to look, by what is there; none where nobody said where the collector is reached.
    pub links: BTreeMap<&'static str, String>,
}

/// Whether a constraint has begun or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has crossed its level.
    Firing,
    /// It is below its level, or something else limits the host.
    Resolved,
}

/// Which constraint of which host.
type Key = (String, String);

/// What limits hosts, as far as it was told.
#[derive(Debug)]
pub struct Watch {
    level: u8,
    silence_ms: u64,
    link: Option<String>,
    /// Constraints that hold; the alert, where it was told.
    holding: BTreeMap<Key, Option<Alert>>,
    /// When each was told last.
    told: BTreeMap<Key, u64>,
}

impl Watch {
    /// Tells of constraints of this severity and above, of each no sooner than so long after it was told last.
    #[must_use]
    pub fn new(level: u8, silence_ms: u64, link: Option<String>) -> Self {
        let link = link.map(|link| link.trim_end_matches('/').to_owned());
        Self { level, silence_ms, link, holding: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// Looks at all hosts. Returns what is to be told, and how much is not for the silence's sake. `profile_of` names the profile that was
    /// begun of a host for it.
    pub fn look<'p>(
        &mut self,
        hosts: &[Host],
        now_unix_ms: u64,
        profile_of: impl Fn(&str) -> Option<&'p str>,
    ) -> (Vec<Alert>, u64) {
        let mut alerts = Vec::new();
        let mut silenced = 0;
        self.told.retain(|_, at| now_unix_ms.saturating_sub(*at) < self.silence_ms);
        let mut before = std::mem::take(&mut self.holding);
        for host in hosts {
            let Some(verdict) =
                host.verdict.as_ref().filter(|verdict| is_beyond(verdict, self.level, now_unix_ms))
            else {
                continue;
            };
            let key = (host.labels.get("host").cloned().unwrap_or_default(), verdict.code.clone());
            if let Some(known) = before.remove(&key) {
                self.holding.insert(key, known);
                continue;
            }
            // Who was told lately is not told again, and where there is no room to remember it, nobody is.
            if self.told.contains_key(&key) || self.told.len() >= MAX_TOLD {
                silenced += 1;
                self.holding.insert(key, None);
                continue;
            }
            let alert = self.alert(host, verdict, profile_of(&key.0));
            self.told.insert(key.clone(), now_unix_ms);
            self.holding.insert(key, Some(alert.clone()));
            alerts.push(alert);
        }
        // Of what nobody was told nobody needs to know that it is over.
        let over = before.into_values().flatten();
        alerts.extend(over.map(|alert| Alert { status: Status::Resolved, ..alert }));
        (alerts, silenced)
    }

    fn alert(&self, host: &Host, verdict: &Verdict, profile: Option<&str>) -> Alert {
        let name = host.labels.get("host").map_or("", String::as_str);
        let mut links: BTreeMap<_, _> =
            self.link.iter().flat_map(|link| links(link, name, verdict)).collect();
        if let (Some(link), Some(id)) = (&self.link, profile) {
            links.insert("profile", format!("{link}{}/profiles/{id}", crate::api::BASE));
        }
        Alert {
            version: 1,
            status: Status::Firing,
            labels: host.labels.clone(),
            code: verdict.code.clone(),
            severity: verdict.severity,
            confidence: verdict.confidence,
            share: verdict.share,
            summary: verdict.summary.clone(),
            since_unix_ms: verdict.since_unix_ms,
            next_step: verdict.next_step.clone(),
            links,
        }
    }
}

/// Whether a host's last verdict names a constraint of this severity or above, and is of late.
pub(super) fn is_beyond(verdict: &Verdict, level: u8, now_unix_ms: u64) -> bool {
    verdict.is_constraint
        && verdict.severity >= level
        && now_unix_ms.saturating_sub(verdict.until_unix_ms) <= MAX_AGE_MS
}

fn links(link: &str, host: &str, verdict: &Verdict) -> [(&'static str, String); 3] {
    let selector = format!("{{host={}}}", quoted(host));
    let classes =
        verdict.shows_in.iter().map(|class| class.replace('.', "[.]")).collect::<Vec<_>>().join("|");
    let flame = match classes.as_str() {
        "" => format!("wall{selector}"),
        classes => format!("wall{{host={},class=~\"{classes}\"}}", quoted(host)),
    };
    let [from, until] = [verdict.since_unix_ms, verdict.until_unix_ms].map(|ms| (ms / 1000).to_string());
    let url = |path: &str, query: &str, more: &[(&str, &str)]| {
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        parameters.append_pair("query", query).append_pair("from", &from).append_pair("until", &until);
        format!("{link}/api/v1/{path}?{}", parameters.extend_pairs(more).finish())
    };
    let mut page = form_urlencoded::Serializer::new(String::new());
    page.append_pair("host", host).append_pair("from", &from).append_pair("until", &until);
    [
        ("page", format!("{link}/verdict?{}", page.finish())),
        ("constraints", url("constraints", &selector, &[("diagnosis", "true")])),
        ("flamegraph", url("svg", &flame, &[])),
    ]
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_767_225_600_000;

    fn host(name: &str, code: &str, severity: u8) -> Host {
        let verdict = Verdict {
            code: code.to_owned(),
            is_constraint: true,
            severity,
            summary: format!("{code} limits it"),
            since_unix_ms: NOW_MS - 60_000,
            until_unix_ms: NOW_MS,
            shows_in: vec!["io.read".to_owned()],
            ..Verdict::default()
        };
        let labels = [("host".to_owned(), name.to_owned())].into();
        Host { labels, verdict: Some(verdict), ..Host::default() }
    }

    fn told((alerts, silenced): (Vec<Alert>, u64)) -> (Vec<(Status, String, String)>, u64) {
        let told = |alert: Alert| (alert.status, alert.labels["host"].clone(), alert.code);
        (alerts.into_iter().map(told).collect(), silenced)
    }

    fn one(status: Status, host: &str, code: &str) -> Vec<(Status, String, String)> {
        vec![(status, host.to_owned(), code.to_owned())]
    }

    #[test]
    fn each_crossing_is_told_once_and_its_end() {
        let mut watch = Watch::new(2, 3_600_000, None);
        let bad = [host("a", "io.read", 3), host("b", "io.read", 1)];
        assert_eq!(told(watch.look(&bad, NOW_MS, |_| None)), (one(Status::Firing, "a", "io.read"), 0));
        // It goes on.
        assert_eq!(told(watch.look(&bad, NOW_MS + 1, |_| None)), (Vec::new(), 0));
        assert_eq!(
            told(watch.look(&bad[1..], NOW_MS + 2, |_| None)),
            (one(Status::Resolved, "a", "io.read"), 0)
        );
        // It comes and goes: that is told once in the silence.
        assert_eq!(told(watch.look(&bad, NOW_MS + 3, |_| None)), (Vec::new(), 1));
        assert_eq!(told(watch.look(&bad[1..], NOW_MS + 4, |_| None)), (Vec::new(), 0));
        // Something else is something new.
        let other = [host("a", "cpu.quota", 2)];
        assert_eq!(
            told(watch.look(&other, NOW_MS + 5, |_| None)),
            (one(Status::Firing, "a", "cpu.quota"), 0)
        );
    }

    #[test]
    fn what_is_told_once_may_be_told_again_after_the_silence() {
        let mut watch = Watch::new(2, 1_000, None);
        let bad = [host("a", "io.read", 3)];
        assert_eq!(watch.look(&bad, NOW_MS, |_| None).0.len(), 1);
        assert_eq!(watch.look(&[], NOW_MS + 500, |_| None).0.len(), 1);
        assert_eq!(
            told(watch.look(&bad, NOW_MS + 1_000, |_| None)),
            (one(Status::Firing, "a", "io.read"), 0)
        );
    }

    #[test]
    fn hosts_that_are_well_or_not_heard_of_are_not_told_of() {
        let mut watch = Watch::new(1, 1_000, None);
        let mut healthy = host("a", "none.healthy", 3);
        healthy.verdict.as_mut().expect("a verdict").is_constraint = false;
        assert!(watch.look(&[healthy, Host::default()], NOW_MS, |_| None).0.is_empty());
        assert!(watch.look(&[host("a", "io.read", 3)], NOW_MS + MAX_AGE_MS + 1, |_| None).0.is_empty());
    }

    #[test]
    fn a_profile_that_was_begun_is_linked() {
        let mut watch = Watch::new(1, 1_000, Some("https://c.example/".to_owned()));
        let (alerts, _) =
            watch.look(&[host("a", "io.read", 3)], NOW_MS, |host| (host == "a").then_some("7-f"));
        assert_eq!(alerts[0].links["profile"], "https://c.example/api/v1/profiles/7-f");
    }

    #[test]
    fn links_show_the_constraint_in_its_time() {
        let mut watch = Watch::new(1, 1_000, Some("https://collector.example:4041/".to_owned()));
        let alert = watch.look(&[host("a\"b", "io.read", 3)], NOW_MS, |_| None).0.remove(0);
        assert_eq!(
            alert.links["flamegraph"],
            "https://collector.example:4041/api/v1/svg?query=wall%7Bhost%3D%22a%5C%22b%22%2Cclass%3D%7E%22io%5B.%5Dread%22%7D\
             &from=1767225540&until=1767225600"
        );
        let selector = crate::query::selector::parse("wall{host=\"a\\\"b\",class=~\"io[.]read\"}");
        assert!(selector.is_ok());
    }
}
