//! Saturation signals of the host while it was recorded.

use super::Recorded;
use super::document::{Block, Cell, Table, Tone, name, text};
use crate::signals::{Level, Signal, definition};

/// Rows of a table: of a host with many groups the most urgent, which come first, are enough.
const MOST: usize = 60;

/// Signals that are over their levels.
pub(super) fn over_their_levels<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let Some(signals) = &recorded.profile.signals else { return not_read() };
    let over: Vec<&Signal> = signals.signals.iter().filter(|signal| signal.level > Level::None).collect();
    if over.is_empty() {
        let read = signals.signals.len();
        return vec![Block::Text(format!("None of the {read} signals that were read is over its level."))];
    }
    let row = |signal: &&Signal| {
        let thresholds = signal.thresholds.map_or_else(String::new, |thresholds| thresholds.in_words());
        let meaning = definition(&signal.name).map_or("", |definition| definition.meaning);
        vec![
            level(signal.level),
            name(&signal.name),
            name(&signal.instance),
            text(signal.unit.quantity(signal.value)),
            text(signal.unit.quantity(signal.steps.max)),
            text(thresholds),
            text(meaning),
        ]
    };
    vec![Block::Table(Table::new(
        "Signals, and the levels that they are over",
        "signals (the kernel's counters, as each meaning says)",
        &["level", "signal", "of", "#value", "#highest step", "levels", "meaning"],
        MOST,
        over.iter().map(row),
    ))]
}

/// What is told of every resource, with how it was distributed over the window.
pub(super) fn baseline<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let Some(signals) = &recorded.profile.signals else { return not_read() };
    let row = |signal: &Signal| {
        let steps = &signal.steps;
        let mut row = vec![level(signal.level), name(&signal.name), name(&signal.instance)];
        let values = [signal.value, steps.p50, steps.p95, steps.p99, steps.p999, steps.max];
        row.extend(values.map(|value| text(signal.unit.quantity(value))));
        row
    };
    let told = signals.signals.iter().filter(|signal| signal.tells_something());
    vec![
        Block::Table(Table::new(
            "Saturation signals of the host",
            "signals (the kernel's counters; chokepoint signals --list says what each means)",
            &["level", "signal", "of", "#value", "#p50", "#p95", "#p99", "#p99.9", "#max"],
            MOST,
            told.map(row),
        )),
        Block::Text(format!(
            "Percentiles are over {} steps of the window, by nearest rank: of fewer than a hundred, the high ones are the highest. \
             Signals of resources that idle are left out.",
            signals.steps
        )),
    ]
}

fn not_read<'p>() -> Vec<Block<'p>> {
    vec![Block::Text("The host's saturation signals were not read.".to_owned())]
}

pub(super) fn level(level: Level) -> Cell {
    let tone = match level {
        Level::None => return text(""),
        Level::Warning => Tone::Warning,
        Level::Critical => Tone::Critical,
    };
    Cell::Level(tone, level.name().to_owned())
}
