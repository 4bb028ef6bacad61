//! Puts a profile together from what was summed and named.

use std::collections::HashMap;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::kernel_frames;
use chokepoint_analysis::profile::{
    Builder, Function, Header, Line, Location, LocationId, ModuleKind, Moment, Profile, Sample, StackId,
    Thread, ThreadId, Wake,
};

use super::{Found, module, switching};
use crate::aggregate::{Aggregate, Part, RawFrameId, RawMoment, Sum, Waiting, WakerId};
use crate::connections::{Connection, Ends};
use crate::drain::decode::comm;
use crate::memory::Scaled;
use crate::process::objects::ObjectId;
use crate::record::event::Event;
use crate::symbolize::SourceLine;
use crate::thread_times::ThreadTimes;
use crate::time_profiles::{Classes, NOT_SAMPLED};

/// A profile in the making.
pub(super) struct Assembly<'a> {
    aggregate: &'a Aggregate,
    found: &'a [Found],
    stacks: &'a [&'a [RawFrameId]],
    event: Event,
    builder: Builder,
    /// Of the aggregate's frames and stacks, what was made of them so far.
    locations: HashMap<usize, LocationId>,
    made: HashMap<(Option<u32>, Leaf), StackId>,
}

/// What stands above a stack's own leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Leaf {
    Nothing,
    Activity(Class, Option<ObjectId>, Option<WakerId>),
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        aggregate: &'a Aggregate,
        found: &'a [Found],
        stacks: &'a [&'a [RawFrameId]],
        event: Event,
    ) -> Self {
        let (builder, locations, made) = (Builder::new(), HashMap::new(), HashMap::new());
        Self { aggregate, found, stacks, event, builder, locations, made }
    }

    /// The samples of the on-CPU source as they were taken.
    pub(super) fn plain(mut self, header: Header, coverage: Coverage, window_start_ns: u64) -> Profile {
        for (_, thread, stack, sum) in self.aggregate.sums().filter(|(part, ..)| *part == Part::OnCpu) {
            let thread = self.thread(thread);
            let stack = self.stack(Some(stack), Leaf::Nothing);
            self.builder.add(Sample { thread, stack, count: sum.count, weight: sum.weight });
        }
        self.moments(window_start_ns, |_, moment| (moment.part == Part::OnCpu).then_some(Leaf::Nothing));
        self.builder.finish(header, coverage)
    }

    /// All time of the event's classes, scaled to what there was.
    pub(super) fn by_class(
        mut self,
        classes: &Classes,
        times: Option<&ThreadTimes>,
        header: Header,
        coverage: Coverage,
        window_start_ns: u64,
    ) -> Profile {
        let exact: HashMap<_, _> = times.into_iter().flat_map(ThreadTimes::iter).collect();
        let mut class_of: HashMap<(Part, u32), Class> = HashMap::new();
        for entry in classes.shown_by(self.event) {
            let thread = match entry.thread {
                Ok(thread) => self.thread(thread),
                Err(key) => {
                    let Some(time) = exact.get(&key) else { continue };
                    self.builder.thread(Thread {
                        pid: time.pid,
                        tid: time.tid,
                        process_name: time.process_name.clone(),
                        thread_name: time.thread_name.clone(),
                    })
                }
            };
            if let Some(stack) = entry.stack {
                class_of.insert((entry.part, stack), entry.class);
            }
            let stack = self.stack(entry.stack, self.leaf(entry.class, entry.part));
            let Sum { count, weight } = entry.sum;
            self.builder.add(Sample { thread, stack, count, weight });
            if self.event == Event::All
                && let Part::Blocked(Waiting { waker: Some(waker), .. }) = entry.part
            {
                let (waker, waker_stack) = self.waking(waker);
                let wake = Wake { thread, stack, waker, waker_stack, count, weight };
                self.builder.add_wake(wake);
            }
        }
        self.moments(window_start_ns, |assembly, moment| {
            let class = class_of.get(&(moment.part, moment.stack))?;
            Some(assembly.leaf(*class, moment.part))
        });
        self.builder.finish(header, coverage)
    }

    /// Adds to the timeline what `leaf` says is part of it, by what stands above its stack.
    fn moments(&mut self, window_start_ns: u64, leaf: impl Fn(&Self, &RawMoment) -> Option<Leaf>) {
        for moment in self.aggregate.timeline() {
            let Some(leaf) = leaf(self, moment) else { continue };
            let thread = self.thread(moment.thread);
            let stack = self.stack(Some(moment.stack), leaf);
            self.builder.add_moment(Moment {
                offset_ns: moment.time_ns.saturating_sub(window_start_ns),
                length_ns: moment.length_ns,
                thread,
                stack,
                weight: moment.weight,
            });
        }
    }

    /// What connections sent again, by the stacks that opened them or sent on them last, with the peer above.
    pub(super) fn retransmits(
        mut self,
        lost: &[(&Ends, &Connection)],
        header: Header,
        coverage: Coverage,
    ) -> Profile {
        for (ends, connection) in lost {
            for (placed, segments) in &connection.stacks {
                let mut locations = vec![self.activity(&format!("[tcp {}]", ends.remote))];
                let thread = match placed {
                    Some((thread, stack)) => {
                        let frames = self.stacks[*stack as usize];
                        locations.extend(frames.iter().map(|frame| self.location(frame.index())));
                        self.thread(*thread)
                    }
                    None => {
                        locations.push(self.activity(NOT_SAMPLED));
                        let (pid, name) = match &connection.owner {
                            Some(owner) => (owner.tgid, owner.name.clone()),
                            None => (0, "[no process]".to_owned()),
                        };
                        self.builder.thread(Thread {
                            pid,
                            tid: pid,
                            process_name: name.clone(),
                            thread_name: name,
                        })
                    }
                };
                let stack = self.builder.stack(locations);
                self.builder.add(Sample { thread, stack, count: *segments, weight: *segments });
            }
        }
        self.builder.finish(header, coverage)
    }

    /// The faults, or the reclaims, of every process, scaled to what there was.
    pub(super) fn memory<'m>(
        mut self,
        scaled: impl Iterator<Item = &'m Scaled>,
        header: Header,
        coverage: Coverage,
    ) -> Profile {
        let is_fault = self.event == Event::Fault;
        for Scaled { what, placed, sum } in scaled.filter(|scaled| scaled.what.is_fault() == is_fault) {
            let mut locations = vec![self.activity(what.frame())];
            let thread = match placed {
                Ok((thread, stack)) => {
                    let skipped = self.tracing(*stack);
                    let frames = &self.stacks[*stack as usize][skipped..];
                    locations.extend(frames.iter().map(|frame| self.location(frame.index())));
                    self.thread(*thread)
                }
                Err(process) => {
                    locations.push(self.activity(NOT_SAMPLED));
                    self.builder.thread(Thread {
                        pid: process.pid,
                        tid: process.pid,
                        process_name: process.name.clone(),
                        thread_name: process.name.clone(),
                    })
                }
            };
            let stack = self.builder.stack(locations);
            self.builder.add(Sample { thread, stack, count: sum.count, weight: sum.weight });
        }
        self.builder.finish(header, coverage)
    }

    /// Frames at a stack's leaf that belong to the tracepoint at which it was taken.
    fn tracing(&self, stack: u32) -> usize {
        let kernel = &self.stacks[stack as usize][..self.aggregate.kernel_frames(stack)];
        kernel.iter().take_while(|frame| self.names(frame.index()).any(kernel_frames::is_tracing)).count()
    }

    fn leaf(&self, class: Class, part: Part) -> Leaf {
        match part {
            Part::Blocked(waiting) => {
                let waker = waiting.waker.filter(|_| self.event == Event::OffWake);
                Leaf::Activity(class, waiting.object, waker)
            }
            Part::OnCpu | Part::Queued(_) => Leaf::Activity(class, None, None),
        }
    }

    fn thread(&mut self, thread: u32) -> ThreadId {
        let raw = &self.aggregate.threads()[thread as usize];
        self.builder.thread(Thread {
            pid: raw.tgid,
            tid: raw.tid,
            process_name: comm(&raw.process_comm),
            thread_name: comm(&raw.thread_comm),
        })
    }

    fn stack(&mut self, stack: Option<u32>, leaf: Leaf) -> StackId {
        if let Some(made) = self.made.get(&(stack, leaf)) {
            return *made;
        }
        let mut locations = Vec::new();
        if let Leaf::Activity(class, object, waker) = leaf {
            if let Some(waker) = waker {
                self.waker(waker, &mut locations);
            }
            if let Some(object) = object {
                let name = self.aggregate.objects().name(object).to_owned();
                locations.push(self.activity(&format!("[{name}]")));
            }
            locations.push(self.activity(&class.frame()));
        }
        match stack {
            Some(stack) => {
                let frames = self.stacks[stack as usize];
                let is_wait =
                    !matches!(leaf, Leaf::Nothing | Leaf::Activity(Class::CpuUser | Class::CpuKernel, ..));
                let skipped = if is_wait { self.switching(stack) } else { 0 };
                let frames = frames[skipped..].iter().map(|frame| frame.index());
                locations.extend(frames.map(|frame| self.location(frame)).collect::<Vec<_>>());
            }
            None => locations.push(self.activity(NOT_SAMPLED)),
        }
        let made = self.builder.stack(locations);
        self.made.insert((stack, leaf), made);
        made
    }

    /// What woke the thread, above what it waited in: its stack upside down, so that what is nearest to the wake-up is nearest to
    /// the wait.
    fn waker(&mut self, waker: WakerId, locations: &mut Vec<LocationId>) {
        let (frames, by_interrupt) = self.waker_frames(waker);
        let by = if by_interrupt {
            "[woken by an interrupt]".to_owned()
        } else {
            let thread = self.aggregate.wakers()[waker.index()].thread;
            format!("[woken by {}]", comm(&self.aggregate.threads()[thread as usize].process_comm))
        };
        locations.extend(frames.iter().rev().map(|frame| self.location(frame.index())));
        locations.push(self.activity(&by));
    }

    /// The thread that woke another, unless an interrupt did, and the stack of what did.
    fn waking(&mut self, waker: WakerId) -> (Option<ThreadId>, StackId) {
        let (frames, by_interrupt) = self.waker_frames(waker);
        let locations = frames.iter().map(|frame| self.location(frame.index())).collect();
        let thread = (!by_interrupt).then(|| self.thread(self.aggregate.wakers()[waker.index()].thread));
        (thread, self.builder.stack(locations))
    }

    /// A waker's frames without those of the wake-up itself, and whether an interrupt woke: what that interrupted has nothing to do
    /// with the wait, and is left out.
    fn waker_frames(&self, waker: WakerId) -> (&'a [RawFrameId], bool) {
        let stack = self.aggregate.wakers()[waker.index()].stack;
        let frames = self.stacks[stack as usize];
        let kernel = &frames[..self.aggregate.kernel_frames(stack)];
        let is = |position: usize, what: fn(&str) -> bool| self.names(kernel[position].index()).any(what);
        let interrupt = kernel_frames::interrupt(kernel.len(), is);
        let shown = interrupt.map_or(frames, |entry| &frames[..=entry]);
        let skipped = shown
            .iter()
            .rposition(|frame| self.names(frame.index()).any(kernel_frames::is_waking))
            .map_or(0, |last| last + 1);
        (&shown[skipped..], interrupt.is_some())
    }

    /// Frames at a stack's leaf that belong to the interrupt in which it was taken, and to the scheduler.
    fn switching(&self, stack: u32) -> usize {
        let kernel = &self.stacks[stack as usize][..self.aggregate.kernel_frames(stack)];
        switching(kernel.len(), |position, what| self.names(kernel[position].index()).any(what))
    }

    fn names(&self, frame: usize) -> impl Iterator<Item = &'a str> + use<'a> {
        let found: &'a [Found] = self.found;
        found[frame].lines.iter().map(|line| line.function.as_str())
    }

    fn location(&mut self, frame: usize) -> LocationId {
        if let Some(location) = self.locations.get(&frame) {
            return *location;
        }
        let location = intern(&mut self.builder, &self.found[frame]);
        self.locations.insert(frame, location);
        location
    }

    fn activity(&mut self, name: &str) -> LocationId {
        let line = SourceLine { function: name.to_owned(), file: String::new(), line: 0 };
        let found = Found::new(module(ModuleKind::Activity, "[activity]"), 0, vec![line]);
        intern(&mut self.builder, &found)
    }
}

fn intern(builder: &mut Builder, found: &Found) -> LocationId {
    let module = builder.module(found.module.clone());
    let lines = found
        .lines
        .iter()
        .map(|line| Line {
            function: builder.function(Function { name: line.function.clone(), file: line.file.clone() }),
            line: line.line,
        })
        .collect();
    builder.location(Location { module, address: found.address, lines, is_spin_wait: found.is_spin_wait })
}
