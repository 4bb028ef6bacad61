//! Profiles to export.

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::coverage::{Coverage, Loss, StackOutcomes};
use chokepoint_analysis::profile::{
    Basis, Builder, Function, Header, Line, Location, LocationId, Module, ModuleKind, Moment, Profile,
    Sample, Thread, ThreadId, Unit,
};

/// 99 Hz.
pub const PERIOD_NS: u64 = 10_101_010;
/// 2026-01-31 23:59:58.5 UTC.
pub const START_UNIX_NS: u64 = 1_769_903_998_500_000_000;

/// Functions at one address, the outermost first; none where there is no symbol.
pub struct Code {
    pub kind: ModuleKind,
    pub path: &'static str,
    pub address: u64,
    pub functions: &'static [&'static str],
}

pub fn binary(path: &'static str, address: u64, functions: &'static [&'static str]) -> Code {
    Code { kind: ModuleKind::Binary, path, address, functions }
}

pub fn kernel(address: u64, functions: &'static [&'static str]) -> Code {
    Code { kind: ModuleKind::Kernel, path: "[kernel]", address: 0xffff_ffff_8100_0000 + address, functions }
}

pub fn jit(address: u64, functions: &'static [&'static str]) -> Code {
    Code { kind: ModuleKind::Jit, path: "[jit]", address, functions }
}

pub fn unknown(address: u64) -> Code {
    Code { kind: ModuleKind::Unknown, path: "[unknown]", address, functions: &[] }
}

pub struct Recording {
    builder: Builder,
    pub header: Header,
    pub coverage: Coverage,
    captured: u64,
}

impl Recording {
    pub fn new() -> Self {
        let header = Header {
            title: "CPU time".to_owned(),
            kind: "cpu".to_owned(),
            unit: Unit::Nanoseconds,
            basis: Basis::Samples,
            period: PERIOD_NS,
            start_unix_ns: START_UNIX_NS,
            duration_ns: 5_000_000_000,
            host: "web-1".to_owned(),
            target: "host".to_owned(),
            cpus: 2,
            kernel: "6.1.0".to_owned(),
            program: "0.1.0".to_owned(),
        };
        Self { builder: Builder::new(), header, coverage: Coverage::default(), captured: 0 }
    }

    pub fn thread(&mut self, pid: u32, tid: u32, process: &str, thread: &str) -> ThreadId {
        self.builder.thread(Thread { pid, tid, process_name: process.into(), thread_name: thread.into() })
    }

    /// Samples of a stack given from its root.
    pub fn samples(&mut self, thread: ThreadId, root_first: &[Code], count: u64) {
        let stack = root_first.iter().rev().map(|code| self.location(code)).collect();
        let stack = self.builder.stack(stack);
        self.builder.add(Sample { thread, stack, count, weight: count * PERIOD_NS });
        for n in 0..count {
            let offset_ns = (self.captured + n) * PERIOD_NS;
            self.builder.add_moment(Moment { offset_ns, length_ns: 0, thread, stack, weight: PERIOD_NS });
        }
        self.captured += count;
    }

    /// The same of samples that stand for this much together.
    pub fn weighed(&mut self, thread: ThreadId, root_first: &[Code], count: u64, weight: u64) {
        let stack = root_first.iter().rev().map(|code| self.location(code)).collect();
        let stack = self.builder.stack(stack);
        self.builder.add(Sample { thread, stack, count, weight });
        self.builder.add_moment(Moment {
            offset_ns: self.captured * PERIOD_NS,
            length_ns: 0,
            thread,
            stack,
            weight,
        });
        self.captured += count;
    }

    fn location(&mut self, code: &Code) -> LocationId {
        let build_id =
            if code.kind == ModuleKind::Binary { vec![0xab, 0x0c, code.path.len() as u8] } else { vec![] };
        let module = self.builder.module(Module { kind: code.kind, path: code.path.into(), build_id });
        let mut lines = Vec::new();
        for (depth, function) in code.functions.iter().enumerate().rev() {
            let file = if code.path == "/usr/bin/web" { "src/web.cc".to_owned() } else { String::new() };
            let line = if file.is_empty() { 0 } else { 10 * (depth as u32 + 1) };
            lines.push(Line {
                function: self.builder.function(Function { name: (*function).to_owned(), file }),
                line,
            });
        }
        self.builder.location(Location { module, address: code.address, lines, is_spin_wait: false })
    }

    pub fn finish(mut self) -> Profile {
        self.coverage.captured = self.captured;
        self.coverage.attempted = self.captured + self.coverage.total_lost();
        self.coverage.fired = self.coverage.attempted + self.coverage.idle;
        self.coverage.expected = self.coverage.fired;
        self.builder.finish(self.header, self.coverage)
    }
}

/// Two processes with every kind of frame: kernel, C, C++ with an inlined function, recursion, JIT, no symbol, no module, no
/// stack at all; partial, and with the names that attackers choose.
pub fn everything() -> Profile {
    let mut r = Recording::new();
    r.coverage.lost = vec![
        Loss { cause: "ring buffer full".into(), samples: 4 },
        Loss { cause: "no scratch space".into(), samples: 1 },
    ];
    r.coverage.user_stacks = StackOutcomes {
        complete: 80,
        truncated: 3,
        incomplete: vec![Loss { cause: "stack not in memory".into(), samples: 1 }],
        absent: 1,
    };
    r.coverage.idle = 400;
    r.coverage.notes = vec!["symbols of 1 binary were not found".to_owned()];

    let web = "/usr/bin/web";
    let libc = "/usr/lib/libc.so.6";
    let main = || binary(web, 0x1010, &["main"]);
    let serve = || binary(web, 0x1120, &["http::Server::serve(int)"]);
    let main_thread = r.thread(10, 10, "web", "web");
    let worker = r.thread(10, 11, "web", "worker 1");
    // The inner function was inlined into the outer one.
    r.samples(main_thread, &[main(), serve(), binary(web, 0x1240, &["http::Parser::parse()", "memchr"])], 30);
    r.samples(main_thread, &[main(), serve()], 5);
    r.samples(
        worker,
        &[
            main(),
            serve(),
            binary(libc, 0x9d5a0, &[]),
            kernel(0x10, &["do_syscall_64"]),
            kernel(0x200, &["vfs_read"]),
        ],
        20,
    );
    r.samples(worker, &[main(), serve(), binary(libc, 0x9d5a0, &[]), kernel(0x10, &["do_syscall_64"])], 2);
    r.samples(
        worker,
        &[
            main(),
            binary(web, 0x1300, &["walk"]),
            binary(web, 0x1310, &["walk"]),
            binary(web, 0x1300, &["walk"]),
        ],
        8,
    );
    r.samples(worker, &[], 3);
    // The same name as in the other binary.
    let java = r.thread(20, 21, "java", "C2 CompilerThread0");
    let java_main = || binary("/usr/lib/jvm/bin/java", 0x500, &["main"]);
    r.samples(java, &[java_main(), jit(0x7f00_1000, &["Lcom/example/App;::run"]), jit(0x7f00_2000, &[])], 12);
    r.samples(java, &[java_main(), unknown(0xdead_beef)], 1);
    let hostile = r.thread(30, 30, "evil;comm\n9 9", "\u{1b}[31mred\u{202e}");
    r.samples(
        hostile,
        &[
            binary("/tmp/</title><img src=x onerror=alert(1)>", 0x10, &[]),
            jit(0x10, &["<img src=x onerror=alert(1)>"]),
        ],
        2,
    );
    r.samples(hostile, &[binary(web, 0x2000, &["a;b 7\nc\u{0}\u{8}\u{1b}]0;x\u{7} 12"])], 1);
    r.samples(hostile, &[binary(web, 0x2010, &["not_kernel_[k]"])], 1);
    r.finish()
}

/// Names whose order as text is not the order of their frames: the first stack's frames enclose all others, except as text.
pub fn interleaved() -> Profile {
    let mut r = Recording::new();
    let thread = r.thread(1, 1, "p", "p");
    let (a, a_int, b) =
        (|| binary("/p", 1, &["a"]), || binary("/p", 2, &["a(int)"]), || binary("/p", 3, &["b"]));
    r.samples(thread, &[a()], 5);
    r.samples(thread, &[a_int(), b()], 2);
    r.samples(thread, &[a(), b()], 1);
    r.finish()
}

/// Nothing was sampled.
pub fn empty() -> Profile {
    let mut r = Recording::new();
    r.header.target = "pid 42 <idle>".to_owned();
    r.coverage.idle = 495;
    r.coverage.notes = vec!["pid 42 did not run".to_owned()];
    r.finish()
}

fn activity(class: Class) -> Code {
    let name: &'static str = Box::leak(class.frame().into_boxed_str());
    Code {
        kind: ModuleKind::Activity,
        path: "[activity]",
        address: 0,
        functions: Box::leak(Box::new([name])),
    }
}

/// Thread time: what one thread computed, waited for and queued; each sample stands for a time of its own.
pub fn waits() -> Profile {
    let mut r = Recording::new();
    r.header.title = "Thread time".to_owned();
    r.header.kind = "wall".to_owned();
    r.header.basis = Basis::Weight;
    let thread = r.thread(7, 7, "db", "db");
    let main = || binary("/usr/bin/db", 0x10, &["main"]);
    let computes = || binary("/usr/bin/db", 0x20, &["computes"]);
    let waits = || binary("/usr/bin/db", 0x30, &["waits_for_lock"]);
    let futex = || kernel(0x100, &["futex_wait"]);
    r.weighed(thread, &[main(), computes(), activity(Class::CpuUser)], 3, 3_000_400);
    r.weighed(thread, &[main(), waits(), futex(), activity(Class::Futex)], 2, 5_000_500);
    r.weighed(thread, &[main(), waits(), futex(), activity(Class::RunQueue)], 2, 100_700);
    r.finish()
}
