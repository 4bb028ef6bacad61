//! Reads the files of control groups, of version 2 and of version 1, below every hierarchy that is mounted.

use std::collections::BTreeMap;
use std::path::Path;

use chokepoint_analysis::signals::reading::{Group, Pressure};

use super::read_text;
use super::text::{counters, pressure};
use crate::host::cgroups::{Hierarchy, Step};

/// Groups of each hierarchy that are read. A node full of pods has some hundred.
const MAX_GROUPS: usize = 2_000;
/// Version 1 says "no limit" by a number near the largest.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Every group but the roots, which are the host. What is too much is told in `missing`.
pub fn read(hierarchies: &[Hierarchy], missing: &mut Vec<String>) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    for hierarchy in hierarchies {
        let reads: Vec<fn(&Path, &mut Group)> = if hierarchy.is_version_1() {
            hierarchy.options().filter_map(reader_v1).collect()
        } else {
            vec![read_v2]
        };
        if reads.is_empty() {
            continue;
        }
        let mut seen = 0;
        hierarchy.walk(|directory| {
            if directory == hierarchy.root() {
                return Step::Into;
            }
            seen += 1;
            if seen > MAX_GROUPS {
                let root = hierarchy.root().display();
                missing.push(format!("groups below {root} beyond the first {MAX_GROUPS}"));
                return Step::End;
            }
            let group = groups.entry(hierarchy.path_of(directory)).or_default();
            for read in &reads {
                read(directory, group);
            }
            Step::Into
        });
    }
    // A hierarchy without controllers has nothing to tell.
    groups.retain(|_, group| *group != Group::default());
    groups
}

fn number(directory: &Path, file: &str) -> Option<u64> {
    read_text(&directory.join(file))?.trim().parse().ok()
}

fn numbers(directory: &Path, file: &str) -> BTreeMap<String, u64> {
    read_text(&directory.join(file)).map(|text| counters(&text)).unwrap_or_default()
}

fn sum(counters: &BTreeMap<String, u64>, names: &[&str]) -> Option<u64> {
    names.iter().filter_map(|name| counters.get(*name)).copied().reduce(|a, b| a + b)
}

fn read_v2(directory: &Path, group: &mut Group) {
    let cpu = numbers(directory, "cpu.stat");
    group.cpu_us = cpu.get("usage_usec").copied();
    group.periods = cpu.get("nr_periods").copied();
    group.throttled_periods = cpu.get("nr_throttled").copied();
    group.throttled_us = cpu.get("throttled_usec").copied();
    group.cpu_quota_us_per_s = read_text(&directory.join("cpu.max")).and_then(|text| quota_v2(&text));
    let memory = numbers(directory, "memory.stat");
    let inactive = memory.get("inactive_file").copied().unwrap_or_default();
    group.memory_bytes = number(directory, "memory.current").map(|bytes| bytes.saturating_sub(inactive));
    // `max` is no number: there is no limit.
    group.memory_max_bytes = number(directory, "memory.max");
    group.refaults =
        sum(&memory, &["workingset_refault_anon", "workingset_refault_file", "workingset_refault"]);
    let events = numbers(directory, "memory.events");
    group.memory_limit_hits = events.get("max").copied();
    group.oom_kills = events.get("oom_kill").copied();
    read_threads(directory, group);
    let pressure_of =
        |file: &str| read_text(&directory.join(file)).map(|text| pressure(&text)).unwrap_or_default();
    let [(cpu_some, cpu_full), (memory_some, memory_full), (io_some, io_full)] =
        ["cpu.pressure", "memory.pressure", "io.pressure"].map(pressure_of);
    group.pressure = Pressure { cpu_some, cpu_full, memory_some, memory_full, io_some, io_full };
}

/// `MICROSECONDS PERIOD` as microseconds a second; `None` of `max`.
fn quota_v2(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    per_second(quota.parse().ok()?, period.parse().ok()?)
}

fn per_second(quota_us: u64, period_us: u64) -> Option<u64> {
    quota_us.checked_mul(1_000_000)?.checked_div(period_us)
}

/// What reads a controller's files.
fn reader_v1(controller: &str) -> Option<fn(&Path, &mut Group)> {
    match controller {
        "cpu" => Some(|directory, group| {
            let cpu = numbers(directory, "cpu.stat");
            group.periods = cpu.get("nr_periods").copied();
            group.throttled_periods = cpu.get("nr_throttled").copied();
            group.throttled_us = cpu.get("throttled_time").map(|ns| ns / 1_000);
            // -1 is no such number: there is no limit.
            let quota = number(directory, "cpu.cfs_quota_us").zip(number(directory, "cpu.cfs_period_us"));
            group.cpu_quota_us_per_s = quota.and_then(|(quota, period)| per_second(quota, period));
        }),
        "cpuacct" => Some(|directory, group| {
            group.cpu_us = number(directory, "cpuacct.usage").map(|ns| ns / 1_000);
        }),
        "memory" => Some(|directory, group| {
            let memory = numbers(directory, "memory.stat");
            let inactive = memory.get("total_inactive_file").copied().unwrap_or_default();
            group.memory_bytes =
                number(directory, "memory.usage_in_bytes").map(|bytes| bytes.saturating_sub(inactive));
            group.memory_max_bytes =
                number(directory, "memory.limit_in_bytes").filter(|bytes| *bytes < NO_LIMIT_BYTES);
            group.memory_limit_hits = number(directory, "memory.failcnt");
            group.oom_kills = numbers(directory, "memory.oom_control").get("oom_kill").copied();
            group.refaults =
                sum(&memory, &["total_workingset_refault_anon", "total_workingset_refault_file"]);
        }),
        "pids" => Some(read_threads),
        _ => None,
    }
}

fn read_threads(directory: &Path, group: &mut Group) {
    group.threads = number(directory, "pids.current");
    group.threads_max = number(directory, "pids.max");
    group.fork_failures = numbers(directory, "pids.events").get("max").copied();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2() {
        let root = tree(&[
            ("cpu.stat", "usage_usec 1\n"),
            ("pod/cpu.stat", "usage_usec 500\nnr_periods 10\nnr_throttled 4\nthrottled_usec 77\n"),
            ("pod/cpu.max", "20000 100000\n"),
            ("pod/memory.current", "1000\n"),
            (
                "pod/memory.stat",
                "anon 1\ninactive_file 300\nworkingset_refault_file 2\nworkingset_refault_anon 3\n",
            ),
            ("pod/memory.max", "max\n"),
            ("pod/memory.events", "low 0\nmax 6\noom_kill 1\n"),
            ("pod/pids.current", "7\n"),
            ("pod/pids.max", "max\n"),
            ("pod/cpu.pressure", "some avg10=0 total=5\nfull avg10=0 total=4\n"),
            ("empty/x", ""),
        ]);
        let hierarchy = Hierarchy::version_2_at(root.path());
        let mut missing = Vec::new();
        let groups = read(&[hierarchy], &mut missing);
        assert_eq!((groups.len(), missing.len()), (1, 0), "{groups:?}");
        let expected = Group {
            cpu_us: Some(500),
            cpu_quota_us_per_s: Some(200_000),
            periods: Some(10),
            throttled_periods: Some(4),
            throttled_us: Some(77),
            memory_bytes: Some(700),
            memory_limit_hits: Some(6),
            oom_kills: Some(1),
            refaults: Some(5),
            threads: Some(7),
            pressure: Pressure { cpu_some: Some(5), cpu_full: Some(4), ..Pressure::default() },
            ..Group::default()
        };
        assert_eq!(groups["/pod"], expected);
    }

    #[test]
    fn version_1_adds_up_over_its_hierarchies() {
        let root = tree(&[
            ("cpu/a/b/cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 77000\n"),
            ("cpu/a/b/cpu.cfs_quota_us", "-1\n"),
            ("cpu/a/b/cpu.cfs_period_us", "100000\n"),
            ("cpu/a/b/cpuacct.usage", "5000\n"),
            ("memory/a/b/memory.usage_in_bytes", "1000\n"),
            ("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/b/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ]);
        let hierarchy = |name: &str, options| Hierarchy::version_1_at(&root.path().join(name), options);
        let hierarchies =
            [hierarchy("cpu", &["rw", "cpu", "cpuacct"]), hierarchy("memory", &["rw", "memory"])];
        let groups = read(&hierarchies, &mut Vec::new());
        let expected = Group {
            cpu_us: Some(5),
            periods: Some(10),
            throttled_periods: Some(4),
            throttled_us: Some(77),
            memory_bytes: Some(1000),
            oom_kills: Some(2),
            ..Group::default()
        };
        assert_eq!(groups["/a/b"], expected);
    }

    #[test]
    fn a_quota_of_no_period_is_none() {
        assert_eq!(quota_v2("max 100000\n"), None);
        assert_eq!(quota_v2("1000 0\n"), None);
        assert_eq!(quota_v2("150000 100000"), Some(1_500_000));
    }
}
