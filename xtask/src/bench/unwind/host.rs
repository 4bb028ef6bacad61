//! Completeness over all processes, and over those that lived short.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// Processes with a shorter life are short-lived.
const SHORT_MS: u64 = 1_000;
/// Programs told apart, those with the most samples first.
const NAMES: usize = 8;

/// User stacks by how they ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completeness {
    /// Samples with a user stack.
    pub samples: u64,
    complete: u64,
    incomplete: BTreeMap<String, u64>,
}

impl Completeness {
    /// Those of a whole profile.
    pub fn of_all(profile: &Value) -> Result<Self> {
        let stacks = &profile["coverage"]["user_stacks"];
        let number = |value: &Value| value.as_u64().context("the profile does not tell how stacks ended");
        let mut all = Self::default();
        all.add("complete", number(&stacks["complete"])?);
        all.add("truncated", number(&stacks["truncated"])?);
        for cause in stacks["incomplete"].as_array().into_iter().flatten() {
            all.add(cause["cause"].as_str().unwrap_or("?"), number(&cause["samples"])?);
        }
        Ok(all)
    }

    fn add(&mut self, outcome: &str, samples: u64) {
        match outcome {
            "absent" => return,
            "complete" => self.complete += samples,
            _ if samples > 0 => *self.incomplete.entry(outcome.to_owned()).or_default() += samples,
            _ => {}
        }
        self.samples += samples;
    }

    pub fn pct(&self) -> f64 {
        self.complete as f64 * 100.0 / self.samples.max(1) as f64
    }

    /// Why stacks are incomplete, the most frequent cause first.
    pub fn causes(&self) -> String {
        let mut causes: Vec<_> = self.incomplete.iter().collect();
        causes.sort_by_key(|(_, samples)| std::cmp::Reverse(**samples));
        causes.iter().map(|(cause, samples)| format!("{cause} {samples}")).collect::<Vec<_>>().join(", ")
    }
}

/// Parts of a profile's samples: short-lived processes, and programs by name.
pub fn parts(profile: &Value, old: &HashSet<u64>) -> Result<Vec<(String, Completeness)>> {
    let mut short = Completeness::default();
    let mut names: BTreeMap<&str, Completeness> = BTreeMap::new();
    for sample in profile["samples"].as_array().context("the profile has no samples")? {
        let outcome = outcome(profile, sample);
        let count = sample["count"].as_u64().unwrap_or(0);
        let thread = &profile["threads"][sample["thread"].as_u64().unwrap_or(0) as usize];
        if thread["pid"].as_u64().is_some_and(|pid| !old.contains(&pid)) {
            short.add(outcome, count);
        }
        names.entry(thread["process_name"].as_str().unwrap_or("?")).or_default().add(outcome, count);
    }
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by_key(|(_, part)| std::cmp::Reverse(part.samples));
    let short = (format!("that lived less than {SHORT_MS} ms"), short);
    let named = names.into_iter().take(NAMES).map(|(name, part)| (format!("`{name}`"), part));
    Ok([short].into_iter().chain(named).collect())
}

/// How a sample's user stack ended: where frames are missing, the outermost location says why.
fn outcome<'a>(profile: &'a Value, sample: &Value) -> &'a str {
    let at = |list: &str, index: &Value| &profile[list][index.as_u64().unwrap_or(u64::MAX) as usize];
    let stack = at("stacks", &sample["stack"]).as_array();
    let Some(outermost) = stack.and_then(|stack| stack.last()) else { return "absent" };
    let location = at("locations", outermost);
    if at("modules", &location["module"])["kind"] == "kernel" {
        return "absent";
    }
    let name = at("functions", &location["lines"][0]["function"])["name"].as_str();
    let cause = name.and_then(|name| name.strip_prefix("[incomplete: ")?.strip_suffix(']'));
    cause.unwrap_or("complete")
}

/// Watches which processes live long: those that are seen when they are older than [`SHORT_MS`].
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<HashSet<u64>>,
}

impl Watch {
    /// Starts watching.
    pub fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut old = HashSet::new();
            while !until.load(Ordering::Relaxed) {
                old.extend(old_processes());
                thread::sleep(Duration::from_millis(200));
            }
            old
        });
        Self { over, thread }
    }

    /// Process ids of those that lived long.
    pub fn finish(self) -> HashSet<u64> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Process ids of those that are older than [`SHORT_MS`].
fn old_processes() -> Vec<u64> {
    let up_s = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up_ms = up_s.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(0.0) * 1e3;
    let old = |entry: fs::DirEntry| {
        let pid: u64 = entry.file_name().to_str()?.parse().ok()?;
        let started_ms = started_ms(&fs::read_to_string(entry.path().join("stat")).ok()?)?;
        (up_ms - started_ms as f64 >= SHORT_MS as f64).then_some(pid)
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(old).collect()
}

/// When a process started, milliseconds after the machine, by its line in `/proc/PID/stat`. The kernel counts hundredths
/// of a second there.
fn started_ms(stat: &str) -> Option<u64> {
    // The name may hold anything; the field is the 22nd, and the name the second.
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').nth(19)?.parse::<u64>().ok()? * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn samples_are_told_apart_by_name_and_lifetime() {
        let profile = json!({
            "coverage": { "user_stacks": {
                "complete": 9, "truncated": 0, "absent": 4, "incomplete": [{ "cause": "no rule", "samples": 1 }],
            } },
            "threads": [{ "pid": 7, "process_name": "cc1" }, { "pid": 8, "process_name": "cargo" }],
            "modules": [{ "kind": "kernel" }, { "kind": "binary" }, { "kind": "unknown" }],
            "functions": [{ "name": "start" }, { "name": "[incomplete: no rule]" }],
            "locations": [
                { "module": 0, "lines": [] },
                { "module": 1, "lines": [{ "function": 0 }] },
                { "module": 2, "lines": [{ "function": 1 }] },
            ],
            "stacks": [[1], [1, 2], [0], []],
            "samples": [
                { "thread": 0, "count": 3, "stack": 0 },
                { "thread": 0, "count": 1, "stack": 1 },
                { "thread": 1, "count": 6, "stack": 0 },
                { "thread": 1, "count": 4, "stack": 2 },
                { "thread": 1, "count": 2, "stack": 3 },
            ],
        });
        let all = Completeness::of_all(&profile).unwrap();
        assert_eq!((all.samples, all.pct(), all.causes().as_str()), (10, 90.0, "no rule 1"));
        let parts = parts(&profile, &HashSet::from([8, 9])).unwrap();
        let shown: Vec<_> =
            parts.iter().map(|(name, part)| (name.as_str(), part.samples, part.pct())).collect();
        assert_eq!(
            shown,
            [("that lived less than 1000 ms", 4, 75.0), ("`cargo`", 6, 100.0), ("`cc1`", 4, 75.0)]
        );
    }

    #[test]
    fn a_process_is_old_after_its_start() {
        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 1234 5000 60 18446744073709551615";
        assert_eq!(started_ms(stat), Some(12_340));
        assert_eq!(started_ms("7 (a"), None);
        assert!(old_processes().contains(&1));
    }
}
