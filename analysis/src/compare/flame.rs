//! A differential flame graph: the second baseline's time, coloured by what it changed from the first. Drawn by inferno.
//!
//! Frames are as wide as in the second; what is red took more there than in the first, what is blue less, by the time in the function
//! itself. The first is scaled to the second's work, or to its length. What is not in the second has no width and is not seen: the table
//! of functions has it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use inferno::flamegraph;
use inferno::flamegraph::color::Color;

use super::{Comparison, Shown, extent};
use crate::baseline::Baseline;
use crate::export::svg::{MIN_WIDTH_PCT, drawing};
use crate::names;

/// What has not changed is white, and is to be seen.
const BACKGROUND: Color = Color { r: 222, g: 226, b: 232 };

/// Writes the picture.
///
/// # Errors
/// The writer fails, or the second baseline has no time of the kind that is shown.
pub fn write(
    before: &Baseline,
    after: &Baseline,
    comparison: &Comparison,
    shown: Shown,
    out: &mut dyn Write,
) -> io::Result<()> {
    let scale =
        extent(after, comparison.per_work) / extent(before, comparison.per_work).max(f64::MIN_POSITIVE);
    let mut stacks: BTreeMap<Vec<&str>, (f64, f64)> = BTreeMap::new();
    for (baseline, scale, is_after) in [(before, scale, false), (after, 1.0, true)] {
        for stack in baseline.stacks.stacks.iter().filter(|stack| shown.has(stack.class)) {
            let mut names: Vec<&str> = baseline.stacks.names_of(stack).collect();
            let class = stack.class.name();
            // On a CPU the functions say it all.
            if shown != Shown::Cpu {
                names.push(class);
            }
            let sums = stacks.entry(names).or_default();
            let time_us = stack.time_ns as f64 / 1e3 * scale;
            if is_after { sums.1 += time_us } else { sums.0 += time_us }
        }
    }
    // In the order of their elements and reversed, as for every flame graph here.
    let lines: Vec<String> = stacks
        .iter()
        .rev()
        .map(|(names, (before, after))| format!("{} {before:.0} {after:.0}", names.join(";")))
        .collect();
    if !stacks.values().any(|(_, after)| after.round() > 0.0) {
        return Err(io::Error::other("there is no time of this kind in the second baseline"));
    }
    let header = &after.header;
    let mut flames = drawing(BACKGROUND, MIN_WIDTH_PCT);
    flames.title = names::printable(&format!("{}, compared: {}", title(shown), header.target));
    flames.subtitle = Some(names::printable(&format!(
        "{} · red took more than before, blue less, {} · {:.0} s and {:.0} s",
        header.host,
        if comparison.per_work { "for the same work" } else { "in the same time" },
        before.seconds(),
        after.seconds(),
    )));
    flames.count_name = "µs".to_owned();
    flamegraph::from_lines(&mut flames, lines.iter().map(String::as_str), out)
}

const fn title(shown: Shown) -> &'static str {
    match shown {
        Shown::Cpu => "CPU time",
        Shown::OffCpu => "Off-CPU time",
        Shown::Wall => "Thread time",
    }
}
