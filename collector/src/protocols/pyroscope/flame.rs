//! A flame graph as Grafana draws it: levels from the root down, with each node's distance from the one before it.

use chokepoint_proto::pyroscope::querier::v1::{FlameGraph, Level};
use hashbrown::HashMap;

use crate::query::flame::FlameGraph as Queried;

/// What the root is called.
const ROOT: &str = "total";

/// The first side of a queried flame graph in this form.
pub(super) fn of(queried: &Queried) -> FlameGraph {
    let (parent, frame) = (&queried.nodes.parent, &queried.nodes.frame);
    let Some(side) = queried.sides.first() else { return FlameGraph::default() };
    let mut graph = FlameGraph::default();
    let mut names: HashMap<&str, i64> = HashMap::new();
    // Where a node begins, and where its next callee does: its own weight comes first.
    let mut starts: Vec<u64> = vec![0; parent.len()];
    let mut next: Vec<u64> = vec![0; parent.len()];
    let mut depths: Vec<usize> = vec![0; parent.len()];
    // Where the last node of each level ends.
    let mut ends: Vec<u64> = Vec::new();
    // Callers come before what they call, and callees of one caller in their order, so that each level is met from left to right.
    for node in 0..parent.len() {
        let caller = parent[node] as usize;
        if node > 0 {
            starts[node] = next[caller];
            next[caller] = next[caller].saturating_add(side.total[node]);
            depths[node] = depths[caller] + 1;
        }
        next[node] = starts[node].saturating_add(side.own[node]);
        let name = match node {
            0 => ROOT,
            _ => queried.strings[queried.frames.name[frame[node] as usize] as usize].as_str(),
        };
        let known = names.len() as i64;
        let name = *names.entry(name).or_insert_with(|| {
            graph.names.push(name.to_owned());
            known
        });
        let depth = depths[node];
        if depth == ends.len() {
            ends.push(0);
            graph.levels.push(Level::default());
        }
        let [distance, total, own] =
            [starts[node].saturating_sub(ends[depth]), side.total[node], side.own[node]].map(signed);
        graph.levels[depth].values.extend([distance, total, own, name]);
        ends[depth] = starts[node].saturating_add(side.total[node]);
        graph.max_self = graph.max_self.max(own);
    }
    graph.total = signed(side.weight);
    graph
}

fn signed(weight: u64) -> i64 {
    i64::try_from(weight).unwrap_or(i64::MAX)
}
