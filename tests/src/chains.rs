//! Compares stacks with chains of calls that are known beforehand.

use std::collections::BTreeMap;
use std::fmt::Write;

use chokepoint_analysis::profile::{ModuleKind, Profile, Sample};

/// In a chain, one frame outside of the workload's own code, whose name is nobody's promise.
pub const ELSEWHERE: &str = "~";
/// In a chain, one or more such frames.
pub const SOMEWHERE: &str = "~+";

/// What stubs are called through which a binary calls functions of others.
pub const LINKAGE: &str = "[plt]";

pub use chokepoint_analysis::names::INCOMPLETE;

/// What is known of a workload's stacks.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// Name of the workload's own binary.
    pub binary: &'static str,
    /// Functions in it whose names begin so belong to a runtime, and count as frames elsewhere.
    pub runtime: &'static [&'static str],
    /// The outermost function that the chains begin with. Below it lies only what started it.
    pub from: &'static str,
    /// Functions that a runtime goes to by writing their address and registers over its own frame's. While it does, a stack
    /// that is in the runtime may begin with one of them: what it says of their callers is not true yet, or no more.
    pub installed: &'static [&'static str],
    /// Frames below that function, at most; there is at least one, but for a runtime that has none.
    pub below: usize,
    /// Functions that run nearly all of the time: a stack that ends in one of them is exactly one of the chains.
    pub leaves: &'static [&'static str],
    /// All stacks are one of these or the beginning of one; there, calls into libraries may follow.
    pub chains: &'static [&'static [&'static str]],
}

impl Truth {
    fn is_runtime(&self, name: &str) -> bool {
        name != self.from && self.runtime.iter().any(|prefix| name.starts_with(prefix))
    }
}

/// How the stacks that are said to be complete compare with the truth.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Samples with such a stack.
    pub samples: u64,
    /// Samples in which the chains' outermost function is.
    pub in_chains: u64,
    /// Samples that end in one of the leaves.
    pub in_leaves: u64,
    /// Samples that contradict the truth, by their stacks, outermost function first.
    pub wrong: BTreeMap<String, u64>,
}

impl Comparison {
    /// Samples that contradict the truth.
    #[must_use]
    pub fn wrong_samples(&self) -> u64 {
        self.wrong.values().sum()
    }

    /// The wrong stacks that are seen most often, for messages.
    #[must_use]
    pub fn worst(&self) -> String {
        let mut wrong: Vec<_> = self.wrong.iter().collect();
        wrong.sort_by_key(|(_, samples)| std::cmp::Reverse(**samples));
        wrong.iter().take(6).fold(String::new(), |mut text, (stack, samples)| {
            let _ = write!(text, "\n  {samples:5} {stack}");
            text
        })
    }
}

/// A sample's user frames, outermost first: the function's name, `?` where it has none, and [`ELSEWHERE`] outside of
/// the workload's own code. [`INCOMPLETE`] comes first where the outermost ones are missing.
#[must_use]
pub fn frames<'a>(profile: &'a Profile, sample: &Sample, truth: &Truth) -> Vec<&'a str> {
    let mut names = Vec::new();
    for location in profile.stack(sample.stack) {
        let location = profile.location(*location);
        let module = profile.module(location.module);
        if module.kind == ModuleKind::Kernel {
            continue;
        }
        if let Some(line) = location.lines.first()
            && profile.function(line.function).name.starts_with(INCOMPLETE)
        {
            names.push(INCOMPLETE);
            continue;
        }
        if module.path.rsplit('/').next() != Some(truth.binary) {
            names.push(ELSEWHERE);
        } else if location.lines.is_empty() {
            // A runtime in the binary itself has code without names.
            names.push(if truth.runtime.is_empty() { "?" } else { ELSEWHERE });
        } else {
            let functions = location.lines.iter().map(|line| profile.function(line.function).name.as_str());
            // Compilers put parts of a function elsewhere.
            let functions = functions.map(|name| name.strip_suffix(".cold").unwrap_or(name));
            names.extend(functions.map(|name| if truth.is_runtime(name) { ELSEWHERE } else { name }));
        }
    }
    names.reverse();
    names
}

/// Compares every sample of a profile whose stack is not said to be incomplete.
#[must_use]
pub fn compare(profile: &Profile, truth: &Truth) -> Comparison {
    let mut comparison = Comparison::default();
    for sample in &profile.samples {
        let frames = frames(profile, sample, truth);
        // Those are counted already.
        if frames.first() == Some(&INCOMPLETE) {
            continue;
        }
        comparison.samples += sample.count;
        if frames.contains(&truth.from) {
            comparison.in_chains += sample.count;
        }
        if frames.last().is_some_and(|leaf| truth.leaves.contains(leaf)) {
            comparison.in_leaves += sample.count;
        }
        if !agrees(&frames, truth) {
            *comparison.wrong.entry(frames.join(" ")).or_default() += sample.count;
        }
    }
    comparison
}

/// Whether a stack is possible.
fn agrees(frames: &[&str], truth: &Truth) -> bool {
    let Some(start) = frames.iter().position(|name| *name == truth.from) else {
        // Before the chain begins, and after it ends.
        let is_installed = |frames: &[&str]| match frames {
            [first, rest @ ..] => {
                truth.installed.contains(first)
                    && !rest.is_empty()
                    && rest.iter().all(|name| *name == ELSEWHERE)
            }
            [] => false,
        };
        return frames.last().is_none_or(|leaf| !truth.leaves.contains(leaf))
            && (frames.iter().all(|name| !is_in_chain(name, truth)) || is_installed(frames));
    };
    let chain = &frames[start..];
    if start > truth.below || (start == 0 && truth.below > 0) {
        return false;
    }
    let in_leaf = chain.last().is_some_and(|leaf| truth.leaves.contains(leaf));
    truth.chains.iter().any(|expected| if in_leaf { is(chain, expected) } else { begins(chain, expected) })
}

fn is_in_chain(name: &str, truth: &Truth) -> bool {
    name != ELSEWHERE && truth.chains.iter().any(|chain| chain.contains(&name))
}

/// Whether the frames are this chain.
fn is(frames: &[&str], chain: &[&str]) -> bool {
    match (frames, chain) {
        ([], []) => true,
        ([ELSEWHERE, frames @ ..], [SOMEWHERE, rest @ ..]) => is(frames, chain) || is(frames, rest),
        ([frame, frames @ ..], [expected, chain @ ..]) => frame == expected && is(frames, chain),
        _ => false,
    }
}

/// Whether the frames are a beginning of this chain, and calls into libraries after that.
fn begins(frames: &[&str], chain: &[&str]) -> bool {
    let elsewhere = frames.iter().rev().take_while(|name| [ELSEWHERE, LINKAGE].contains(name)).count();
    let own = &frames[..frames.len() - elsewhere];
    (0..=chain.len()).any(|length| is(own, &chain[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: Truth = Truth {
        binary: "program",
        runtime: &[],
        from: "main",
        installed: &["sorts"],
        below: 3,
        leaves: &["spin"],
        chains: &[&["main", "outer", "spin"], &["main", "sorts", SOMEWHERE, "compares", "spin"]],
    };

    fn check(stack: &str, expected: bool) {
        let frames: Vec<&str> = stack.split_whitespace().collect();
        assert_eq!(agrees(&frames, &TRUTH), expected, "{stack}");
    }

    #[test]
    fn a_leaf_needs_the_whole_chain() {
        check("_start ~ ~ main outer spin", true);
        check("_start ~ ~ main sorts ~ compares spin", true);
        check("_start ~ ~ main sorts ~ ~ ~ compares spin", true);
        check("_start ~ ~ main sorts compares spin", false);
        check("_start ~ ~ main spin", false);
        check("_start ~ ~ main outer outer spin", false);
        check("outer spin", false);
        check("spin", false);
    }

    #[test]
    fn elsewhere_a_beginning_does() {
        check("_start ~ ~ main", true);
        check("_start ~ ~ main outer", true);
        check("_start ~ ~ main outer ~ ~", true);
        check("_start ~ ~ main outer [plt] ~", true);
        check("_start ~ ~ main [plt] outer", false);
        check("_start ~ ~ main sorts ~ ~ compares", true);
        check("_start ~ ~ main compares", false);
        check("_start ~ ~ main ~ outer", false);
    }

    #[test]
    fn below_the_chain_is_what_started_it() {
        check("main outer spin", false);
        check("_start ~ ~ ~ main outer spin", false);
        check("~ ~", true);
        check("_start ~", true);
        check("_start ~ outer", false);
        check("sorts ~ ~", true);
        check("sorts", false);
        check("outer ~ ~", false);
    }
}
