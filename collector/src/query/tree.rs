//! A tree of frames with their weights on one or two sides.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

/// Frames of a stack that become nodes. Deeper ones count for the last that does; the kernel programs take 512 of a program.
pub(super) const MAX_DEPTH: usize = 1024;

/// A frame below the same callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The caller's position; the root's own.
    pub(super) parent: u32,
    pub(super) frame: u32,
    /// Without what it called, of each side.
    pub(super) own: [u64; 2],
    /// With what it called.
    pub(super) total: [u64; 2],
}

/// Nodes, callers before what they call; the root first. Weights are added to nodes, and [`Tree::add_up`] makes totals of them.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Frames from the root to each node.
    depths: Vec<u16>,
    positions: HashMap<(u32, u32), u32>,
}

impl Tree {
    pub(super) fn new(root: u32) -> Self {
        Self {
            nodes: vec![Node { parent: 0, frame: root, own: [0; 2], total: [0; 2] }],
            depths: vec![0],
            positions: HashMap::new(),
        }
    }

    /// The node of a frame that this one called; this one where there is no more room below it.
    pub(super) fn callee(&mut self, caller: u32, frame: u32) -> u32 {
        if usize::from(self.depths[caller as usize]) < MAX_DEPTH { self.last(caller, frame) } else { caller }
    }

    /// The same, however deep: for a frame that calls nothing.
    pub(super) fn last(&mut self, caller: u32, frame: u32) -> u32 {
        *self.positions.entry((caller, frame)).or_insert_with(|| {
            self.nodes.push(Node { parent: caller, frame, own: [0; 2], total: [0; 2] });
            self.depths.push(self.depths[caller as usize] + 1);
            u32::try_from(self.nodes.len() - 1).expect("sums and depths are bounded")
        })
    }

    /// The frame of a node.
    pub(super) fn frame(&self, node: u32) -> u32 {
        self.nodes[node as usize].frame
    }

    /// Adds weight to a node.
    pub(super) fn add(&mut self, side: usize, node: u32, weight: u64) {
        let own = &mut self.nodes[node as usize].own[side];
        *own = own.saturating_add(weight);
    }

    /// Makes each node's total: its own weight and that of all that it called.
    pub(super) fn add_up(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.total = node.own);
        for position in (1..self.nodes.len()).rev() {
            let Node { parent, total, .. } = self.nodes[position];
            let of_parent = &mut self.nodes[parent as usize].total;
            *of_parent = [0, 1].map(|side| of_parent[side].saturating_add(total[side]));
        }
    }

    /// Merges what is lightest until there are no more nodes than this: what is left out of a caller becomes one node of it, of the frame
    /// `merged`. Returns how many nodes that concerns.
    ///
    /// A node is as heavy as its share of the side on which it has most. A caller is at least as heavy as what it calls, so what is kept
    /// is a tree.
    pub(super) fn merge_lightest(&mut self, max_nodes: usize, merged: u32) -> u64 {
        let max_nodes = max_nodes.max(2);
        if self.nodes.len() <= max_nodes {
            return 0;
        }
        let all = self.nodes[0].total;
        let share = |node: &Node| {
            let of = |side: usize| node.total[side] as f64 / all[side].max(1) as f64;
            of(0).max(of(1))
        };
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by(|a, b| share(&self.nodes[*b]).total_cmp(&share(&self.nodes[*a])).then(a.cmp(b)));
        let mut callees = vec![0_u32; self.nodes.len()];
        for node in &self.nodes[1..] {
            callees[node.parent as usize] += 1;
        }
        // Nodes that there would be: those kept, and one in each of them that lacks some.
        let mut kept = vec![false; self.nodes.len()];
        let mut count = 0;
        for position in order {
            let parent = self.nodes[position].parent as usize;
            let completes_parent = position != 0 && callees[parent] == 1;
            let lacks_some = callees[position] > 0;
            let next = count + 1 + usize::from(lacks_some) - usize::from(completes_parent);
            if next > max_nodes {
                break;
            }
            count = next;
            kept[position] = true;
            if position != 0 {
                callees[parent] -= 1;
            }
        }
        self.keep(&kept, merged)
    }

    fn keep(&mut self, kept: &[bool], merged: u32) -> u64 {
        let mut moved = vec![0_u32; self.nodes.len()];
        let mut nodes: Vec<Node> = Vec::new();
        let mut left_out = 0;
        // By caller: positions in the order of callers, since callers come first.
        let mut rest: HashMap<u32, ([u64; 2], u64)> = HashMap::new();
        for (position, node) in self.nodes.iter().enumerate() {
            if kept[position] {
                moved[position] = u32::try_from(nodes.len()).expect("no more than before");
                nodes.push(Node { parent: moved[node.parent as usize], ..*node });
                continue;
            }
            left_out += 1;
            if kept[node.parent as usize] {
                let sum = rest.entry(moved[node.parent as usize]).or_default();
                sum.0 = [0, 1].map(|side| sum.0[side].saturating_add(node.total[side]));
                sum.1 += 1;
            }
        }
        let mut rest: Vec<_> = rest.into_iter().collect();
        rest.sort_unstable_by_key(|(parent, _)| *parent);
        nodes.extend(rest.into_iter().map(|(parent, (sum, _))| Node {
            parent,
            frame: merged,
            own: sum,
            total: sum,
        }));
        self.nodes = nodes;
        // From here on it is only read.
        (self.depths, self.positions) = (Vec::new(), HashMap::new());
        left_out
    }

    /// The nodes from the root on, each followed by all that it called; what has one caller is in the order of its frames' ranks.
    pub(super) fn in_order(self, rank: impl Fn(u32) -> u32) -> Vec<Node> {
        // By caller, and of one caller the last first, for what is put on a pile last is taken first.
        let mut callees: Vec<(u32, Reverse<u32>, u32)> = self
            .nodes
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, node)| (node.parent, Reverse(rank(node.frame)), u32::try_from(at).expect("bounded")))
            .collect();
        callees.sort_unstable();
        let mut of_caller = vec![0..0; self.nodes.len()];
        let mut first = 0;
        for callees in callees.chunk_by(|one, other| one.0 == other.0) {
            of_caller[callees[0].0 as usize] = first..first + callees.len();
            first += callees.len();
        }
        let mut ordered: Vec<Node> = Vec::with_capacity(self.nodes.len());
        let mut open = vec![(0_u32, 0_u32)];
        while let Some((position, parent)) = open.pop() {
            let at = u32::try_from(ordered.len()).expect("bounded");
            ordered.push(Node { parent, ..self.nodes[position as usize] });
            let callees = &callees[of_caller[position as usize].clone()];
            open.extend(callees.iter().map(|(_, _, callee)| (*callee, at)));
        }
        ordered
    }
}

/// The `count` heaviest of some things, the heaviest first.
pub(super) fn heaviest<T>(
    things: impl IntoIterator<Item = T>,
    count: usize,
    weight: impl Fn(&T) -> u64,
) -> Vec<T> {
    let mut heap: BinaryHeap<(u64, Reverse<usize>)> = BinaryHeap::new();
    let mut things: Vec<Option<T>> = things.into_iter().map(Some).collect();
    heap.extend(
        things.iter().enumerate().filter_map(|(at, thing)| Some((weight(thing.as_ref()?), Reverse(at)))),
    );
    std::iter::from_fn(|| heap.pop()).take(count).filter_map(|(_, Reverse(at))| things[at].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = ["all", "[lighter]", "a", "b", "c", "d"];

    fn add(tree: &mut Tree, side: usize, path: &[u32], weight: u64) {
        let node = path.iter().fold(0, |caller, frame| tree.callee(caller, *frame));
        tree.add(side, node, weight);
    }

    fn tree() -> Tree {
        let mut tree = Tree::new(0);
        add(&mut tree, 0, &[2, 3], 50);
        add(&mut tree, 0, &[2], 5);
        add(&mut tree, 0, &[2, 4], 1);
        add(&mut tree, 0, &[2, 5], 2);
        add(&mut tree, 0, &[4, 5], 30);
        tree.add_up();
        tree
    }

    fn shown(nodes: &[Node]) -> Vec<(u32, &str, u64, u64)> {
        nodes
            .iter()
            .map(|node| (node.parent, NAMES[node.frame as usize], node.own[0], node.total[0]))
            .collect()
    }

    #[test]
    fn paths_share_nodes_and_callers_come_first() {
        let nodes = tree().in_order(|frame| frame);
        assert_eq!(
            shown(&nodes),
            [
                (0, "all", 0, 88),
                (0, "a", 5, 58),
                (1, "b", 50, 50),
                (1, "c", 1, 1),
                (1, "d", 2, 2),
                (0, "c", 0, 30),
                (5, "d", 30, 30),
            ]
        );
    }

    #[test]
    fn the_lightest_nodes_are_merged_and_no_weight_is_lost() {
        let mut six = tree();
        assert_eq!(six.merge_lightest(6, 1), 2);
        let nodes = six.in_order(|frame| frame);
        assert_eq!(
            shown(&nodes),
            [
                (0, "all", 0, 88),
                (0, "a", 5, 58),
                (1, "[lighter]", 3, 3),
                (1, "b", 50, 50),
                (0, "c", 0, 30),
                (4, "d", 30, 30),
            ]
        );
        for max_nodes in 0..9 {
            let mut tree = tree();
            tree.merge_lightest(max_nodes, 1);
            let nodes = tree.in_order(|frame| frame);
            assert!(nodes.len() <= max_nodes.max(2));
            assert_eq!(nodes.iter().map(|node| node.own[0]).sum::<u64>(), 88, "{max_nodes}");
        }
    }

    #[test]
    fn what_is_too_deep_counts_for_the_last_that_is_not() {
        let mut tree = Tree::new(0);
        add(&mut tree, 0, &[2; MAX_DEPTH + 5], 3);
        add(&mut tree, 0, &[2; MAX_DEPTH], 4);
        tree.add_up();
        let nodes = tree.in_order(|frame| frame);
        assert_eq!((nodes.len(), nodes[MAX_DEPTH].own[0], nodes[0].total[0]), (MAX_DEPTH + 1, 7, 7));
    }

    #[test]
    fn a_node_that_is_heavy_on_one_side_stays() {
        let mut tree = Tree::new(0);
        add(&mut tree, 0, &[2], 1_000_000);
        add(&mut tree, 0, &[3], 10);
        add(&mut tree, 0, &[5], 10);
        add(&mut tree, 1, &[4], 10);
        tree.add_up();
        tree.merge_lightest(4, 1);
        let nodes = tree.in_order(|frame| frame);
        let names: Vec<&str> = nodes.iter().map(|node| NAMES[node.frame as usize]).collect();
        assert_eq!(names, ["all", "[lighter]", "a", "c"]);
    }

    #[test]
    fn the_heaviest_come_first_and_equals_stay_in_order() {
        assert_eq!(
            heaviest([("a", 1), ("b", 3), ("c", 3), ("d", 2)], 3, |thing| thing.1),
            [("b", 3), ("c", 3), ("d", 2)]
        );
    }
}
