//! What a recording's samples tell at their times: what each thread did when, how time is spread within seconds, and what a stretch alone is
//! made of. Nothing where the recording kept only sums ([`Profile::timeline`] is empty).
//!
//! A wait lasted from its begin to its end; a running thread is sampled at a moment, and what the sample stands for is counted there.

use std::collections::HashMap;

use crate::activity::Class;
use crate::profile::{Moment, Profile, Sample, StackId, ThreadId};
use crate::verdict::account::activity;

/// A stretch of a recording, nanoseconds since its start: from one moment, inclusive, to another, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// From here.
    pub from_ns: u64,
    /// Up to here.
    pub until_ns: u64,
}

impl Stretch {
    /// How much of what a moment stands for lies within.
    fn weight_of(self, moment: &Moment) -> u64 {
        let Moment { offset_ns, length_ns, weight, .. } = *moment;
        if length_ns == 0 {
            return if (self.from_ns..self.until_ns).contains(&offset_ns) { weight } else { 0 };
        }
        let begin_ns = offset_ns.saturating_sub(length_ns).max(self.from_ns);
        let within_ns = offset_ns.min(self.until_ns).saturating_sub(begin_ns);
        u64::try_from(u128::from(weight) * u128::from(within_ns) / u128::from(length_ns)).unwrap_or(weight)
    }
}

/// The recording with the samples of a stretch alone, as they were measured: they are not scaled to the exact times of threads.
#[must_use]
pub fn within(mut profile: Profile, stretch: Stretch) -> Profile {
    let mut sums: HashMap<(ThreadId, StackId), (u64, u64)> = HashMap::new();
    for moment in &profile.timeline {
        let weight = stretch.weight_of(moment);
        if weight > 0 {
            let sum = sums.entry((moment.thread, moment.stack)).or_default();
            *sum = (sum.0 + 1, sum.1.saturating_add(weight));
        }
    }
    let sample = |((thread, stack), (count, weight))| Sample { thread, stack, count, weight };
    profile.samples = sums.into_iter().map(sample).collect();
    profile.samples.sort_unstable_by_key(|sample| (sample.thread, sample.stack));
    profile
}

/// What one thread did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The thread.
    pub thread: ThreadId,
    /// What its pieces stand for, nanoseconds.
    pub weight: u64,
    /// In the order of their ends.
    pub pieces: Vec<Piece>,
}

/// What a thread did at a moment, or for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its class.
    pub class: Class,
    /// When it ended, nanoseconds since the recording's start.
    pub end_ns: u64,
    /// How long it lasted; 0 of a sample of a running thread.
    pub length_ns: u64,
}

/// What threads did in the classes that `has` says, those of which most is known first.
#[must_use]
pub fn lines(profile: &Profile, has: impl Fn(Class) -> bool) -> Vec<Line> {
    let mut lines: HashMap<ThreadId, Line> = HashMap::new();
    for (moment, class) in moments(profile, has) {
        let thread = moment.thread;
        let line = lines.entry(thread).or_insert(Line { thread, weight: 0, pieces: Vec::new() });
        line.weight = line.weight.saturating_add(moment.weight);
        line.pieces.push(Piece { class, end_ns: moment.offset_ns, length_ns: moment.length_ns });
    }
    let mut lines: Vec<Line> = lines.into_values().collect();
    lines.sort_by_key(|line| (std::cmp::Reverse(line.weight), line.thread));
    lines
}

/// How many samples of these classes have no time: there was no room for them.
#[must_use]
pub fn missing(profile: &Profile, has: impl Fn(Class) -> bool + Copy) -> u64 {
    let mut class_of = ClassOf::new(profile);
    let samples = profile.samples.iter().filter(|sample| class_of.stack(sample.stack).is_some_and(has));
    let all: u64 = samples.map(|sample| sample.count).sum();
    all.saturating_sub(moments(profile, has).count() as u64)
}

/// How the time of these classes is spread: for each of `columns` stretches of `column_ns`, the time in each of `rows` parts of it,
/// nanoseconds.
#[must_use]
pub fn spread(
    profile: &Profile,
    column_ns: u64,
    columns: usize,
    rows: usize,
    has: impl Fn(Class) -> bool,
) -> Vec<Vec<u64>> {
    let count = columns * rows;
    let cell_ns = (column_ns / rows as u64).max(1);
    let mut cells = vec![0_u64; count];
    // Waits that fill a cell, by where they begin and end to: so that a long one costs no more than a short one.
    let mut filled = vec![0_i64; count + 1];
    let cell = |ns: u64| usize::try_from(ns / cell_ns).unwrap_or(count).min(count);
    let mut add = |at: usize, ns: u64| {
        if let Some(cell) = cells.get_mut(at) {
            *cell = cell.saturating_add(ns);
        }
    };
    for (moment, _) in moments(profile, has) {
        let end_ns = moment.offset_ns;
        if moment.length_ns == 0 {
            add(cell(end_ns), moment.weight);
            continue;
        }
        let begin_ns = end_ns.saturating_sub(moment.length_ns);
        let (first, last) = (cell(begin_ns), cell(end_ns));
        if first == last {
            add(first, end_ns - begin_ns);
            continue;
        }
        add(first, (first as u64 + 1) * cell_ns - begin_ns);
        add(last, end_ns.saturating_sub(last as u64 * cell_ns).min(cell_ns));
        if first + 1 < last {
            filled[first + 1] += 1;
            filled[last] -= 1;
        }
    }
    let mut now = 0;
    for (cell, change) in cells.iter_mut().zip(&filled) {
        now += change;
        *cell = cell.saturating_add(u64::try_from(now).unwrap_or(0).saturating_mul(cell_ns));
    }
    cells.chunks(rows.max(1)).map(<[u64]>::to_vec).collect()
}

fn moments(profile: &Profile, has: impl Fn(Class) -> bool) -> impl Iterator<Item = (&Moment, Class)> {
    let mut class_of = ClassOf::new(profile);
    profile.timeline.iter().filter_map(move |moment| {
        let class = class_of.stack(moment.stack).filter(|class| has(*class))?;
        Some((moment, class))
    })
}

/// The classes of stacks, each found once.
struct ClassOf<'p> {
    profile: &'p Profile,
    known: Vec<Option<Option<Class>>>,
}

impl<'p> ClassOf<'p> {
    fn new(profile: &'p Profile) -> Self {
        Self { profile, known: vec![None; profile.stacks.len()] }
    }

    fn stack(&mut self, stack: StackId) -> Option<Class> {
        let profile = self.profile;
        *self.known[stack.index()].get_or_insert_with(|| activity(profile, stack).map(|(class, _)| class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Coverage;
    use crate::profile::tests::header;
    use crate::profile::{Builder, Function, Line as SourceLine, Location, Module, ModuleKind, Thread};

    const MS: u64 = 1_000_000;

    /// Two threads: one runs at 100 ms and 1,150 ms, the other waits from 50 to 1,250 ms.
    fn recording() -> Profile {
        let mut builder = Builder::new();
        let module = builder.module(Module {
            kind: ModuleKind::Activity,
            path: "[activity]".to_owned(),
            build_id: Vec::new(),
        });
        let stack = |builder: &mut Builder, class: Class| {
            let function = builder.function(Function { name: class.frame(), file: String::new() });
            let lines = vec![SourceLine { function, line: 0 }];
            let location = builder.location(Location { module, address: 0, lines, is_spin_wait: false });
            builder.stack(vec![location])
        };
        let (running, waiting) = (stack(&mut builder, Class::CpuUser), stack(&mut builder, Class::Futex));
        let thread = |builder: &mut Builder, tid: u32| {
            let name = format!("t{tid}");
            builder.thread(Thread { pid: 1, tid, process_name: "p".to_owned(), thread_name: name })
        };
        let (one, other) = (thread(&mut builder, 1), thread(&mut builder, 2));
        for at in [100, 1_150] {
            let (offset_ns, length_ns, weight) = (at * MS, 0, 10 * MS);
            builder.add_moment(Moment { offset_ns, length_ns, thread: one, stack: running, weight });
        }
        let (offset_ns, length_ns) = (1_250 * MS, 1_200 * MS);
        builder.add_moment(Moment { offset_ns, length_ns, thread: other, stack: waiting, weight: length_ns });
        builder.add(Sample { thread: one, stack: running, count: 3, weight: 30 * MS });
        builder.add(Sample { thread: other, stack: waiting, count: 1, weight: length_ns });
        builder.finish(header(), Coverage::default())
    }

    #[test]
    fn threads_have_their_pieces_in_order_and_the_busiest_is_first() {
        let profile = recording();
        let lines = lines(&profile, |_| true);
        let shown: Vec<_> = lines.iter().map(|line| (profile.thread(line.thread).tid, line.weight)).collect();
        assert_eq!(shown, [(2, 1_200 * MS), (1, 20 * MS)]);
        let pieces = &lines[1].pieces;
        assert_eq!(
            (pieces[0].end_ns, pieces[0].class, pieces[1].end_ns),
            (100 * MS, Class::CpuUser, 1_150 * MS)
        );
        assert_eq!(missing(&profile, |class| class == Class::CpuUser), 1);
        assert_eq!(missing(&profile, |class| class == Class::Futex), 0);
    }

    #[test]
    fn a_stretch_has_what_of_each_wait_lies_in_it() {
        let stretch = Stretch { from_ns: 1_000 * MS, until_ns: 1_200 * MS };
        let profile = within(recording(), stretch);
        let sums: Vec<_> = profile.samples.iter().map(|sample| (sample.count, sample.weight)).collect();
        assert_eq!(sums, [(1, 10 * MS), (1, 200 * MS)]);
    }

    #[test]
    fn time_is_spread_over_the_parts_of_seconds_and_none_is_lost() {
        let profile = recording();
        let waits = spread(&profile, 1_000 * MS, 2, 10, |class| class == Class::Futex);
        assert_eq!(waits[0], [50, 100, 100, 100, 100, 100, 100, 100, 100, 100].map(|ms| ms * MS));
        assert_eq!(waits[1][..4], [100, 100, 50, 0].map(|ms| ms * MS));
        assert_eq!(waits.iter().flatten().sum::<u64>(), 1_200 * MS);
        let running = spread(&profile, 1_000 * MS, 2, 10, |class| class == Class::CpuUser);
        assert_eq!((running[0][1], running[1][1]), (10 * MS, 10 * MS));
        // What lies beyond is not told, and harms nobody.
        assert_eq!(spread(&profile, 1_000 * MS, 1, 10, |_| true)[0][1], 110 * MS);
    }
}
