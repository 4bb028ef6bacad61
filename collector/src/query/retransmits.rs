//! What TCP connections sent again, by peer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::QueryError;
use super::limits::Limits;
use super::question::{MS_NS, Question};
use super::series::labels_of;
use super::tree::heaviest;
use crate::labels::Labels;
use crate::store::{Store, SumQuery};

/// The stored kind.
const KIND: &str = "retransmits.peers";
/// What an agent calls what it could not tell apart.
const OTHER: &str = "[other]";
/// What peers are told apart by: both ends, then on which host and whose.
const LABELS: [&str; 7] = ["local", "remote", "host", "service", "container", "pod", "namespace"];

/// What a selection sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retransmits {
    /// From here, inclusive: milliseconds since the Unix epoch, as all times.
    pub from_unix_ms: u64,
    /// Up to here, exclusive.
    pub until_unix_ms: u64,
    /// Those that most was sent to again first.
    pub peers: Vec<Peer>,
    /// Segments sent again to all others: those that agents could not tell apart, and those that are left out here.
    pub others: u64,
}

/// Both ends of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The host's own address, with its port where it is the service.
    pub local: String,
    /// The other's address, with its port where it is the service.
    pub remote: String,
    /// Segments sent again.
    pub count: u64,
    /// On which host, and whose the connections are.
    pub labels: Labels,
}

/// The peers that a question asks for.
///
/// # Errors
/// The question makes no sense, or the store cannot.
pub fn retransmits(
    store: &dyn Store,
    question: &Question,
    max_peers: usize,
    limits: &Limits,
) -> Result<Retransmits, QueryError> {
    let names = LABELS.map(str::to_owned).to_vec();
    let sums = store.sums(&SumQuery {
        selection: question.selection_of_any()?,
        kind: KIND.to_owned(),
        classes: Vec::new(),
        group_by: names.clone(),
        step_ns: None,
        by_class: false,
        by_stack: false,
        max_sums: limits.max_sums,
    })?;
    let mut others: u64 = 0;
    let mut counts: BTreeMap<&[String], u64> = BTreeMap::new();
    for sum in &sums.sums {
        if sum.group[1] == OTHER {
            others = others.saturating_add(sum.count);
        } else {
            *counts.entry(&sum.group).or_default() += sum.count;
        }
    }
    let count = counts.len();
    let peers = counts.into_iter().map(|(group, count)| Peer {
        local: group[0].clone(),
        remote: group[1].clone(),
        count,
        labels: labels_of(&names[2..], &group[2..]),
    });
    let mut peers = heaviest(peers, count, |peer| peer.count);
    let left_out = peers.split_off(max_peers.min(peers.len()));
    let left_out = left_out.iter().map(|peer| peer.count).sum::<u64>();
    Ok(Retransmits {
        from_unix_ms: question.range.from_unix_ns / MS_NS,
        until_unix_ms: question.range.until_unix_ns / MS_NS,
        peers,
        others: others.saturating_add(left_out),
    })
}

#[cfg(test)]
mod tests {
    use super::super::counted_fleet::{self, START_S};
    use super::*;
    use crate::query::question::Range;

    #[test]
    fn peers_of_all_windows_are_added_up_and_the_rest_is_counted() {
        let range =
            Range { from_unix_ns: START_S * 1_000_000_000, until_unix_ns: (START_S + 20) * 1_000_000_000 };
        let ask = |text: &str, most| {
            let question = Question::new(text, range, Vec::new(), &Limits::default()).expect(text);
            retransmits(&counted_fleet::store(), &question, most, &Limits::default())
        };
        let found = ask("{}", 10).expect("an answer");
        let told: Vec<_> = found
            .peers
            .iter()
            .map(|peer| {
                (&*peer.local, &*peer.remote, peer.count, &*peer.labels["host"], &*peer.labels["service"])
            })
            .collect();
        assert_eq!(
            told,
            [("10.0.0.2", "10.0.0.5:5432", 16, "b", "web"), ("10.0.0.1", "10.0.0.5:5432", 12, "a", "web"),]
        );
        assert_eq!(found.others, 4);
        let found = ask("{service='web'}", 1).expect("an answer");
        assert_eq!((found.peers.len(), found.others), (1, 12));
        assert!(matches!(ask("cpu{}", 10), Err(QueryError::Bad(_))));
    }
}
