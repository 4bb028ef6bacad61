//! The rows of thread time: whose, in which class, by which stack.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use chokepoint_analysis::activity::{Class, Group};
use chokepoint_analysis::profile::{LocationId, ModuleKind, Profile, StackId, Thread, ThreadId};
use chokepoint_proto::stream::{self, Unit};

use super::dictionary::{Entries, NodePlusOne};
use crate::stream::owners::Labels;
use crate::time_profiles::NOT_SAMPLED;

/// The subject of what was put together.
const OTHERS: &str = "[other threads]";
/// Longest name of a process, thread or label. The kernel's own are 15 bytes, paths of groups a few hundred.
const MAX_NAME_BYTES: usize = 512;

/// How much a window's message may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Subjects; of more, those that used the least CPU time are put together.
    pub subjects: usize,
    /// Nodes of stacks; of more, the lightest stacks are left out and their time stays with its class.
    pub nodes: usize,
}

impl Default for Limits {
    /// A node full of pods has some hundred subjects, and a window some thousand stacks that share most of their nodes: with these, a
    /// message stays below 4 MB.
    fn default() -> Self {
        Self { subjects: 1_000, nodes: 50_000 }
    }
}

/// A thread's name with `*` for each number in it: `worker-12` and `worker-7` are one. Runtimes number their threads, some by thread id, so that
/// the names of a fleet would have no end.
#[must_use]
pub fn group_name(name: &str) -> Cow<'_, str> {
    let name = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
    if !name.contains(|letter: char| letter.is_ascii_digit()) {
        return Cow::Borrowed(name);
    }
    let mut grouped = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '0'..='9' if grouped.ends_with('*') => {}
            '0'..='9' => grouped.push('*'),
            letter => grouped.push(letter),
        }
    }
    Cow::Owned(grouped)
}

/// The name that a process goes by. Only the kernel's own threads have a `/` in it, before a CPU's number.
#[must_use]
pub fn process_name(name: &str) -> Cow<'_, str> {
    if name.contains('/') {
        group_name(name)
    } else {
        Cow::Borrowed(&name[..name.floor_char_boundary(MAX_NAME_BYTES)])
    }
}

/// The names that a thread goes by: of its process, and its own. A process's first thread has its process's name, digits and all.
fn names(thread: &Thread) -> (Cow<'_, str>, Cow<'_, str>) {
    let process = process_name(&thread.process_name);
    let own = if thread.process_name == thread.thread_name {
        process.clone()
    } else {
        group_name(&thread.thread_name)
    };
    (process, own)
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    weight: u64,
}

/// Sums by subject, class and stack.
type Sums<Stack> = HashMap<(usize, Class, Stack), Sum>;

/// All time of the profile's threads.
pub(super) fn wall(
    profile: &Profile,
    entries: &mut Entries,
    limits: &Limits,
    labels_of: &mut impl FnMut(&Thread) -> Labels,
    notes: &mut Vec<String>,
) -> (stream::Profile, Subjects) {
    let stacks: Vec<Stripped<'_>> = profile.stacks.iter().map(|stack| strip(profile, stack)).collect();
    let (subject_of, subjects) = subjects(profile, &stacks, entries, limits, labels_of, notes);
    let mut by_stack: Sums<StackId> = HashMap::new();
    for sample in &profile.samples {
        let class = stacks[sample.stack.index()].class;
        let sum = by_stack.entry((subject_of[sample.thread.index()], class, sample.stack)).or_default();
        sum.count += sample.count;
        sum.weight = sum.weight.saturating_add(sample.weight);
    }
    let mut heaviest: Vec<_> = by_stack.into_iter().collect();
    heaviest.sort_unstable_by_key(|((subject, class, stack), sum)| {
        (Reverse(sum.weight), *subject, *class, *stack)
    });
    let mut rows: Sums<NodePlusOne> = HashMap::new();
    let mut left_out = 0;
    for ((subject, class, stack), sum) in heaviest {
        let frames = stacks[stack.index()].frames;
        let leaf = if entries.nodes() + frames.len() <= limits.nodes {
            entries.stack(profile, frames)
        } else {
            left_out += 1;
            0
        };
        let row = rows.entry((subject, class, leaf)).or_default();
        row.count += sum.count;
        row.weight = row.weight.saturating_add(sum.weight);
    }
    if left_out > 0 {
        notes.push(format!("{left_out} stacks left out, those with the least time: there are too many"));
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_unstable_by_key(|(row, _)| *row);
    let mut wall =
        stream::Profile { kind: "wall".to_owned(), unit: Unit::Nanoseconds.into(), ..Default::default() };
    for ((subject, class, stack), sum) in rows {
        wall.subject.push(subject as u32);
        wall.stack.push(stack);
        wall.class.push(entries.string(class.name()));
        wall.count.push(sum.count);
        wall.weight.push(sum.weight);
    }
    (wall, subjects)
}

/// A kind of samples of things that happen, and are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Page faults. What stands above a stack says of which sort.
    Faults,
    /// Segments sent again. Above a stack stands the peer, which is told elsewhere.
    Retransmits,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Faults => "faults",
            Self::Retransmits => "retransmits",
        }
    }
}

/// A message in the making.
pub(super) struct Making<'a> {
    pub(super) entries: &'a mut Entries,
    pub(super) subjects: &'a mut Subjects,
    pub(super) limits: &'a Limits,
    pub(super) notes: &'a mut Vec<String>,
}

/// Things that happened, by subject and stack.
pub(super) fn events(
    kind: Kind,
    profile: &Profile,
    making: &mut Making<'_>,
    labels_of: &mut impl FnMut(&Thread) -> Labels,
) -> stream::Profile {
    let Making { entries, subjects, limits, notes } = making;
    entries.begin_profile();
    let subject_of: Vec<u32> = profile
        .threads
        .iter()
        .map(|thread| subjects.number(names(thread), labels_of(thread), limits, entries))
        .collect();
    let mut heaviest: Vec<_> = profile.samples.iter().collect();
    heaviest.sort_by_key(|sample| Reverse(sample.weight));
    let mut rows: HashMap<(u32, NodePlusOne), Sum> = HashMap::new();
    let mut left_out = 0;
    for sample in heaviest {
        let stack = &profile.stacks[sample.stack.index()];
        let frames = known_frames(profile, stack, kind);
        let leaf = if entries.nodes() + frames.len() <= limits.nodes {
            entries.stack(profile, frames)
        } else {
            left_out += 1;
            0
        };
        let row = rows.entry((subject_of[sample.thread.index()], leaf)).or_default();
        row.count += sample.count;
        row.weight = row.weight.saturating_add(sample.weight);
    }
    if left_out > 0 {
        notes.push(format!("{left_out} stacks of {} left out: there are too many", kind.name()));
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_unstable_by_key(|(row, _)| *row);
    let mut told =
        stream::Profile { kind: kind.name().to_owned(), unit: Unit::Count.into(), ..Default::default() };
    for ((subject, stack), sum) in rows {
        told.subject.push(subject);
        told.stack.push(stack);
        told.count.push(sum.count);
        told.weight.push(sum.weight);
    }
    told
}

/// The frames of a stack that are told, leaf first; none where it is not known.
fn known_frames<'p>(profile: &Profile, stack: &'p [LocationId], kind: Kind) -> &'p [LocationId] {
    let mut above = stack.iter().map_while(|id| activity(profile, id));
    if above.by_ref().any(|name| name == NOT_SAMPLED) {
        return &[];
    }
    match kind {
        Kind::Faults => stack,
        Kind::Retransmits => {
            let above = stack.iter().take_while(|id| activity(profile, id).is_some()).count();
            &stack[above..]
        }
    }
}

/// The name of a frame that is no code.
fn activity<'p>(profile: &'p Profile, id: &LocationId) -> Option<&'p str> {
    let location = profile.location(*id);
    let is_activity = profile.module(location.module).kind == ModuleKind::Activity;
    let line = location.lines.first().filter(|_| is_activity)?;
    Some(profile.function(line.function).name.as_str())
}

/// A stack without what stands above its functions.
struct Stripped<'p> {
    class: Class,
    /// Leaf first; none where the stack is not known.
    frames: &'p [LocationId],
}

/// Above the functions stand, leaf first, what the thread waited for and then its class. Time whose stack was not taken says so below
/// its class.
fn strip<'p>(profile: &'p Profile, stack: &'p [LocationId]) -> Stripped<'p> {
    let activity = |id: &LocationId| activity(profile, id);
    let mut above = stack.iter().map_while(activity);
    let found = above.by_ref().zip(1..).find_map(|(name, depth)| Some((Class::from_frame(name)?, depth)));
    let (class, depth) = found.unwrap_or((Class::Other, 0));
    let frames = &stack[depth..];
    let is_known = frames.first().and_then(activity) != Some(NOT_SAMPLED);
    Stripped { class, frames: if is_known { frames } else { &[] } }
}

/// The subjects that a message has, for the rows that follow the first ones.
pub(super) struct Subjects {
    numbers: HashMap<(String, String, Labels), u32>,
    /// That of those put together, once there is one.
    others: Option<u32>,
}

impl Subjects {
    /// The number of a subject, which is a new one while there is room.
    fn number(
        &mut self,
        (process, thread): (Cow<'_, str>, Cow<'_, str>),
        labels: Labels,
        limits: &Limits,
        entries: &mut Entries,
    ) -> u32 {
        let key = (process.into_owned(), thread.into_owned(), labels);
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        if self.numbers.len() + 1 < limits.subjects {
            let labels = key.2.iter().map(|(name, value)| (*name, value.as_str()));
            let number = entries.subject(&key.0, &key.1, labels);
            self.numbers.insert(key, number);
            return number;
        }
        *self.others.get_or_insert_with(|| entries.subject(OTHERS, OTHERS, std::iter::empty()))
    }
}

/// The subject of each thread, by its position, and what subjects there are.
fn subjects(
    profile: &Profile,
    stacks: &[Stripped<'_>],
    entries: &mut Entries,
    limits: &Limits,
    labels_of: &mut impl FnMut(&Thread) -> Labels,
    notes: &mut Vec<String>,
) -> (Vec<usize>, Subjects) {
    let mut numbers: HashMap<(Cow<'_, str>, Cow<'_, str>, Labels), usize> = HashMap::new();
    let of_thread: Vec<usize> = profile
        .threads
        .iter()
        .map(|thread| {
            let (process, name) = names(thread);
            let next = numbers.len();
            *numbers.entry((process, name, labels_of(thread))).or_insert(next)
        })
        .collect();
    let mut keys: Vec<_> = numbers.into_iter().map(|(key, number)| (number, key)).collect();
    keys.sort_unstable_by_key(|(number, _)| *number);

    // Those that ran come before those that only waited.
    let mut used = vec![(0u64, 0u64); keys.len()];
    let subject_of = |thread: ThreadId| of_thread[thread.index()];
    for sample in &profile.samples {
        let (ran, all) = &mut used[subject_of(sample.thread)];
        *all = all.saturating_add(sample.weight);
        if stacks[sample.stack.index()].class.group() == Group::Cpu {
            *ran = ran.saturating_add(sample.weight);
        }
    }
    keys.sort_by_key(|(number, _)| Reverse(used[*number]));
    // One place is kept for those that are put together.
    let kept = if keys.len() > limits.subjects { limits.subjects.saturating_sub(1) } else { keys.len() };
    let mut final_number = vec![kept; keys.len()];
    let mut known = Subjects { numbers: HashMap::new(), others: None };
    for (position, (number, (process, thread, own))) in keys.iter().take(kept).enumerate() {
        let labels = own.iter().map(|(name, value)| (*name, value.as_str()));
        let told = entries.subject(process, thread, labels);
        final_number[*number] = position;
        let key = (process.clone().into_owned(), thread.clone().into_owned(), Labels::clone(own));
        known.numbers.insert(key, told);
    }
    if kept < keys.len() {
        known.others = Some(entries.subject(OTHERS, OTHERS, std::iter::empty()));
        let merged = keys.len() - kept;
        notes.push(format!("{merged} groups of threads are in {OTHERS}: there are too many"));
    }
    (of_thread.into_iter().map(|number| final_number[number]).collect(), known)
}
