//! The flame graphs of a report.

use super::Recorded;
use super::document::{Block, FlameGraph};
use crate::activity::Class;
use crate::export::picture::Selection;
use crate::names;
use crate::profile::Sample;
use crate::verdict::account::activity;
use crate::verdict::finding::Finding;

/// What runs, and all time of all threads.
pub(super) fn all<'p>(recorded: &Recorded<'p>) -> Vec<Block<'p>> {
    let is_running = |class| matches!(class, Class::CpuUser | Class::CpuKernel);
    [
        flames(recorded, "On CPUs", "What the target's threads executed", |_, class| is_running(class)),
        flames(recorded, "All time", "Running and waiting, of all threads, coloured by class", |_, _| true),
    ]
    .into()
}

/// The time in which a finding shows; `None` of one that takes no time.
pub(super) fn of_finding<'p>(recorded: &Recorded<'p>, finding: &Finding) -> Option<Block<'p>> {
    let classes = finding.code.shows_in();
    if classes.is_empty() {
        return None;
    }
    let profile = recorded.profile;
    let named: Vec<&String> = finding.processes.iter().chain(&finding.culprits).collect();
    let is_named = |sample: &Sample| {
        let process = names::printable(&profile.thread(sample.thread).process_name);
        named.is_empty() || named.contains(&&process)
    };
    let list: Vec<&str> = classes.iter().map(|class| class.name()).collect();
    let whose = if named.is_empty() { "" } else { " of the processes that it names" };
    Some(flames(
        recorded,
        &format!("Where {} shows", finding.code),
        &format!("The time{whose} in {}", list.join(", ")),
        |sample, class| classes.contains(&class) && is_named(sample),
    ))
}

fn flames<'p>(
    recorded: &Recorded<'p>,
    title: &str,
    what: &str,
    holds: impl Fn(&Sample, Class) -> bool,
) -> Block<'p> {
    let profile = recorded.profile;
    let selection = Selection::of(profile, |sample| {
        activity(profile, sample.stack).is_some_and(|(class, _)| holds(sample, class))
    });
    let [part, all] = [selection.total_weight(), profile.total_weight()].map(|ns| ns as f64 / 1e9);
    if part == 0.0 {
        return Block::Text(format!("{title}: no time."));
    }
    let about = format!(
        "{what}: {part:.3} s of {all:.3} s, {:.1} %. Source: scheduler switches and sampled stacks.",
        part * 100.0 / all
    );
    Block::Flames(FlameGraph { title: title.to_owned(), about, selection })
}
