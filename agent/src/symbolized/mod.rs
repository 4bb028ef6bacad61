//! Turns summed raw stacks into a profile: every distinct frame is symbolized once, file by file.

mod assembly;
mod naming;
mod spin_waits;

use std::collections::HashMap;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::kernel_frames;
use chokepoint_analysis::profile::{Header, Module, ModuleKind, Profile};

use chokepoint_ebpf::memory::ProcessKey;

use self::assembly::Assembly;
pub(crate) use self::naming::name_frames;
use crate::aggregate::{Aggregate, Part, RawFrame, RawFrameId};
use crate::connections::{Connection, Ends, Peer, peers};
use crate::memory::MemorySeen;
use crate::record::event::Event;
use crate::symbolize::{SourceLine, Symbolizer};
use crate::thread_times::ThreadTimes;
use crate::time_profiles::Classes;
use crate::window::Window;

/// What is known of a frame after symbolization.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) module: Module,
    pub(crate) address: u64,
    /// The function, innermost first where others are inlined.
    pub(crate) lines: Vec<SourceLine>,
    /// Whether threads that ran here waited for others, by the instructions.
    pub(crate) is_spin_wait: bool,
}

impl Found {
    /// Whose instructions nobody has looked at.
    fn new(module: Module, address: u64, lines: Vec<SourceLine>) -> Self {
        Self { module, address, lines, is_spin_wait: false }
    }
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

/// What frames are that mean the same in every window of a session. For another session it is to be a new one: files have other numbers
/// there.
#[derive(Debug, Default)]
pub struct Names {
    found: HashMap<RawFrame, Found>,
}

/// Frames that are remembered, some 300 bytes each. When there are more, all are forgotten: what still runs is soon there again.
const MAX_REMEMBERED: usize = 40_000;

impl Names {
    /// Keeps what of a window's frames will mean the same in the next.
    fn remember(&mut self, aggregate: &Aggregate, found: &[Found]) {
        if self.found.len() + found.len() > MAX_REMEMBERED {
            self.found.clear();
        }
        for (frame, found) in aggregate.frames().iter().zip(found) {
            let means_the_same =
                matches!(frame, RawFrame::Kernel(_) | RawFrame::File(..) | RawFrame::Vdso(_));
            if means_the_same && !self.found.contains_key(frame) {
                self.found.insert(*frame, found.clone());
            }
        }
    }
}

/// Symbolizes every frame of a window once and builds the profiles.
#[must_use]
pub fn profiles(window: &Window, symbolizer: &mut Symbolizer, wanted: Vec<Wanted>) -> Profiles {
    remembering(window, symbolizer, &mut Names::default(), wanted)
}

/// The same for one of many windows: frames that were named before are not looked up again. What is remarked of a file is remarked with the
/// window that it was first met in.
#[must_use]
pub fn remembering(
    window: &Window,
    symbolizer: &mut Symbolizer,
    names: &mut Names,
    wanted: Vec<Wanted>,
) -> Profiles {
    let Window { aggregate, start_ns: window_start_ns, memory, sockets, .. } = window;
    let (times, window_start_ns) = (window.times.as_ref(), *window_start_ns);
    let lost: Vec<(&Ends, &Connection)> = window.connections.of_target(window.is_host).collect();
    let mut notes = Vec::new();
    let mut found = symbolize(aggregate, symbolizer, names, &mut notes);
    let stacks: Vec<&[RawFrameId]> = aggregate.stacks().collect();
    spin_waits::mark(aggregate, &stacks, &mut found);
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
                    let scaled = memory.iter().flat_map(|seen| &seen.scaled).chain(&window.faults);
                    assembly.memory(scaled, header, coverage)
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
            if event.looks_at_failed_calls() {
                profile.failed_calls.clone_from(&window.calls.calls);
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
fn symbolize(
    aggregate: &Aggregate,
    symbolizer: &mut Symbolizer,
    names: &mut Names,
    notes: &mut Vec<String>,
) -> Vec<Found> {
    let frames = aggregate.frames();
    let unknown = (0..frames.len()).filter(|frame| !names.found.contains_key(&frames[*frame]));
    let new = name_frames(aggregate, symbolizer, unknown, notes);
    let known = |frame: &RawFrame| names.found.get(frame).cloned();
    // Every frame is one or the other.
    let found: Vec<Found> =
        new.into_iter().zip(frames).filter_map(|(new, frame)| new.or_else(|| known(frame))).collect();
    names.remember(aggregate, &found);
    found
}

fn module(kind: ModuleKind, path: &str) -> Module {
    Module { kind, path: path.to_owned(), build_id: Vec::new() }
}
