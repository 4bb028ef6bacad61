//! The time of threads by folded stack: what flame graphs are drawn from.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::activity::Class;
use crate::frames::{Frames, Origin};
use crate::names;
use crate::profile::{Interner, Profile};

/// Stacks that are kept. When there are more, the rarer half is put together: what remains is the shape that a flame graph can show,
/// whose frames are a two-thousandth of its width or more.
const MAX_STACKS: usize = 30_000;
/// The frame in which rare stacks are put together, in their process and class.
const RARE: &str = "[rare stacks]";

/// Time by folded stack.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stacks {
    /// Names of processes and functions, those of the kernel with the mark `_[k]`, compiled ones with `_[j]`.
    pub names: Vec<String>,
    /// The stacks, those with the most time first.
    pub stacks: Vec<Folded>,
}

/// One folded stack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Folded {
    /// Positions of names: the process, then functions, outermost first.
    pub names: Vec<u32>,
    /// What the thread did there.
    #[serde(with = "class_name")]
    pub class: Class,
    /// Samples.
    pub count: u64,
    /// Time, nanoseconds.
    pub time_ns: u64,
}

impl Stacks {
    /// The names of a stack.
    pub fn names_of<'s>(&'s self, stack: &'s Folded) -> impl Iterator<Item = &'s str> {
        stack.names.iter().map(|name| self.names[*name as usize].as_str())
    }
}

/// Sums of stacks in the making.
#[derive(Debug, Default)]
pub(super) struct Sums {
    names: Interner<String>,
    sums: HashMap<(Vec<u32>, Class), (u64, u64)>,
}

impl Sums {
    /// Adds the samples of a recording of all time.
    pub(super) fn add(&mut self, profile: &Profile) {
        let frames = Frames::new(profile);
        // Only what is in a stack gets a position: what threads waited for is without end.
        let mut labels: Vec<Option<u32>> = vec![None; frames.entries().len()];
        for sample in &profile.samples {
            let process = names::element(&profile.thread(sample.thread).process_name);
            let mut stack = vec![self.names.intern(process) as u32];
            let mut class = None;
            for frame in frames.root_first(profile.stack(sample.stack)) {
                let entry = &frames.entries()[frame];
                class = (entry.origin == Origin::Activity).then(|| Class::from_frame(&entry.name)).flatten();
                // Above the class stands what was waited for, by an address or a port that means nothing in another run.
                if class.is_some() {
                    break;
                }
                stack.push(*labels[frame].get_or_insert_with(|| self.names.intern(entry.label()) as u32));
            }
            let sum = self.sums.entry((stack, class.unwrap_or(Class::CpuUser))).or_default();
            *sum = (sum.0.saturating_add(sample.count), sum.1.saturating_add(sample.weight));
        }
        if self.sums.len() > MAX_STACKS {
            self.forget_rare();
        }
    }

    fn forget_rare(&mut self) {
        let old = std::mem::take(self);
        let mut by_time: Vec<_> = old.sums.into_iter().collect();
        by_time.sort_unstable_by(|one, other| (other.1.1, &one.0).cmp(&(one.1.1, &other.0)));
        for (position, ((stack, class), (count, time_ns))) in by_time.into_iter().enumerate() {
            let mut stack: Vec<u32> = stack
                .iter()
                .map(|name| self.names.intern(old.names.entries[*name as usize].clone()) as u32)
                .collect();
            if position >= MAX_STACKS / 2 {
                stack.truncate(1);
                stack.push(self.names.intern(RARE.to_owned()) as u32);
            }
            let sum = self.sums.entry((stack, class)).or_default();
            *sum = (sum.0.saturating_add(count), sum.1.saturating_add(time_ns));
        }
    }

    pub(super) fn finish(self) -> Stacks {
        let mut stacks: Vec<Folded> = self
            .sums
            .into_iter()
            .map(|((names, class), (count, time_ns))| Folded { names, class, count, time_ns })
            .collect();
        stacks.sort_unstable_by(|one, other| {
            (other.time_ns, &one.names, one.class).cmp(&(one.time_ns, &other.names, other.class))
        });
        Stacks { names: self.names.entries, stacks }
    }
}

mod class_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::activity::Class;

    pub(super) fn serialize<S: Serializer>(class: &Class, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(class.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
        let name = String::deserialize(deserializer)?;
        Class::from_name(&name).ok_or_else(|| Error::custom(format_args!("{name:?} is no class of time")))
    }
}
