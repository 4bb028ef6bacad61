//! Turns summed raw stacks into a profile: every distinct frame is symbolized once, file by file.

use std::collections::{BTreeMap, HashMap};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::kernel_frames;
use chokepoint_analysis::profile::{
    Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Moment, Profile, Sample,
    StackId, Thread, ThreadId, Wake,
};

use chokepoint_ebpf::memory::ProcessKey;

use crate::address::{AbsoluteAddress, FileOffset};
use crate::aggregate::{Aggregate, Part, RawFrame, RawFrameId, RawMoment, Sum, Waiting, WakerId, cause};
use crate::connections::{Connection, Ends, Peer, peers};
use crate::drain::decode::comm;
use crate::memory::{MemorySeen, Scaled};
use crate::process::binaries::{Binary, BinaryId};
use crate::process::objects::ObjectId;
use crate::process::table::{Process, ProcessId};
use crate::record::event::Event;
use crate::symbolize::{BinarySymbols, JitSymbols, Note, SourceLine, SymbolizeError, Symbolized, Symbolizer};
use crate::thread_times::ThreadTimes;
use crate::time_profiles::{Classes, NOT_SAMPLED};
use crate::window::Window;

/// What is known of a frame after symbolization.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) module: Module,
    pub(crate) address: u64,
    /// The function, innermost first where others are inlined.
    pub(crate) lines: Vec<SourceLine>,
}

/// A profile that a recording is to give.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it shows.
    pub event: Event,
    /// What it measures.
    pub header: Header,
    /// What its sources saw.
    pub coverage: Coverage,
}

/// What a recording came to.
#[derive(Clone, Debug)]
pub struct Profiles {
    /// The profiles, in the order they were asked for.
    pub profiles: Vec<(Event, Profile)>,
    /// Time by class; empty where the times of threads were not recorded.
    pub classes: Vec<(Class, u64)>,
    /// TCP peers that something was lost with, the worst first.
    pub peers: Vec<Peer>,
}

/// Symbolizes every frame of a window once and builds the profiles.
#[must_use]
pub fn profiles(window: &Window, symbolizer: &mut Symbolizer, wanted: Vec<Wanted>) -> Profiles {
    let Window { aggregate, start_ns: window_start_ns, memory, sockets, .. } = window;
    let (times, window_start_ns) = (window.times.as_ref(), *window_start_ns);
    let lost: Vec<(&Ends, &Connection)> = window.connections.of_target(window.is_host).collect();
    let mut notes = Vec::new();
    let found = symbolize(aggregate, symbolizer, &mut notes);
    let stacks: Vec<&[RawFrameId]> = aggregate.stacks().collect();
    let kernel_names = |stack: u32| {
        let frames = &stacks[stack as usize][..aggregate.kernel_frames(stack)];
        frames
            .iter()
            .flat_map(|frame| &found[frame.index()].lines)
            .map(|line| line.function.clone())
            .collect()
    };
    let classes = Classes::of(aggregate, kernel_names, times);
    let memory = memory.clone().map(|mut seen| {
        if times.is_some() {
            tell_fault_waits(&mut seen, &classes, aggregate, kernel_names);
        }
        seen
    });
    let profiles = wanted
        .into_iter()
        .map(|Wanted { event, header, mut coverage }| {
            coverage.notes.extend(notes.iter().cloned());
            if event.looks_at_sockets() {
                coverage.notes.extend(sockets.notes.iter().cloned());
            }
            let assembly = Assembly::new(aggregate, &found, &stacks, event);
            let profile = match event {
                Event::Cpu => assembly.plain(header, coverage, window_start_ns),
                Event::Retransmit => assembly.retransmits(&lost, header, coverage),
                Event::Fault | Event::Reclaim => {
                    assembly.memory(memory.iter().flat_map(|seen| &seen.scaled), header, coverage)
                }
                _ => assembly.by_class(&classes, times, header, coverage, window_start_ns),
            };
            (event, profile)
        })
        .map(|(event, mut profile)| {
            if event.needs_sched() {
                profile.thread_times =
                    times.into_iter().flat_map(ThreadTimes::iter).map(|(_, time)| time.clone()).collect();
                profile.thread_times.sort_by_key(|time| (time.pid, time.tid));
            }
            if event.shows_run_queue() {
                profile.run_queue = times.and_then(ThreadTimes::run_queue).cloned();
            }
            if event.looks_at_sockets() {
                profile.connections = sockets.connections.clone();
            }
            if event.needs_block() {
                profile.block.clone_from(&window.block.block);
            }
            if event.needs_memory() {
                profile.memory = memory.as_ref().map(|seen| seen.memory.clone());
            }
            (event, profile)
        })
        .collect();
    let classes = if times.is_some() { classes.totals() } else { Vec::new() };
    Profiles { profiles, classes, peers: peers(&lost) }
}

/// Tells of each process how long its threads were blocked within page faults.
fn tell_fault_waits(
    seen: &mut MemorySeen,
    classes: &Classes,
    aggregate: &Aggregate,
    kernel_names: impl Fn(u32) -> Vec<String>,
) {
    let mut is_within: HashMap<u32, bool> = HashMap::new();
    let mut waits: HashMap<ProcessKey, u64> = HashMap::new();
    for entry in classes.shown_by(Event::OffCpu) {
        let (Part::Blocked(_), Ok(thread), Some(stack)) = (entry.part, entry.thread, entry.stack) else {
            continue;
        };
        let is_within = is_within
            .entry(stack)
            .or_insert_with(|| kernel_names(stack).iter().any(|name| kernel_frames::is_fault(name)));
        if *is_within {
            let raw = &aggregate.threads()[thread as usize];
            let key = ProcessKey { start_ns: raw.process_start_ns, tgid: raw.tgid, reserved: 0 };
            *waits.entry(key).or_default() += entry.sum.weight;
        }
    }
    for (process, key) in seen.memory.processes.iter_mut().zip(&seen.keys) {
        process.fault_wait_ns = Some(waits.get(key).copied().unwrap_or_default());
    }
}

/// A profile in the making.
struct Assembly<'a> {
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
    fn new(
        aggregate: &'a Aggregate,
        found: &'a [Found],
        stacks: &'a [&'a [RawFrameId]],
        event: Event,
    ) -> Self {
        let (builder, locations, made) = (Builder::new(), HashMap::new(), HashMap::new());
        Self { aggregate, found, stacks, event, builder, locations, made }
    }

    /// The samples of the on-CPU source as they were taken.
    fn plain(mut self, header: Header, coverage: Coverage, window_start_ns: u64) -> Profile {
        for (_, thread, stack, sum) in self.aggregate.sums().filter(|(part, ..)| *part == Part::OnCpu) {
            let thread = self.thread(thread);
            let stack = self.stack(Some(stack), Leaf::Nothing);
            self.builder.add(Sample { thread, stack, count: sum.count, weight: sum.weight });
        }
        self.moments(window_start_ns, |_, moment| (moment.part == Part::OnCpu).then_some(Leaf::Nothing));
        self.builder.finish(header, coverage)
    }

    /// All time of the event's classes, scaled to what there was.
    fn by_class(
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
                thread,
                stack,
                weight: moment.weight,
            });
        }
    }

    /// What connections sent again, by the stacks that opened them or sent on them last, with the peer above.
    fn retransmits(mut self, lost: &[(&Ends, &Connection)], header: Header, coverage: Coverage) -> Profile {
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
    fn memory<'m>(
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
        let found =
            Found { module: module(ModuleKind::Activity, "[activity]"), address: 0, lines: vec![line] };
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
    builder.location(Location { module, address: found.address, lines })
}

/// How many of a wait's kernel frames, from the leaf on, belong to the interrupt in which the stack was taken, and to the
/// scheduler. `is` tells whether a frame, by its position, has a function of this kind.
pub(crate) fn switching(kernel_frames: usize, is: impl Fn(usize, fn(&str) -> bool) -> bool) -> usize {
    let switch = (0..kernel_frames).find(|frame| is(*frame, kernel_frames::ends_switch));
    let first = switch.map_or(0, |last| last + 1);
    let scheduler =
        (first..kernel_frames).take_while(|frame| is(*frame, kernel_frames::is_scheduling)).count();
    first + scheduler
}

/// What each of the aggregate's frames is, in their order.
fn symbolize(aggregate: &Aggregate, symbolizer: &mut Symbolizer, notes: &mut Vec<String>) -> Vec<Found> {
    let all = 0..aggregate.frames().len();
    name_frames(aggregate, symbolizer, all, notes).into_iter().flatten().collect()
}

/// What some of the aggregate's frames are, by their positions; `None` for the others.
pub(crate) fn name_frames(
    aggregate: &Aggregate,
    symbolizer: &mut Symbolizer,
    wanted: impl Iterator<Item = usize>,
    notes: &mut Vec<String>,
) -> Vec<Option<Found>> {
    let frames = Frames::of(aggregate, wanted);
    let mut naming = Naming { found: Vec::new(), remarks: BTreeMap::new() };
    naming.found.resize_with(aggregate.frames().len(), || None);

    for (index, address) in frames.unmapped {
        naming.found[index] = Some(Found { module: unknown(), address, lines: Vec::new() });
    }
    for (index, cause) in frames.missing {
        let function = format!("[incomplete: {cause}]");
        let lines = vec![SourceLine { function, file: String::new(), line: 0 }];
        naming.found[index] = Some(Found { module: unknown(), address: 0, lines });
    }
    naming.kernel(symbolizer, &frames.kernel);
    naming.vdso(symbolizer, &frames.vdso);
    for (id, frames) in &frames.binaries {
        naming.binary(symbolizer, aggregate.binaries().get(*id), frames);
    }
    for (id, frames) in &frames.jit {
        naming.jit(symbolizer, aggregate.processes().get(*id), frames);
    }
    notes.extend(naming.remarks.into_iter().map(|(what, files)| match files {
        0 => what,
        1 => format!("1 file {what}"),
        files => format!("{files} files {what}"),
    }));
    naming.found
}

/// Frames by where they are looked up, each with its position among the aggregate's.
#[derive(Default)]
struct Frames {
    kernel: Vec<(usize, AbsoluteAddress)>,
    vdso: Vec<(usize, FileOffset)>,
    binaries: BTreeMap<BinaryId, Vec<(usize, FileOffset)>>,
    jit: BTreeMap<ProcessId, Vec<(usize, AbsoluteAddress)>>,
    unmapped: Vec<(usize, u64)>,
    missing: Vec<(usize, &'static str)>,
}

impl Frames {
    fn of(aggregate: &Aggregate, wanted: impl Iterator<Item = usize>) -> Self {
        let mut frames = Self::default();
        for index in wanted {
            match aggregate.frames()[index] {
                RawFrame::Kernel(address) => frames.kernel.push((index, AbsoluteAddress(address))),
                RawFrame::Vdso(offset) => frames.vdso.push((index, FileOffset(offset))),
                RawFrame::File(id, offset) => match aggregate.binaries().find(id) {
                    Some(binary) => {
                        frames.binaries.entry(binary).or_default().push((index, FileOffset(offset)));
                    }
                    None => frames.unmapped.push((index, offset)),
                },
                RawFrame::Jit(id, address) => {
                    frames.jit.entry(id).or_default().push((index, AbsoluteAddress(address)));
                }
                RawFrame::Unmapped(address) => frames.unmapped.push((index, address)),
                RawFrame::Missing(outcome) => {
                    frames.missing.push((index, cause(outcome).unwrap_or("depth limit")));
                }
            }
        }
        frames
    }
}

/// The frames that have been named so far.
struct Naming {
    found: Vec<Option<Found>>,
    /// What is less than it could be, and the number of files of which that is true; 0 where it is not about files.
    remarks: BTreeMap<String, u64>,
}

impl Naming {
    fn kernel(&mut self, symbolizer: &mut Symbolizer, frames: &[(usize, AbsoluteAddress)]) {
        if frames.is_empty() {
            return;
        }
        let symbols = symbolizer.kernel(&inputs(frames)).unwrap_or_else(|error| {
            self.remarks.insert(format!("kernel frames have no names: {error}"), 0);
            Vec::new()
        });
        for (position, (index, address)) in frames.iter().enumerate() {
            let symbol = symbols.get(position);
            let name = symbol.and_then(|symbol| symbol.module.as_deref()).unwrap_or("[kernel]");
            self.found[*index] = Some(Found {
                module: module(ModuleKind::Kernel, name),
                address: address.0,
                lines: symbol.map(|symbol| symbol.lines.clone()).unwrap_or_default(),
            });
        }
    }

    fn vdso(&mut self, symbolizer: &mut Symbolizer, frames: &[(usize, FileOffset)]) {
        if frames.is_empty() {
            return;
        }
        let symbols = symbolizer
            .vdso(&inputs(frames))
            .inspect_err(|error| {
                self.remarks.insert(format!("vDSO frames have no names: {error}"), 0);
            })
            .ok();
        self.file(module(ModuleKind::Vdso, "[vdso]"), frames, symbols);
    }

    fn binary(&mut self, symbolizer: &mut Symbolizer, binary: &Binary, frames: &[(usize, FileOffset)]) {
        // Files that could not be opened are remarked on where that happened.
        let symbols = binary.file.as_ref().and_then(|file| {
            symbolizer
                .binary(file, &binary.path, &binary.root, &inputs(frames))
                .inspect_err(|error| {
                    tracing::debug!(path = %binary.path.display(), %error, "binary cannot be symbolized");
                    *self.remarks.entry(format!("without symbols: {error}")).or_default() += 1;
                })
                .ok()
        });
        for note in symbols.iter().flat_map(|symbols| &symbols.notes) {
            tracing::debug!(path = %binary.path.display(), ?note, "binary has less than it could have");
            *self.remarks.entry(describe(note).to_owned()).or_default() += 1;
        }
        let path = binary.path.to_string_lossy();
        self.file(module(ModuleKind::Binary, &path), frames, symbols);
    }

    /// Frames of one ELF image. An offset of which nothing is known stays what it is.
    fn file(&mut self, mut module: Module, frames: &[(usize, FileOffset)], symbols: Option<BinarySymbols>) {
        if let Some(symbols) = &symbols {
            module.build_id = symbols.build_id.as_bytes().to_vec();
        }
        let mut symbols = symbols.map(|symbols| symbols.symbols).unwrap_or_default().into_iter();
        for (index, offset) in frames {
            let symbol = symbols.next();
            let address =
                symbol.as_ref().and_then(|symbol| symbol.address).map_or(offset.0, |address| address.0);
            let lines = symbol.map(|symbol| symbol.lines).unwrap_or_default();
            self.found[*index] = Some(Found { module: module.clone(), address, lines });
        }
    }

    fn jit(&mut self, symbolizer: &mut Symbolizer, process: &Process, frames: &[(usize, AbsoluteAddress)]) {
        let addresses = inputs(frames);
        let dumped = process.jitdump().map(|file| symbolizer.jitdump(file, &addresses));
        let dumped = self.compiled("jitdump", dumped);
        let is_whole = !dumped.is_empty() && dumped.iter().all(|symbol| !symbol.lines.is_empty());
        let map = process.perf_map().filter(|_| !is_whole);
        let mapped = map.map(|file| symbolizer.perf_map(file, &addresses));
        let mapped = self.compiled("perf map", mapped);
        let (mut dumped, mut mapped) = (dumped.into_iter(), mapped.into_iter());
        for (index, address) in frames {
            let (dumped, mapped) = (dumped.next(), mapped.next());
            let known = dumped.filter(|symbol| !symbol.lines.is_empty()).or(mapped);
            let lines = known.map(|symbol| symbol.lines).unwrap_or_default();
            self.found[*index] =
                Some(Found { module: module(ModuleKind::Jit, "[jit]"), address: address.0, lines });
        }
    }

    /// What a file says of code compiled at run time, with remarks on what it does not say.
    fn compiled(
        &mut self,
        what: &str,
        symbols: Option<Result<JitSymbols, SymbolizeError>>,
    ) -> Vec<Symbolized<AbsoluteAddress>> {
        match symbols {
            None => Vec::new(),
            Some(Err(error)) => {
                self.remarks.insert(format!("a {what} could not be read: {error}"), 0);
                Vec::new()
            }
            Some(Ok(symbols)) => {
                if symbols.unread_bytes > 0 {
                    self.remarks.insert(format!("a {what} was too large to read in full"), 0);
                }
                symbols.symbols
            }
        }
    }
}

fn inputs<A: Copy>(frames: &[(usize, A)]) -> Vec<A> {
    frames.iter().map(|(_, address)| *address).collect()
}

fn unknown() -> Module {
    module(ModuleKind::Unknown, "[unknown]")
}

fn module(kind: ModuleKind, path: &str) -> Module {
    Module { kind, path: path.to_owned(), build_id: Vec::new() }
}

/// What is said of files in which this was met.
fn describe(note: &Note) -> &'static str {
    match note {
        Note::DebugInfoTooLarge => "without source lines: their debug information is too large",
        Note::DebugInfoDamaged(_) => "without source lines: their debug information is damaged",
        Note::SymbolsDamaged => "without symbols: their symbol tables are damaged",
        Note::DebugFilesOfOtherBuilds(_) => "whose separate debug files belong to other builds",
    }
}
