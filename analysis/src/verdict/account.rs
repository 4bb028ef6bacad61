//! Whose time there is, and what it went into: the account that verdicts are drawn from.
//!
//! Threads of one process that do the same, by their names without numbers, are one [`Node`]. Every wait is told with who ended it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::activity::Class;
use crate::kernel_frames;
use crate::names;
use crate::profile::{Location, LocationId, ModuleKind, Profile, StackId, ThreadId};

/// Position of a [`Node`].
pub type NodeId = usize;

/// Functions and processes that a finding names.
const TOLD: usize = 8;
/// Functions of a program that are told of each stack: what asks, and two that call it.
const OWN_FUNCTIONS: usize = 3;
/// Of the time of flushes, so much is waited for a device where there is one behind them.
const FLUSHES: f64 = 0.2;
/// Number of classes.
const CLASSES: usize = Class::ALL.len();

/// Threads of one process with the same name but for digits.
#[derive(Clone, Debug)]
pub struct Node {
    /// Process id.
    pub pid: u32,
    /// Name of the process, printable.
    pub process: String,
    /// Name of the threads without their numbers, printable.
    pub threads: String,
    /// How many of the target's threads it has; 0 of what is outside of the target.
    pub members: usize,
    /// How long those lived in the window together, nanoseconds.
    pub elapsed_ns: u64,
    /// Their time by class, in the order of [`Class::ALL`], nanoseconds.
    classes: [u64; CLASSES],
    /// What of their time in the kernel, and of that in queues for CPUs, is within flushes, nanoseconds.
    flushing: Flushing,
}

/// Time that is a flush's, though it is not waited for the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushing {
    /// On a CPU, nanoseconds.
    pub on_cpu_ns: u64,
    /// In the queue for one, nanoseconds.
    pub queued_ns: u64,
}

impl Node {
    /// Time of a class, nanoseconds.
    #[must_use]
    pub fn time_ns(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }

    /// What a flush takes besides its waits.
    #[must_use]
    pub const fn flushing(&self) -> Flushing {
        self.flushing
    }

    /// Time on CPUs, with what was taken of it.
    #[must_use]
    pub fn on_cpu_ns(&self) -> u64 {
        self.time_ns(Class::CpuUser) + self.time_ns(Class::CpuKernel) + self.time_ns(Class::CpuStolen)
    }

    /// Its name for people: the process, and the threads where they have another name.
    #[must_use]
    pub fn name(&self) -> String {
        if self.threads == self.process || self.threads.is_empty() {
            self.process.clone()
        } else {
            format!("{} ({})", self.process, self.threads)
        }
    }
}

/// One thread of the target.
#[derive(Clone, Copy, Debug)]
pub struct ThreadUse {
    /// Its node.
    pub node: NodeId,
    /// Thread id.
    pub tid: u32,
    /// Its life in the window, nanoseconds.
    pub elapsed_ns: u64,
    /// On a CPU, taken time included.
    pub on_cpu_ns: u64,
    /// Waiting for a CPU.
    pub queued_ns: u64,
    /// Whether it is its process's first.
    pub is_main: bool,
    /// Whether it ended in the window.
    pub ended: bool,
}

/// What ended waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ender {
    /// A thread.
    Thread(NodeId, ThreadId),
    /// A timer.
    Timer,
    /// Another interrupt: packets, completed requests.
    Interrupt,
    /// It is not known, or they had not ended.
    Unknown,
}

/// Waits that were ended by one ender from one place.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// By whom.
    pub by: Ender,
    /// The ender's stack.
    pub stack: Option<StackId>,
    /// How long they were, nanoseconds.
    pub ns: u64,
    /// How many.
    pub count: u64,
}

/// Waits of one thread with one stack.
#[derive(Clone, Debug)]
pub struct Wait<'p> {
    /// The thread's node.
    pub node: NodeId,
    /// The thread.
    pub thread: ThreadId,
    /// The class.
    pub class: Class,
    /// What was waited for: `tcp 10.0.0.5:5432`.
    pub object: Option<&'p str>,
    /// The stack.
    pub stack: StackId,
    /// How long they were, nanoseconds.
    pub ns: u64,
    /// Whether they were within a page fault.
    pub in_fault: bool,
    /// What ended them; adds up to `ns`.
    pub ends: Vec<End>,
}

/// Time on a CPU with one stack.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The thread's node.
    pub node: NodeId,
    /// The stack.
    pub stack: StackId,
    /// Whether it was in the kernel.
    pub in_kernel: bool,
    /// How long, nanoseconds.
    pub ns: u64,
}

/// The account of one recording. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Account<'p> {
    /// The recording.
    pub profile: &'p Profile,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// Who there is.
    pub nodes: Vec<Node>,
    /// The target's processes, by id.
    processes: HashSet<u32>,
    /// The target's threads.
    pub threads: Vec<ThreadUse>,
    /// Their waits.
    pub waits: Vec<Wait<'p>>,
    /// Their time on CPUs.
    pub running: Vec<Running>,
    /// Whether flushes wait for a device, so that all of their time is for that.
    flushes: bool,
}

impl<'p> Account<'p> {
    /// The account of a recording of everything (`-e all`).
    #[must_use]
    pub fn of(profile: &'p Profile) -> Self {
        let mut account = Self {
            profile,
            window_ns: profile.header.duration_ns.max(1),
            nodes: Vec::new(),
            processes: profile.thread_times.iter().map(|time| time.pid).collect(),
            threads: Vec::new(),
            waits: Vec::new(),
            running: Vec::new(),
            flushes: false,
        };
        let mut nodes: HashMap<(u32, String), NodeId> = HashMap::new();
        let node_of: Vec<NodeId> = profile
            .threads
            .iter()
            .map(|thread| account.node(&mut nodes, thread.pid, &thread.process_name, &thread.thread_name))
            .collect();
        for time in &profile.thread_times {
            let node = account.node(&mut nodes, time.pid, &time.process_name, &time.thread_name);
            account.nodes[node].members += 1;
            account.nodes[node].elapsed_ns += time.elapsed_ns;
            account.threads.push(ThreadUse {
                node,
                tid: time.tid,
                elapsed_ns: time.elapsed_ns,
                on_cpu_ns: time.parts.on_cpu_ns + time.parts.stolen_ns,
                queued_ns: time.parts.queued_ns(),
                is_main: time.pid == time.tid,
                ended: time.ended,
            });
        }
        account.add_samples(&node_of);
        account.settle_flushes();
        account
    }

    fn node(
        &mut self,
        known: &mut HashMap<(u32, String), NodeId>,
        pid: u32,
        process: &str,
        thread: &str,
    ) -> NodeId {
        let stem = stem(thread);
        *known.entry((pid, stem.clone())).or_insert_with(|| {
            self.nodes.push(Node {
                pid,
                process: names::printable(process),
                threads: names::printable(&stem),
                members: 0,
                elapsed_ns: 0,
                classes: [0; CLASSES],
                flushing: Flushing::default(),
            });
            self.nodes.len() - 1
        })
    }

    fn add_samples(&mut self, node_of: &[NodeId]) {
        let profile = self.profile;
        let mut ends: HashMap<(ThreadId, StackId), Vec<End>> = HashMap::new();
        for wake in &profile.wakes {
            let by = match wake.waker {
                Some(waker) => Ender::Thread(node_of[waker.index()], waker),
                None if self.functions(wake.waker_stack).any(kernel_frames::is_timer) => Ender::Timer,
                None => Ender::Interrupt,
            };
            ends.entry((wake.thread, wake.stack)).or_default().push(End {
                by,
                stack: Some(wake.waker_stack),
                ns: wake.weight,
                count: wake.count,
            });
        }
        let activities: Vec<_> =
            profile.samples.iter().map(|sample| activity(profile, sample.stack)).collect();
        let futexes: HashSet<&str> = activities.iter().flatten().filter_map(|(_, object)| *object).collect();
        for (sample, activity) in profile.samples.iter().zip(activities) {
            let node = node_of[sample.thread.index()];
            let (stack, ns) = (sample.stack, sample.weight);
            let Some((class, object)) = activity else { continue };
            self.nodes[node].classes[class as usize] += ns;
            if matches!(class, Class::CpuKernel | Class::RunQueue) && self.is_in_flush(stack) {
                let flushing = &mut self.nodes[node].flushing;
                let part =
                    if class == Class::RunQueue { &mut flushing.queued_ns } else { &mut flushing.on_cpu_ns };
                *part += ns;
            }
            match class {
                Class::CpuUser | Class::CpuKernel => {
                    self.running.push(Running { node, stack, in_kernel: class == Class::CpuKernel, ns });
                }
                Class::CpuStolen | Class::RunQueue | Class::Throttled => {}
                _ => {
                    let mut ends = ends.remove(&(sample.thread, stack)).unwrap_or_default();
                    let told: u64 = ends.iter().map(|end| end.ns).sum();
                    if ns > told {
                        ends.push(End { by: Ender::Unknown, stack: None, ns: ns - told, count: 0 });
                    }
                    let in_fault = self.functions(stack).any(kernel_frames::is_fault);
                    let thread = sample.thread;
                    let object = object.map(|object| self.whole_condition(object, stack, &futexes));
                    self.waits.push(Wait { node, thread, class, object, stack, ns, in_fault, ends });
                }
            }
        }
    }

    /// Flushes that hardly wait, as of a file system in memory, are system calls like others.
    fn settle_flushes(&mut self) {
        let waited: u64 = self.nodes.iter().map(|node| node.time_ns(Class::IoSync)).sum();
        let besides: u64 =
            self.nodes.iter().map(|node| node.flushing.on_cpu_ns + node.flushing.queued_ns).sum();
        self.flushes = waited as f64 >= FLUSHES * (waited + besides) as f64 && waited > 0;
        if !self.flushes {
            self.nodes.iter_mut().for_each(|node| node.flushing = Flushing::default());
        }
    }

    fn is_in_flush(&self, stack: StackId) -> bool {
        self.functions(stack).any(kernel_frames::is_flush)
    }

    /// Whether time on a CPU with this stack is a flush's.
    #[must_use]
    pub fn is_flushing(&self, stack: StackId) -> bool {
        self.flushes && self.is_in_flush(stack)
    }

    /// A condition of the C library has two futexes side by side, which its waiters use in turns: the first stands for both where it
    /// was met, too.
    fn whole_condition(&self, object: &'p str, stack: StackId, known: &HashSet<&'p str>) -> &'p str {
        const FIRST: u64 = !7;
        let address = object.strip_prefix("futex 0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let is_second = |address: &u64| address & 7 == 4;
        let Some(address) = address.filter(is_second) else { return object };
        let Some(first) = known.get(format!("futex 0x{:x}", address & FIRST).as_str()) else { return object };
        if self.user_functions(stack).any(|name| name.contains("pthread_cond_")) { first } else { object }
    }

    /// Names of a stack's functions, leaf first, without what stands above them.
    pub fn functions(&self, stack: StackId) -> impl Iterator<Item = &'p str> + use<'p> {
        let profile = self.profile;
        profile.stack(stack).iter().flat_map(move |id| {
            let location = profile.location(*id);
            let is_code = profile.module(location.module).kind != ModuleKind::Activity;
            let lines = if is_code { location.lines.as_slice() } else { &[] };
            lines.iter().map(move |line| profile.function(line.function).name.as_str())
        })
    }

    /// Names of a stack's functions in user space, leaf first.
    pub fn user_functions(&self, stack: StackId) -> impl Iterator<Item = &'p str> + use<'p> {
        let profile = self.profile;
        profile.stack(stack).iter().flat_map(move |id| {
            let location = profile.location(*id);
            let kind = profile.module(location.module).kind;
            let is_user = !matches!(kind, ModuleKind::Activity | ModuleKind::Kernel);
            let lines = if is_user { location.lines.as_slice() } else { &[] };
            lines.iter().map(move |line| profile.function(line.function).name.as_str())
        })
    }

    /// Whether a thread that runs in this stack is in a loop that waits for another thread, by its instructions or, where those were
    /// not looked at, by the name that they have everywhere.
    pub fn is_spin_wait(&self, stack: StackId) -> bool {
        let profile = self.profile;
        let is_code =
            |id: &&LocationId| profile.module(profile.location(**id).module).kind != ModuleKind::Activity;
        let by_instructions = profile
            .stack(stack)
            .iter()
            .find(is_code)
            .is_some_and(|leaf| profile.location(*leaf).is_spin_wait);
        // A pause may be a function of its own.
        let by_name = |name: &str| {
            let name = name.to_ascii_lowercase();
            ["onspinwait", "spin_lock", "spinlock", "spin_wait"].iter().any(|part| name.contains(part))
        };
        by_instructions || self.user_functions(stack).take(2).any(by_name)
    }

    /// The innermost functions of a stack that are neither the kernel's nor the C library's: where the program asked for what
    /// happens, and from where it got there.
    pub fn own_functions(&self, stack: StackId) -> impl Iterator<Item = &'p str> + use<'p> {
        let profile = self.profile;
        let is_own = |location: &&Location| {
            let module = profile.module(location.module);
            let is_code =
                !matches!(module.kind, ModuleKind::Activity | ModuleKind::Kernel | ModuleKind::Vdso);
            is_code && !is_c_library(module.short_name())
        };
        let locations = profile.stack(stack).iter().map(|id| profile.location(*id)).filter(is_own);
        let lines = locations.flat_map(|location| &location.lines);
        let functions = lines.map(|line| profile.function(line.function).name.as_str());
        functions.filter(|name| !name.starts_with(names::INCOMPLETE)).take(OWN_FUNCTIONS)
    }

    /// The functions that most of the weight is in, the most first, at most eight: below a twentieth of it they are noise. Of those
    /// with the same weight, the inner come first.
    pub fn top_functions<'a, F: Iterator<Item = &'a str>>(
        &self,
        stacks: impl Iterator<Item = (StackId, u64)>,
        functions: impl Fn(StackId) -> F,
    ) -> Vec<(String, f64)> {
        let (mut sums, mut total): (HashMap<&str, (u64, usize)>, u64) = (HashMap::new(), 0);
        for (stack, ns) in stacks {
            total += ns;
            let mut seen = HashSet::new();
            for (depth, function) in functions(stack).enumerate() {
                if seen.insert(function) {
                    let sum = sums.entry(function).or_insert((0, depth));
                    *sum = (sum.0 + ns, sum.1.min(depth));
                }
            }
        }
        let mut sums: Vec<(&str, (u64, usize))> = sums.into_iter().collect();
        sums.sort_by_key(|(name, (ns, depth))| (Reverse(*ns), *depth, *name));
        let shares =
            sums.into_iter().map(|(name, (ns, _))| (names::printable(name), ns as f64 / total.max(1) as f64));
        shares.take_while(|(_, share)| *share >= 0.05).take(TOLD).collect()
    }

    /// Names of the program's functions that most of the weight is in: see [`Self::own_functions`].
    pub fn functions_of(&self, stacks: impl Iterator<Item = (StackId, u64)>) -> Vec<String> {
        let functions = self.top_functions(stacks, |stack| self.own_functions(stack));
        functions.into_iter().map(|(name, _)| name).collect()
    }

    /// The same of all time on CPUs that this holds for.
    pub fn running_functions(&self, holds: impl Fn(&Running) -> bool) -> Vec<String> {
        let running = self.running.iter().filter(|running| holds(running));
        self.functions_of(running.map(|running| (running.stack, running.ns)))
    }

    /// The same of all waits that this holds for.
    pub fn waiting_functions(&self, holds: impl Fn(&Wait<'_>) -> bool) -> Vec<String> {
        let waits = self.waits.iter().filter(|wait| holds(wait));
        self.functions_of(waits.map(|wait| (wait.stack, wait.ns)))
    }

    /// A signal's value of the host, or the greatest of its instances.
    #[must_use]
    pub fn signal(&self, name: &str) -> Option<f64> {
        let signals = &self.profile.signals.as_ref()?.signals;
        signals.iter().filter(|signal| signal.name == name).map(|signal| signal.value).reduce(f64::max)
    }

    /// Whether a process is part of the target.
    #[must_use]
    pub fn has_process(&self, pid: u32) -> bool {
        self.processes.contains(&pid)
    }

    /// Names of the processes of nodes, each once, in this order; at most eight, the rest are not the first to look at.
    #[must_use]
    pub fn processes(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for node in nodes {
            let name = &self.nodes[node].process;
            if !names.contains(name) {
                names.push(name.clone());
            }
            if names.len() == TOLD {
                break;
            }
        }
        names
    }

    /// Seconds of the target's time by class, without classes of none.
    #[must_use]
    pub fn by_class(&self) -> Vec<(Class, u64)> {
        let total = |class| self.nodes.iter().map(|node| node.time_ns(class)).sum();
        Class::ALL.into_iter().map(|class| (class, total(class))).filter(|(_, ns)| *ns > 0).collect()
    }

    /// Share of the host's CPUs that were busy, 0 to 1; `None` without signals.
    #[must_use]
    pub fn host_busy(&self) -> Option<f64> {
        Some(self.signal("cpu.utilization")? / 100.0)
    }
}

/// What stands above a stack's functions: the class, and the object of a wait.
pub(crate) fn activity(profile: &Profile, stack: StackId) -> Option<(Class, Option<&str>)> {
    let mut object = None;
    // The object, then the class.
    for id in profile.stack(stack).iter().take(2) {
        let location = profile.location(*id);
        if profile.module(location.module).kind != ModuleKind::Activity {
            return None;
        }
        let name = profile.function(location.lines.first()?.function).name.as_str();
        if let Some(class) = Class::from_frame(name) {
            return Some((class, object));
        }
        object = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    }
    None
}

/// A thread's name without its number: `worker-12` is `worker-`.
fn stem(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

fn is_c_library(file: &str) -> bool {
    ["libc.so", "libc-", "libpthread", "ld-linux", "ld-musl", "libc.musl"]
        .iter()
        .any(|start| file.starts_with(start))
}
