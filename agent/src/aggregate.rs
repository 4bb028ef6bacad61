//! Sums samples by thread and stack while they come in.
//!
//! User frames come as positions in files, so a stack means the same in every process. It is identified by all of its frames
//! and how it ended, and by the process where a frame lies in memory of no file; the hash only finds it. Every table has a
//! limit, and what meets it is counted in [`Dropped`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use chokepoint_ebpf::COMM_LEN;
use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::sched::{State, WaitFacts, WakeFacts};
use chokepoint_ebpf::unwind::file::NewFile;
use chokepoint_ebpf::unwind::frame::{Frame, Place};
use hashbrown::HashTable;

use crate::drain::decode::{Sample, Wait};
use crate::process::binaries::{Announced, Binaries, BinaryId};
use crate::process::objects::{ObjectId, Objects};
use crate::process::table::{ProcessId, ProcessKey, ProcessTable};
use chokepoint_analysis::coverage::{Loss, StackOutcomes};

/// Where a frame's code lies. Of callers it is the call's last byte, not the instruction after it, which may belong to
/// another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RawFrame {
    /// In the kernel, absolute.
    Kernel(u64),
    /// In a file by the kernel programs' id, at this file offset.
    File(u32, u64),
    /// In the vDSO, at this offset.
    Vdso(u64),
    /// In code that this process's runtime compiled, absolute.
    Jit(ProcessId, u64),
    /// In none of the process's mappings, absolute.
    Unmapped(u64),
    /// Stands for the outermost frames of a user stack that are missing, and says why.
    Missing(StackOutcome),
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

/// Ends the words of a stack whose outermost frames are missing; the outcome is in the low bits. No frame has this kind.
const MISSING: u64 = 0xf << 60;

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

/// What of a thread's time a sample is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Executing.
    OnCpu,
    /// Not able to run.
    Blocked(Waiting),
    /// Able to run: since it was woken or preempted, or held back by its group's quota.
    Queued(State),
}

/// How a thread waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// In which state.
    pub state: State,
    /// Number of the system call; `None` where it was in none.
    pub syscall: Option<u32>,
    /// What the call's arguments name.
    pub object: Option<ObjectId>,
    /// What ended it, where that was recorded.
    pub waker: Option<WakerId>,
}

/// Index of a [`Waker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WakerId(u32);

impl WakerId {
    /// Position in [`Aggregate::wakers`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What ended a wait: a thread and its stack, positions as in the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waker {
    /// Position of the thread.
    pub thread: u32,
    /// Position of its stack.
    pub stack: u32,
}

/// The program that took samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The on-CPU source.
    OnCpu = 0,
    /// Waits that ended, and those that had not at the window's end.
    Waits = 1,
    /// What ended them.
    Wakers = 2,
    /// Who opened TCP connections, and who sent on those that lost something.
    Openers = 3,
    /// Page faults.
    Faults = 4,
    /// Direct reclaims.
    Reclaims = 5,
}

/// Samples of one source that are in the sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Captured {
    samples: u64,
    user_stacks: Outcomes,
    kernel_stacks: Outcomes,
}

impl Captured {
    fn count(&mut self, sample: &Sample<'_>) {
        self.samples += 1;
        self.user_stacks.count(sample.user_outcome);
        self.kernel_stacks.count(sample.kernel_outcome);
    }

    /// How many.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// How the captures of user stacks ended.
    #[must_use]
    pub fn user_stacks(&self) -> StackOutcomes {
        self.user_stacks.summary()
    }

    /// How the captures of kernel stacks ended.
    #[must_use]
    pub fn kernel_stacks(&self) -> StackOutcomes {
        self.kernel_stacks.summary()
    }
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
    /// What of the thread's time it is.
    pub part: Part,
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
    /// Wake-ups whose waits were not told: too many at a time.
    pub wakes: u64,
    /// Not dropped, but without a place in the timeline: it was full.
    pub timeline: u64,
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
    /// Samples kept one by one; 48 bytes each. 0 keeps none.
    pub timeline: usize,
    /// Wake-ups whose waits are still to be told; 40 bytes each.
    pub wakes: usize,
}

impl Default for Limits {
    /// At most 60 MB in all, without a timeline: about 40,000 distinct stacks of 50 frames.
    fn default() -> Self {
        Self { frames: 2_000_000, sums: 500_000, threads: 65_536, timeline: 0, wakes: 65_536 }
    }
}

/// One distinct stack: a stretch of the frames' tables, the kernel's first.
#[derive(Clone, Copy, Debug)]
struct StackEntry {
    hash: u64,
    /// `None` for stacks that mean the same in every process.
    process: Option<ProcessId>,
    start: u32,
    kernel_frames: u16,
    /// User frames, and the word that says that some are missing.
    user_words: u16,
}

impl StackEntry {
    fn range(&self) -> std::ops::Range<usize> {
        let start = self.start as usize;
        start..start + usize::from(self.kernel_frames) + usize::from(self.user_words)
    }
}

/// Samples summed by thread and stack. See the module's documentation.
pub struct Aggregate {
    limits: Limits,
    /// What is known beyond one window is shared with the windows before.
    binaries: Arc<Binaries>,
    processes: Arc<ProcessTable>,
    objects: Arc<Objects>,
    frames: Vec<RawFrame>,
    frame_ids: HashMap<RawFrame, RawFrameId>,
    stacks: Vec<StackEntry>,
    stack_ids: HashTable<u32>,
    hasher: RandomState,
    /// Words of all stacks, one after the other, as the kernel gave them.
    words: Vec<u64>,
    /// What each of them is.
    placed: Vec<RawFrameId>,
    threads: Vec<RawThread>,
    thread_ids: HashMap<RawThread, u32>,
    sums: HashMap<(Part, u32, u32), Sum>,
    captured: [Captured; 6],
    wakers: Vec<Waker>,
    waker_ids: HashMap<Waker, WakerId>,
    /// Wake-ups whose waits are not told yet, by thread id and when it left the CPU.
    wakes: HashMap<(u32, u64), WakerId>,
    timeline: Vec<RawMoment>,
    dropped: Dropped,
    scratch: Vec<u64>,
}

impl Aggregate {
    /// Empty tables with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            binaries: Arc::default(),
            processes: Arc::default(),
            objects: Arc::default(),
            frames: Vec::new(),
            frame_ids: HashMap::new(),
            stacks: Vec::new(),
            stack_ids: HashTable::new(),
            hasher: RandomState::new(),
            words: Vec::new(),
            placed: Vec::new(),
            threads: Vec::new(),
            thread_ids: HashMap::new(),
            sums: HashMap::new(),
            captured: [Captured::default(); 6],
            wakers: Vec::new(),
            waker_ids: HashMap::new(),
            wakes: HashMap::new(),
            timeline: Vec::new(),
            dropped: Dropped::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes note of a file, while the process that maps it lives.
    pub fn announce(&mut self, file: &NewFile) -> Option<Announced> {
        Arc::make_mut(&mut self.binaries).announce(file)
    }

    /// Takes note that an announced file is one that is open already.
    pub fn introduce(&mut self, file: &NewFile, binary: BinaryId) {
        Arc::make_mut(&mut self.binaries).introduce(file, binary);
    }

    /// Opens the files that a process maps executable, before it is sampled.
    pub fn open_files_of(&mut self, tgid: u32) -> Vec<BinaryId> {
        Arc::make_mut(&mut self.binaries).open_all(tgid)
    }

    /// Adds one sample of the on-CPU source.
    pub fn add(&mut self, sample: &Sample<'_>) {
        let Some((thread, stack)) = self.place(sample) else {
            return;
        };
        let has_room = self.add_to(Part::OnCpu, thread, stack, sample.header.time_ns, sample.header.weight);
        self.count(Origin::OnCpu, sample, has_room);
    }

    /// Adds what ended a wait, which is told afterwards.
    pub fn add_wake(&mut self, facts: &WakeFacts, sample: &Sample<'_>) {
        if self.wakes.len() >= self.limits.wakes {
            self.dropped.wakes += 1;
            return;
        }
        let Some((thread, stack)) = self.place(sample) else {
            return;
        };
        let waker = Waker { thread, stack };
        let wakers = &mut self.wakers;
        let id = *self.waker_ids.entry(waker).or_insert_with(|| {
            wakers.push(waker);
            WakerId(wakers.len() as u32 - 1)
        });
        self.wakes.insert((facts.tid, facts.left_ns), id);
        self.captured[Origin::Wakers as usize].count(sample);
    }

    /// Adds one wait.
    pub fn add_wait(&mut self, wait: &Wait<'_>) {
        let object = self.object_of(wait);
        self.add_wait_for(wait, object);
    }

    /// Adds what of a wait lies in this window that began before. `object` is what it was found to be for in an earlier one.
    /// What it is for; `None` where that is still to be found.
    pub fn add_open_wait(
        &mut self,
        wait: &Wait<'_>,
        object: Option<Option<ObjectId>>,
    ) -> Option<Option<ObjectId>> {
        let skipped = self.objects.skipped();
        let found = object.unwrap_or_else(|| self.object_of(wait));
        self.add_wait_for(wait, found);
        (self.objects.skipped() == skipped).then_some(found)
    }

    /// Counts a wait of which nothing lies in this window.
    pub fn count_wait(&mut self, sample: &Sample<'_>) {
        self.captured[Origin::Waits as usize].count(sample);
    }

    fn object_of(&mut self, wait: &Wait<'_>) -> Option<ObjectId> {
        let Wait { facts, sample, .. } = wait;
        let header = &sample.header;
        if facts.blocked_ns == 0 || !Objects::has_name(facts.syscall) {
            return None;
        }
        Arc::make_mut(&mut self.objects).of_call(
            header.tgid,
            header.process_start_ns,
            facts.syscall,
            &facts.arguments,
        )
    }

    fn add_wait_for(&mut self, wait: &Wait<'_>, object: Option<ObjectId>) {
        let Wait { facts, state, sample } = wait;
        let waker = self.wakes.remove(&(sample.header.tid, facts.left_ns));
        let Some((thread, stack)) = self.place(sample) else {
            return;
        };
        let syscall = u32::try_from(facts.syscall).ok();
        let queued = match state {
            State::Preempted | State::Throttled => State::Preempted,
            _ => State::Woken,
        };
        let parts = [
            (Part::Blocked(Waiting { state: *state, syscall, object, waker }), facts.blocked_ns),
            (Part::Queued(State::Throttled), facts.throttled_ns),
            (Part::Queued(queued), facts.queued_ns),
        ];
        let end_ns = facts.left_ns + facts.length_ns();
        let mut has_room = true;
        for (part, length_ns) in parts.into_iter().filter(|(_, length_ns)| *length_ns > 0) {
            has_room &= self.add_to(part, thread, stack, end_ns, stands_for(facts, length_ns));
        }
        self.count(Origin::Waits, sample, has_room);
    }

    /// Ends a window: returns what it came to, and goes on with empty sums. Files stay known; processes and objects, too,
    /// unless they are to be `forgotten` so that those that are gone leave no trace.
    #[must_use]
    pub fn close_window(&mut self, forgotten: bool) -> Self {
        let mut next = Self { binaries: Arc::clone(&self.binaries), ..Self::new(self.limits) };
        if !forgotten {
            next.processes = Arc::clone(&self.processes);
            next.objects = Arc::clone(&self.objects);
            if next.objects.skipped() > 0 {
                Arc::make_mut(&mut next.objects).begin_window();
            }
        }
        std::mem::replace(self, next)
    }

    /// Takes over a thread and a stack from the window before; `None` where there is no room, or where the stack's process was
    /// forgotten.
    pub fn carry(&mut self, before: &Self, (thread, stack): (u32, u32)) -> Option<(u32, u32)> {
        let entry = before.stacks[stack as usize];
        if entry.process.is_some() && !Arc::ptr_eq(&self.processes, &before.processes) {
            return None;
        }
        let stack = self.find_or_insert(entry.process, &before.words[entry.range()], entry.kernel_frames)?;
        Some((self.thread(before.threads[thread as usize])?, stack))
    }

    /// Keeps the thread and stack of who opened a connection or sent on it. Their positions; `None` where there is no room.
    pub fn add_opener(&mut self, sample: &Sample<'_>) -> Option<(u32, u32)> {
        let placed = self.place(sample)?;
        self.captured[Origin::Openers as usize].count(sample);
        Some(placed)
    }

    /// Keeps the thread and stack of a sample that is summed elsewhere: `add` is told their positions, and tells whether it had
    /// room.
    pub fn add_elsewhere(
        &mut self,
        origin: Origin,
        sample: &Sample<'_>,
        add: impl FnOnce((u32, u32)) -> bool,
    ) {
        if let Some(placed) = self.place(sample) {
            self.count(origin, sample, add(placed));
        }
    }

    /// Counts a sample once, as captured or as dropped.
    fn count(&mut self, origin: Origin, sample: &Sample<'_>, has_room: bool) {
        if has_room {
            self.captured[origin as usize].count(sample);
        } else {
            self.dropped.thread_table += 1;
        }
    }

    fn place(&mut self, sample: &Sample<'_>) -> Option<(u32, u32)> {
        let header = &sample.header;
        let Some(stack) = self.stack(sample) else {
            self.dropped.stack_table += 1;
            return None;
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
            return None;
        };
        Some((thread, stack))
    }

    /// Whether there was room.
    fn add_to(&mut self, part: Part, thread: u32, stack: u32, time_ns: u64, weight: u64) -> bool {
        let sums_are_full = self.sums.len() >= self.limits.sums;
        let sum = match self.sums.entry((part, thread, stack)) {
            std::collections::hash_map::Entry::Vacant(_) if sums_are_full => return false,
            entry => entry.or_default(),
        };
        sum.count += 1;
        sum.weight += weight;
        if self.timeline.len() < self.limits.timeline {
            self.timeline.push(RawMoment { time_ns, part, thread, stack, weight });
        } else if self.limits.timeline > 0 {
            self.dropped.timeline += 1;
        }
        true
    }

    /// Samples of all sources summed so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.captured.iter().map(Captured::samples).sum()
    }

    /// The samples of one source.
    #[must_use]
    pub fn captured(&self, origin: Origin) -> &Captured {
        &self.captured[origin as usize]
    }

    /// What threads waited for.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Every distinct waker.
    #[must_use]
    pub fn wakers(&self) -> &[Waker] {
        &self.wakers
    }

    /// The files.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The processes that run code of no file.
    #[must_use]
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    /// The processes, to be completed before their frames are symbolized.
    pub fn processes_mut(&mut self) -> &mut ProcessTable {
        Arc::make_mut(&mut self.processes)
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
        self.stacks.iter().map(|entry| &self.placed[entry.range()])
    }

    /// Number of a stack's kernel frames, by the stack's position.
    #[must_use]
    pub fn kernel_frames(&self, stack: u32) -> usize {
        usize::from(self.stacks[stack as usize].kernel_frames)
    }

    /// Whether a stack has frames of user code, by its position.
    #[must_use]
    pub fn has_user_frames(&self, stack: u32) -> bool {
        self.stacks[stack as usize].user_words > 0
    }

    /// The sums, as part, position of the thread, position of the stack, sum.
    pub fn sums(&self) -> impl Iterator<Item = (Part, u32, u32, Sum)> + '_ {
        self.sums.iter().map(|((part, thread, stack), sum)| (*part, *thread, *stack, *sum))
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

    fn stack(&mut self, sample: &Sample<'_>) -> Option<u32> {
        let header = &sample.header;
        let runs_anonymous_code =
            sample.user_frames().any(|frame| matches!(frame.place(), Some(Place::Anonymous(_))));
        let process = if runs_anonymous_code {
            let key =
                ProcessKey { tgid: header.tgid, start_ns: header.process_start_ns, exec_id: header.exec_id };
            Some(self.identify(key)?)
        } else {
            None
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend(sample.kernel_addresses());
        scratch.extend(sample.user_frames().map(|frame| frame.0));
        if cause(sample.user_outcome).is_some() || sample.user_outcome == StackOutcome::DepthLimit {
            scratch.push(MISSING | sample.user_outcome as u64);
        }
        let id = self.find_or_insert(process, &scratch, header.kernel_frames);
        self.scratch = scratch;
        id
    }

    fn identify(&mut self, key: ProcessKey) -> Option<ProcessId> {
        self.processes.find(key).or_else(|| Arc::make_mut(&mut self.processes).identify(key))
    }

    fn find_or_insert(
        &mut self,
        process: Option<ProcessId>,
        words: &[u64],
        kernel_frames: u16,
    ) -> Option<u32> {
        let hash = self.hasher.hash_one((process, kernel_frames, words));
        let found = self.stack_ids.find(hash, |id| {
            let entry = &self.stacks[*id as usize];
            entry.hash == hash
                && entry.process == process
                && entry.kernel_frames == kernel_frames
                && &self.words[entry.range()] == words
        });
        if let Some(id) = found {
            return Some(*id);
        }
        if self.words.len() + words.len() > self.limits.frames {
            return None;
        }
        let id = self.stacks.len() as u32;
        let start = self.words.len() as u32;
        self.words.extend_from_slice(words);
        self.stacks.push(StackEntry {
            hash,
            process,
            start,
            kernel_frames,
            user_words: words.len() as u16 - kernel_frames,
        });
        self.stack_ids.insert_unique(hash, id, |id| self.stacks[*id as usize].hash);
        for (position, word) in words.iter().enumerate() {
            let frame = if position < usize::from(kernel_frames) {
                // Every kernel address but the first is a return address.
                RawFrame::Kernel(word.saturating_sub(u64::from(position > 0)))
            } else {
                user_frame(process, *word)
            };
            let frame = self.frame(frame);
            self.placed.push(frame);
        }
        Some(id)
    }

    fn frame(&mut self, frame: RawFrame) -> RawFrameId {
        *self.frame_ids.entry(frame).or_insert_with(|| {
            let id = RawFrameId(self.frames.len() as u32);
            self.frames.push(frame);
            id
        })
    }
}

/// What the part of a wait stands for: see [`WaitFacts`].
fn stands_for(facts: &WaitFacts, length_ns: u64) -> u64 {
    let whole_ns = facts.length_ns();
    if whole_ns >= facts.period_ns {
        return length_ns;
    }
    let scaled = u128::from(length_ns) * u128::from(facts.period_ns) / u128::from(whole_ns.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn user_frame(process: Option<ProcessId>, word: u64) -> RawFrame {
    match (Frame(word).place(), process) {
        (Some(Place::File(id, offset)), _) => RawFrame::File(id, offset),
        (Some(Place::Vdso(offset)), _) => RawFrame::Vdso(offset),
        (Some(Place::Anonymous(address)), Some(process)) => RawFrame::Jit(process, address),
        (Some(Place::Anonymous(address) | Place::Unmapped(address)), _) => RawFrame::Unmapped(address),
        (None, _) => {
            RawFrame::Missing(StackOutcome::from_u8((word & 0xff) as u8).unwrap_or(StackOutcome::Unreadable))
        }
    }
}

/// Number of stacks by each [`StackOutcome`].
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes([u64; StackOutcome::COUNT]);

impl Outcomes {
    fn count(&mut self, outcome: StackOutcome) {
        self.0[outcome as usize] += 1;
    }

    fn summary(&self) -> StackOutcomes {
        let mut summary = StackOutcomes::default();
        for (number, samples) in self.0.iter().enumerate().filter(|(_, samples)| **samples > 0) {
            let Some(outcome) = StackOutcome::from_u8(number as u8) else { continue };
            match (outcome, cause(outcome)) {
                (_, Some(cause)) => {
                    summary.incomplete.push(Loss { cause: cause.into(), samples: *samples });
                }
                (StackOutcome::NotWanted | StackOutcome::Absent, _) => summary.absent += samples,
                (StackOutcome::DepthLimit, _) => summary.truncated += samples,
                _ => summary.complete += samples,
            }
        }
        summary
    }
}

/// Why a stack is incomplete, in words; `None` where it is not, or was cut on purpose.
#[must_use]
pub fn cause(outcome: StackOutcome) -> Option<&'static str> {
    match outcome {
        StackOutcome::NotWanted
        | StackOutcome::Absent
        | StackOutcome::Walked
        | StackOutcome::Complete
        | StackOutcome::DepthLimit => None,
        StackOutcome::Unreadable => Some("kernel stack not readable"),
        StackOutcome::TableMissing => Some("no unwind table yet"),
        StackOutcome::NoMapping => Some("return address outside of all code"),
        StackOutcome::NoRule => Some("code without call-frame information"),
        StackOutcome::UnsupportedRule => Some("call-frame information of a form not known"),
        StackOutcome::BadFrame => Some("damaged frame"),
        StackOutcome::StackUnreadable => Some("stack not in memory"),
        StackOutcome::ThirtyTwoBit => Some("32-bit code"),
        StackOutcome::NoRegisters => Some("registers not readable"),
        StackOutcome::NotRunning => Some("not running"),
    }
}
