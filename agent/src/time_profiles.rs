//! From summed samples to what each event of a recording shows: every sample gets a class, and where the exact times of threads
//! are known, its weight is scaled to them.
//!
//! A thread's samples of one part of its time (executing, blocked, queued, throttled) are taken in proportion to that time, so
//! one factor for each part makes them add up to it. Where a part has no sample at all, because its waits were short and few,
//! it is still there, as a stack that says so.

use std::collections::HashMap;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::kernel_frames::{Blocked, classify};
use chokepoint_analysis::thread_time::ThreadTime;
use chokepoint_ebpf::sched::State;

use crate::aggregate::{Aggregate, Part, Sum, Waiting};
use crate::record::event::Event;
use crate::thread_times::{ThreadKey, ThreadTimes};

/// Name of the frame of time whose stack was not taken.
pub const NOT_SAMPLED: &str = "[not sampled]";

/// A sum with what is known of it.
#[derive(Clone, Debug)]
pub struct Classified {
    /// What of its thread's time it is.
    pub part: Part,
    /// Position of the thread in the aggregate; `None` where only its times are known.
    pub thread: Result<u32, ThreadKey>,
    /// Position of the stack in the aggregate; `None` for time whose stack was not taken.
    pub stack: Option<u32>,
    /// Its class.
    pub class: Class,
    /// Samples, and their weights scaled to the exact times.
    pub sum: Sum,
}

/// Every sum of an aggregate, by class.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    entries: Vec<Classified>,
}

/// The parts of a thread's time that samples are taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Scaled {
    OnCpu,
    Stolen,
    Blocked,
    Queued,
    Throttled,
}

impl Scaled {
    const ALL: [Self; 5] = [Self::OnCpu, Self::Stolen, Self::Blocked, Self::Queued, Self::Throttled];

    fn of(part: Part) -> Self {
        match part {
            Part::OnCpu => Self::OnCpu,
            Part::Blocked(_) => Self::Blocked,
            Part::Queued(State::Throttled) => Self::Throttled,
            Part::Queued(_) => Self::Queued,
        }
    }

    fn exact_ns(self, time: &ThreadTime) -> u64 {
        match self {
            Self::OnCpu => time.parts.on_cpu_ns,
            Self::Stolen => time.parts.stolen_ns,
            Self::Blocked => time.parts.blocked_ns(),
            Self::Queued => time.parts.queued_ns(),
            Self::Throttled => time.parts.throttled_ns,
        }
    }
}

impl Classes {
    /// Classifies the sums. `kernel_names` are the names of a stack's kernel frames, leaf first. Without `times`, weights stay
    /// what they are.
    #[must_use]
    pub fn of(
        aggregate: &Aggregate,
        kernel_names: impl Fn(u32) -> Vec<String>,
        times: Option<&ThreadTimes>,
    ) -> Self {
        let mut known: HashMap<(u32, State), Class> = HashMap::new();
        let mut entries: Vec<Classified> = aggregate
            .sums()
            .map(|(part, thread, stack, sum)| {
                let class = match part {
                    Part::OnCpu if aggregate.kernel_frames(stack) > 0 => Class::CpuKernel,
                    Part::OnCpu => Class::CpuUser,
                    Part::Queued(State::Throttled) => Class::Throttled,
                    Part::Queued(_) => Class::RunQueue,
                    Part::Blocked(Waiting { state, .. }) => *known
                        .entry((stack, state))
                        .or_insert_with(|| class_of_wait(&kernel_names(stack), state, aggregate, stack)),
                };
                Classified { part, thread: Ok(thread), stack: Some(stack), class, sum }
            })
            .collect();
        if let Some(times) = times {
            scale(&mut entries, aggregate, times);
        }
        Self { entries }
    }

    /// Every sum.
    #[must_use]
    pub fn all(&self) -> &[Classified] {
        &self.entries
    }

    /// What an event shows.
    pub fn shown_by(&self, event: Event) -> impl Iterator<Item = &Classified> {
        self.entries.iter().filter(move |entry| event.has(entry.class) && entry.sum.weight > 0)
    }

    /// Time by class, nanoseconds; classes without any are left out.
    #[must_use]
    pub fn totals(&self) -> Vec<(Class, u64)> {
        let mut totals: HashMap<Class, u64> = HashMap::new();
        for entry in &self.entries {
            *totals.entry(entry.class).or_default() += entry.sum.weight;
        }
        Class::ALL.into_iter().filter_map(|class| Some((class, *totals.get(&class)?))).collect()
    }
}

fn class_of_wait(names: &[String], state: State, aggregate: &Aggregate, stack: u32) -> Class {
    let blocked = Blocked {
        interruptible: state == State::Blocked,
        io: state == State::Io,
        kernel_thread: !aggregate.has_user_frames(stack) && names.iter().any(|name| name == "kthread"),
    };
    classify(names.iter().map(String::as_str), blocked)
}

/// Scales the weights of each thread's parts to the exact times, and adds what no sample is of.
fn scale(entries: &mut Vec<Classified>, aggregate: &Aggregate, times: &ThreadTimes) {
    let exact: HashMap<ThreadKey, &ThreadTime> = times.iter().map(|(key, time)| (*key, time)).collect();
    let key_of = |thread: u32| {
        let raw = &aggregate.threads()[thread as usize];
        ThreadKey { tgid: raw.tgid, tid: raw.tid, process_start_ns: raw.process_start_ns }
    };
    let mut sampled: HashMap<(ThreadKey, Scaled), u64> = HashMap::new();
    for entry in entries.iter() {
        if let Ok(thread) = entry.thread {
            *sampled.entry((key_of(thread), Scaled::of(entry.part))).or_default() += entry.sum.weight;
        }
    }
    for entry in entries.iter_mut() {
        let Ok(thread) = entry.thread else { continue };
        let (key, part) = (key_of(thread), Scaled::of(entry.part));
        let Some(time) = exact.get(&key) else { continue };
        let sampled = sampled.get(&(key, part)).copied().unwrap_or_default();
        if sampled > 0 {
            let weight = u128::from(entry.sum.weight) * u128::from(part.exact_ns(time)) / u128::from(sampled);
            entry.sum.weight = u64::try_from(weight).unwrap_or(u64::MAX);
        }
    }
    for (key, time) in exact {
        for part in Scaled::ALL {
            if part.exact_ns(time) == 0 || sampled.get(&(key, part)).is_some_and(|weight| *weight > 0) {
                continue;
            }
            entries.extend(not_sampled(part, time).into_iter().filter(|(_, _, ns)| *ns > 0).map(
                |(part, class, weight)| Classified {
                    part,
                    thread: Err(key),
                    stack: None,
                    class,
                    sum: Sum { count: 0, weight },
                },
            ));
        }
    }
}

/// Time of which there is no sample, by the classes that the scheduler tells.
fn not_sampled(part: Scaled, time: &ThreadTime) -> Vec<(Part, Class, u64)> {
    let parts = &time.parts;
    let blocked = |state| Part::Blocked(Waiting { state, syscall: None, object: None, waker: None });
    match part {
        Scaled::OnCpu => {
            let user_ns = (parts.on_cpu_ns as f64 * time.user_share.unwrap_or(1.0)) as u64;
            let user_ns = user_ns.min(parts.on_cpu_ns);
            vec![
                (Part::OnCpu, Class::CpuUser, user_ns),
                (Part::OnCpu, Class::CpuKernel, parts.on_cpu_ns - user_ns),
            ]
        }
        // No program runs while it is taken away, so there are no samples of it.
        Scaled::Stolen => vec![(Part::OnCpu, Class::CpuStolen, parts.stolen_ns)],
        Scaled::Blocked => vec![
            (blocked(State::Blocked), Class::Other, parts.interruptible_ns),
            (blocked(State::Uninterruptible), Class::Other, parts.uninterruptible_ns),
            (blocked(State::Io), Class::IoRead, parts.io_ns),
        ],
        Scaled::Queued => vec![(Part::Queued(State::Woken), Class::RunQueue, parts.queued_ns())],
        Scaled::Throttled => vec![(Part::Queued(State::Throttled), Class::Throttled, parts.throttled_ns)],
    }
}

#[cfg(test)]
mod tests {
    use chokepoint_ebpf::sample::{Source, StackOutcome};
    use chokepoint_ebpf::sched::ThreadClock;

    use super::*;
    use crate::aggregate::Limits;
    use crate::drain::decode::{Record, decode};
    use crate::open_waits::tests::sample_record;

    #[test]
    fn the_time_of_a_thread_that_was_about_to_end_is_there_once() {
        let mut aggregate = Aggregate::new(Limits::default());
        let bytes = sample_record(Source::OnCpu, 700, StackOutcome::Walked);
        let Ok(Record::Sample(sample)) = decode(&bytes) else { panic!("not a sample") };
        aggregate.add(&sample);
        let mut times = ThreadTimes::default();
        let mut clock = ThreadClock {
            tgid: 1,
            tid: 1,
            process_start_ns: 1,
            ran_ns: 500,
            since_ns: 500,
            ..ThreadClock::ZERO
        };
        clock.spent_ns[State::OnCpu as usize] = 500;
        clock.state = State::Blocked as u32;
        times.add_unlisted(&clock, 500, |clock| *clock);
        let classes = Classes::of(&aggregate, |_| Vec::new(), Some(&times));
        assert_eq!(classes.totals(), [(Class::CpuUser, 500)]);
    }
}
