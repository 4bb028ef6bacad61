//! A flame graph as text: the paths that most of the weight is on.

use std::fmt::Write;

use super::tables::{share, short, title, weight};
use crate::query::flame::FlameGraph;

/// Lines that are shown: a page.
const MAX_LINES: usize = 60;
/// Frames with a smaller share of all, per cent, are not shown.
const MIN_PCT: f64 = 1.0;
/// A frame with at least this share of its caller's, per cent, is not indented: stacks are deeper than pages wide.
const WHOLE_PCT: f64 = 98.0;
/// Steps of indentation at most.
const MAX_INDENT: usize = 24;

pub(super) fn page(flame: &FlameGraph) -> String {
    let Some(side) = flame.sides.first() else { return "nothing is stored of this\n".to_owned() };
    let amount = format!("{} in {} samples", weight(&flame.subject, side.weight), side.samples);
    let mut text = title(&flame.subject, &amount);
    if side.weight == 0 {
        text.push_str("  nothing is stored of this\n");
        return text;
    }
    let mut callees: Vec<Vec<usize>> = vec![Vec::new(); flame.nodes.parent.len()];
    for (node, parent) in flame.nodes.parent.iter().enumerate().skip(1) {
        if let Some(callees) = callees.get_mut(*parent as usize) {
            callees.push(node);
        }
    }
    let total = |node: usize| side.total.get(node).copied().unwrap_or_default();
    for callees in &mut callees {
        // Those to be shown last come first: the last is taken first.
        callees.retain(|node| share(total(*node), side.weight) >= MIN_PCT);
        callees.sort_by_key(|node| total(*node));
    }
    let (mut shown, mut left_out) = (0, 0);
    let mut open: Vec<(usize, usize)> =
        callees.first().into_iter().flatten().map(|node| (*node, 0)).collect();
    while let Some((node, indent)) = open.pop() {
        if shown < MAX_LINES {
            shown += 1;
            let part = share(total(node), side.weight);
            let _ = writeln!(
                text,
                "  {part:5.1} %  {:width$}{}",
                "",
                name(flame, node),
                width = 2 * indent.min(MAX_INDENT)
            );
        } else {
            left_out += 1;
        }
        let goes_on = callees[node].iter().any(|callee| share(total(*callee), total(node)) >= WHOLE_PCT);
        let below = indent + usize::from(!goes_on);
        open.extend(callees[node].iter().map(|callee| (*callee, below)));
    }
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more: -o FILE.svg shows all of them");
    }
    text
}

/// What does not refer to anything is not shown by a name: an answer may come from anywhere.
fn name(flame: &FlameGraph, node: usize) -> String {
    let name = flame.nodes.frame.get(node).and_then(|frame| flame.frames.name.get(*frame as usize));
    short(name.and_then(|name| flame.strings.get(*name as usize)).map_or("?", String::as_str))
}
