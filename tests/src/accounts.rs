//! Profiles of threads' time, and what must hold of each.

use std::collections::BTreeMap;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::thread_time::ThreadTime;

use crate::in_vm;
use crate::stacks::functions;

/// Of a thread's time, what must be accounted for.
const ADDS_UP: f64 = 0.005;

/// Seconds of a recording.
#[must_use]
pub fn window() -> &'static str {
    if in_vm() { "6" } else { "3" }
}

/// Weight of a process's samples that have this function, by class.
#[must_use]
pub fn classes_of(profile: &Profile, function: &str) -> BTreeMap<Class, u64> {
    let mut classes = BTreeMap::new();
    for sample in &profile.samples {
        let names = functions(profile, sample);
        if function.is_empty() || names.contains(&function) {
            let class = names.iter().find_map(|name| Class::from_frame(name));
            *classes.entry(class.unwrap_or_else(|| panic!("no class in {names:?}"))).or_default() +=
                sample.weight;
        }
    }
    classes
}

/// Share of all that a class has.
#[must_use]
pub fn share(classes: &BTreeMap<Class, u64>, class: Class) -> f64 {
    classes.get(&class).copied().unwrap_or_default() as f64 / classes.values().sum::<u64>().max(1) as f64
}

/// The times of the only thread of this name.
///
/// # Panics
/// Where there is none, or another.
#[must_use]
pub fn thread<'a>(profile: &'a Profile, name: &str) -> &'a ThreadTime {
    let threads: Vec<_> = profile.thread_times.iter().filter(|thread| thread.thread_name == name).collect();
    assert_eq!(threads.len(), 1, "threads named {name}: {threads:?}");
    threads[0]
}

/// Each thread's parts are its life, and the samples' weights are the threads' lives.
pub fn adds_up(profile: &Profile) {
    assert!(!profile.thread_times.is_empty());
    for thread in &profile.thread_times {
        let (total, elapsed) = (thread.parts.total_ns() as f64, thread.elapsed_ns as f64);
        assert!((total - elapsed).abs() <= ADDS_UP * elapsed, "{thread:?}");
    }
    let elapsed: u64 = profile.thread_times.iter().map(|thread| thread.elapsed_ns).sum();
    let weight = profile.total_weight();
    assert!(
        (weight as f64 - elapsed as f64).abs() <= ADDS_UP * elapsed as f64,
        "{weight} ns in samples, {elapsed} ns lived: {:#?}",
        told_otherwise(profile)
    );
}

/// Threads of which samples tell something else than their times: what either says.
fn told_otherwise(profile: &Profile) -> Vec<String> {
    let mut told: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
    for sample in &profile.samples {
        let thread = profile.thread(sample.thread);
        told.entry((thread.pid, thread.tid)).or_default().0 += sample.weight;
    }
    for time in &profile.thread_times {
        told.entry((time.pid, time.tid)).or_default().1 += time.elapsed_ns;
    }
    told.retain(|_, (sampled, lived)| (*sampled as f64 - *lived as f64).abs() > ADDS_UP * *lived as f64);
    let name = |tid| {
        let sampled = profile.threads.iter().find(|thread| thread.tid == tid);
        sampled.map(|thread| format!("{} {}", thread.process_name, thread.thread_name))
    };
    let line = |((pid, tid), (sampled, lived))| {
        let time = profile.thread_times.iter().find(|time| time.tid == tid);
        format!("{pid} {tid} {:?}: {sampled} ns in samples, {lived} ns lived, {time:?}", name(tid))
    };
    told.into_iter().map(line).collect()
}
