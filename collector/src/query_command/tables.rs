//! Answers as tables for a terminal. Every text in them came from elsewhere, and is made safe and short.

use std::fmt::Write;

use chokepoint_analysis::names::printable;
use chokepoint_analysis::units;

use crate::labels::Labels;
use crate::query::question::{MS_NS, Subject};
use crate::query::{
    catalogue, constraints, decomposition, diff, latencies, retransmits, series, signals, table, time,
};

/// Columns that names may take: with the numbers before them they fit into a hundred.
const NAME_WIDTH: usize = 60;
/// Columns of a graph over time.
const GRAPH_WIDTH: usize = 40;
/// Series, scopes, or signals that are shown.
const SHOWN_ROWS: usize = 50;
/// What is drawn for an eighth of the largest value each.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was asked, when, and how much it is.
pub(super) fn title(subject: &Subject, amount: &str) -> String {
    let Subject { query, title, from_unix_ms, until_unix_ms, .. } = subject;
    let length = time::written(until_unix_ms.saturating_sub(*from_unix_ms).saturating_mul(MS_NS));
    let from = utc(*from_unix_ms);
    format!("{}, {} · {from}, {length} · {amount}\n", printable(title), short(query))
}

/// A weight in the unit of an answer.
pub(super) fn weight(subject: &Subject, weight: u64) -> String {
    if subject.unit == "ns" { units::duration(weight) } else { weight.to_string() }
}

pub(super) fn share(part: u64, all: u64) -> f64 {
    100.0 * part as f64 / all.max(1) as f64
}

/// A name that takes no more room than it may.
pub(super) fn short(name: &str) -> String {
    let name = printable(name);
    if name.chars().count() <= NAME_WIDTH {
        return name;
    }
    let begin: String = name.chars().take(NAME_WIDTH - 1).collect();
    format!("{begin}…")
}

pub(super) fn utc(unix_ms: u64) -> String {
    chokepoint_analysis::export::utc(unix_ms.saturating_mul(MS_NS))
}

pub(super) fn labels_shown(labels: &Labels) -> String {
    if labels.is_empty() {
        return "all".to_owned();
    }
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    short(&labels.join(" "))
}

pub(super) fn more(text: &mut String, left_out: u64, how: &str) {
    if left_out > 0 {
        let _ = writeln!(text, "  and {left_out} more{how}");
    }
}

pub(super) fn top(table: &table::Table) -> String {
    let amount = format!("{} in {} samples", weight(&table.subject, table.weight), table.samples);
    let mut text = title(&table.subject, &amount);
    if table.functions.is_empty() {
        text.push_str("  nothing is stored of this\n");
        return text;
    }
    let _ = writeln!(text, "  {:>10} {:>6} {:>10} {:>6}  function", "self", "%", "total", "%");
    for row in &table.functions {
        let module = if row.module.is_empty() || row.name.starts_with(&row.module) {
            String::new()
        } else {
            format!("  ({})", short(&row.module))
        };
        let _ = writeln!(
            text,
            "  {:>10} {:>6.1} {:>10} {:>6.1}  {}{module}",
            weight(&table.subject, row.own),
            share(row.own, table.weight),
            weight(&table.subject, row.total),
            share(row.total, table.weight),
            short(&row.name)
        );
    }
    more(&mut text, table.left_out, ": -n shows more");
    text
}

pub(super) fn series(set: &series::SeriesSet) -> String {
    let is_time = set.subject.unit == "ns";
    let step_ns = set.step_ms.saturating_mul(MS_NS);
    let mut text = title(&set.subject, &format!("steps of {}", time::written(step_ns)));
    if set.series.is_empty() {
        text.push_str("  nothing is stored of this\n");
        return text;
    }
    // Of time the number of threads at a time tells more than their sum.
    let value = |weight: u64| if is_time { weight as f64 / step_ns.max(1) as f64 } else { weight as f64 };
    let shown = |value: f64| if is_time { format!("{value:.2}") } else { format!("{value:.0}") };
    let what = if is_time { "threads at a time" } else { "a step" };
    let _ = writeln!(text, "  {:>9} {:>9}  {:GRAPH_WIDTH$}  of", "mean", "most", what);
    for one in set.series.iter().take(SHOWN_ROWS) {
        let values: Vec<Option<f64>> = one.values.iter().map(|weight| weight.map(value)).collect();
        let stored: Vec<f64> = values.iter().flatten().copied().collect();
        let mean = stored.iter().sum::<f64>() / stored.len().max(1) as f64;
        let most = stored.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "  {:>9} {:>9}  {:GRAPH_WIDTH$}  {}",
            shown(mean),
            shown(most),
            graph(&values, most),
            labels_shown(&one.labels)
        );
    }
    let others = set.others.as_ref().map_or(0, |others| others.series);
    more(&mut text, set.series.len().saturating_sub(SHOWN_ROWS) as u64 + others, "");
    text
}

/// A line of bars; a gap where nothing is stored.
fn graph(values: &[Option<f64>], most: f64) -> String {
    let columns = values.len().clamp(1, GRAPH_WIDTH);
    let column = |number: usize| {
        let steps = &values[number * values.len() / columns..(number + 1) * values.len() / columns];
        let highest = steps
            .iter()
            .flatten()
            .copied()
            .fold(None, |most: Option<f64>, value| Some(most.map_or(value, |most| most.max(value))));
        highest.map_or(' ', |value| {
            let part = if most > 0.0 { value / most } else { 0.0 };
            BARS[((part * BARS.len() as f64).ceil() as usize).clamp(1, BARS.len()) - 1]
        })
    };
    (0..columns).map(column).collect()
}

pub(super) fn decomposition(found: &decomposition::Decomposition) -> String {
    let all = found.scopes.iter().fold(0_u64, |all, scope| all.saturating_add(scope.weight));
    let mut text = title(&found.subject, &weight(&found.subject, all));
    if found.scopes.is_empty() {
        text.push_str("  nothing is stored of this\n");
        return text;
    }
    for scope in found.scopes.iter().take(SHOWN_ROWS) {
        let _ = writeln!(text, "\n{}  {}", labels_shown(&scope.labels), weight(&found.subject, scope.weight));
        for (class, of_class) in found.classes.iter().zip(&scope.weights).filter(|(_, weight)| **weight > 0) {
            let part = share(*of_class, scope.weight);
            let bar = "█".repeat((part / 100.0 * GRAPH_WIDTH as f64).round() as usize);
            let _ = writeln!(
                text,
                "  {:18} {part:>5.1} % {:>10}  {bar}",
                short(&class.name),
                weight(&found.subject, *of_class)
            );
        }
    }
    more(&mut text, found.left_out + found.scopes.len().saturating_sub(SHOWN_ROWS) as u64, "");
    text
}

pub(super) fn constraints(found: &constraints::Constraints) -> String {
    if found.scopes.is_empty() {
        return "no host was diagnosed in this time\n".to_owned();
    }
    let mut text = format!("{:9} {:18} {:>9}  {:23}  of\n", "severity", "constraint", "hosts", "since");
    for scope in &found.scopes {
        let mut now: Vec<&constraints::Constraint> =
            scope.constraints.iter().filter(|constraint| constraint.hosts_now > 0).collect();
        // Where something is wrong, how many hosts are well is no news.
        if now.iter().any(|constraint| constraint.severity > 0) {
            now.retain(|constraint| constraint.severity > 0);
        }
        for constraint in now {
            let severity = ["-", "low", "warning", "critical"].get(usize::from(constraint.severity));
            let _ = writeln!(
                text,
                "{:9} {:18} {:>9}  {:23}  {}",
                severity.unwrap_or(&"?"),
                short(&constraint.code),
                format!("{}/{}", constraint.hosts_now, scope.hosts),
                utc(constraint.since_unix_ms),
                labels_shown(&scope.labels)
            );
            if constraint.severity > 0 {
                let _ = writeln!(text, "          {}", printable(&constraint.summary));
            }
        }
    }
    more(&mut text, found.left_out, " scopes");
    text
}

pub(super) fn signals(found: &signals::Signals) -> String {
    signal_table(found, |_| true, "nothing is stored of this\n")
}

/// Those that had a level.
pub(super) fn urgent_signals(found: &signals::Signals) -> String {
    let none = if found.signals.is_empty() {
        "nothing is stored of this\n"
    } else {
        "no signal had a warning: --all shows all of them\n"
    };
    signal_table(found, |level| level > 0, none)
}

fn signal_table(found: &signals::Signals, is_shown: impl Fn(u8) -> bool, none: &str) -> String {
    let worst =
        |signal: &signals::Signal| signal.values.iter().map(|value| value.level).max().unwrap_or_default();
    let mut shown: Vec<(u8, &signals::Signal)> = found
        .signals
        .iter()
        .map(|signal| (worst(signal), signal))
        .filter(|(level, _)| is_shown(*level))
        .collect();
    shown.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    if shown.is_empty() {
        return none.to_owned();
    }
    let mut text =
        format!("  {:28} {:>12} {:>12} {:>12}  {:8}  of\n", "signal", "last", "mean", "most", "level");
    let left_out = shown.len().saturating_sub(SHOWN_ROWS) as u64;
    for (level, signal) in shown.into_iter().take(SHOWN_ROWS) {
        let count = signal.values.len().max(1) as f64;
        let mean = signal.values.iter().map(|value| value.value).sum::<f64>() / count;
        let most = signal.values.iter().map(|value| value.max).fold(0.0, f64::max);
        let last = signal.values.last().map_or(0.0, |value| value.value);
        let quantity = |value: f64| quantity(&signal.unit, value);
        let _ = writeln!(
            text,
            "  {:28} {:>12} {:>12} {:>12}  {:8}  {}",
            short(&signal.name),
            quantity(last),
            quantity(mean),
            quantity(most),
            ["", "warning", "critical"].get(usize::from(level)).unwrap_or(&"?"),
            labels_shown(&signal.labels)
        );
    }
    more(&mut text, left_out, ": ask for one by its name");
    text
}

fn quantity(unit: &str, value: f64) -> String {
    use chokepoint_analysis::signals::Unit;
    let known = [Unit::Percent, Unit::Number, Unit::PerSecond, Unit::BytesPerSecond, Unit::Milliseconds];
    match known.into_iter().find(|known| known.symbol() == unit) {
        Some(unit) => unit.quantity(value),
        None => format!("{value:.2} {}", short(unit)),
    }
}

pub(super) fn labels(found: &catalogue::LabelNames) -> String {
    let mut text = format!("{:>8}  label\n", "values");
    for label in &found.labels {
        let _ = writeln!(text, "{:>8}  {}", label.values, short(&label.name));
    }
    text
}

pub(super) fn values(found: &catalogue::LabelValues) -> String {
    let mut text: String = found.values.iter().map(|value| format!("{}\n", printable(value))).collect();
    if found.is_cut {
        text.push_str("and more: narrow them down by other labels\n");
    }
    text
}

pub(super) fn agents(found: &catalogue::Agents) -> String {
    let mut text = format!(
        "{:20} {:23} {:>8} {:>8}  {:10} {:20} labels\n",
        "host", "last window", "batches", "dropped", "version", "kernel"
    );
    for agent in &found.agents {
        let mut labels = agent.labels.clone();
        let host = labels.remove("host").unwrap_or_default();
        let last = match agent.last_window_unix_ms {
            0 => "none".to_owned(),
            unix_ms => utc(unix_ms),
        };
        let labels = if labels.is_empty() { String::new() } else { labels_shown(&labels) };
        let line = format!(
            "{:20} {last:23} {:>8} {:>8}  {:10} {:20} {labels}",
            short(&host),
            agent.batches,
            agent.dropped_batches,
            short(&agent.program),
            short(&agent.kernel),
        );
        let _ = writeln!(text, "{}", line.trim_end());
        for (what, sentences) in [("missing", &agent.notes), ("given up", &agent.given_up)] {
            for sentence in sentences {
                let _ = writeln!(text, "    {what}: {}", printable(sentence));
            }
        }
    }
    text
}

pub(super) fn diff(found: &diff::Diff) -> String {
    let side = |number: usize| found.flame.sides.get(number).cloned().unwrap_or_default();
    let (before, after) = (side(0), side(1));
    let amount = |subject: &Subject, side: &crate::query::flame::Side| {
        format!("{} in {} samples", weight(subject, side.weight), side.samples)
    };
    let mut text = format!("before  {}", title(&found.before, &amount(&found.before, &before)));
    text.push_str(&format!("after   {}", title(&found.flame.subject, &amount(&found.flame.subject, &after))));
    if before.weight == 0 || after.weight == 0 {
        text.push_str("  nothing is stored of one of them\n");
        return text;
    }
    let _ = writeln!(
        text,
        "  {:>8} {:>8} {:>8} {:>8}  function, per cent of its side's time",
        "before", "after", "change", "total"
    );
    for change in &found.functions {
        let pct = |share: f64| format!("{:.1}", 100.0 * share);
        let signed = |share: f64| format!("{:+.1}", 100.0 * share);
        let _ = writeln!(
            text,
            "  {:>8} {:>8} {:>8} {:>8}  {}",
            pct(change.self_share_before),
            pct(change.self_share),
            signed(change.grew()),
            signed(change.total_share - change.total_share_before),
            short(&change.name)
        );
    }
    more(&mut text, found.left_out, ": -n shows more");
    text
}

/// What of all durations took no longer than the upper bound of a bucket; `>` before the last bound of what took longer than all.
pub(super) fn latencies(found: &latencies::Latencies) -> String {
    let length_ms = found.until_unix_ms.saturating_sub(found.from_unix_ms);
    let length = time::written(length_ms.saturating_mul(MS_NS));
    let mut text = format!("Latencies, {} \u{b7} {}, {length}\n", short(&found.of), utc(found.from_unix_ms));
    if found.instances.is_empty() {
        text.push_str("  nothing is stored of this\n");
        return text;
    }
    let _ = writeln!(text, "  {:>10} {:>9} {:>9} {:>9}  instance", "count", "p50", "p95", "p99");
    for instance in &found.instances {
        let mut sums = vec![0u64; found.bounds.len()];
        for counts in &instance.counts {
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
        }
        let all: u64 = sums.iter().sum();
        let [p50, p95, p99] = [50, 95, 99].map(|percent| within(&found.bounds, &sums, all, percent));
        let name = format!("{} {}", instance.instance, labels_shown(&instance.labels));
        let _ = writeln!(text, "  {all:>10} {p50:>9} {p95:>9} {p99:>9}  {}", short(&name));
    }
    more(&mut text, found.left_out, "");
    text
}

/// The bound that so many per cent are below.
fn within(bounds: &[Option<u64>], counts: &[u64], all: u64, percent: u64) -> String {
    let wanted = (u128::from(all) * u128::from(percent)).div_ceil(100);
    let mut sum = 0u128;
    let at = counts.iter().position(|count| {
        sum += u128::from(*count);
        sum >= wanted
    });
    match at.and_then(|at| bounds.get(at).copied().flatten()) {
        Some(bound) => units::duration(bound),
        None => {
            format!(">{}", units::duration(bounds.iter().rev().copied().flatten().next().unwrap_or_default()))
        }
    }
}

pub(super) fn retransmits(found: &retransmits::Retransmits) -> String {
    let length_ms = found.until_unix_ms.saturating_sub(found.from_unix_ms);
    let length = time::written(length_ms.saturating_mul(MS_NS));
    let mut text = format!("TCP segments sent again \u{b7} {}, {length}\n", utc(found.from_unix_ms));
    if found.peers.is_empty() && found.others == 0 {
        text.push_str("  nothing is stored of this\n");
        return text;
    }
    let _ = writeln!(text, "  {:>10}  {:<24} {:<24}", "segments", "local", "remote");
    for peer in &found.peers {
        let (local, remote) = (short(&peer.local), short(&peer.remote));
        let _ =
            writeln!(text, "  {:>10}  {local:<24} {remote:<24} {}", peer.count, labels_shown(&peer.labels));
    }
    if found.others > 0 {
        let _ = writeln!(text, "  {:>10}  to others", found.others);
    }
    text
}
