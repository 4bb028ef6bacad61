//! A part of a recording of everything, as a profile of its own: what it has of some classes of time.

use crate::activity::{Class, Group};
use crate::names;
use crate::profile::{ModuleKind, Profile, StackId};
use crate::verdict::account::activity;

/// The samples of the classes that `has` says, under another kind and title. Where they are all of time on a CPU, functions say it all: then
/// the class is no frame above them, as in what `record -e cpu` writes.
#[must_use]
pub fn of_classes(mut profile: Profile, kind: &str, title: &str, has: impl Fn(Class) -> bool) -> Profile {
    let class_of = |profile: &Profile, stack: StackId| activity(profile, stack).map(|(class, _)| class);
    let mut samples = std::mem::take(&mut profile.samples);
    samples.retain(|sample| class_of(&profile, sample.stack).is_some_and(&has));
    if Class::ALL.into_iter().filter(|class| has(*class)).all(|class| class.group() == Group::Cpu) {
        // A stack with another class above it is another stack, so none of those that are left out changes.
        let mut stacks: Vec<StackId> = samples.iter().map(|sample| sample.stack).collect();
        stacks.sort_unstable();
        stacks.dedup();
        for id in stacks {
            let stack = profile.stack(id);
            let is_code = |module| profile.module(module).kind != ModuleKind::Activity;
            let frames = stack.iter().position(|id| is_code(profile.location(*id).module));
            if let Some(frames) = frames {
                profile.stacks[id.index()].drain(..frames);
            }
        }
    }
    profile.samples = samples;
    profile.timeline.clear();
    profile.wakes.clear();
    profile.header.kind = names::printable(kind);
    profile.header.title = names::printable(title);
    profile
}
