//! The functions that a profile's weight goes to.

use std::collections::HashMap;

use crate::frames::Frames;
use crate::names;
use crate::profile::Profile;

/// What one function's samples add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTotals {
    /// The function; where there is no symbol, its module and address. Safe to print.
    pub name: String,
    /// File that holds its code, without the directory; empty where there is none. Safe to print.
    pub module: String,
    /// Samples in the function itself, or in what has no frame of its own.
    pub self_count: u64,
    /// What these stand for, in the profile's unit.
    pub self_weight: u64,
    /// Samples in the function or in what it called; one that calls itself counts once.
    pub total_count: u64,
    /// What these stand for, in the profile's unit.
    pub total_weight: u64,
}

/// The totals of every function, the largest weight of its own first. Inlined functions count as functions, so a
/// sample's own function is the innermost one inlined at its leaf. The sums over all `self_*` are the profile's totals.
#[must_use]
pub fn functions(profile: &Profile) -> Vec<FunctionTotals> {
    let frames = Frames::new(profile);
    // Several frames are one function: the same name in two source files, or in two copies of a library.
    let mut functions: Vec<FunctionTotals> = Vec::new();
    let mut positions = HashMap::new();
    let function_of_frame: Vec<usize> = frames
        .entries()
        .iter()
        .map(|frame| {
            let module = frame.module.map_or("", |module| profile.module(module).short_name());
            let key = (frame.name.clone(), names::printable(module));
            *positions.entry(key).or_insert_with_key(|(name, module)| {
                functions.push(FunctionTotals {
                    name: name.clone(),
                    module: module.clone(),
                    self_count: 0,
                    self_weight: 0,
                    total_count: 0,
                    total_weight: 0,
                });
                functions.len() - 1
            })
        })
        .collect();

    let mut in_stack = Vec::new();
    for sample in &profile.samples {
        in_stack.clear();
        in_stack.extend(frames.root_first(profile.stack(sample.stack)).map(|frame| function_of_frame[frame]));
        if let Some(&leaf) = in_stack.last() {
            functions[leaf].self_count += sample.count;
            functions[leaf].self_weight += sample.weight;
        }
        in_stack.sort_unstable();
        in_stack.dedup();
        for &function in &in_stack {
            functions[function].total_count += sample.count;
            functions[function].total_weight += sample.weight;
        }
    }
    // Time may be known without a sample.
    functions.retain(|function| function.total_count > 0 || function.total_weight > 0);
    functions.sort_by(|a, b| {
        (b.self_weight, b.total_weight)
            .cmp(&(a.self_weight, a.total_weight))
            .then_with(|| (&a.name, &a.module).cmp(&(&b.name, &b.module)))
    });
    functions
}
