//! The thread that reads windows: it sums them up for the screen, and names the stacks that are looked at. User frames get
//! names only then, so that a screen that shows none costs none.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chokepoint_analysis::activity::{Class, Group};
use chokepoint_analysis::profile::ModuleKind;
use tokio::sync::mpsc;

use super::groups::GroupNames;
use super::host_use::Reading;
use super::latencies::Queued;
use super::snapshot::{Activity, OwnCost, Snapshot, Thread};
use crate::aggregate::{Aggregate, Part, RawFrame};
use crate::connections::{Connection, Ends, peers};
use crate::containers::known::Containers;
use crate::drain::decode::comm;
use crate::failure::Failure;
use crate::host::cost::{Cost, resident_bytes};
use crate::process::objects::ObjectId;
use crate::process::place::{ENDED, ProcessKey, Processes};
use crate::record::event::Event;
use crate::symbolize::{self, Symbolizer};
use crate::symbolized::{Found, name_frames, switching};
use crate::thread_times::ThreadKey;
use crate::time_profiles::{Classes, NOT_SAMPLED};
use crate::window::Window;

/// Windows and requests that wait to be read. While there are as many, the window under way goes on, and stacks cannot be asked for.
const QUEUE: usize = 4;
/// Stacks of a list, those with the most time.
const MAX_STACKS: usize = 200;
/// Frames whose names are remembered from window to window; about 300 bytes each. When there are more, all are forgotten.
const MAX_REMEMBERED: usize = 20_000;
/// Peers of a snapshot, the worst.
const MAX_PEERS: usize = 1_000;

/// Whose stacks are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A process's.
    Process(ProcessKey),
    /// A thread's.
    Thread(ProcessKey, u32),
    /// Those of a cgroup and of the groups below it.
    Cgroup(Arc<str>),
    /// Those of all processes of this name.
    Name(String),
    /// Those of all threads of this name.
    ThreadName(String),
}

impl Scope {
    /// Whether a thread is in it.
    #[must_use]
    pub fn has(&self, thread: &Thread) -> bool {
        match self {
            Self::Process(process) => thread.process == *process,
            Self::Thread(process, tid) => thread.process == *process && thread.tid == *tid,
            Self::Cgroup(path) => is_within(&thread.cgroup, path),
            Self::Name(name) => thread.process_name == *name,
            Self::ThreadName(name) => thread.name == *name,
        }
    }
}

/// Whether a cgroup is another one or below it.
#[must_use]
pub fn is_within(path: &str, ancestor: &str) -> bool {
    let below = path.strip_prefix(ancestor.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A stack with the time spent in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// What kind of time it is.
    pub class: Class,
    /// Time, nanoseconds, scaled to the exact times of the threads.
    pub time_ns: u64,
    /// Samples.
    pub samples: u64,
    /// What was waited for.
    pub object: Option<String>,
    /// Functions, leaf first: the kernel's, then the user's.
    pub frames: Vec<String>,
    /// Where the user's begin.
    pub user_from: usize,
}

/// The stacks of a scope in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// Whose they are.
    pub scope: Scope,
    /// The window's length.
    pub length: Duration,
    /// Time of all stacks, nanoseconds.
    pub total_ns: u64,
    /// The stacks with the most time, most first.
    pub stacks: Vec<Stack>,
    /// Stacks that are not in the list.
    pub left_out: usize,
}

/// What the thread is asked for.
enum Request {
    Window(Box<Window>),
    /// A window is over that is not to be shown.
    Skip,
    Stacks(Scope),
}

/// What the thread answers.
#[derive(Debug)]
pub enum Answer {
    /// A window, summed up.
    Snapshot(Box<Snapshot>),
    /// The stacks of a scope in the last window.
    Stacks(Box<Stacks>),
}

/// The thread. Dropping it lets it end.
pub struct Reader {
    requests: mpsc::Sender<Request>,
    /// What it answers.
    pub answers: mpsc::Receiver<Answer>,
}

impl Reader {
    /// Starts the thread, on a host with this number of CPUs; `containers` has what the runtime tells of containers.
    ///
    /// # Errors
    /// Where the kernel refuses a thread.
    pub fn start(cpus: usize, containers: Containers) -> Result<Self, Failure> {
        let (requests, mut received) = mpsc::channel(QUEUE);
        let (answering, answers) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("read windows".to_owned())
            .spawn(move || State::new(cpus, containers).serve(&mut received, &answering))
            .map_err(|error| Failure::unexpected(&error))?;
        Ok(Self { requests, answers })
    }

    /// Room for a window, which is to be had before the window is ended: one that nobody can read yet goes on, so that nothing in it is
    /// lost.
    #[must_use]
    pub fn room(&self) -> Option<Room<'_>> {
        self.requests.try_reserve().ok().map(Room)
    }

    /// Has the stacks of a scope named, in the last window that was read. Whether there was room.
    pub fn stacks(&self, scope: Scope) -> bool {
        self.requests.try_send(Request::Stacks(scope)).is_ok()
    }
}

/// Room for a window that waits to be read.
pub struct Room<'a>(mpsc::Permit<'a, Request>);

impl Room<'_> {
    /// Has a window read, which comes back as a snapshot.
    pub fn read(self, window: Window) {
        self.0.send(Request::Window(Box::new(window)));
    }

    /// Tells that a window is over that is not to be shown: the last one stays, for its stacks.
    pub fn skip(self) {
        self.0.send(Request::Skip);
    }
}

/// What time is told apart by in a list of stacks: class, stack, object.
type Spent = (Class, Option<u32>, Option<ObjectId>);

/// What the thread keeps from window to window.
struct State {
    symbolizer: Symbolizer,
    names: HashMap<RawFrame, Found>,
    processes: Processes,
    containers: Containers,
    cpus: usize,
    host: Reading,
    agent: Duration,
    last: Option<Read>,
}

/// The last window, with the threads that its sums are of.
struct Read {
    window: Window,
    classes: Classes,
    threads: HashMap<ThreadKey, Thread>,
}

impl State {
    fn new(cpus: usize, containers: Containers) -> Self {
        let mut symbolizer = Symbolizer::new(symbolize::Options::default());
        if let Err(error) = symbolizer.load_kernel() {
            // Waits are of no class then, which the snapshots say.
            tracing::debug!(%error, "kernel symbols");
        }
        Self {
            symbolizer,
            names: HashMap::new(),
            processes: Processes::default(),
            containers,
            cpus,
            host: Reading::now(),
            agent: Cost::of_this_process().cpu,
            last: None,
        }
    }

    fn serve(mut self, requests: &mut mpsc::Receiver<Request>, answers: &mpsc::Sender<Answer>) {
        while let Some(request) = requests.blocking_recv() {
            let answer = match request {
                Request::Window(window) => Some(Answer::Snapshot(Box::new(self.read(*window)))),
                Request::Skip => {
                    (self.host, self.agent) = (Reading::now(), Cost::of_this_process().cpu);
                    None
                }
                Request::Stacks(scope) => self.stacks(scope).map(|stacks| Answer::Stacks(Box::new(stacks))),
            };
            if let Some(answer) = answer
                && answers.blocking_send(answer).is_err()
            {
                return;
            }
        }
    }

    fn read(&mut self, mut window: Window) -> Snapshot {
        let mut losses = Vec::new();
        let classes = self.classify(&window.aggregate, &window, &mut losses);
        let threads = self.threads(&window, &classes);
        let coverage = window.coverage(Event::Wall);
        losses.extend(
            coverage.lost.iter().map(|loss| format!("{} samples lost: {}", loss.samples, loss.cause)),
        );
        let of_devices = window.coverage(Event::Io).notes;
        losses.extend(of_devices.into_iter().filter(|note| !coverage.notes.contains(note)));
        losses.extend(coverage.notes);
        losses.extend(
            window
                .coverage(Event::Retransmit)
                .lost
                .iter()
                .map(|loss| format!("{} events of connections lost: {}", loss.samples, loss.cause)),
        );
        let lost: Vec<(&Ends, &Connection)> = window.connections.of_target(window.is_host).collect();
        let mut peers = peers(&lost);
        peers.truncate(MAX_PEERS);
        let groups = self.group_names(&threads);
        let block = std::mem::take(&mut window.block);

        let host = Reading::now();
        let window_us = window.duration.as_micros() as u64;
        let agent = Cost::of_this_process().cpu;
        let snapshot = Snapshot {
            end_unix_s: (window.start_unix_ns + window.duration.as_nanos() as u64) / 1_000_000_000,
            length: window.duration,
            threads: threads.values().cloned().collect(),
            ended: window.times.iter().flat_map(|times| times.iter()).filter(|(_, time)| time.ended).count()
                as u64,
            peers,
            queues: queues(&window, &threads),
            block: block.block,
            block_refused: block.refused,
            groups,
            host: host.since(&self.host, window_us, self.cpus),
            losses,
            own: OwnCost {
                programs: window.program_cost.map(|cost| cost.run_time),
                agent: agent.saturating_sub(self.agent),
                resident_bytes: resident_bytes(),
            },
        };
        (self.host, self.agent) = (host, agent);
        self.last = Some(Read { window, classes, threads });
        snapshot
    }

    /// Gives every sum its class, by the kernel's functions alone.
    fn classify(&mut self, aggregate: &Aggregate, window: &Window, losses: &mut Vec<String>) -> Classes {
        let stacks: Vec<_> = aggregate.stacks().collect();
        let waited: BTreeSet<u32> = aggregate
            .sums()
            .filter(|(part, ..)| matches!(part, Part::Blocked(_)))
            .map(|(_, _, stack, _)| stack)
            .collect();
        let kernel_frames = |stack: u32| &stacks[stack as usize][..aggregate.kernel_frames(stack)];
        let wanted: BTreeSet<usize> =
            waited.iter().flat_map(|stack| kernel_frames(*stack)).map(|frame| frame.index()).collect();
        let found = name_frames(aggregate, &mut self.symbolizer, wanted.into_iter(), losses);
        let names = |stack: u32| {
            let frames = kernel_frames(stack).iter().filter_map(|frame| found[frame.index()].as_ref());
            frames.flat_map(|found| &found.lines).map(|line| line.function.clone()).collect()
        };
        Classes::of(aggregate, names, window.times.as_ref())
    }

    /// Every thread of a window with its time by class.
    fn threads(&mut self, window: &Window, classes: &Classes) -> HashMap<ThreadKey, Thread> {
        let mut threads = HashMap::new();
        let processes = &mut self.processes;
        let mut make = |key: ThreadKey, process_name: String, name: String, switches: u64| {
            let process = ProcessKey { pid: key.tgid, start_ns: key.process_start_ns };
            let known = processes.look_up(process);
            Thread {
                process,
                tid: key.tid,
                process_name,
                name,
                cgroup: Arc::clone(&known.cgroup),
                parent: known.parent,
                activity: Activity::of_thread(switches),
            }
        };
        for (key, time) in window.times.iter().flat_map(|times| times.iter()) {
            let thread = make(*key, time.process_name.clone(), time.thread_name.clone(), time.switches);
            threads.insert(*key, thread);
        }
        for entry in classes.all() {
            let key = key_of(&window.aggregate, entry.thread);
            let thread = threads.entry(key).or_insert_with(|| {
                // Its times were lost.
                let raw = entry.thread.ok().map(|thread| &window.aggregate.threads()[thread as usize]);
                let name = |bytes: Option<&[u8]>| bytes.map(comm).unwrap_or_default();
                make(
                    key,
                    name(raw.map(|raw| raw.process_comm.as_slice())),
                    name(raw.map(|raw| raw.thread_comm.as_slice())),
                    0,
                )
            });
            thread.activity.add(entry.class, entry.sum.weight);
        }
        self.processes.end_window();
        threads
    }

    /// What the cgroups of threads are called.
    fn group_names(&self, threads: &HashMap<ThreadKey, Thread>) -> GroupNames {
        let mut names = GroupNames::default();
        for thread in threads.values() {
            names.learn(&thread.cgroup, |id| self.containers.look_up(id));
        }
        names
    }

    /// The stacks of a scope in the last window; `None` before the first.
    fn stacks(&mut self, scope: Scope) -> Option<Stacks> {
        let Read { window, classes, threads } = self.last.as_ref()?;
        let aggregate = &window.aggregate;
        let mut sums: HashMap<Spent, (u64, u64)> = HashMap::new();
        for entry in classes.all() {
            let key = key_of(aggregate, entry.thread);
            if entry.sum.weight == 0 || !threads.get(&key).is_some_and(|thread| scope.has(thread)) {
                continue;
            }
            let object = match entry.part {
                Part::Blocked(waiting) => waiting.object,
                Part::OnCpu | Part::Queued(_) => None,
            };
            let (time_ns, samples) = sums.entry((entry.class, entry.stack, object)).or_default();
            *time_ns += entry.sum.weight;
            *samples += entry.sum.count;
        }
        let total_ns = sums.values().map(|(time_ns, _)| time_ns).sum();
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_unstable_by_key(|((class, stack, object), (time_ns, _))| {
            (std::cmp::Reverse(*time_ns), *class as usize, *stack, *object)
        });
        let left_out = sums.len().saturating_sub(MAX_STACKS);
        sums.truncate(MAX_STACKS);

        let all: Vec<_> = aggregate.stacks().collect();
        let frames = |stack: u32| all[stack as usize].iter().map(|frame| frame.index());
        let missing: BTreeSet<usize> = sums
            .iter()
            .filter_map(|((_, stack, _), _)| *stack)
            .flat_map(frames)
            .filter(|frame| !self.names.contains_key(&aggregate.frames()[*frame]))
            .collect();
        // What a file lacks shows in its frames.
        let found = name_frames(aggregate, &mut self.symbolizer, missing.into_iter(), &mut Vec::new());
        let name =
            |frame: usize| found[frame].as_ref().or_else(|| self.names.get(&aggregate.frames()[frame]));
        let stacks = sums
            .into_iter()
            .map(|((class, stack, object), (time_ns, samples))| {
                let (frames, user_from) = match stack {
                    None => (vec![NOT_SAMPLED.to_owned()], 0),
                    Some(stack) => {
                        let found: Vec<&Found> = frames(stack).filter_map(name).collect();
                        let kernel = aggregate.kernel_frames(stack).min(found.len());
                        let of_switch = if class.group() == Group::Cpu { 0 } else { kernel };
                        let skipped = switching(of_switch, |position, what| {
                            found[position].lines.iter().any(|line| what(&line.function))
                        });
                        let named = |found: &[&Found]| -> Vec<String> {
                            found.iter().flat_map(|found| functions(found)).collect()
                        };
                        let mut frames = named(&found[skipped..kernel]);
                        let user_from = frames.len();
                        frames.extend(named(&found[kernel..]));
                        (frames, user_from)
                    }
                };
                let object = object.map(|object| aggregate.objects().name(object).to_owned());
                Stack { class, time_ns, samples, object, frames, user_from }
            })
            .collect();
        let stacks = Stacks { scope, length: window.duration, total_ns, stacks, left_out };
        self.remember(found);
        Some(stacks)
    }

    /// Keeps the names of frames that mean the same in every window.
    fn remember(&mut self, found: Vec<Option<Found>>) {
        let Some(Read { window, .. }) = &self.last else { return };
        if self.names.len() + found.len() > MAX_REMEMBERED {
            self.names.clear();
        }
        for (frame, found) in window.aggregate.frames().iter().zip(found) {
            let means_the_same =
                matches!(frame, RawFrame::Kernel(_) | RawFrame::File(..) | RawFrame::Vdso(_));
            if let Some(found) = found.filter(|found| means_the_same && !found.lines.is_empty()) {
                self.names.insert(*frame, found);
            }
        }
    }
}

/// How long threads queued, by process.
fn queues(window: &Window, threads: &HashMap<ThreadKey, Thread>) -> Vec<Queued> {
    let cgroups: HashMap<u32, &Arc<str>> =
        threads.iter().map(|(key, thread)| (key.tgid, &thread.cgroup)).collect();
    let processes = window.times.iter().flat_map(|times| times.queues().processes());
    processes
        .map(|(pid, name, tally)| Queued {
            pid,
            name: name.to_owned(),
            cgroup: cgroups.get(&pid).map_or_else(|| ENDED.into(), |cgroup| Arc::clone(cgroup)),
            queued_ns: tally.queued_ns,
            latencies: tally.latencies(),
        })
        .collect()
}

fn key_of(aggregate: &Aggregate, thread: Result<u32, ThreadKey>) -> ThreadKey {
    thread.map_or_else(
        |key| key,
        |thread| {
            let raw = &aggregate.threads()[thread as usize];
            ThreadKey { tgid: raw.tgid, tid: raw.tid, process_start_ns: raw.process_start_ns }
        },
    )
}

/// The functions at a frame, innermost first; the file and the place in it where there is no name.
fn functions(found: &Found) -> Vec<String> {
    let mark = if found.module.kind == ModuleKind::Kernel { "_[k]" } else { "" };
    if found.lines.is_empty() {
        let file = Path::new(&found.module.path)
            .file_name()
            .map_or_else(|| found.module.path.clone(), |name| name.to_string_lossy().into_owned());
        return vec![format!("{file}+{:#x}", found.address)];
    }
    found.lines.iter().map(|line| format!("{}{mark}", line.function)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_until_so_many_windows_wait_and_again_when_one_is_read() {
        let (requests, mut received) = mpsc::channel(QUEUE);
        let reader = Reader { requests, answers: mpsc::channel(1).1 };
        for _ in 0..QUEUE {
            reader.room().expect("there is room").skip();
        }
        assert!(reader.room().is_none() && !reader.stacks(Scope::Name("sh".to_owned())));
        drop(received.blocking_recv());
        assert!(reader.room().is_some());
    }

    #[test]
    fn a_group_has_those_below_it() {
        assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && is_within("/a", "/"));
        assert!(!is_within("/ab", "/a") && !is_within("/", "/a"));
    }
}
