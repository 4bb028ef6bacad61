//! What a verdict costs by threads and by hosts: generated windows of a host with few threads and with many, and the merged window of many
//! hosts beside those hosts' own.
//!
//! `cargo run --release -p chokepoint-analysis --example verdict_cost -- [TURNS]` prints lines of `name value`.

use std::fs;
use std::hint::black_box;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::coverage::Coverage;
use chokepoint_analysis::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Profile, Sample,
    StackId, Thread, ThreadId, Unit, Wake,
};
use chokepoint_analysis::thread_time::{Parts, ThreadTime};
use chokepoint_analysis::verdict::diagnose;

const SECOND: u64 = 1_000_000_000;
const WINDOW: u64 = 10 * SECOND;
/// Threads of a host of the fleet.
const THREADS: u32 = 50;
/// Threads of one process.
const OF_PROCESS: u32 = 10;
/// Hosts of the fleet, and threads of one host.
const HOSTS: [u32; 4] = [1, 10, 100, 1_000];
const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];
/// What a measurement takes at least, so that small ones are repeated: the kernel counts CPU time by ticks of a few milliseconds.
const LEAST_NS: u64 = 200_000_000;

fn main() {
    let turns: usize = std::env::args().nth(1).map_or(5, |turns| turns.parse().expect("turns are a number"));
    for threads in SIZES {
        let profile = window(0..1, threads);
        println!("threads_{threads}_us {:.1}", best_us(turns, || diagnosed(&profile)));
    }
    let most = *HOSTS.last().expect("there are some");
    let singles: Vec<Profile> = (0..most).map(|host| window(host..host + 1, THREADS)).collect();
    for hosts in HOSTS {
        let merged = window(0..hosts, THREADS);
        let singles = &singles[..hosts as usize];
        // In turns, so that what else the machine does falls on both.
        let (mut of_merged, mut of_singles) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..turns {
            of_singles = of_singles.min(best_us(1, || singles.iter().for_each(diagnosed)));
            of_merged = of_merged.min(best_us(1, || diagnosed(&merged)));
        }
        println!("hosts_{hosts}_us {of_merged:.1}\nsingles_{hosts}_us {of_singles:.1}");
    }
    println!("samples_of_host {}", singles[0].samples.len());
    println!("threads_of_host {THREADS}");
}

fn diagnosed(profile: &Profile) {
    black_box(diagnose(black_box(profile)));
}

/// CPU time of this thread so far, nanoseconds: what others do on the machine is not in it.
fn cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts CPU time");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("it is a number")
}

/// The least CPU time of so many measurements, microseconds.
fn best_us(turns: usize, mut run: impl FnMut()) -> f64 {
    let measure = |_| {
        let (start, mut runs) = (cpu_ns(), 0_u32);
        while runs == 0 || cpu_ns() - start < LEAST_NS {
            run();
            runs += 1;
        }
        (cpu_ns() - start) as f64 / f64::from(runs) / 1e3
    };
    (0..turns).map(measure).fold(f64::INFINITY, f64::min)
}

/// A window in the making.
struct Window {
    builder: Builder,
    times: Vec<ThreadTime>,
    state: u64,
}

/// The window of these hosts, each with so many threads in processes that lock, queue, read and answer each other.
fn window(hosts: std::ops::Range<u32>, threads: u32) -> Profile {
    let mut window = Window { builder: Builder::new(), times: Vec::new(), state: 0 };
    for host in hosts {
        // The same numbers, whether the host is alone or among others.
        window.state = u64::from(host) << 32 | 1;
        let first = host * threads;
        let all: Vec<ThreadId> = (first..first + threads).map(|tid| window.thread(host, tid)).collect();
        for (at, who) in all.iter().enumerate() {
            window.fill(*who, at, &all);
        }
    }
    let header = Header {
        title: "Thread time".to_owned(),
        kind: "all".to_owned(),
        unit: Unit::Nanoseconds,
        basis: Basis::Weight,
        period: 10_000_000,
        start_unix_ns: 0,
        duration_ns: WINDOW,
        host: "fleet".to_owned(),
        target: "host".to_owned(),
        cpus: 16,
        kernel: String::new(),
        program: String::new(),
    };
    let coverage = Coverage { attempted: 10_000, captured: 10_000, ..Coverage::default() };
    let mut profile = window.builder.finish(header, coverage);
    profile.thread_times = window.times;
    profile
}

impl Window {
    fn next(&mut self, below: u64) -> u64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn thread(&mut self, host: u32, tid: u32) -> ThreadId {
        let pid = tid / OF_PROCESS * OF_PROCESS + 1;
        let process_name = format!("service-{}", tid / OF_PROCESS % 5);
        let thread_name = format!("worker-{}", tid % OF_PROCESS);
        self.times.push(ThreadTime {
            pid,
            tid: tid + 1,
            process_name: process_name.clone(),
            thread_name: thread_name.clone(),
            cgroup_id: u64::from(host),
            elapsed_ns: WINDOW,
            parts: Parts { on_cpu_ns: WINDOW / 4, interruptible_ns: 3 * WINDOW / 4, ..Parts::default() },
            user_share: None,
            switches: 1_000,
            ended: false,
        });
        self.builder.thread(Thread { pid, tid: tid + 1, process_name, thread_name })
    }

    /// What one of the threads does: runs, waits for a lock that its like have, reads, and waits for work.
    fn fill(&mut self, who: ThreadId, at: usize, all: &[ThreadId]) {
        for number in 0..3 {
            let stack = self.stack(Class::CpuUser, None, number);
            self.add(who, stack, WINDOW / 12);
        }
        let of_process = OF_PROCESS as usize;
        let first = at / of_process * of_process;
        let others = &all[first..(first + of_process).min(all.len())];
        let next = others[(at - first + 1) % others.len()];
        for (class, object, number, tenths) in [
            (Class::Futex, Some("futex 0x10"), 3, 3),
            (Class::Futex, Some("futex 0x80"), 4, 1),
            (Class::IoRead, Some("file /data on sda"), 5, 2),
            (Class::NetReceive, Some("tcp 10.0.0.1:40000-10.0.0.2:5432"), 6, 1),
            (Class::Event, Some("epoll"), 7, 1),
        ] {
            let stack = self.stack(class, object, number);
            let ns = tenths * WINDOW / 10 * 3 / 4 + self.next(1_000);
            self.add(who, stack, ns);
            let by = matches!(class, Class::Futex).then_some(next);
            let waker_stack = self.stack(Class::CpuUser, None, 8 + number);
            let wake = Wake { thread: who, stack, waker: by, waker_stack, count: 100, weight: ns / 10 * 9 };
            self.builder.add_wake(wake);
        }
    }

    fn add(&mut self, thread: ThreadId, stack: StackId, weight: u64) {
        self.builder.add(Sample { thread, stack, count: 10, weight });
    }

    /// A stack of a dozen frames; each number has functions of its own at the leaf.
    fn stack(&mut self, class: Class, object: Option<&str>, number: u64) -> StackId {
        let activity = object.map(|object| format!("[{object}]")).into_iter().chain([class.frame()]);
        let mut frames: Vec<LocationId> =
            activity.map(|name| self.location(ModuleKind::Activity, &name, 0)).collect();
        for depth in 0..12 {
            let name =
                if depth < 4 { format!("function_{number}_{depth}") } else { format!("caller_{depth}") };
            frames.push(self.location(ModuleKind::Binary, &name, number * 100 + depth));
        }
        self.builder.stack(frames)
    }

    fn location(&mut self, kind: ModuleKind, name: &str, address: u64) -> LocationId {
        let path = if kind == ModuleKind::Activity { "[activity]" } else { "/usr/bin/service" };
        let module = self.builder.module(Module { kind, path: path.to_owned(), build_id: Vec::new() });
        let function = self.builder.function(Function { name: name.to_owned(), file: String::new() });
        let lines = vec![Line { function, line: 0 }];
        self.builder.location(Location { module, address, lines, is_spin_wait: false })
    }
}
