//! Recordings of everything to report on.

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::block::{Block, Device, Hold, Key, Latency, Operation, Owner, Requests, Totals};
use chokepoint_analysis::connections::Connection;
use chokepoint_analysis::coverage::{Coverage, Loss};
use chokepoint_analysis::durations::Durations;
use chokepoint_analysis::memory::{Memory, ProcessMemory};
use chokepoint_analysis::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Profile, Sample,
    StackId, Thread, ThreadId, Unit, Wake,
};
use chokepoint_analysis::run_queue::{Queue, RunQueue, Runner};
use chokepoint_analysis::signals::{self, Distribution, Kind, Level, Resource, Signal, Signals};
use chokepoint_analysis::thread_time::{Parts, ThreadTime};

/// Ten seconds.
const WINDOW_NS: u64 = 10_000_000_000;
/// 2026-01-31 23:59:58.5 UTC.
const START_UNIX_NS: u64 = 1_769_903_998_500_000_000;
/// Threads that take turns.
const THREADS: u32 = 4;

/// Four threads that take turns at one lock, each waiting for it for these seconds of ten. Everything that a process chooses the
/// name of has this name.
pub fn convoy(name: &str, waiting_s: u64) -> Profile {
    let mut builder = Builder::new();
    let mut times = Vec::new();
    let waiting_ns = waiting_s * 1_000_000_000;
    let threads: Vec<ThreadId> = (0..THREADS).map(|n| builder.thread(thread(name, n))).collect();
    let holds = stack(&mut builder, name, Class::CpuUser, &["holds"]);
    let waits = stack(&mut builder, name, Class::Futex, &["pthread_mutex_lock", "takes_turn"]);
    let gives_back = location(&mut builder, ModuleKind::Binary, name, "gives_back");
    let waker_stack = builder.stack(vec![gives_back]);
    for (n, thread_id) in threads.iter().enumerate() {
        for (stack, weight) in [(holds, WINDOW_NS - waiting_ns), (waits, waiting_ns)] {
            builder.add(Sample { thread: *thread_id, stack, count: weight / 10_000_000, weight });
        }
        for other in threads.iter().filter(|other| *other != thread_id) {
            builder.add_wake(Wake {
                thread: *thread_id,
                stack: waits,
                waker: Some(*other),
                waker_stack,
                count: 10,
                weight: waiting_ns / u64::from(THREADS - 1),
            });
        }
        times.push(time(name, n as u32, waiting_ns));
    }
    let lost = vec![Loss { cause: "ring buffer full".into(), samples: 3 }];
    let notes = vec![format!("{name} was gone before it was read")];
    let coverage = Coverage { attempted: 4003, captured: 4000, lost, notes, ..Coverage::default() };
    let mut profile = builder.finish(header(name), coverage);
    profile.thread_times = times;
    profile.run_queue = Some(run_queue(name));
    profile.signals = Some(signals(name));
    profile.block = Some(block(name));
    profile.memory = Some(memory(name));
    profile.connections = vec![connection(name)];
    profile
}

/// One thread whose stacks are so many or so deep, with nothing else.
pub fn stacks(stacks: u64, depth: usize) -> Profile {
    let mut builder = Builder::new();
    let thread_id = builder.thread(thread("p", 0));
    for number in 0..stacks {
        let names: Vec<String> = (0..depth).map(|level| format!("function_{number}_{level}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let stack = stack(&mut builder, "p", Class::CpuUser, &names);
        builder.add(Sample { thread: thread_id, stack, count: 1, weight: WINDOW_NS / stacks });
    }
    let mut profile = builder.finish(header("p"), Coverage::default());
    profile.thread_times = vec![time("p", 0, 0)];
    profile
}

fn header(name: &str) -> Header {
    Header {
        title: "Thread time".to_owned(),
        kind: "all".to_owned(),
        unit: Unit::Nanoseconds,
        basis: Basis::Weight,
        period: 10_000_000,
        start_unix_ns: START_UNIX_NS,
        duration_ns: WINDOW_NS,
        host: name.to_owned(),
        target: format!("comm {name}"),
        cpus: 8,
        kernel: "6.1.0".to_owned(),
        program: "0.1.0".to_owned(),
    }
}

fn thread(name: &str, number: u32) -> Thread {
    Thread { pid: 7, tid: 7 + number, process_name: name.into(), thread_name: name.into() }
}

fn time(name: &str, number: u32, waiting_ns: u64) -> ThreadTime {
    ThreadTime {
        pid: 7,
        tid: 7 + number,
        process_name: name.into(),
        thread_name: name.into(),
        cgroup_id: 0,
        elapsed_ns: WINDOW_NS,
        parts: Parts { on_cpu_ns: WINDOW_NS - waiting_ns, interruptible_ns: waiting_ns, ..Parts::default() },
        user_share: None,
        switches: 10,
        ended: false,
    }
}

/// Functions leaf first, the named one as their caller.
fn stack(builder: &mut Builder, name: &str, class: Class, functions: &[&str]) -> StackId {
    let mut stack = vec![location(builder, ModuleKind::Activity, "[activity]", &class.frame())];
    if class == Class::Futex {
        stack.insert(0, location(builder, ModuleKind::Activity, "[activity]", "[futex 0x10]"));
    }
    for function in functions.iter().copied().chain([name]) {
        stack.push(location(builder, ModuleKind::Binary, name, function));
    }
    builder.stack(stack)
}

fn location(builder: &mut Builder, kind: ModuleKind, path: &str, name: &str) -> LocationId {
    let module = builder.module(Module { kind, path: path.into(), build_id: Vec::new() });
    let function = builder.function(Function { name: name.into(), file: String::new() });
    builder.location(Location {
        module,
        address: 1,
        lines: vec![Line { function, line: 0 }],
        is_spin_wait: false,
    })
}

fn durations() -> Durations {
    let mut durations = Durations::default();
    (1..=100).for_each(|n| durations.add(n * 10_000));
    durations
}

fn run_queue(name: &str) -> RunQueue {
    let queue = Queue {
        id: 7,
        name: name.to_owned(),
        queued_ns: 5_050_000,
        latencies: durations(),
        behind: vec![(Runner::Idle, 5_050_000)],
    };
    RunQueue { processes: vec![queue], cgroups: Vec::new() }
}

fn signals(name: &str) -> Signals {
    let signal = |definition: &str, instance: &str, value: f64, level: Level| {
        let definition = signals::definition(definition).expect("a signal of this name");
        Signal {
            name: definition.name.to_owned(),
            instance: instance.to_owned(),
            resource: definition.resource,
            kind: definition.kind,
            unit: definition.unit,
            value,
            steps: Distribution::of(vec![value, value / 2.0]),
            level,
            thresholds: definition.thresholds,
        }
    };
    let idle = Signal {
        name: "tcp.retransmits".to_owned(),
        kind: Kind::Utilization,
        resource: Resource::Tcp,
        ..signal("cpu.utilization", "", 0.0, Level::None)
    };
    Signals {
        schema: 1,
        window_s: 10.0,
        steps: 10,
        signals: vec![
            signal("block.utilization", name, 96.0, Level::Critical),
            signal("cpu.utilization", "", 25.0, Level::None),
            idle,
        ],
        missing: vec![format!("{name}/cpu.stat")],
    }
}

fn block(name: &str) -> Block {
    let key = Key {
        device: Device { name: name.to_owned(), ..Device::default() },
        operation: Operation::Read,
        owner: Owner { cgroup: name.to_owned(), ..Owner::default() },
        of_target: true,
    };
    let times = Latency { total_ns: 50_500_000, times: durations() };
    let totals =
        Totals { requests: 100, bytes: 409_600, device: times.clone(), queue: times, ..Totals::default() };
    let held = Latency { total_ns: 50_500_000, times: durations() };
    let hold = Hold { key: key.clone(), bios: 100, bytes: 409_600, held };
    Block { requests: vec![Requests { key, totals }], holds: vec![hold], ..Block::default() }
}

fn connection(name: &str) -> Connection {
    Connection {
        namespace: 1,
        local: ([10, 0, 0, 4], 40_000).into(),
        remote: ([10, 0, 0, 5], 5432).into(),
        is_accepted: false,
        pid: Some(7),
        process_name: name.to_owned(),
        peer_pid: None,
        open: true,
        rtt_us: 1_200,
        min_rtt_us: 900,
        congestion_window: 10,
        bytes_sent: 14_400_000,
        bytes_received: 1_200,
        retransmits: 3,
        busy_ns: 4_000_000_000,
        receiver_limited_ns: 0,
        buffer_limited_ns: 0,
    }
}

fn memory(name: &str) -> Memory {
    let process =
        ProcessMemory { pid: 7, process_name: name.to_owned(), minor_faults: 12, ..ProcessMemory::default() };
    Memory { processes: vec![process], ..Memory::default() }
}
