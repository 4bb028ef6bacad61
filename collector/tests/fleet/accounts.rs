//! What a store has of a simulated fleet, held against what the fleet has made.

use std::collections::BTreeMap;

use chokepoint_collector::store::{Store, SumQuery};

use super::common::*;
use super::hosts::{Hosts, WINDOW_NS};

/// What is stored is what was made, but for what was dropped.
pub fn check(store: &dyn Store, hosts: &Hosts) {
    let query = SumQuery {
        selection: between(0, u64::MAX),
        kind: "wall".to_owned(),
        group_by: vec!["host".to_owned()],
        step_ns: Some(WINDOW_NS),
        max_sums: 10_000_000,
        ..SumQuery::default()
    };
    let mut stored: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    for sum in store.sums(&query).expect("sums").sums {
        let [host] = <[String; 1]>::try_from(sum.group).expect("a label");
        assert!(stored.entry(host).or_default().insert(sum.start_unix_ns, sum.weight).is_none());
    }
    let agents = store.agents().expect("agents");
    let (mut dropped_in_all, mut acknowledged_in_all) = (0, 0);
    for host in hosts.each() {
        let own = stored.remove(&host.name).unwrap_or_default();
        for (start, weight) in &own {
            assert_eq!(
                host.made.get(start),
                Some(weight),
                "{}: what is there is what was made, once",
                host.name
            );
        }
        let (made, there) = (host.made.len() as u64, own.len() as u64);
        let (acknowledged, dropped) = (host.acknowledged(), host.dropped());
        // One may be both: dropped while it was on its way.
        let is_told = acknowledged + dropped >= made && made - there <= dropped;
        assert!(
            is_told,
            "{}: {acknowledged} acknowledged, {dropped} dropped, {there} of {made} there",
            host.name
        );
        assert!((acknowledged..=made).contains(&there), "{}: {acknowledged} of {there}", host.name);
        if dropped == 0 {
            assert_eq!(acknowledged, made, "{}", host.name);
            assert_eq!(own, host.made, "{}", host.name);
        }
        let agent = agents.iter().find(|agent| agent.labels["host"] == host.name).expect("it is known");
        assert_eq!(agent.batches, there, "{}", host.name);
        assert!(agent.dropped_batches <= dropped, "{}", host.name);
        dropped_in_all += dropped;
        acknowledged_in_all += acknowledged;
    }
    assert!(stored.is_empty(), "{stored:?}");
    eprintln!("{acknowledged_in_all} batches were acknowledged and are there, {dropped_in_all} were dropped");
    // Those with little room have dropped some, or this test shows less than it says.
    assert!(dropped_in_all > 0 && acknowledged_in_all > hosts.each().len() as u64);
}
