//! A comparison as a page for a terminal: the outcome, what it is from, and what else changed.

use std::fmt::Write;

use super::functions::FunctionChange;
use super::{Change, Comparison, Effect, Outcome, Side};
use crate::baseline::Kind;
use crate::names::printable;
use crate::signals::Unit;
use crate::signals::display::shortened;

/// Measures and functions that are told; all of them with `all`.
const TOLD: usize = 12;

/// How a page is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// With escape sequences for colours.
    pub colour: bool,
    /// With every measure and function.
    pub all: bool,
}

/// The page.
#[must_use]
pub fn page(comparison: &Comparison, style: Style) -> String {
    let mut text = String::new();
    for (name, side) in [("A", &comparison.before), ("B", &comparison.after)] {
        let _ = writeln!(text, "{name}  {}", described(side));
    }
    let (word, escape) = match comparison.outcome {
        Outcome::NoRegression => ("no regression", "\x1b[32;1m"),
        Outcome::Regression => ("regression", "\x1b[31;1m"),
        Outcome::Inconclusive => ("cannot tell", "\x1b[33;1m"),
    };
    let (start, end) = if style.colour { (escape, "\x1b[0m") } else { ("", "") };
    let _ = writeln!(text, "\n{start}{word}{end}");
    for reason in &comparison.reasons {
        let _ = writeln!(text, "  {}", printable(reason));
    }
    measures(&mut text, comparison, style);
    functions(&mut text, comparison, style);
    for note in &comparison.notes {
        let _ = writeln!(text, "\n{}", printable(note));
    }
    text
}

fn described(side: &Side) -> String {
    let work =
        side.work_per_s.map_or_else(String::new, |rate| format!(", work {}", Unit::PerSecond.quantity(rate)));
    format!(
        "{}, {}, {} windows of {:.0} s{work}",
        printable(&side.host),
        printable(&side.target),
        side.windows,
        side.window_s
    )
}

fn measures(text: &mut String, comparison: &Comparison, style: Style) {
    let is_told = |change: &&Change| {
        let decides = matches!(change.effect, Effect::Regression | Effect::Improvement);
        style.all || decides || matches!(change.kind, Kind::Demand | Kind::Work)
    };
    let others = |change: &&Change| change.effect == Effect::Changed && !is_told(change);
    let told: Vec<&Change> = comparison.measures.iter().filter(is_told).collect();
    let mut others: Vec<&Change> =
        if style.all { Vec::new() } else { comparison.measures.iter().filter(others).collect() };
    let left_out = others.len().saturating_sub(TOLD);
    others.truncate(TOLD);
    for (title, changes) in
        [("Time that is wanted shorter, and what decides", told), ("Changed as well", others)]
    {
        if changes.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n{title}\n  {:26} {:>11} {:>11} {:>8}  {:>20} {:>6} {:>7}  of",
            "", "A", "B", "change", "95 % confidence", "B > A", "p"
        );
        changes.into_iter().for_each(|change| line(text, change));
    }
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more: --all shows everything");
    }
}

fn line(text: &mut String, change: &Change) {
    let percent = |part: f64| format!("{:+.1}%", part * 100.0);
    let relative = change.relative.map_or_else(|| "new".to_owned(), percent);
    let interval = match change.interval {
        Some([from, to]) if change.before != 0.0 => {
            let [from, to] = [from, to].map(|end| percent(end / change.before.abs()));
            format!("{from} to {to}")
        }
        Some([from, to]) => format!("{} to {}", value(change, from), value(change, to)),
        None => "-".to_owned(),
    };
    let name = match change.kind {
        Kind::Work | Kind::Signal => change.name.clone(),
        Kind::Demand => format!("wanted {}", change.name),
        Kind::Time => format!("time {}", change.name),
        Kind::Load => format!("load {}", change.name),
    };
    let mark = match change.effect {
        Effect::Regression => "!",
        Effect::Improvement => "+",
        Effect::Changed => "*",
        Effect::None | Effect::Unknown => " ",
    };
    let superiority =
        change.superiority.map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0));
    let p = change.p.map_or_else(|| "-".to_owned(), p_value);
    let line = format!(
        "{mark} {:26} {:>11} {:>11} {relative:>8}  {interval:>20} {superiority:>6} {p:>7}  {}",
        printable(&name),
        value(change, change.before),
        value(change, change.after),
        printable(shortened(&change.instance).as_str()),
    );
    let _ = writeln!(text, "{}", line.trim_end());
}

fn p_value(p: f64) -> String {
    if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") }
}

/// A measure's value: time for a unit of work in seconds, what else there is for one as a number.
fn value(change: &Change, value: f64) -> String {
    match (change.per_work, change.kind) {
        (true, Kind::Demand | Kind::Time) => seconds(value),
        (true, _) => Unit::Number.quantity(value),
        // Threads at a time are small where a process waits most of its time.
        (false, Kind::Demand | Kind::Time) => format!("{value:.3}"),
        (false, _) => change.unit.quantity(value),
    }
}

/// A time in a unit of its size.
fn seconds(seconds: f64) -> String {
    let (factor, unit) = match seconds.abs() {
        size if size >= 1.0 || size == 0.0 => (1.0, "s"),
        size if size >= 1e-3 => (1e3, "ms"),
        size if size >= 1e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    let scaled = seconds * factor;
    let digits = if scaled.abs() >= 100.0 || scaled == 0.0 { 0 } else { 2 };
    format!("{scaled:.digits$} {unit}")
}

fn functions(text: &mut String, comparison: &Comparison, style: Style) {
    if comparison.functions.is_empty() {
        return;
    }
    let by = if comparison.per_work { "for a unit of work" } else { "in a second" };
    let _ = writeln!(
        text,
        "\nFunctions that grew and shrank, {by}\n  {:>10} {:>10} {:>10} {:>9} {:>10}  function",
        "A", "B", "change", "± error", "with calls"
    );
    let told = if style.all { usize::MAX } else { TOLD };
    for function in comparison.functions.iter().take(told) {
        let FunctionChange { name, before, after, change, error, change_with_callees } = function;
        let sign = |value: f64| if value > 0.0 { format!("+{}", seconds(value)) } else { seconds(value) };
        let _ = writeln!(
            text,
            "  {:>10} {:>10} {:>10} {:>9} {:>10}  {}",
            seconds(*before),
            seconds(*after),
            sign(*change),
            seconds(*error),
            sign(*change_with_callees),
            printable(name)
        );
    }
    let left_out = comparison.functions.len().saturating_sub(told);
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more: --all shows everything");
    }
}
