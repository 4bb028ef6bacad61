//! Processes whose mappings change while they are sampled: what the kernel programs remember of them must not outlive the
//! change.

use std::process::Command;

use chokepoint_analysis::profile::{ModuleKind, Profile, Sample};
use chokepoint_tests::chains::INCOMPLETE;
use chokepoint_tests::unwinding::{Recorded, record};
use chokepoint_tests::workload::path;
use chokepoint_tests::{Workload, in_vm, live};

/// Names of a sample's user functions, outermost first.
fn functions<'a>(profile: &'a Profile, sample: &Sample) -> Vec<&'a str> {
    let locations = profile.stack(sample.stack).iter().map(|id| profile.location(*id));
    let mut names: Vec<_> = locations
        .filter(|location| profile.module(location.module).kind != ModuleKind::Kernel)
        .flat_map(|location| &location.lines)
        .map(|line| profile.function(line.function).name.as_str())
        .collect();
    names.reverse();
    names
}

/// What a process does half of its time, until its mappings change: functions that only this half enters, except `main`, `load` and
/// `work`, each called by the one before. It spends its time in the last.
type Half = &'static [&'static str];

fn is_shared(function: &str) -> bool {
    ["main", "load", "work"].contains(&function)
}

/// A stack that has a function of a half goes down that half's chain and no further; what has called `main`, and what `load`
/// calls, is not the program's. Both halves are seen; they take about the same time.
fn prove(recorded: &Recorded, halves: [Half; 2]) {
    let profile = &recorded.profile;
    let mut seen = [0; 2];
    let mut wrong = Vec::new();
    for sample in &profile.samples {
        let names = functions(profile, sample);
        let has = |half: Half| names.iter().any(|name| half.contains(name) && !is_shared(name));
        let Some(half) = halves.iter().position(|half| has(half)) else { continue };
        let start = names.iter().position(|name| *name == "main").unwrap_or(0);
        let is_whole = !names[0].starts_with(INCOMPLETE);
        if has(halves[1 - half]) || (is_whole && !halves[half].starts_with(&names[start..])) {
            wrong.push(names.join(" "));
        } else if names.last() == halves[half].last() {
            seen[half] += sample.count;
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "impossible stacks:\n{}", wrong.join("\n"));
    let samples = recorded.outcomes.samples();
    // Loading, unloading and execve take the rest, which under emulation is most of the time.
    let least = samples / if in_vm() { 50 } else { 5 };
    assert!(seen.iter().all(|seen| *seen > least), "{seen:?} of {samples}: {}", recorded.outcomes);
    // A sample in the midst of a change may find no mapping.
    assert!(recorded.outcomes.complete_pct() > 90.0, "{}", recorded.outcomes);
}

/// Records a process. Under emulation, building the tables of what it maps may take all of the first window.
fn record_workload(workload: &Workload) -> Recorded {
    let pid = workload.pid().to_string();
    if in_vm() {
        let _ = record(&["--pid", &pid]);
    }
    record(&["--pid", &pid])
}

#[test]
fn libraries_that_take_each_others_place() {
    let _live = live();
    let libraries = ["remap_one_c", "remap_two_c"].map(path);
    let workload = Workload::start_program(Command::new(path("remap_c")).args(&libraries));
    let halves: [Half; 2] = [
        &["main", "load", "calls_one", "work", "spin_one"],
        &["main", "load", "calls_two", "work", "spin_two"],
    ];
    prove(&record_workload(&workload), halves);
}

#[test]
fn programs_that_replace_each_other() {
    let _live = live();
    let workload = Workload::start_program(Command::new(path("replace_one_c")).arg(path("replace_two_c")));
    let halves: [Half; 2] =
        [&["main", "calls_one", "spin_one", "burn_one"], &["main", "calls_two", "spin_two", "burn_two"]];
    prove(&record_workload(&workload), halves);
}
