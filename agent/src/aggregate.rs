//! Sums samples by thread and stack while they come in, and places each new stack's addresses in files.
//!
//! A stack is identified by its process and all of its addresses; the hash only finds it. Addresses are placed when a stack
//! is first seen, while its process lives: what they mean later, when code was unloaded or the process has ended, cannot be
//! known any more. Every table has a limit, and what meets it is counted in [`Dropped`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use chokepoint_ebpf::COMM_LEN;
use chokepoint_ebpf::sample::StackOutcome;
use hashbrown::HashTable;

use crate::drain::decode::Sample;
use crate::process::binaries::BinaryId;
use crate::process::table::{Place, ProcessId, ProcessKey, ProcessTable, Reason};
use chokepoint_analysis::coverage::StackOutcomes;

/// Where a frame's code lies. Of callers it is the call's last byte, not the instruction after it, which may belong to
/// another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawFrame {
    /// In the kernel, absolute.
    Kernel(u64),
    /// In a file, at this file offset.
    Binary(BinaryId, u64),
    /// In the vDSO, at this offset.
    Vdso(u64),
    /// In code that this process's runtime compiled, absolute.
    Jit(ProcessId, u64),
    /// In none of the process's mappings, absolute.
    Unmapped(u64),
}

/// Index of a [`RawFrame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawFrameId(u32);

impl RawFrameId {
    /// Position in [`Aggregate::frames`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Stands where a broken stack has an address that is no frame; never looked up.
const NO_FRAME: RawFrameId = RawFrameId(u32::MAX);

/// A thread under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawThread {
    /// Process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Start of the process, `CLOCK_BOOTTIME` nanoseconds.
    pub process_start_ns: u64,
    /// Name of the process, as the kernel keeps it.
    pub process_comm: [u8; COMM_LEN],
    /// Name of the thread, as the kernel keeps it.
    pub thread_comm: [u8; COMM_LEN],
}

/// What the samples of one thread with one stack add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of samples.
    pub count: u64,
    /// What they stand for.
    pub weight: u64,
}

/// One sample at its time.
#[derive(Clone, Copy, Debug)]
pub struct RawMoment {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Position in [`Aggregate::threads`].
    pub thread: u32,
    /// Position among the stacks.
    pub stack: u32,
    /// What it stands for.
    pub weight: u64,
}

/// Samples that reached the agent but met the limit of a table, and other imperfections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The table of stacks was full.
    pub stack_table: u64,
    /// The table of threads or of sums was full.
    pub thread_table: u64,
    /// Not dropped, but without a place in the timeline: it was full.
    pub timeline: u64,
    /// Not dropped, but without modules: the process's mappings could not be read, most often because it had ended.
    pub unread_process: u64,
}

/// Limits of an [`Aggregate`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames of all distinct stacks together; 12 bytes each.
    pub frames: usize,
    /// Distinct pairs of thread and stack; about 40 bytes each.
    pub sums: usize,
    /// Threads; about 100 bytes each.
    pub threads: usize,
    /// Samples kept one by one; 24 bytes each. 0 keeps none.
    pub timeline: usize,
}

impl Default for Limits {
    /// At most 55 MB in all, without a timeline: about 40,000 distinct stacks of 50 frames.
    fn default() -> Self {
        Self { frames: 2_000_000, sums: 500_000, threads: 65_536, timeline: 0 }
    }
}

/// One distinct stack: a stretch of the frames' tables, the kernel's first.
#[derive(Clone, Copy, Debug)]
struct StackEntry {
    hash: u64,
    /// `None` for stacks without user frames.
    process: Option<ProcessId>,
    start: u32,
    kernel_frames: u16,
    user_frames: u16,
    /// The reading of the process's mappings that placed the frames; 0 when there was none.
    generation: u32,
    /// Where the user stack leaves the process's code, by that reading: the frames from there on are none, they come of a
    /// frame pointer that held something else.
    broken_at: Option<u16>,
    /// Whether what was executed lay in none of the mappings.
    leaf_unmapped: bool,
}

impl StackEntry {
    fn range(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.kernel_frames) + usize::from(self.user_frames)
    }

    /// The stretch without what is no frame.
    fn whole(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start
            ..start
                + usize::from(self.kernel_frames)
                + usize::from(self.broken_at.unwrap_or(self.user_frames))
    }
}

/// Samples summed by thread and stack. See the module's documentation.
pub struct Aggregate {
    limits: Limits,
    processes: ProcessTable,
    frames: Vec<RawFrame>,
    frame_ids: HashMap<RawFrame, RawFrameId>,
    stacks: Vec<StackEntry>,
    stack_ids: HashTable<u32>,
    hasher: RandomState,
    /// Addresses of all stacks, one after the other, as the kernel gave them.
    addresses: Vec<u64>,
    /// What each of them was placed as.
    placed: Vec<RawFrameId>,
    threads: Vec<RawThread>,
    thread_ids: HashMap<RawThread, u32>,
    sums: HashMap<(u32, u32), Sum>,
    samples: u64,
    timeline: Vec<RawMoment>,
    dropped: Dropped,
    user_stacks: StackOutcomes,
    kernel_stacks: StackOutcomes,
    scratch: Vec<u64>,
}

impl Aggregate {
    /// Empty tables with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            processes: ProcessTable::new(),
            frames: Vec::new(),
            frame_ids: HashMap::new(),
            stacks: Vec::new(),
            stack_ids: HashTable::new(),
            hasher: RandomState::new(),
            addresses: Vec::new(),
            placed: Vec::new(),
            threads: Vec::new(),
            thread_ids: HashMap::new(),
            sums: HashMap::new(),
            samples: 0,
            timeline: Vec::new(),
            dropped: Dropped::default(),
            user_stacks: StackOutcomes::default(),
            kernel_stacks: StackOutcomes::default(),
            scratch: Vec::new(),
        }
    }

    /// Adds one sample.
    pub fn add(&mut self, sample: &Sample<'_>, now: Instant) {
        let header = &sample.header;
        let Some(stack) = self.stack(sample, now) else {
            self.dropped.stack_table += 1;
            return;
        };
        let thread = RawThread {
            tgid: header.tgid,
            tid: header.tid,
            process_start_ns: header.process_start_ns,
            process_comm: header.process_comm,
            thread_comm: header.thread_comm,
        };
        let Some(thread) = self.thread(thread) else {
            self.dropped.thread_table += 1;
            return;
        };
        let sums_are_full = self.sums.len() >= self.limits.sums;
        let sum = match self.sums.entry((thread, stack)) {
            std::collections::hash_map::Entry::Vacant(_) if sums_are_full => {
                self.dropped.thread_table += 1;
                return;
            }
            entry => entry.or_default(),
        };
        sum.count += 1;
        sum.weight += header.weight;
        self.samples += 1;

        let entry = &self.stacks[stack as usize];
        if entry.broken_at.is_some() {
            self.user_stacks.broken += 1;
        } else {
            count_outcome(&mut self.user_stacks, sample.user_outcome);
        }
        count_outcome(&mut self.kernel_stacks, sample.kernel_outcome);
        if entry.user_frames > 0 && entry.generation == 0 {
            self.dropped.unread_process += 1;
        }
        if self.timeline.len() < self.limits.timeline {
            self.timeline.push(RawMoment { time_ns: header.time_ns, thread, stack, weight: header.weight });
        } else if self.limits.timeline > 0 {
            self.dropped.timeline += 1;
        }
    }

    /// Samples summed so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The processes, and through them the files.
    #[must_use]
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    /// The processes, to be completed before their frames are symbolized.
    pub fn processes_mut(&mut self) -> &mut ProcessTable {
        &mut self.processes
    }

    /// Every distinct frame.
    #[must_use]
    pub fn frames(&self) -> &[RawFrame] {
        &self.frames
    }

    /// Every thread.
    #[must_use]
    pub fn threads(&self) -> &[RawThread] {
        &self.threads
    }

    /// The distinct stacks, leaf first: the kernel's frames, then the user's.
    pub fn stacks(&self) -> impl Iterator<Item = &[RawFrameId]> {
        self.stacks.iter().map(|entry| &self.placed[entry.whole()])
    }

    /// The sums, as position of the thread, position of the stack, sum.
    pub fn sums(&self) -> impl Iterator<Item = (u32, u32, Sum)> + '_ {
        self.sums.iter().map(|((thread, stack), sum)| (*thread, *stack, *sum))
    }

    /// The samples one by one, as they came.
    #[must_use]
    pub fn timeline(&self) -> &[RawMoment] {
        &self.timeline
    }

    /// What met a limit.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// How the captures of user stacks ended.
    #[must_use]
    pub fn user_stacks(&self) -> StackOutcomes {
        self.user_stacks
    }

    /// How the captures of kernel stacks ended.
    #[must_use]
    pub fn kernel_stacks(&self) -> StackOutcomes {
        self.kernel_stacks
    }

    fn thread(&mut self, thread: RawThread) -> Option<u32> {
        if let Some(id) = self.thread_ids.get(&thread) {
            return Some(*id);
        }
        if self.threads.len() >= self.limits.threads {
            return None;
        }
        let id = self.threads.len() as u32;
        self.threads.push(thread);
        self.thread_ids.insert(thread, id);
        Some(id)
    }

    fn stack(&mut self, sample: &Sample<'_>, now: Instant) -> Option<u32> {
        let header = &sample.header;
        let process = if header.user_frames > 0 {
            let key =
                ProcessKey { tgid: header.tgid, start_ns: header.process_start_ns, exec_id: header.exec_id };
            Some(self.processes.identify(key, now)?)
        } else {
            None
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend(sample.kernel_addresses());
        scratch.extend(sample.user_addresses());
        let id = self.find_or_insert(process, &scratch, header.kernel_frames, header.user_frames);
        self.scratch = scratch;
        let id = id?;

        let entry = self.stacks[id as usize];
        if entry.broken_at.is_some() || entry.leaf_unmapped {
            self.place_again(id, now);
        }
        Some(id)
    }

    fn find_or_insert(
        &mut self,
        process: Option<ProcessId>,
        addresses: &[u64],
        kernel_frames: u16,
        user_frames: u16,
    ) -> Option<u32> {
        let hash = self.hasher.hash_one((process, kernel_frames, addresses));
        let found = self.stack_ids.find(hash, |id| {
            let entry = &self.stacks[*id as usize];
            entry.hash == hash
                && entry.process == process
                && entry.kernel_frames == kernel_frames
                && &self.addresses[entry.range()] == addresses
        });
        if let Some(id) = found {
            return Some(*id);
        }
        if self.addresses.len() + addresses.len() > self.limits.frames {
            return None;
        }
        let id = self.stacks.len() as u32;
        let start = self.addresses.len() as u32;
        self.addresses.extend_from_slice(addresses);
        self.stacks.push(StackEntry {
            hash,
            process,
            start,
            kernel_frames,
            user_frames,
            generation: 0,
            leaf_unmapped: false,
            broken_at: None,
        });
        self.stack_ids.insert_unique(hash, id, |id| self.stacks[*id as usize].hash);
        self.place(id);
        Some(id)
    }

    /// Tries to place a stack better, after reading the mappings again: code may have been mapped since.
    fn place_again(&mut self, id: u32, now: Instant) {
        let entry = self.stacks[id as usize];
        let Some(process) = entry.process else { return };
        let reason =
            if entry.leaf_unmapped { Reason::ExecutedElsewhere } else { Reason::CalledFromElsewhere };
        self.processes.refresh(process, now, reason);
        if self.processes.get(process).generation() != entry.generation {
            self.place(id);
        }
    }

    /// Places a stack's addresses by what is known of its process now.
    fn place(&mut self, id: u32) {
        let entry = self.stacks[id as usize];
        let generation = entry.process.map_or(0, |process| self.processes.get(process).generation());
        let (mut leaf_unmapped, mut broken_at) = (false, None);
        for (position, at) in entry.range().enumerate() {
            let kernel_frames = usize::from(entry.kernel_frames);
            let is_leaf = position == 0 || position == kernel_frames;
            let address = self.addresses[at].saturating_sub(u64::from(!is_leaf));
            if broken_at.is_some() {
                self.set_placed(at, NO_FRAME);
                continue;
            }
            let frame = match entry.process {
                Some(process) if position >= kernel_frames => {
                    match self.processes.get(process).place(address) {
                        Some(Place::File(binary, offset)) => RawFrame::Binary(binary, offset),
                        Some(Place::Vdso(offset)) => RawFrame::Vdso(offset),
                        Some(Place::Anonymous(address)) => RawFrame::Jit(process, address),
                        None => {
                            if is_leaf {
                                // It was executed, so it is a frame wherever it lies.
                                leaf_unmapped = true;
                            } else if generation > 0 {
                                broken_at = Some((position - kernel_frames) as u16);
                            }
                            RawFrame::Unmapped(address)
                        }
                    }
                }
                _ => RawFrame::Kernel(address),
            };
            let frame = self.frame(frame);
            self.set_placed(at, frame);
        }
        let entry = &mut self.stacks[id as usize];
        entry.generation = generation;
        entry.leaf_unmapped = leaf_unmapped;
        entry.broken_at = broken_at;
    }

    fn set_placed(&mut self, at: usize, frame: RawFrameId) {
        if at < self.placed.len() {
            self.placed[at] = frame;
        } else {
            self.placed.push(frame);
        }
    }

    fn frame(&mut self, frame: RawFrame) -> RawFrameId {
        *self.frame_ids.entry(frame).or_insert_with(|| {
            let id = RawFrameId(self.frames.len() as u32);
            self.frames.push(frame);
            id
        })
    }
}

fn count_outcome(outcomes: &mut StackOutcomes, outcome: StackOutcome) {
    let counter = match outcome {
        StackOutcome::NotWanted | StackOutcome::Absent => &mut outcomes.absent,
        StackOutcome::Walked => &mut outcomes.walked,
        StackOutcome::DepthLimit => &mut outcomes.truncated,
        StackOutcome::Unreadable => &mut outcomes.unreadable,
    };
    *counter += 1;
}
