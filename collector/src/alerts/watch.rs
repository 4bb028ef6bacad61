//! When to tell somebody: a constraint of a host or a service has crossed its level, or is over. Without a clock or a network.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::case::Case;

/// What was told, and when, that is remembered: constraints of ten thousand hosts.
const MAX_TOLD: usize = 10_000;

/// What is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Of this form; a later one may have more fields.
    pub version: u32,
    /// Whether it has begun or is over.
    pub status: Status,
    /// What it is about.
    #[serde(flatten)]
    pub case: Case,
    /// Where to look, by what is there; none where nobody said where the collector is reached.
    pub links: BTreeMap<&'static str, String>,
}

/// Whether a constraint has begun or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has crossed its level.
    Firing,
    /// It is below its level, or something else limits what it limited.
    Resolved,
}

/// Which constraint of which host or service.
type Key = (String, String);

/// What limits hosts, or services, as far as it was told.
#[derive(Debug)]
pub struct Watch {
    silence_ms: u64,
    link: Option<String>,
    /// Constraints that hold; the alert, where it was told.
    holding: BTreeMap<Key, Option<Alert>>,
    /// When each was told last.
    told: BTreeMap<Key, u64>,
}

impl Watch {
    /// Tells of each constraint no sooner than so long after it was told last.
    #[must_use]
    pub fn new(silence_ms: u64, link: Option<String>) -> Self {
        let link = link.map(|link| link.trim_end_matches('/').to_owned());
        Self { silence_ms, link, holding: BTreeMap::new(), told: BTreeMap::new() }
    }

    /// Looks at all constraints that are bad enough. Returns what is to be told, and how much is not for the silence's sake. `known` are the
    /// names of those of which something is known, where that are not all: of others what held goes on. `profile_of` names the profile that
    /// was begun of a host for it.
    pub fn look<'p>(
        &mut self,
        cases: Vec<Case>,
        known: Option<&BTreeSet<String>>,
        now_unix_ms: u64,
        profile_of: impl Fn(&str) -> Option<&'p str>,
    ) -> (Vec<Alert>, u64) {
        let mut alerts = Vec::new();
        let mut silenced = 0;
        self.told.retain(|_, at| now_unix_ms.saturating_sub(*at) < self.silence_ms);
        let mut before = std::mem::take(&mut self.holding);
        for case in cases {
            let key = (case.name().to_owned(), case.code.clone());
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
            let alert = self.alert(case, &profile_of);
            self.told.insert(key.clone(), now_unix_ms);
            self.holding.insert(key, Some(alert.clone()));
            alerts.push(alert);
        }
        for (key, alert) in before {
            if known.is_some_and(|known| !known.contains(&key.0)) {
                self.holding.insert(key, alert);
            } else {
                // Of what nobody was told nobody needs to know that it is over.
                alerts.extend(alert.map(|alert| Alert { status: Status::Resolved, ..alert }));
            }
        }
        (alerts, silenced)
    }

    fn alert<'p>(&self, case: Case, profile_of: impl Fn(&str) -> Option<&'p str>) -> Alert {
        let mut links = self.link.as_ref().map(|link| case.links(link)).unwrap_or_default();
        let profile = case.hosts.iter().find_map(|host| profile_of(host));
        if let (Some(link), Some(id)) = (&self.link, profile) {
            links.insert("profile", format!("{link}{}/profile/{id}", crate::api::BASE));
            links.insert("profile_page", format!("{link}/profile?id={id}"));
        }
        Alert { version: 1, status: Status::Firing, case, links }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{MAX_AGE_MS, known_services, of_hosts, of_services};
    use super::*;
    use crate::query::fleet::{Constraint, Fleet, Service};
    use crate::query::overview::{Host, Verdict};

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

    /// Looks at hosts, from a level on.
    fn look(watch: &mut Watch, hosts: &[Host], level: u8, now_ms: u64) -> (Vec<Alert>, u64) {
        watch.look(of_hosts(hosts, level, now_ms), None, now_ms, |_| None)
    }

    fn told((alerts, silenced): (Vec<Alert>, u64)) -> (Vec<(Status, String, String)>, u64) {
        let told = |alert: Alert| (alert.status, alert.case.name().to_owned(), alert.case.code);
        (alerts.into_iter().map(told).collect(), silenced)
    }

    fn one(status: Status, host: &str, code: &str) -> Vec<(Status, String, String)> {
        vec![(status, host.to_owned(), code.to_owned())]
    }

    #[test]
    fn each_crossing_is_told_once_and_its_end() {
        let mut watch = Watch::new(3_600_000, None);
        let bad = [host("a", "io.read", 3), host("b", "io.read", 1)];
        let mut look = |hosts: &[Host], now_ms| told(look(&mut watch, hosts, 2, now_ms));
        assert_eq!(look(&bad, NOW_MS), (one(Status::Firing, "a", "io.read"), 0));
        // It goes on.
        assert_eq!(look(&bad, NOW_MS + 1), (Vec::new(), 0));
        assert_eq!(look(&bad[1..], NOW_MS + 2), (one(Status::Resolved, "a", "io.read"), 0));
        // It comes and goes: that is told once in the silence.
        assert_eq!(look(&bad, NOW_MS + 3), (Vec::new(), 1));
        assert_eq!(look(&bad[1..], NOW_MS + 4), (Vec::new(), 0));
        // Something else is something new.
        let other = [host("a", "cpu.quota", 2)];
        assert_eq!(look(&other, NOW_MS + 5), (one(Status::Firing, "a", "cpu.quota"), 0));
    }

    #[test]
    fn what_is_told_once_may_be_told_again_after_the_silence() {
        let mut watch = Watch::new(1_000, None);
        let bad = [host("a", "io.read", 3)];
        assert_eq!(look(&mut watch, &bad, 2, NOW_MS).0.len(), 1);
        assert_eq!(look(&mut watch, &[], 2, NOW_MS + 500).0.len(), 1);
        assert_eq!(told(look(&mut watch, &bad, 2, NOW_MS + 1_000)), (one(Status::Firing, "a", "io.read"), 0));
    }

    #[test]
    fn hosts_that_are_well_or_not_heard_of_are_not_told_of() {
        let mut watch = Watch::new(1_000, None);
        let mut healthy = host("a", "none.healthy", 3);
        healthy.verdict.as_mut().expect("a verdict").is_constraint = false;
        assert!(look(&mut watch, &[healthy, Host::default()], 1, NOW_MS).0.is_empty());
        let old = [host("a", "io.read", 3)];
        assert!(look(&mut watch, &old, 1, NOW_MS + MAX_AGE_MS + 1).0.is_empty());
    }

    #[test]
    fn a_profile_that_was_begun_is_linked() {
        let mut watch = Watch::new(1_000, Some("https://c.example/".to_owned()));
        let cases = of_hosts(&[host("a", "io.read", 3)], 1, NOW_MS);
        let (alerts, _) = watch.look(cases, None, NOW_MS, |host| (host == "a").then_some("7-f"));
        assert_eq!(alerts[0].links["profile"], "https://c.example/api/v1/profile/7-f");
        assert_eq!(alerts[0].links["profile_page"], "https://c.example/profile?id=7-f");
    }

    #[test]
    fn links_show_the_constraint_in_its_time() {
        let mut watch = Watch::new(1_000, Some("https://collector.example:4041/".to_owned()));
        let alert = look(&mut watch, &[host("a\"b", "io.read", 3)], 1, NOW_MS).0.remove(0);
        assert_eq!(
            alert.links["flamegraph"],
            "https://collector.example:4041/api/v1/svg?query=wall%7Bhost%3D%22a%5C%22b%22%2Cclass%3D%7E%22io%5B.%5Dread%22%7D\
             &from=1767225540&until=1767225600"
        );
        let selector = crate::query::selector::parse("wall{host=\"a\\\"b\",class=~\"io[.]read\"}");
        assert!(selector.is_ok());
    }

    fn fleet(services: &[(&str, u8)], left_out: u64) -> Fleet {
        let service = |(name, severity): &(&str, u8)| Service {
            labels: [("service".to_owned(), (*name).to_owned())].into(),
            constraints: vec![Constraint {
                code: "io.read".to_owned(),
                hosts: 30,
                share_of_hosts: 0.3,
                named_hosts: vec!["h1".to_owned(), "h2".to_owned()],
                severity: *severity,
                ..Constraint::default()
            }],
            ..Service::default()
        };
        let services = services.iter().map(service).collect();
        Fleet { until_unix_ms: NOW_MS, services, left_out, ..Fleet::default() }
    }

    #[test]
    fn services_are_told_with_their_hosts_and_where_to_look() {
        let mut watch = Watch::new(1_000, Some("https://c.example".to_owned()));
        // One without a name is none, and one is not bad enough.
        let found = fleet(&[("web", 3), ("", 3), ("db", 1)], 0);
        let (alerts, _) =
            watch.look(of_services(&found, 2), None, NOW_MS, |host| (host == "h2").then_some("9"));
        let [alert] = alerts.as_slice() else { panic!("{alerts:?}") };
        let shown = serde_json::to_value(alert).expect("JSON");
        assert_eq!((&shown["scope"], &shown["labels"]["service"]), (&"service".into(), &"web".into()));
        assert_eq!((&shown["hosts"][0], &shown["hosts_count"]), (&"h1".into(), &30.into()));
        for (name, url) in [
            ("profile", "https://c.example/api/v1/profile/9"),
            ("worst_host", "https://c.example/verdict?host=h1&from=1767222000&until=1767225600"),
            (
                "fleet",
                "https://c.example/api/v1/fleet?query=%7Bservice%3D%22web%22%7D&from=1767222000&until=1767225600",
            ),
            (
                "page",
                "https://c.example/explore?query=wall%7Bservice%3D%22web%22%2Cclass%3D%7E%22io%5B.%5Dread%22%7D\
                 &from=1767222000&until=1767225600",
            ),
        ] {
            assert_eq!(shown["links"][name], url, "{name}");
        }
    }

    #[test]
    fn what_is_not_looked_at_is_not_over() {
        let mut watch = Watch::new(1_000, None);
        let mut look = |found: &Fleet| {
            let known = known_services(found);
            told(watch.look(of_services(found, 2), known.as_ref(), NOW_MS, |_| None)).0
        };
        assert_eq!(look(&fleet(&[("web", 3)], 0)), one(Status::Firing, "web", "io.read"));
        // Others have more time now, and of web nothing is told.
        assert_eq!(look(&fleet(&[("db", 1)], 7)), Vec::new());
        assert_eq!(look(&fleet(&[("web", 1)], 7)), one(Status::Resolved, "web", "io.read"));
    }
}
