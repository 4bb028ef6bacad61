//! Sums samples by thread and stack while they come in.
//!
//! `stacks` has each distinct stack once, `captured` counts the samples and how their stacks ended. Every table has a limit, and what
//! meets it is counted in [`Dropped`].

mod captured;
mod stacks;

use std::collections::HashMap;
use std::sync::Arc;

use chokepoint_ebpf::COMM_LEN;
use chokepoint_ebpf::sample::StackOutcome;
use chokepoint_ebpf::sched::{State, WaitFacts, WakeFacts};
use chokepoint_ebpf::unwind::file::NewFile;
use chokepoint_ebpf::unwind::frame::Place;

use self::stacks::{StackTable, missing};
use crate::drain::decode::{Sample, Wait};
use crate::process::binaries::{Announced, Binaries, BinaryId};
use crate::process::objects::{Call, ObjectId, Objects};
use crate::process::table::{ProcessId, ProcessKey, ProcessTable};

pub use self::captured::{Captured, Origin, cause};
pub use self::stacks::{RawFrame, RawFrameId};

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

/// What the samples of one thread with one stack add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of samples.
    pub count: u64,
    /// What they stand for.
    pub weight: u64,
}

/// When something ended, and how long it lasted.
#[derive(Clone, Copy)]
struct When {
    time_ns: u64,
    length_ns: u64,
}

/// One sample at its time.
#[derive(Clone, Copy, Debug)]
pub struct RawMoment {
    /// `CLOCK_MONOTONIC`, nanoseconds; of what lasted, its end.
    pub time_ns: u64,
    /// How long it lasted, nanoseconds; 0 of a thread that was executing at that moment.
    pub length_ns: u64,
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
    /// Samples kept one by one; 64 bytes each. 0 keeps none.
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

/// Samples summed by thread and stack. See the module's documentation.
pub struct Aggregate {
    limits: Limits,
    /// What is known beyond one window is shared with the windows before.
    binaries: Arc<Binaries>,
    processes: Arc<ProcessTable>,
    objects: Arc<Objects>,
    stacks: StackTable,
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
            stacks: StackTable::new(limits.frames),
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
        let when = When { time_ns: sample.header.time_ns, length_ns: 0 };
        let has_room = self.add_to(Part::OnCpu, (thread, stack), when, sample.header.weight);
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
        let call = Call {
            number: facts.syscall,
            arguments: &facts.arguments,
            descriptor: u32::try_from(facts.descriptor).ok(),
        };
        Arc::make_mut(&mut self.objects).of_call(header.tgid, header.process_start_ns, call)
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
        // One after the other.
        let mut time_ns = facts.left_ns;
        let mut has_room = true;
        for (part, length_ns) in parts.into_iter().filter(|(_, length_ns)| *length_ns > 0) {
            time_ns += length_ns;
            let when = When { time_ns, length_ns };
            has_room &= self.add_to(part, (thread, stack), when, stands_for(facts, length_ns));
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
        let (process, words, kernel_frames) = before.stacks.words_of(stack);
        if process.is_some() && !Arc::ptr_eq(&self.processes, &before.processes) {
            return None;
        }
        let stack = self.stacks.insert(process, words, kernel_frames)?;
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
    fn add_to(&mut self, part: Part, (thread, stack): (u32, u32), when: When, weight: u64) -> bool {
        let sums_are_full = self.sums.len() >= self.limits.sums;
        let sum = match self.sums.entry((part, thread, stack)) {
            std::collections::hash_map::Entry::Vacant(_) if sums_are_full => return false,
            entry => entry.or_default(),
        };
        sum.count += 1;
        sum.weight += weight;
        if self.timeline.len() < self.limits.timeline {
            let When { time_ns, length_ns } = when;
            self.timeline.push(RawMoment { time_ns, length_ns, part, thread, stack, weight });
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
        self.stacks.frames()
    }

    /// Every thread.
    #[must_use]
    pub fn threads(&self) -> &[RawThread] {
        &self.threads
    }

    /// The distinct stacks, leaf first: the kernel's frames, then the user's.
    pub fn stacks(&self) -> impl Iterator<Item = &[RawFrameId]> {
        self.stacks.iter()
    }

    /// Number of a stack's kernel frames, by the stack's position.
    #[must_use]
    pub fn kernel_frames(&self, stack: u32) -> usize {
        self.stacks.kernel_frames(stack)
    }

    /// Whether a stack has frames of user code, by its position.
    #[must_use]
    pub fn has_user_frames(&self, stack: u32) -> bool {
        self.stacks.has_user_frames(stack)
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
            scratch.push(missing(sample.user_outcome));
        }
        let id = self.stacks.insert(process, &scratch, header.kernel_frames);
        self.scratch = scratch;
        id
    }

    fn identify(&mut self, key: ProcessKey) -> Option<ProcessId> {
        self.processes.find(key).or_else(|| Arc::make_mut(&mut self.processes).identify(key))
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
