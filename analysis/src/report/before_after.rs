//! Two recordings side by side: verdicts, shares of thread time, signals. Whether a difference is more than chance is not judged
//! here, as one recording of each does not tell; what judges it from several adds its blocks to [`blocks`].

use std::collections::BTreeMap;

use super::Recorded;
use super::document::{Block, Cell, Table, name, text};
use super::finding::tone;
use super::signals::level;
use super::time::by_class;
use crate::activity::Class;
use crate::names;
use crate::signals::Signal;

/// Classes are few.
const ALL: usize = usize::MAX;
/// Signals that are told: of a host with many groups the most urgent, which come first, are enough.
const MOST_SIGNALS: usize = 60;
/// Windows that differ in length by more see other things: bursts, and work that begins and ends.
const SAME_WINDOW: f64 = 0.1;

/// The two side by side.
pub(super) fn blocks<'p>(before: &Recorded<'p>, after: &Recorded<'p>) -> Vec<Block<'p>> {
    let mut blocks = vec![Block::Text(
        "One recording of each: differences may be chance, and their significance is not judged here."
            .to_owned(),
    )];
    let differences = differences(before, after);
    if !differences.is_empty() {
        blocks.push(Block::List(differences));
    }
    blocks.push(Block::Table(verdicts(before, after)));
    blocks.push(Block::Table(classes(before, after)));
    blocks.extend(signals(before, after).map(Block::Table));
    blocks
}

/// What the two differ in beside what was changed, as far as it is known.
fn differences(before: &Recorded<'_>, after: &Recorded<'_>) -> Vec<String> {
    let (a, b) = (&before.profile.header, &after.profile.header);
    let mut differences = Vec::new();
    for (what, before, after) in [
        ("host", &a.host, &b.host),
        ("target", &a.target, &b.target),
        ("kernel", &a.kernel, &b.kernel),
        ("version of the program that recorded", &a.program, &b.program),
    ] {
        if before != after {
            let [before, after] = [before, after].map(|name| names::printable(name));
            differences.push(format!("Another {what}: {before} before, {after} after."));
        }
    }
    if a.cpus != b.cpus {
        differences.push(format!("Another number of CPUs: {} before, {} after.", a.cpus, b.cpus));
    }
    let (first, second) = (before.diagnosis.window_s, after.diagnosis.window_s);
    if (first - second).abs() > SAME_WINDOW * first.max(second) {
        differences.push(format!("Windows of different length: {first:.1} s before, {second:.1} s after."));
    }
    if a.start_unix_ns >= b.start_unix_ns {
        differences.push("The recording after was not begun after the one before.".to_owned());
    }
    differences
}

fn verdicts(before: &Recorded<'_>, after: &Recorded<'_>) -> Table {
    let row = |when: &str, recorded: &Recorded<'_>| {
        let verdict = &recorded.diagnosis.verdict;
        vec![
            text(when),
            name(verdict.code.name()),
            Cell::Level(tone(verdict.severity), verdict.severity.name().to_owned()),
            text(format!("{:.0} %", verdict.share * 100.0)),
            text(format!("{:.0} %", verdict.confidence * 100.0)),
            text(&verdict.summary),
        ]
    };
    Table::new(
        "Verdicts",
        "as each recording's evidence says",
        &["", "constraint", "severity", "#share of the demand", "#confidence", "what"],
        ALL,
        [row("before", before), row("after", after)],
    )
}

fn classes(before: &Recorded<'_>, after: &Recorded<'_>) -> Table {
    let mut shares: BTreeMap<Class, [f64; 2]> = BTreeMap::new();
    for (at, recorded) in [before, after].into_iter().enumerate() {
        let classes = by_class(recorded);
        let total: f64 = classes.iter().map(|(_, seconds)| seconds).sum();
        for (class, seconds) in classes {
            shares.entry(class).or_default()[at] = seconds * 100.0 / total.max(f64::MIN_POSITIVE);
        }
    }
    let row = |(class, [before, after]): (Class, [f64; 2])| {
        vec![
            Cell::Class(class),
            text(format!("{before:.1} %")),
            text(format!("{after:.1} %")),
            text(format!("{:+.1}", after - before)),
        ]
    };
    Table::new(
        "Shares of the threads' time",
        "scheduler switches of every thread",
        &["class", "#before", "#after", "#points"],
        ALL,
        shares.into_iter().map(row),
    )
}

/// Signals that tell something before or after.
fn signals(before: &Recorded<'_>, after: &Recorded<'_>) -> Option<Table> {
    type Sides<'a> = BTreeMap<(&'a str, &'a str), [Option<&'a Signal>; 2]>;
    let mut sides: Sides<'_> = BTreeMap::new();
    for (at, recorded) in [before, after].into_iter().enumerate() {
        for signal in &recorded.profile.signals.as_ref()?.signals {
            sides.entry((&signal.name, &signal.instance)).or_default()[at] = Some(signal);
        }
    }
    let mut sides: Vec<_> = sides
        .into_iter()
        .filter(|(_, sides)| sides.iter().flatten().any(|signal| signal.tells_something()))
        .collect();
    sides
        .sort_by_key(|(_, sides)| std::cmp::Reverse(sides.iter().flatten().map(|signal| signal.level).max()));
    let row = |((signal, instance), sides): ((&str, &str), [Option<&Signal>; 2])| {
        let mut row = vec![name(signal), name(instance)];
        for side in sides {
            row.push(text(side.map_or_else(|| "-".to_owned(), |signal| signal.unit.quantity(signal.value))));
            row.push(side.map_or_else(|| text(""), |signal| level(signal.level)));
        }
        row
    };
    Some(Table::new(
        "Signals",
        "signals (the kernel's counters, of the whole windows)",
        &["signal", "of", "#before", "level", "#after", "level"],
        MOST_SIGNALS,
        sides.into_iter().map(row),
    ))
}
