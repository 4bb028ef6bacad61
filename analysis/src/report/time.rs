//! Where the time of the target's threads went.

use super::Recorded;
use super::document::{Block, Cell, Table, name, text};
use crate::activity::Class;

/// Classes are few, and so are roots.
const ALL: usize = usize::MAX;

/// Seconds of the threads by class, the most first.
pub(super) fn by_class(recorded: &Recorded<'_>) -> Vec<(Class, f64)> {
    let mut classes: Vec<(Class, f64)> = recorded
        .diagnosis
        .decomposition
        .iter()
        .filter_map(|(name, seconds)| Some((Class::from_name(name)?, *seconds)))
        .collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}

/// The bar and the table of it, and what is behind the waits.
pub(super) fn blocks<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let classes = by_class(recorded);
    let total: f64 = classes.iter().map(|(_, seconds)| seconds).sum();
    if total <= 0.0 {
        return vec![Block::Text("The target's threads had no time in the window.".to_owned())];
    }
    let row = |first: Cell, seconds: f64| {
        vec![first, text(format!("{:.1} %", seconds * 100.0 / total)), text(format!("{seconds:.3} s"))]
    };
    let table = Table::new(
        "Time of the threads by class",
        "scheduler switches of every thread; classes of waits by their kernel stacks",
        &["class", "#share", "#time"],
        ALL,
        classes.iter().map(|(class, seconds)| row(Cell::Class(*class), *seconds)),
    );
    let mut roots: Vec<(&String, f64)> =
        recorded.diagnosis.behind.iter().map(|(root, seconds)| (root, *seconds)).collect();
    roots.sort_by(|a, b| b.1.total_cmp(&a.1));
    let behind = Table::new(
        "The same after waits for other threads were followed to what is behind them",
        "the same, and who ended each wait",
        &["what is at the end", "#share", "#time"],
        ALL,
        roots.into_iter().map(|(root, seconds)| row(name(root), seconds)),
    );
    vec![Block::Bar(classes), Block::Table(table), Block::Table(behind)]
}
