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

/// What a process does half of its time, until its mappings change.
struct Half {
    /// Functions that only this half enters.
    own: [&'static str; 2],
    /// Where it spends its time, outermost first.
    chain: &'static [&'static str],
}

/// No stack has functions of both halves, and every complete stack that ends where a half spends its time is exactly its chain.
/// Both halves are seen; they take about the same time.
fn prove(recorded: &Recorded, halves: [Half; 2]) {
    let profile = &recorded.profile;
    let mut seen = [0; 2];
    let mut wrong = Vec::new();
    for sample in &profile.samples {
        let names = functions(profile, sample);
        let [one, two] = [0, 1].map(|half: usize| names.iter().any(|name| halves[half].own.contains(name)));
        let (half, seen) = if two { (&halves[1], &mut seen[1]) } else { (&halves[0], &mut seen[0]) };
        if one && two {
            wrong.push(names.join(" "));
        } else if (one || two) && names.last() == half.chain.last() && !names[0].starts_with(INCOMPLETE) {
            *seen += sample.count;
            let start = names.iter().position(|name| *name == "main").unwrap_or(0);
            if names[start..] != *half.chain {
                wrong.push(names.join(" "));
            }
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

const ONE: [&str; 2] = ["calls_one", "spin_one"];
const TWO: [&str; 2] = ["calls_two", "spin_two"];

#[test]
fn libraries_that_take_each_others_place() {
    let _live = live();
    let libraries = ["remap_one_c", "remap_two_c"].map(path);
    let workload = Workload::start_program(Command::new(path("remap_c")).arg("libraries").args(&libraries));
    prove(
        &record_workload(&workload),
        [
            Half { own: ONE, chain: &["main", "load", "calls_one", "work", "spin_one"] },
            Half { own: TWO, chain: &["main", "load", "calls_two", "work", "spin_two"] },
        ],
    );
}

#[test]
fn programs_that_replace_each_other() {
    let _live = live();
    let workload = Workload::start("remap_c", &["exec", "one"]);
    prove(
        &record_workload(&workload),
        [
            Half { own: ONE, chain: &["main", "calls_one", "spin_one", "burn"] },
            Half { own: TWO, chain: &["main", "calls_two", "spin_two", "burn"] },
        ],
    );
}
