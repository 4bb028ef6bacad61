//! Which crossings of levels have a profile made: what is there now and was not at the look before, unless the host had one lately or the hour's
//! budget is used up. Nothing here knows a clock, a network or a store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Of what time the budget is.
const HOUR_MS: u64 = 3_600_000;
/// Hosts that are remembered: with more, none further has a profile made before these may again.
const MAX_HOSTS: usize = 10_000;

/// Something that is beyond its level on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The host.
    pub host: String,
    /// The constraint's code, or the signal with its instance.
    pub what: String,
}

/// What was seen, and which profiles were begun.
#[derive(Debug)]
pub struct Triggers {
    silence_ms: u64,
    budget: usize,
    holding: BTreeSet<Cause>,
    /// When a profile of each host was begun last.
    begun: BTreeMap<String, u64>,
    /// When those of the last hour were.
    hour: VecDeque<u64>,
}

impl Triggers {
    /// Of a host no sooner than so long after the one before, and so many an hour of all hosts together.
    #[must_use]
    pub fn new(silence_ms: u64, budget: usize) -> Self {
        Self { silence_ms, budget, holding: BTreeSet::new(), begun: BTreeMap::new(), hour: VecDeque::new() }
    }

    /// Looks at all that is beyond its level now. Returns what has a profile made, one a host, and how many crossings have none.
    pub fn look(&mut self, now_beyond: BTreeSet<Cause>, now_unix_ms: u64) -> (Vec<Cause>, u64) {
        let is_recent = |at: u64, within_ms: u64| now_unix_ms.saturating_sub(at) < within_ms;
        self.begun.retain(|_, at| is_recent(*at, self.silence_ms));
        while self.hour.front().is_some_and(|at| !is_recent(*at, HOUR_MS)) {
            self.hour.pop_front();
        }
        let (mut due, mut held_back) = (Vec::new(), 0);
        for cause in now_beyond.difference(&self.holding) {
            let has_room = self.hour.len() < self.budget && self.begun.len() < MAX_HOSTS;
            if !has_room || self.begun.contains_key(&cause.host) {
                held_back += 1;
                continue;
            }
            self.begun.insert(cause.host.clone(), now_unix_ms);
            self.hour.push_back(now_unix_ms);
            due.push(cause.clone());
        }
        self.holding = now_beyond;
        (due, held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_767_225_600_000;

    fn beyond(causes: &[(&str, &str)]) -> BTreeSet<Cause> {
        causes.iter().map(|(host, what)| Cause { host: (*host).into(), what: (*what).into() }).collect()
    }

    fn hosts((due, held_back): (Vec<Cause>, u64)) -> (Vec<String>, u64) {
        (due.into_iter().map(|cause| cause.host).collect(), held_back)
    }

    fn told(hosts: &[&str], held_back: u64) -> (Vec<String>, u64) {
        (hosts.iter().map(|host| (*host).to_owned()).collect(), held_back)
    }

    #[test]
    fn a_crossing_has_one_profile_made_and_its_host_none_again_in_the_silence() {
        let mut triggers = Triggers::new(1_000, 10);
        let quota = beyond(&[("a", "cpu.quota")]);
        assert_eq!(hosts(triggers.look(quota.clone(), NOW_MS)), told(&["a"], 0));
        // It goes on.
        assert_eq!(hosts(triggers.look(quota.clone(), NOW_MS + 1)), told(&[], 0));
        // Something else, and the same again, too soon.
        assert_eq!(hosts(triggers.look(beyond(&[("a", "io.read")]), NOW_MS + 2)), told(&[], 1));
        assert_eq!(hosts(triggers.look(beyond(&[]), NOW_MS + 3)), told(&[], 0));
        assert_eq!(hosts(triggers.look(quota, NOW_MS + 1_000)), told(&["a"], 0));
    }

    #[test]
    fn a_host_with_several_crossings_has_one_made_and_all_hosts_have_a_budget() {
        let mut triggers = Triggers::new(1_000, 2);
        let all = beyond(&[("a", "cpu.quota"), ("a", "io.read"), ("b", "io.read"), ("c", "io.read")]);
        assert_eq!(hosts(triggers.look(all, NOW_MS)), told(&["a", "b"], 2));
        let later = beyond(&[("d", "io.read")]);
        assert_eq!(hosts(triggers.look(later.clone(), NOW_MS + HOUR_MS - 1)), told(&[], 1));
        assert_eq!(hosts(triggers.look(beyond(&[]), NOW_MS + HOUR_MS)), told(&[], 0));
        assert_eq!(hosts(triggers.look(later, NOW_MS + HOUR_MS)), told(&["d"], 0));
    }
}
