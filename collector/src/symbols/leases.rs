//! Who is asked for which build: one agent at a time for each build, one build at a time of each agent. Without a clock or a network.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use chokepoint_symbols::Quality;

/// Leases at once, of all agents together: each may take 16 MiB of memory.
pub const AT_ONCE: usize = 4;
/// Builds that one agent has offered and that are lacking.
pub const MAX_OFFERS: usize = 1_024;
/// How long nothing may come of a lease. An agent lets others run first while it makes symbols, and rests in between.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How long a build is not asked for again at a quality that somebody has hoped for and not reached: debug information may be damaged, or too
/// large to be read.
pub const TRIED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Builds of which that is remembered; of more, all are forgotten, and asked for again.
const MAX_TRIED: usize = 4_096;

/// A lease that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// To which stream.
    pub stream: u64,
    /// Its number.
    pub lease: u64,
    /// For which build.
    pub build_id: Vec<u8>,
}

/// Offers and leases.
#[derive(Debug, Default)]
pub struct Leases {
    next: u64,
    /// By stream, what was offered there and is lacking.
    offers: BTreeMap<u64, HashMap<Vec<u8>, Quality>>,
    held: BTreeMap<u64, Lease>,
    /// By build, what somebody has sent symbols for, and up to when that counts.
    tried: HashMap<Vec<u8>, (Quality, Instant)>,
}

#[derive(Debug)]
struct Lease {
    stream: u64,
    build_id: Vec<u8>,
    /// What was offered.
    quality: Quality,
    until: Instant,
}

impl Leases {
    /// A stream begins. Returns its number.
    pub fn enter(&mut self) -> u64 {
        self.next += 1;
        self.offers.insert(self.next, HashMap::new());
        self.next
    }

    /// A stream has ended. Returns its leases, which are over.
    pub fn leave(&mut self, stream: u64) -> Vec<u64> {
        self.offers.remove(&stream);
        let over: Vec<u64> = self.of_stream(stream).collect();
        over.iter().for_each(|lease| drop(self.held.remove(lease)));
        over
    }

    fn of_stream(&self, stream: u64) -> impl Iterator<Item = u64> {
        self.held.iter().filter(move |(_, lease)| lease.stream == stream).map(|(number, _)| *number)
    }

    /// A stream offers what is lacking.
    pub fn offered(&mut self, stream: u64, build_id: &[u8], quality: Quality, now: Instant) {
        if self.tried.get(build_id).is_some_and(|(tried, until)| quality <= *tried && now < *until) {
            return;
        }
        let Some(offers) = self.offers.get_mut(&stream) else { return };
        if offers.len() < MAX_OFFERS {
            offers.insert(build_id.to_vec(), quality);
        }
    }

    /// Gives what can be given now: the best first.
    pub fn give(&mut self, now: Instant) -> Vec<Given> {
        let mut given = Vec::new();
        let mut busy: HashSet<u64> = self.held.values().map(|lease| lease.stream).collect();
        let mut wanted: HashSet<&[u8]> = self.held.values().map(|lease| &*lease.build_id).collect();
        let mut offers: Vec<(Quality, u64, &[u8])> = self
            .offers
            .iter()
            .filter(|(stream, _)| !busy.contains(stream))
            .flat_map(|(stream, offers)| offers.iter().map(|(id, quality)| (*quality, *stream, &**id)))
            .collect();
        // By stream and build too, so that what is given does not depend on chance.
        offers.sort_unstable_by_key(|(quality, stream, id)| (std::cmp::Reverse(*quality), *stream, *id));
        let mut chosen = Vec::new();
        for (quality, stream, id) in offers {
            if self.held.len() + chosen.len() >= AT_ONCE {
                break;
            }
            if !busy.contains(&stream) && wanted.insert(id) {
                busy.insert(stream);
                chosen.push((quality, stream, id.to_vec()));
            }
        }
        for (quality, stream, build_id) in chosen {
            self.next += 1;
            let lease = self.next;
            self.held
                .insert(lease, Lease { stream, build_id: build_id.clone(), quality, until: now + PATIENCE });
            given.push(Given { stream, lease, build_id });
        }
        given
    }

    /// Something came of a lease: it holds on. `None`: it is over, or another stream's.
    pub fn heard(&mut self, stream: u64, lease: u64, now: Instant) -> Option<Vec<u8>> {
        let lease = self.held.get_mut(&lease).filter(|lease| lease.stream == stream)?;
        lease.until = now + PATIENCE;
        Some(lease.build_id.clone())
    }

    /// A lease could not be told: it is over, and the offer stays.
    pub fn put_off(&mut self, lease: u64) {
        self.held.remove(&lease);
    }

    /// A lease is over, whatever came of it: its stream is not asked for that build again.
    pub fn end(&mut self, stream: u64, lease: u64) {
        if self.held.get(&lease).is_some_and(|lease| lease.stream == stream)
            && let Some(Lease { build_id, .. }) = self.held.remove(&lease)
            && let Some(offers) = self.offers.get_mut(&stream)
        {
            offers.remove(&build_id);
        }
    }

    /// Nothing is kept of a build, whatever was sent before: it is asked for as if it were new.
    pub fn lacking(&mut self, build_id: &[u8]) {
        self.tried.remove(build_id);
    }

    /// Symbols came of a lease: offers of no more than it was given for are over, also where less came of it.
    pub fn delivered(&mut self, lease: u64, now: Instant) {
        let Some(Lease { build_id, quality, .. }) = self.held.get(&lease) else { return };
        let (build_id, quality) = (build_id.clone(), *quality);
        self.stored(&build_id, quality);
        if self.tried.len() >= MAX_TRIED {
            self.tried.clear();
        }
        self.tried.insert(build_id, (quality, now + TRIED_FOR));
    }

    /// Symbols of a build are there: offers of no more are over.
    fn stored(&mut self, build_id: &[u8], stored: Quality) {
        for offers in self.offers.values_mut() {
            if offers.get(build_id).is_some_and(|quality| *quality <= stored) {
                offers.remove(build_id);
            }
        }
    }

    /// Takes back leases of which nothing came for too long; their streams are not asked for these builds again. Returns them with their builds.
    pub fn expire(&mut self, now: Instant) -> Vec<(u64, Vec<u8>)> {
        let due = self.held.iter().filter(|(_, lease)| lease.until <= now);
        let due: Vec<(u64, u64)> = due.map(|(number, lease)| (*number, lease.stream)).collect();
        let expired = |(number, stream): (u64, u64)| {
            let build_id = self.held.get(&number).map(|lease| lease.build_id.clone()).unwrap_or_default();
            self.end(stream, number);
            (number, build_id)
        };
        due.into_iter().map(expired).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(leases: &mut Leases, now: Instant) -> Vec<(u64, Vec<u8>)> {
        leases.give(now).into_iter().map(|given| (given.stream, given.build_id)).collect()
    }

    #[test]
    fn a_build_is_asked_of_one_agent_and_of_the_next_when_that_one_is_silent() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let (one, two) = (leases.enter(), leases.enter());
        leases.offered(one, b"a", Quality::Functions, start);
        leases.offered(two, b"a", Quality::Functions, start);
        assert_eq!(given(&mut leases, start), [(one, b"a".to_vec())]);
        assert_eq!(given(&mut leases, start), []);
        // A part renews it; then nothing comes.
        let lease = leases.of_stream(one).next().expect("it has one");
        let later = start + PATIENCE / 2;
        assert!(leases.heard(one, lease, later).is_some() && leases.heard(two, lease, later).is_none());
        assert_eq!(leases.expire(start + PATIENCE), []);
        assert_eq!(leases.expire(later + PATIENCE), [(lease, b"a".to_vec())]);
        assert!(leases.heard(one, lease, later).is_none());
        assert_eq!(given(&mut leases, start), [(two, b"a".to_vec())]);
        // It goes, and nobody else offers it any more.
        assert_eq!(leases.leave(two).len(), 1);
        assert_eq!(given(&mut leases, start), []);
    }

    #[test]
    fn better_is_asked_for_first_and_after_worse() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let (one, two) = (leases.enter(), leases.enter());
        leases.offered(one, b"a", Quality::Exported, now);
        leases.offered(one, b"b", Quality::Debug, now);
        assert_eq!(given(&mut leases, now), [(one, b"b".to_vec())]);
        let lease = leases.of_stream(one).next().expect("it has one");
        leases.delivered(lease, now);
        leases.end(one, lease);
        assert_eq!(given(&mut leases, now), [(one, b"a".to_vec())]);
        let lease = leases.of_stream(one).next().expect("it has one");
        leases.delivered(lease, now);
        leases.end(one, lease);
        assert_eq!(given(&mut leases, now), []);
        leases.offered(two, b"a", Quality::Functions, now);
        assert_eq!(given(&mut leases, now), [(two, b"a".to_vec())]);
    }

    #[test]
    fn what_somebody_could_not_keep_nobody_is_asked_for_again_for_a_while() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let (one, two) = (leases.enter(), leases.enter());
        leases.offered(one, b"a", Quality::Debug, now);
        leases.offered(two, b"a", Quality::Debug, now);
        assert_eq!(given(&mut leases, now), [(one, b"a".to_vec())]);
        // It has sent functions alone; the other would not have more.
        let lease = leases.of_stream(one).next().expect("it has one");
        leases.delivered(lease, now);
        leases.end(one, lease);
        leases.offered(two, b"a", Quality::Debug, now);
        assert_eq!(given(&mut leases, now), []);
        leases.offered(two, b"a", Quality::Debug, now + TRIED_FOR);
        assert_eq!(given(&mut leases, now + TRIED_FOR), [(two, b"a".to_vec())]);
    }

    #[test]
    fn leases_and_offers_are_bounded() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        for stream in 0..10_u8 {
            let stream_number = leases.enter();
            for build in 0..=u16::try_from(MAX_OFFERS).expect("it fits") {
                leases.offered(
                    stream_number,
                    &[&[stream][..], &build.to_le_bytes()].concat(),
                    Quality::Debug,
                    now,
                );
            }
        }
        assert_eq!(given(&mut leases, now).len(), AT_ONCE);
        assert!(leases.offers.values().all(|offers| offers.len() == MAX_OFFERS));
    }
}
