//! Questions to a profile.

use std::collections::BTreeSet;

use chokepoint_analysis::profile::{Profile, Sample};

/// A sample's functions, the root first; inlined ones included, `?` where a location has no symbol.
#[must_use]
pub fn functions<'a>(profile: &'a Profile, sample: &Sample) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for location in profile.stack(sample.stack) {
        let lines = &profile.location(*location).lines;
        if lines.is_empty() {
            names.push("?");
        }
        names.extend(lines.iter().map(|line| profile.function(line.function).name.as_str()));
    }
    names.reverse();
    names
}

/// Weight of the samples whose stacks satisfy a condition.
#[must_use]
pub fn weight_where(profile: &Profile, mut condition: impl FnMut(&[&str]) -> bool) -> u64 {
    profile
        .samples
        .iter()
        .filter(|sample| condition(&functions(profile, sample)))
        .map(|sample| sample.weight)
        .sum()
}

/// Share of the profile's weight in samples with a function whose name contains `part`.
#[must_use]
pub fn share_with(profile: &Profile, part: &str) -> f64 {
    let with = weight_where(profile, |names| names.iter().any(|name| name.contains(part)));
    with as f64 / profile.total_weight().max(1) as f64
}

/// Process ids that were sampled.
#[must_use]
pub fn pids(profile: &Profile) -> BTreeSet<u32> {
    profile.samples.iter().map(|sample| profile.thread(sample.thread).pid).collect()
}

/// Process names that were sampled.
#[must_use]
pub fn process_names(profile: &Profile) -> BTreeSet<&str> {
    profile.samples.iter().map(|sample| profile.thread(sample.thread).process_name.as_str()).collect()
}
