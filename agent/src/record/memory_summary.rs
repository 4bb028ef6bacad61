//! What `record` tells of memory: the processes that had most faults and reclaims, and those that were killed.

use std::cmp::Reverse;
use std::fmt::Write as _;

use chokepoint_analysis::memory::{Kill, Memory, ProcessMemory};
use chokepoint_analysis::names;
use chokepoint_analysis::units::duration;

use super::event::Event;
use super::summary::Style;
use crate::memory::describe;

/// Processes listed.
const TOP_PROCESSES: usize = 10;
/// Kills listed.
const TOP_KILLS: usize = 10;

/// Writes the table of an event. What it shows comes first: the processes with most major and then most minor faults, or those
/// that reclaimed for the longest time.
pub(super) fn write(text: &mut String, event: Event, memory: &Memory, style: Style) -> std::fmt::Result {
    let faults = event == Event::Fault;
    let Style { dim, reset, .. } = style;
    if faults {
        writeln!(
            text,
            "{dim}      major       minor    waited  reclaims      time  process and group{reset}"
        )?;
    } else {
        writeln!(
            text,
            "{dim}  reclaims      time      pages       p50       p95       p99       max  process and group{reset}"
        )?;
    }
    let mut processes: Vec<&ProcessMemory> = memory
        .processes
        .iter()
        .filter(|process| if faults { true } else { process.reclaim.count + process.compactions > 0 })
        .collect();
    processes.sort_by_key(|process| {
        let reclaim_ns = Reverse(process.reclaim.total_ns);
        let by_faults = (Reverse(process.major_faults), Reverse(process.minor_faults), reclaim_ns);
        let by_reclaim = (reclaim_ns, Reverse(process.reclaim.count), Reverse(process.compactions));
        if faults { by_faults } else { by_reclaim }
    });
    for process in processes.iter().take(TOP_PROCESSES) {
        writeln!(text, "{}", row(faults, process, style))?;
    }
    let mut total = ProcessMemory::default();
    for process in &processes {
        total.minor_faults += process.minor_faults;
        total.major_faults += process.major_faults;
        total.reclaim.count += process.reclaim.count;
        total.reclaim.total_ns += process.reclaim.total_ns;
        total.reclaim.pages += process.reclaim.pages;
        total.compactions += process.compactions;
        if let Some(wait_ns) = process.fault_wait_ns {
            *total.fault_wait_ns.get_or_insert_default() += wait_ns;
        }
    }
    let numbers = numbers(faults, &total);
    let background = match memory.kswapd_runs {
        0 => String::new(),
        runs => format!("; the kernel's own reclaim ran {runs} times"),
    };
    let compactions = match total.compactions {
        0 => String::new(),
        times => format!("; they compacted memory {times} times"),
    };
    let processes = match processes.len() {
        1 => "1 process".to_owned(),
        several => format!("{several} processes"),
    };
    writeln!(text, "{dim}{numbers}  of {processes}{compactions}{background}{reset}")?;
    memory.kills.iter().take(TOP_KILLS).try_for_each(|kill| writeln!(text, "{}", killed(kill, style)))?;
    match memory.kills.len().checked_sub(TOP_KILLS) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(text, "  and {more} more were killed"),
    }
}

fn row(faults: bool, process: &ProcessMemory, style: Style) -> String {
    let name = names::printable(&process.process_name);
    let Style { bold, reset, .. } = style;
    format!(
        "{}  {bold}{name}{reset} ({}) in {}",
        numbers(faults, process),
        process.pid,
        names::printable(&describe(&process.group))
    )
}

fn numbers(faults: bool, process: &ProcessMemory) -> String {
    let reclaim = &process.reclaim;
    let time = some_duration(reclaim.total_ns);
    if faults {
        let waited = process.fault_wait_ns.map_or_else(|| "-".to_owned(), duration);
        let (major, minor) = (process.major_faults, process.minor_faults);
        return format!("{major:11} {minor:11} {waited:>9} {:9} {time:>9}", reclaim.count);
    }
    let [p50, p95, p99, max] =
        [reclaim.p50_ns, reclaim.p95_ns, reclaim.p99_ns, reclaim.max_ns].map(some_duration);
    let (count, pages) = (reclaim.count, reclaim.pages);
    format!("{count:10} {time:>9} {pages:10} {p50:>9} {p95:>9} {p99:>9} {max:>9}")
}

fn killed(kill: &Kill, style: Style) -> String {
    let Style { warn, reset, .. } = style;
    let name = match kill.process_name.as_str() {
        "" => "a process",
        name => name,
    };
    let mut line = format!(
        "  {warn}killed for want of memory:{reset} {} ({}) in {} after {:.1} s",
        names::printable(name),
        kill.pid,
        names::printable(&describe(&kill.group)),
        kill.offset_ns as f64 / 1e9
    );
    let parts =
        [(kill.anonymous_bytes, "anonymous"), (kill.file_bytes, "of files"), (kill.shared_bytes, "shared")];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(bytes, of)| Some(format!("{:.1} MB {of}", bytes? as f64 / 1e6)))
        .collect();
    if !parts.is_empty() {
        line.push_str(&format!(", with {}", parts.join(", ")));
    }
    if kill.by_pid != kill.pid {
        line.push_str(&format!("; {} ({}) asked for more", names::printable(&kill.by_name), kill.by_pid));
    }
    line
}

fn some_duration(ns: u64) -> String {
    if ns == 0 { "-".to_owned() } else { duration(ns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_analysis::memory::{Group, Reclaim};

    fn memory() -> Memory {
        let group = Group { id: 7, path: "/batch".to_owned() };
        let reclaim = Reclaim {
            count: 40,
            total_ns: 52_300_000,
            pages: 1_280,
            p50_ns: 900_000,
            p95_ns: 2_000_000,
            p99_ns: 3_000_000,
            max_ns: 1_250_000_000,
        };
        let process = |pid, major_faults, reclaim| ProcessMemory {
            pid,
            process_name: format!("p{pid}\u{1b}"),
            group: group.clone(),
            minor_faults: 10,
            major_faults,
            reclaim,
            ..ProcessMemory::default()
        };
        Memory {
            processes: vec![process(1, 0, Reclaim::default()), process(2, 5, reclaim)],
            kills: vec![Kill {
                offset_ns: 1_500_000_000,
                pid: 2,
                process_name: "p2".to_owned(),
                group: Group { id: 9, path: String::new() },
                anonymous_bytes: Some(12_000_000),
                by_pid: 1,
                by_name: "p1".to_owned(),
                ..Kill::default()
            }],
            kswapd_runs: 3,
        }
    }

    #[test]
    fn what_the_event_shows_comes_first() {
        let mut text = String::new();
        write(&mut text, Event::Fault, &memory(), Style::PLAIN).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("p2? (2) in /batch"), "{text}");
        assert_eq!(
            lines[3].split_ascii_whitespace().take(6).collect::<Vec<_>>(),
            ["5", "20", "-", "40", "52.3", "ms"]
        );
        assert!(lines[3].ends_with("of 2 processes; the kernel's own reclaim ran 3 times"), "{text}");
        assert_eq!(
            lines[4],
            "  killed for want of memory: p2 (2) in group 9, which is gone after 1.5 s, with 12.0 MB anonymous; p1 (1) asked for more"
        );
    }

    #[test]
    fn of_reclaim_only_those_that_did_are_told() {
        let mut text = String::new();
        write(&mut text, Event::Reclaim, &memory(), Style::PLAIN).unwrap();
        assert!(!text.contains("(1) in"), "{text}");
        assert!(text.contains("40   52.3 ms       1280  900.0 µs    2.0 ms    3.0 ms    1.25 s"), "{text}");
    }
}
