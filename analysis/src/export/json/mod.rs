//! All that a profile holds, as JSON that `docs/format-json.md` describes. The structs here are that format: what has
//! been published stays, so a change to the model does not reach them.

use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::connections;
use crate::coverage::{self, Coverage};
use crate::failed_calls::FailedCalls;
use crate::interpreters;
use crate::memory;
use crate::profile::{self, ModuleKind, Profile};
use crate::signals::Signals;
use crate::thread_time;

mod block;
mod durations;
mod read;
mod run_queue;

pub use read::{ReadError, read};

const SCHEMA: &str = "chokepoint-profile";
const VERSION: u32 = 4;

pub(super) fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    Ok(serde_json::to_writer(out, &File::from(profile))?)
}

#[derive(Serialize, Deserialize)]
struct File<'p> {
    schema: Cow<'p, str>,
    version: u32,
    header: Header<'p>,
    coverage: Seen<'p>,
    functions: Vec<Function<'p>>,
    modules: Vec<Module<'p>>,
    locations: Vec<Location>,
    stacks: Vec<Vec<u32>>,
    threads: Vec<Thread<'p>>,
    samples: Vec<Sample>,
    timeline: Vec<Moment>,
    thread_times: Vec<ThreadTime<'p>>,
    run_queue: Option<run_queue::RunQueue<'p>>,
    /// Files of earlier programs have none.
    #[serde(default)]
    memory: Option<Memory<'p>>,
    #[serde(default)]
    wakes: Vec<Wake>,
    #[serde(default)]
    signals: Option<Cow<'p, Signals>>,
    #[serde(default)]
    connections: Vec<Connection<'p>>,
    #[serde(default)]
    block: Option<block::Block<'p>>,
    #[serde(default)]
    failed_calls: Option<Cow<'p, FailedCalls>>,
}

#[derive(Serialize, Deserialize)]
struct Header<'p> {
    title: Cow<'p, str>,
    kind: Cow<'p, str>,
    unit: Unit,
    basis: Basis,
    period: u64,
    start_unix_ns: u64,
    duration_ns: u64,
    host: Cow<'p, str>,
    target: Cow<'p, str>,
    #[serde(default)]
    cpus: u32,
    #[serde(default)]
    kernel: Cow<'p, str>,
    #[serde(default)]
    program: Cow<'p, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Nanoseconds,
    Count,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Basis {
    Samples,
    Weight,
}

#[derive(Serialize, Deserialize)]
struct Function<'p> {
    name: Cow<'p, str>,
    file: Cow<'p, str>,
    /// Follows from the name; not read back.
    #[serde(default)]
    interpreter: Cow<'p, str>,
}

#[derive(Serialize, Deserialize)]
struct Module<'p> {
    kind: Kind,
    path: Cow<'p, str>,
    build_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Binary,
    Kernel,
    Vdso,
    Jit,
    Unknown,
    Activity,
}

#[derive(Serialize, Deserialize)]
struct Location {
    module: u32,
    /// As text: readers that hold numbers as doubles would round the kernel's.
    #[serde(with = "hexadecimal")]
    address: u64,
    lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_spin_wait: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    function: u32,
    line: u32,
}

#[derive(Serialize, Deserialize)]
struct Thread<'p> {
    pid: u32,
    tid: u32,
    process_name: Cow<'p, str>,
    thread_name: Cow<'p, str>,
}

#[derive(Serialize, Deserialize)]
struct Sample {
    thread: u32,
    stack: u32,
    count: u64,
    weight: u64,
}

#[derive(Serialize, Deserialize)]
struct Wake {
    thread: u32,
    stack: u32,
    waker: Option<u32>,
    waker_stack: u32,
    count: u64,
    weight: u64,
}

#[derive(Serialize, Deserialize)]
struct Moment {
    offset_ns: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    length_ns: u64,
    thread: u32,
    stack: u32,
    weight: u64,
}

/// Most samples are of running threads, and those have no length.
fn is_zero(length_ns: &u64) -> bool {
    *length_ns == 0
}

#[derive(Serialize, Deserialize)]
struct ThreadTime<'p> {
    pid: u32,
    tid: u32,
    process_name: Cow<'p, str>,
    thread_name: Cow<'p, str>,
    cgroup_id: u64,
    elapsed_ns: u64,
    on_cpu_ns: u64,
    stolen_ns: u64,
    woken_ns: u64,
    preempted_ns: u64,
    throttled_ns: u64,
    interruptible_ns: u64,
    uninterruptible_ns: u64,
    io_ns: u64,
    user_share: Option<f64>,
    switches: u64,
    ended: bool,
}

#[derive(Serialize, Deserialize)]
struct Memory<'p> {
    processes: Vec<ProcessMemory<'p>>,
    kills: Vec<Kill<'p>>,
    kswapd_runs: u64,
}

#[derive(Serialize, Deserialize)]
struct Group<'p> {
    id: u64,
    path: Cow<'p, str>,
}

#[derive(Serialize, Deserialize)]
struct ProcessMemory<'p> {
    pid: u32,
    process_name: Cow<'p, str>,
    group: Group<'p>,
    minor_faults: u64,
    major_faults: u64,
    fault_wait_ns: Option<u64>,
    reclaim: Reclaim,
    compactions: u64,
}

#[derive(Serialize, Deserialize)]
struct Reclaim {
    count: u64,
    total_ns: u64,
    pages: u64,
    p50_ns: u64,
    p95_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct Kill<'p> {
    offset_ns: u64,
    pid: u32,
    process_name: Cow<'p, str>,
    group: Group<'p>,
    total_bytes: Option<u64>,
    anonymous_bytes: Option<u64>,
    file_bytes: Option<u64>,
    shared_bytes: Option<u64>,
    by_pid: u32,
    by_name: Cow<'p, str>,
}

#[derive(Serialize, Deserialize)]
struct Connection<'p> {
    namespace: u32,
    local: SocketAddr,
    remote: SocketAddr,
    #[serde(default)]
    is_accepted: bool,
    pid: Option<u32>,
    process_name: Cow<'p, str>,
    #[serde(default)]
    peer_pid: Option<u32>,
    open: bool,
    rtt_us: u32,
    min_rtt_us: u32,
    congestion_window: u32,
    bytes_sent: u64,
    bytes_received: u64,
    retransmits: u64,
    busy_ns: u64,
    receiver_limited_ns: u64,
    buffer_limited_ns: u64,
}

impl<'p> From<&'p connections::Connection> for Connection<'p> {
    fn from(connection: &'p connections::Connection) -> Self {
        Self {
            namespace: connection.namespace,
            local: connection.local,
            remote: connection.remote,
            is_accepted: connection.is_accepted,
            pid: connection.pid,
            process_name: Cow::Borrowed(&connection.process_name),
            peer_pid: connection.peer_pid,
            open: connection.open,
            rtt_us: connection.rtt_us,
            min_rtt_us: connection.min_rtt_us,
            congestion_window: connection.congestion_window,
            bytes_sent: connection.bytes_sent,
            bytes_received: connection.bytes_received,
            retransmits: connection.retransmits,
            busy_ns: connection.busy_ns,
            receiver_limited_ns: connection.receiver_limited_ns,
            buffer_limited_ns: connection.buffer_limited_ns,
        }
    }
}

impl<'p> From<&'p memory::Group> for Group<'p> {
    fn from(group: &'p memory::Group) -> Self {
        Self { id: group.id, path: Cow::Borrowed(&group.path) }
    }
}

impl<'p> From<&'p memory::Memory> for Memory<'p> {
    fn from(memory: &'p memory::Memory) -> Self {
        Self {
            processes: memory.processes.iter().map(ProcessMemory::from).collect(),
            kills: memory.kills.iter().map(Kill::from).collect(),
            kswapd_runs: memory.kswapd_runs,
        }
    }
}

impl<'p> From<&'p memory::ProcessMemory> for ProcessMemory<'p> {
    fn from(process: &'p memory::ProcessMemory) -> Self {
        let memory::Reclaim { count, total_ns, pages, p50_ns, p95_ns, p99_ns, max_ns } = process.reclaim;
        Self {
            pid: process.pid,
            process_name: Cow::Borrowed(&process.process_name),
            group: Group::from(&process.group),
            minor_faults: process.minor_faults,
            major_faults: process.major_faults,
            fault_wait_ns: process.fault_wait_ns,
            reclaim: Reclaim { count, total_ns, pages, p50_ns, p95_ns, p99_ns, max_ns },
            compactions: process.compactions,
        }
    }
}

impl<'p> From<&'p memory::Kill> for Kill<'p> {
    fn from(kill: &'p memory::Kill) -> Self {
        Self {
            offset_ns: kill.offset_ns,
            pid: kill.pid,
            process_name: Cow::Borrowed(&kill.process_name),
            group: Group::from(&kill.group),
            total_bytes: kill.total_bytes,
            anonymous_bytes: kill.anonymous_bytes,
            file_bytes: kill.file_bytes,
            shared_bytes: kill.shared_bytes,
            by_pid: kill.by_pid,
            by_name: Cow::Borrowed(&kill.by_name),
        }
    }
}

impl<'p> From<&'p thread_time::ThreadTime> for ThreadTime<'p> {
    fn from(time: &'p thread_time::ThreadTime) -> Self {
        let parts = &time.parts;
        Self {
            pid: time.pid,
            tid: time.tid,
            process_name: Cow::Borrowed(&time.process_name),
            thread_name: Cow::Borrowed(&time.thread_name),
            cgroup_id: time.cgroup_id,
            elapsed_ns: time.elapsed_ns,
            on_cpu_ns: parts.on_cpu_ns,
            stolen_ns: parts.stolen_ns,
            woken_ns: parts.woken_ns,
            preempted_ns: parts.preempted_ns,
            throttled_ns: parts.throttled_ns,
            interruptible_ns: parts.interruptible_ns,
            uninterruptible_ns: parts.uninterruptible_ns,
            io_ns: parts.io_ns,
            user_share: time.user_share,
            switches: time.switches,
            ended: time.ended,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Seen<'p> {
    expected: u64,
    fired: u64,
    idle: u64,
    outside_target: u64,
    other_mode: u64,
    attempted: u64,
    captured: u64,
    lost: Vec<Loss<'p>>,
    user_stacks: Outcomes<'p>,
    kernel_stacks: Outcomes<'p>,
    notes: Cow<'p, [String]>,
}

#[derive(Serialize, Deserialize)]
struct Loss<'p> {
    cause: Cow<'p, str>,
    samples: u64,
}

#[derive(Serialize, Deserialize)]
struct Outcomes<'p> {
    complete: u64,
    truncated: u64,
    incomplete: Vec<Loss<'p>>,
    absent: u64,
}

impl<'p> From<&'p Profile> for File<'p> {
    fn from(profile: &'p Profile) -> Self {
        let header = &profile.header;
        Self {
            schema: Cow::Borrowed(SCHEMA),
            version: VERSION,
            header: Header {
                title: Cow::Borrowed(&header.title),
                kind: Cow::Borrowed(&header.kind),
                unit: match header.unit {
                    profile::Unit::Nanoseconds => Unit::Nanoseconds,
                    profile::Unit::Count => Unit::Count,
                },
                basis: match header.basis {
                    profile::Basis::Samples => Basis::Samples,
                    profile::Basis::Weight => Basis::Weight,
                },
                period: header.period,
                start_unix_ns: header.start_unix_ns,
                duration_ns: header.duration_ns,
                host: Cow::Borrowed(&header.host),
                target: Cow::Borrowed(&header.target),
                cpus: header.cpus,
                kernel: Cow::Borrowed(&header.kernel),
                program: Cow::Borrowed(&header.program),
            },
            coverage: Seen::from(&profile.coverage),
            functions: profile
                .functions
                .iter()
                .map(|function| Function {
                    name: Cow::Borrowed(&function.name),
                    file: Cow::Borrowed(&function.file),
                    interpreter: Cow::Borrowed(interpreters::runtime(&function.name).unwrap_or_default()),
                })
                .collect(),
            modules: profile.modules.iter().map(Module::from).collect(),
            locations: profile.locations.iter().map(Location::from).collect(),
            stacks: profile
                .stacks
                .iter()
                .map(|stack| stack.iter().map(|location| wire(location.index())).collect())
                .collect(),
            threads: profile
                .threads
                .iter()
                .map(|thread| Thread {
                    pid: thread.pid,
                    tid: thread.tid,
                    process_name: Cow::Borrowed(&thread.process_name),
                    thread_name: Cow::Borrowed(&thread.thread_name),
                })
                .collect(),
            samples: profile
                .samples
                .iter()
                .map(|sample| Sample {
                    thread: wire(sample.thread.index()),
                    stack: wire(sample.stack.index()),
                    count: sample.count,
                    weight: sample.weight,
                })
                .collect(),
            timeline: profile
                .timeline
                .iter()
                .map(|moment| Moment {
                    offset_ns: moment.offset_ns,
                    length_ns: moment.length_ns,
                    thread: wire(moment.thread.index()),
                    stack: wire(moment.stack.index()),
                    weight: moment.weight,
                })
                .collect(),
            thread_times: profile.thread_times.iter().map(ThreadTime::from).collect(),
            run_queue: profile.run_queue.as_ref().map(run_queue::RunQueue::from),
            memory: profile.memory.as_ref().map(Memory::from),
            wakes: profile
                .wakes
                .iter()
                .map(|wake| Wake {
                    thread: wire(wake.thread.index()),
                    stack: wire(wake.stack.index()),
                    waker: wake.waker.map(|waker| wire(waker.index())),
                    waker_stack: wire(wake.waker_stack.index()),
                    count: wake.count,
                    weight: wake.weight,
                })
                .collect(),
            signals: profile.signals.as_ref().map(Cow::Borrowed),
            connections: profile.connections.iter().map(Connection::from).collect(),
            block: profile.block.as_ref().map(block::Block::from),
            failed_calls: profile.failed_calls.as_ref().map(Cow::Borrowed),
        }
    }
}

impl<'p> From<&'p profile::Module> for Module<'p> {
    fn from(module: &'p profile::Module) -> Self {
        Self {
            kind: match module.kind {
                ModuleKind::Binary => Kind::Binary,
                ModuleKind::Kernel => Kind::Kernel,
                ModuleKind::Vdso => Kind::Vdso,
                ModuleKind::Jit => Kind::Jit,
                ModuleKind::Unknown => Kind::Unknown,
                ModuleKind::Activity => Kind::Activity,
            },
            path: Cow::Borrowed(&module.path),
            build_id: module.build_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl From<&profile::Location> for Location {
    fn from(location: &profile::Location) -> Self {
        let line = |line: &profile::Line| Line { function: wire(line.function.index()), line: line.line };
        Self {
            module: wire(location.module.index()),
            address: location.address,
            lines: location.lines.iter().map(line).collect(),
            is_spin_wait: location.is_spin_wait,
        }
    }
}

impl<'p> From<&'p Coverage> for Seen<'p> {
    fn from(coverage: &'p Coverage) -> Self {
        let losses = |losses: &'p [coverage::Loss]| {
            losses
                .iter()
                .map(|loss| Loss { cause: Cow::Borrowed(&*loss.cause), samples: loss.samples })
                .collect()
        };
        let outcomes = |stacks: &'p coverage::StackOutcomes| Outcomes {
            complete: stacks.complete,
            truncated: stacks.truncated,
            incomplete: losses(&stacks.incomplete),
            absent: stacks.absent,
        };
        Self {
            expected: coverage.expected,
            fired: coverage.fired,
            idle: coverage.idle,
            outside_target: coverage.outside_target,
            other_mode: coverage.other_mode,
            attempted: coverage.attempted,
            captured: coverage.captured,
            lost: losses(&coverage.lost),
            user_stacks: outcomes(&coverage.user_stacks),
            kernel_stacks: outcomes(&coverage.kernel_stacks),
            notes: Cow::Borrowed(&coverage.notes),
        }
    }
}

/// The model's indices are 32 bits wide.
fn wire(index: usize) -> u32 {
    u32::try_from(index).expect("an index of the model")
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:#x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| Error::custom(format_args!("{text:?} is no address such as \"0x7f00\"")))
    }
}
