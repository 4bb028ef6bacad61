//! What the closing summary tells of run queues.

use std::fmt::{self, Write as _};

use chokepoint_analysis::names;
use chokepoint_analysis::run_queue::{Queue, RunQueue, Runner};
use chokepoint_analysis::units::duration;

use super::summary::Style;

/// Processes and groups listed.
const TOP_QUEUES: usize = 5;
/// Of each, who ran meanwhile.
const TOP_RUNNERS: usize = 3;
/// Quantiles shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// Says how long those that queued most were queued, and who ran meanwhile.
pub(super) fn render(text: &mut String, run_queue: &RunQueue, style: Style) -> fmt::Result {
    if run_queue.processes.is_empty() {
        return Ok(());
    }
    write!(text, "{}run queue", style.dim)?;
    for (name, _) in QUANTILES {
        write!(text, " {name:>8}")?;
    }
    writeln!(text, "      max    queued  process, and who ran meanwhile{}", style.reset)?;
    for queue in run_queue.processes.iter().take(TOP_QUEUES) {
        let who = format!("{} ({})", names::printable(&queue.name), queue.id);
        line(text, queue, &who, style)?;
    }
    // One group says nothing that its processes do not.
    if run_queue.cgroups.len() > 1 {
        for queue in run_queue.cgroups.iter().take(TOP_QUEUES) {
            line(text, queue, &format!("group {}", group(queue.id, &queue.name)), style)?;
        }
    }
    Ok(())
}

fn line(text: &mut String, queue: &Queue, who: &str, style: Style) -> fmt::Result {
    write!(text, "{:9}", queue.latencies.count())?;
    for (_, share) in QUANTILES {
        write!(text, " {:>8}", queue.latencies.quantile_ns(share).map_or_else(|| "-".to_owned(), duration))?;
    }
    let is_group = who.starts_with("group ");
    let behind: Vec<String> = queue
        .behind
        .iter()
        .take(TOP_RUNNERS)
        .map(|(runner, ns)| {
            let share = *ns as f64 * 100.0 / queue.queued_ns.max(1) as f64;
            match runner {
                Runner::One { id, name } if is_group => format!("{} {share:.0}%", group(*id, name)),
                Runner::One { id, name } => format!("{} ({id}) {share:.0}%", names::printable(name)),
                Runner::Idle => format!("idle CPU {share:.0}%"),
                Runner::Unknown => format!("unknown {share:.0}%"),
            }
        })
        .collect();
    writeln!(
        text,
        " {:>8} {:7.3} s  {}{who}{}: {}",
        duration(queue.latencies.max_ns),
        queue.queued_ns as f64 / 1e9,
        style.bold,
        style.reset,
        behind.join(", ")
    )
}

/// A group's path, or its number where that is not known.
fn group(id: u64, path: &str) -> String {
    if path.is_empty() { format!("[{id}]") } else { names::printable(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_analysis::durations::{Bucket, Durations};

    #[test]
    fn names_that_processes_chose_cannot_move_the_cursor() {
        let queue = Queue {
            id: 42,
            name: "a\u{1b}[2Jb".to_owned(),
            queued_ns: 2_000_000,
            latencies: Durations {
                buckets: vec![Bucket { from_ns: 1_000, to_ns: 1_500, count: 4 }],
                max_ns: 1_400,
            },
            behind: vec![
                (Runner::One { id: 7, name: "h\u{1b}og".to_owned() }, 1_500_000),
                (Runner::Idle, 500_000),
            ],
        };
        let run_queue = RunQueue { processes: vec![queue], cgroups: Vec::new() };
        let mut text = String::new();
        render(&mut text, &run_queue, Style { bold: "", warn: "", dim: "", reset: "" }).unwrap();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let line = text.lines().nth(1).unwrap();
        assert!(line.starts_with("        4   1.4 µs   1.4 µs"), "{line}");
        assert!(line.contains("0.002 s") && line.contains("(7) 75%, idle CPU 25%"), "{line}");
    }
}
