//! A profile: samples summed by thread and stack, with the dictionaries their stacks refer to.
//!
//! Everything is stored once and referred to by an index newtype. [`Builder`] makes profiles; a [`Profile`] is
//! read-only, and every index in it is valid.

use std::collections::HashMap;
use std::hash::Hash;

use crate::block::Block;
use crate::connections::Connection;
use crate::coverage::Coverage;
use crate::failed_calls::FailedCalls;
use crate::memory::Memory;
use crate::run_queue::RunQueue;
use crate::signals::Signals;
use crate::thread_time::ThreadTime;

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub struct $name(u32);

            impl $name {
                fn new(position: usize) -> Self {
                    Self(u32::try_from(position).expect("fewer than 2^32 dictionary entries"))
                }

                /// Position in the dictionary.
                #[must_use]
                pub fn index(self) -> usize {
                    self.0 as usize
                }
            }
        )*
    };
}

index! {
    /// Index of a [`Function`].
    FunctionId;
    /// Index of a [`Module`].
    ModuleId;
    /// Index of a [`Location`].
    LocationId;
    /// Index of a [`Stack`].
    StackId;
    /// Index of a [`Thread`].
    ThreadId;
}

/// A function, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name for people, demangled.
    pub name: String,
    /// Path of the source file as the compiler recorded it; empty where unknown.
    pub file: String,
}

/// Where code comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    /// An executable or a shared library.
    Binary,
    /// The kernel or one of its modules.
    Kernel,
    /// The kernel's page of code in every process.
    Vdso,
    /// Memory into which a runtime compiled code.
    Jit,
    /// A process whose mappings do not cover the address, or could not be read.
    Unknown,
    /// No code: what the thread was doing, above the functions that it did it in. The function's name is that of a
    /// [`crate::activity::Class`] in brackets, or of what the thread waited for, or of what is not known.
    Activity,
}

/// A file or memory area that holds code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// What it is.
    pub kind: ModuleKind,
    /// Path as its process sees it; `[kernel]`, `[vdso]`, `[jit]` or `[unknown]` where it is no file.
    pub path: String,
    /// GNU build id; empty where there is none.
    pub build_id: Vec<u8>,
}

impl Module {
    /// The last part of the path.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// One function at one place; several of them share a location where the compiler inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// Line in the function's file, from 1; 0 where unknown.
    pub line: u32,
}

/// One address of code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Where the code comes from.
    pub module: ModuleId,
    /// In a binary or the vDSO the virtual offset (the ELF's own address), elsewhere the absolute address. Of a call, not
    /// of the instruction after it.
    pub address: u64,
    /// What is there, the innermost inlined function first; empty where the address has no symbol.
    pub lines: Vec<Line>,
    /// Whether the instructions there are a loop that waits for another thread. Only where threads ran most in a file on x86-64 are
    /// they looked at.
    pub is_spin_wait: bool,
}

/// Locations, leaf first: the kernel's, then the user's.
pub type Stack = Vec<LocationId>;

/// A thread that was sampled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the process.
    pub process_name: String,
    /// Name of the thread.
    pub thread_name: String,
}

/// What all samples of one thread with one stack add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The thread.
    pub thread: ThreadId,
    /// Its stack.
    pub stack: StackId,
    /// How many samples there were.
    pub count: u64,
    /// What they stand for, in the profile's [`Unit`].
    pub weight: u64,
}

/// One sample at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the start of the window, nanoseconds; of what lasted, its end.
    pub offset_ns: u64,
    /// How long it lasted, nanoseconds; 0 of what was sampled at a moment, as running threads are.
    pub length_ns: u64,
    /// The thread.
    pub thread: ThreadId,
    /// Its stack.
    pub stack: StackId,
    /// What it stands for, in the profile's [`Unit`].
    pub weight: u64,
}

/// What ended waits: those of one thread with one stack that one thread ended from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The thread that waited.
    pub thread: ThreadId,
    /// The stack that it waited with, as in the samples.
    pub stack: StackId,
    /// The thread that ended them; `None` where an interrupt did.
    pub waker: Option<ThreadId>,
    /// Its stack, or the interrupt's, without what belongs to the wake-up itself.
    pub waker_stack: StackId,
    /// How many waits.
    pub count: u64,
    /// How long they were, nanoseconds. At most the sample's weight: what ended some waits is not known.
    pub weight: u64,
}

/// What readers are to count a profile in, where they count in one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Samples: they all stand for the same.
    Samples,
    /// Weights: samples stand for different ones.
    Weight,
}

/// Unit of a profile's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Things that are counted: the profile's title names them.
    Count,
}

/// What a profile measures, and when.
#[derive(Clone, Debug)]
pub struct Header {
    /// What the weights are, in words: `CPU time`.
    pub title: String,
    /// The name tools know it by: `cpu`.
    pub kind: String,
    /// Unit of the weights.
    pub unit: Unit,
    /// Whether samples or their weights are to be counted.
    pub basis: Basis,
    /// What one tick stands for, in the unit.
    pub period: u64,
    /// Start of the window, nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length of the window, nanoseconds.
    pub duration_ns: u64,
    /// Name of the host.
    pub host: String,
    /// What was asked for, in words: `host`, `pid 42`.
    pub target: String,
    /// CPUs of the host that were online; 0 where that is not known.
    pub cpus: u32,
    /// Release of the host's kernel: `6.1.0-28-amd64`; empty where it is not known.
    pub kernel: String,
    /// Version of the program that recorded; empty where it is not known.
    pub program: String,
}

/// Samples summed by thread and stack. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What it measures, and when.
    pub header: Header,
    /// Functions.
    pub functions: Vec<Function>,
    /// Modules.
    pub modules: Vec<Module>,
    /// Locations.
    pub locations: Vec<Location>,
    /// Stacks.
    pub stacks: Vec<Stack>,
    /// Threads.
    pub threads: Vec<Thread>,
    /// The samples, one entry for each thread and stack.
    pub samples: Vec<Sample>,
    /// The same samples one by one in the order of time; empty unless the recording keeps them.
    pub timeline: Vec<Moment>,
    /// What was attempted, captured and lost.
    pub coverage: Coverage,
    /// Exact times of the threads; empty unless the recording accounts for them.
    pub thread_times: Vec<ThreadTime>,
    /// How long threads queued for CPUs, and who ran meanwhile; `None` unless the recording shows run queues.
    pub run_queue: Option<RunQueue>,
    /// What processes did with memory; `None` unless the recording accounts for it.
    pub memory: Option<Memory>,
    /// What ended waits; empty unless the recording takes wakers apart from the stacks.
    pub wakes: Vec<Wake>,
    /// Saturation signals of the host meanwhile; `None` unless the recording reads them.
    pub signals: Option<Signals>,
    /// TCP connections, those that carried most first; empty unless the recording looks at them.
    pub connections: Vec<Connection>,
    /// What block devices did; `None` unless the recording watches them.
    pub block: Option<Block>,
    /// Calls that failed for want of something limited; `None` unless the recording looks at them.
    pub failed_calls: Option<FailedCalls>,
}

impl Profile {
    /// The function at this index.
    #[must_use]
    pub fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.index()]
    }

    /// The module at this index.
    #[must_use]
    pub fn module(&self, id: ModuleId) -> &Module {
        &self.modules[id.index()]
    }

    /// The location at this index.
    #[must_use]
    pub fn location(&self, id: LocationId) -> &Location {
        &self.locations[id.index()]
    }

    /// The stack at this index.
    #[must_use]
    pub fn stack(&self, id: StackId) -> &Stack {
        &self.stacks[id.index()]
    }

    /// The thread at this index.
    #[must_use]
    pub fn thread(&self, id: ThreadId) -> &Thread {
        &self.threads[id.index()]
    }

    /// Sum of all samples' counts.
    #[must_use]
    pub fn total_count(&self) -> u64 {
        self.samples.iter().map(|sample| sample.count).sum()
    }

    /// Sum of all samples' weights.
    #[must_use]
    pub fn total_weight(&self) -> u64 {
        self.samples.iter().map(|sample| sample.weight).sum()
    }
}

/// Waiting thread and stack, waker and stack.
type WakeKey = (ThreadId, StackId, Option<ThreadId>, StackId);

/// Makes a [`Profile`], storing each dictionary entry once.
#[derive(Debug, Default)]
pub struct Builder {
    functions: Interner<Function>,
    modules: Interner<Module>,
    locations: Interner<Location>,
    stacks: Interner<Stack>,
    threads: Interner<Thread>,
    sums: HashMap<(ThreadId, StackId), (u64, u64)>,
    wakes: HashMap<WakeKey, (u64, u64)>,
    timeline: Vec<Moment>,
}

impl Builder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of this function.
    pub fn function(&mut self, function: Function) -> FunctionId {
        FunctionId::new(self.functions.intern(function))
    }

    /// The index of this module.
    pub fn module(&mut self, module: Module) -> ModuleId {
        ModuleId::new(self.modules.intern(module))
    }

    /// The index of this location.
    pub fn location(&mut self, location: Location) -> LocationId {
        LocationId::new(self.locations.intern(location))
    }

    /// The index of this stack.
    pub fn stack(&mut self, stack: Stack) -> StackId {
        StackId::new(self.stacks.intern(stack))
    }

    /// The index of this thread.
    pub fn thread(&mut self, thread: Thread) -> ThreadId {
        ThreadId::new(self.threads.intern(thread))
    }

    /// Adds samples to the sums.
    pub fn add(&mut self, sample: Sample) {
        let sum = self.sums.entry((sample.thread, sample.stack)).or_default();
        sum.0 += sample.count;
        sum.1 += sample.weight;
    }

    /// Adds to what ended waits, which does not count as a sample.
    pub fn add_wake(&mut self, wake: Wake) {
        let Wake { thread, stack, waker, waker_stack, count, weight } = wake;
        let sum = self.wakes.entry((thread, stack, waker, waker_stack)).or_default();
        sum.0 += count;
        sum.1 += weight;
    }

    /// Adds one entry to the timeline, which does not count as a sample.
    pub fn add_moment(&mut self, moment: Moment) {
        self.timeline.push(moment);
    }

    /// The finished profile; samples are ordered by thread and stack, the timeline by time.
    #[must_use]
    pub fn finish(mut self, header: Header, coverage: Coverage) -> Profile {
        let mut samples: Vec<Sample> = self
            .sums
            .into_iter()
            .map(|((thread, stack), (count, weight))| Sample { thread, stack, count, weight })
            .collect();
        samples.sort_unstable_by_key(|sample| (sample.thread, sample.stack));
        let mut wakes: Vec<Wake> = self
            .wakes
            .into_iter()
            .map(|((thread, stack, waker, waker_stack), (count, weight))| Wake {
                thread,
                stack,
                waker,
                waker_stack,
                count,
                weight,
            })
            .collect();
        wakes.sort_unstable_by_key(|wake| (wake.thread, wake.stack, wake.waker, wake.waker_stack));
        self.timeline.sort_by_key(|moment| moment.offset_ns);
        Profile {
            header,
            functions: self.functions.entries,
            modules: self.modules.entries,
            locations: self.locations.entries,
            stacks: self.stacks.entries,
            threads: self.threads.entries,
            samples,
            timeline: self.timeline,
            coverage,
            thread_times: Vec::new(),
            run_queue: None,
            memory: None,
            wakes,
            signals: None,
            connections: Vec::new(),
            block: None,
            failed_calls: None,
        }
    }
}

/// Gives equal values the same position.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    pub(crate) entries: Vec<T>,
    positions: HashMap<T, usize>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), positions: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    pub(crate) fn intern(&mut self, value: T) -> usize {
        if let Some(position) = self.positions.get(&value) {
            return *position;
        }
        let position = self.entries.len();
        self.entries.push(value.clone());
        self.positions.insert(value, position);
        position
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A header of CPU time.
    pub(crate) fn header() -> Header {
        Header {
            title: "CPU time".into(),
            kind: "cpu".into(),
            unit: Unit::Nanoseconds,
            basis: Basis::Samples,
            period: 1,
            start_unix_ns: 0,
            duration_ns: 1,
            host: "h".into(),
            target: "host".into(),
            cpus: 2,
            kernel: "6.1.0".into(),
            program: "0.1.0".into(),
        }
    }

    #[test]
    fn equal_samples_add_up_and_dictionaries_hold_each_entry_once() {
        let mut builder = Builder::new();
        let thread = Thread { pid: 1, tid: 2, process_name: "p".into(), thread_name: "t".into() };
        for weight in [3, 4] {
            let module =
                builder.module(Module { kind: ModuleKind::Binary, path: "/bin/p".into(), build_id: vec![1] });
            let location =
                builder.location(Location { module, address: 16, lines: vec![], is_spin_wait: false });
            let sample = Sample {
                thread: builder.thread(thread.clone()),
                stack: builder.stack(vec![location]),
                count: 1,
                weight,
            };
            builder.add(sample);
        }
        let profile = builder.finish(header(), Coverage::default());
        assert_eq!((profile.total_count(), profile.total_weight()), (2, 7));
        assert_eq!((profile.samples.len(), profile.modules.len(), profile.locations.len()), (1, 1, 1));
    }
}
