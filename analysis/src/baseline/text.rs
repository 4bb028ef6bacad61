//! A baseline as a page for a terminal: how its windows are distributed, and what their verdicts are.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Baseline, Kind, Measure, Series};
use crate::names::printable;
use crate::signals::display::shortened;
use crate::signals::{Distribution, Level, definition};
use crate::verdict::finding::Severity;

/// The page. Signals that were never above zero, and those of which nothing says that they are much, are left out unless `all` is asked
/// for.
#[must_use]
pub fn page(baseline: &Baseline, all: bool) -> String {
    let header = &baseline.header;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}, {}: {} windows of {:.1} s, {:.0} s in all",
        printable(&header.host),
        printable(&header.target),
        baseline.windows.len(),
        baseline.window_seconds(),
        baseline.seconds()
    );
    if !header.work.is_empty() {
        let _ = writeln!(text, "work counted by {}", printable(&header.work));
    }
    verdicts(&mut text, baseline);
    for (kind, title) in [
        (Kind::Work, "Work"),
        (Kind::Demand, "Time that is wanted shorter, threads at a time"),
        (Kind::Time, "Time of threads, threads at a time"),
        (Kind::Load, "Load"),
        (Kind::Signal, "Signals of the host"),
    ] {
        let shown: Vec<&Series> = baseline
            .series
            .iter()
            .filter(|series| series.measure.kind == kind && series.max > 0.0 && (all || is_shown(series)))
            .collect();
        if shown.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "\n{title}\n  {:26} {:>10} {:>10} {:>10} {:>10}  of",
            "", "p50", "p95", "p99", "max"
        );
        for series in shown {
            let Distribution { p50, p95, p99, .. } =
                Distribution::of(series.values.iter().flatten().copied().collect());
            let [p50, p95, p99, max] =
                [p50, p95, p99, series.max].map(|value| measured(value, &series.measure));
            let instance = printable(&shortened(&series.measure.instance));
            let line = format!(
                "  {:26} {p50:>10} {p95:>10} {p99:>10} {max:>10}  {instance}",
                printable(&series.measure.name)
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    if !baseline.missing.is_empty() {
        text.push('\n');
    }
    for missing in &baseline.missing {
        let _ = writeln!(text, "missing: {}", printable(missing));
    }
    text
}

/// A measure's value. Threads at a time are small where a process waits most of its time.
fn measured(value: f64, measure: &Measure) -> String {
    match measure.kind {
        Kind::Demand | Kind::Time => format!("{value:.3}"),
        Kind::Work | Kind::Load | Kind::Signal => measure.unit.quantity(value),
    }
}

/// Signals of the whole host, and others that reached a level in a window.
fn is_shown(series: &Series) -> bool {
    let measure = &series.measure;
    let thresholds = definition(&measure.name).and_then(|signal| signal.thresholds);
    let level = thresholds.map_or(Level::None, |thresholds| thresholds.level(series.max));
    measure.kind != Kind::Signal || measure.instance.is_empty() || level > Level::None
}

fn verdicts(text: &mut String, baseline: &Baseline) {
    let mut verdicts: BTreeMap<&str, (usize, Severity)> = BTreeMap::new();
    for window in &baseline.windows {
        let entry = verdicts.entry(&window.verdict).or_default();
        *entry = (entry.0 + 1, entry.1.max(window.severity));
    }
    let mut verdicts: Vec<_> = verdicts.into_iter().collect();
    verdicts.sort_by_key(|(code, (windows, _))| (std::cmp::Reverse(*windows), *code));
    text.push_str("\nWhat limited the target\n");
    for (code, (windows, worst)) in verdicts {
        let worst = match worst {
            Severity::None => "nothing wrong",
            Severity::Low => "low",
            Severity::Warning => "at worst a warning",
            Severity::Critical => "at worst critical",
        };
        let _ = writeln!(text, "  {windows:>5} windows  {:20} {worst}", printable(code));
    }
}
