//! What requests of block devices and new processes cost when they are thousands a second, beside libbpf-tools and bpftrace.

use std::{
    fmt::Write,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    alongside::{self, Program, TOOL_S, alongside, programs},
    report::{Table, verdict},
    sides::Sides,
    stats::Readings,
    sys,
};

/// Events a second that the bars are for.
const EVENTS_PER_S: f64 = 5_000.0;
/// Per cent of a CPU that they may cost: less than what one measurement differs from the next.
const COST_BAR_PCT: f64 = 0.5;
/// The device's size, and what is read of it at a time.
const DEVICE_BYTES: u64 = 64 << 20;
const READ_BYTES: usize = 4096;
/// What most disks have between their queue and themselves, and loop devices only where they are told to.
const SCHEDULER: &str = "mq-deadline";
/// How long is read, and how long processes begin and end.
const LASTS: Duration = Duration::from_secs(3);
/// The peer of new processes: what counts them by who made them.
const FORKS_PEER: &str = "tracepoint:sched:sched_process_fork { @[comm] = count(); }";

/// The programs that run because there is a new process.
const FORK_PROGRAMS: [&str; 2] = ["follow_fork", "sched_wakeup_new"];
/// Those of block requests, in the order in which a request meets them, and what each is at.
const BLOCK_PROGRAMS: [(&str, &str); 3] = [
    ("block_rq_insert", "insertion into the queue"),
    ("block_rq_issue", "issue to the device"),
    (COMPLETION, "completion"),
];
const COMPLETION: &str = "block_rq_complete";

/// Turns of all sides: about five minutes, or one.
pub const fn turns(quick: bool) -> usize {
    if quick { 1 } else { 5 }
}

/// What came of some seconds of events.
#[derive(Clone, Copy, Debug)]
struct Rate {
    events: u64,
    seconds: f64,
}

impl Rate {
    fn us_each(&self) -> f64 {
        1e6 * self.seconds / self.events.max(1) as f64
    }
}

/// What requests of block devices cost.
#[derive(Default)]
struct Reads {
    bare: Readings,
    own: Readings,
    biolatency: Readings,
    biosnoop: Readings,
    per_s: Readings,
    /// Nanoseconds of the block source's programs for each request.
    request_ns: Readings,
    /// Of each of [`BLOCK_PROGRAMS`], how often it runs for a request, and how long each time, nanoseconds.
    program_runs: [Readings; BLOCK_PROGRAMS.len()],
    program_ns: [Readings; BLOCK_PROGRAMS.len()],
}

/// What new processes cost.
#[derive(Default)]
struct Forks {
    bare: Readings,
    own: Readings,
    bpftrace: Readings,
    per_s: Readings,
    /// Nanoseconds for each process: of the programs that run because there is one, and of all that accounts for what it does.
    process_ns: Readings,
    all_ns: Readings,
}

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, directory: &Path, turns: usize) -> Result<String> {
    let mut text = alongside::heading()?;
    let device = Device::new(directory)?;
    // Its programs are at functions, which some kernels refuse.
    let snoops = sides.privileged("biosnoop").arg("1").output().is_ok_and(|output| output.status.success());
    let (mut reads, mut forks) = (Reads::default(), Forks::default());
    for _ in alongside::turns(turns) {
        reads.turn(sides, &device, snoops)?;
        forks.turn(sides)?;
    }
    let mut bars = Table::new(["bar", "measured", ""]);
    for (what, ns) in [
        ("requests of block devices a second, the block source's programs", &reads.request_ns),
        ("new processes a second, the programs that run because of them", &forks.process_ns),
    ] {
        let pct = ns.map(|ns| ns * EVENTS_PER_S / 1e9 * 100.0);
        bars.row([
            format!("{EVENTS_PER_S} {what}: below {COST_BAR_PCT} % of a CPU"),
            pct.show(2, "%").to_string(),
            verdict(pct.median() < COST_BAR_PCT),
        ]);
    }
    writeln!(text, "{bars}")?;
    reads.tell(&mut text, snoops)?;
    forks.tell(&mut text)?;
    Ok(text)
}

impl Reads {
    fn turn(&mut self, sides: &Sides, device: &Device, snoops: bool) -> Result<()> {
        let read = device.read()?;
        self.bare.push(read.us_each());
        self.per_s.push(read.events as f64 / read.seconds);
        let (read, said) = alongside(sides.chokepoint_record("io", TOOL_S), || device.read())?;
        self.own.push(read.us_each());
        let programs = programs(&said)?;
        let requests = cost(&programs, COMPLETION).0.max(1) as f64;
        let all_ns: u64 = programs
            .iter()
            .filter(|program| program.name.starts_with("block_"))
            .map(|program| program.run_ns)
            .sum();
        self.request_ns.push(all_ns as f64 / requests);
        for (index, (name, _)) in BLOCK_PROGRAMS.into_iter().enumerate() {
            let (runs, run_ns) = cost(&programs, name);
            self.program_runs[index].push(runs as f64 / requests);
            self.program_ns[index].push(run_ns as f64 / runs.max(1) as f64);
        }
        let mut peer = sides.privileged("biolatency");
        peer.args(["-D", TOOL_S, "1"]);
        self.biolatency.push(alongside(peer, || device.read())?.0.us_each());
        if snoops {
            let mut peer = sides.privileged("biosnoop");
            peer.arg(TOOL_S);
            self.biosnoop.push(alongside(peer, || device.read())?.0.us_each());
        }
        Ok(())
    }

    fn tell(&self, text: &mut String, snoops: bool) -> Result<()> {
        let mut parts = Table::new(["program at", "runs for a request", "takes"]);
        for (index, (_, place)) in BLOCK_PROGRAMS.into_iter().enumerate() {
            parts.row([
                place.to_owned(),
                self.program_runs[index].show(2, "").to_string(),
                self.program_ns[index].show(0, "ns").to_string(),
            ]);
        }
        let mut table = Table::new(["side", "a read of 4 KiB", "added"]);
        table.row(["bare".to_owned(), self.bare.show(1, "µs").to_string(), String::new()]);
        let mut sides =
            vec![("chokepoint record -e io, the whole host", &self.own), ("biolatency -D", &self.biolatency)];
        if snoops {
            sides.push(("biosnoop", &self.biosnoop));
        }
        for (name, side) in sides {
            table.row([
                name.to_owned(),
                side.show(1, "µs").to_string(),
                side.less(&self.bare).show(1, "µs").to_string(),
            ]);
        }
        if !snoops {
            table.row(["biosnoop".to_owned(), "this kernel refuses its programs".to_owned(), String::new()]);
        }
        writeln!(text, "{parts}\n{table}")?;
        writeln!(
            text,
            "There were {:.0} reads a second, one at a time. All of the block source takes {} for a request.\n",
            self.per_s.median(),
            self.request_ns.show(0, "ns"),
        )?;
        Ok(())
    }
}

impl Forks {
    fn turn(&mut self, sides: &Sides) -> Result<()> {
        let made = forks()?;
        self.bare.push(made.us_each());
        self.per_s.push(made.events as f64 / made.seconds);
        let mut command = sides.chokepoint_record("wall", TOOL_S);
        command.args(["--pid", &std::process::id().to_string(), "--children"]);
        let (made, said) = alongside(command, forks)?;
        self.own.push(made.us_each());
        let programs = programs(&said)?;
        // Each runs once for a process, whoever made it.
        let at_forks: f64 = FORK_PROGRAMS
            .map(|name| cost(&programs, name))
            .map(|(runs, run_ns)| run_ns as f64 / runs.max(1) as f64)
            .iter()
            .sum();
        self.process_ns.push(at_forks);
        let all_ns: u64 = programs.iter().map(|program| program.run_ns).sum();
        self.all_ns.push(all_ns as f64 / made.events.max(1) as f64);
        let mut peer = sides.privileged("bpftrace");
        peer.args(["-e", &format!("{FORKS_PEER} interval:s:{TOOL_S} {{ clear(@); exit(); }}")]);
        self.bpftrace.push(alongside(peer, forks)?.0.us_each());
        Ok(())
    }

    fn tell(&self, text: &mut String) -> Result<()> {
        let mut table = Table::new(["side", "a process that begins and ends", "added"]);
        table.row(["bare".to_owned(), self.bare.show(1, "µs").to_string(), String::new()]);
        for (name, side) in [
            ("chokepoint record -e wall --pid --children", &self.own),
            ("bpftrace with a map of counts", &self.bpftrace),
        ] {
            table.row([
                name.to_owned(),
                side.show(1, "µs").to_string(),
                side.less(&self.bare).show(1, "µs").to_string(),
            ]);
        }
        writeln!(text, "{table}")?;
        writeln!(
            text,
            "There were {:.0} processes a second, one at a time. The programs at forks take {} for each; with all its switches, its waits \
             and their stacks and its parent's, and what is seen of the rest of the host meanwhile, a process comes to {}.",
            self.per_s.median(),
            self.process_ns.show(0, "ns"),
            self.all_ns.show(0, "ns"),
        )?;
        Ok(())
    }
}

/// Runs of a program and the nanoseconds they took; none of one that never ran.
fn cost(programs: &[Program], name: &str) -> (u64, u64) {
    programs
        .iter()
        .find(|program| program.name == name)
        .map_or((0, 0), |program| (program.runs, program.run_ns))
}

/// Processes of this one that end at once.
fn forks() -> Result<Rate> {
    let start = Instant::now();
    let mut events = 0;
    while start.elapsed() < LASTS {
        sys::fork_and_wait().context("cannot fork")?;
        events += 1;
    }
    Ok(Rate { events, seconds: start.elapsed().as_secs_f64() })
}

/// A loop device over a file in memory, so that its requests are all there are; both are gone when it is dropped.
struct Device {
    path: String,
    image: PathBuf,
    file: Option<File>,
}

impl Device {
    fn new(directory: &Path) -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory } else { directory };
        let image = parent.join(format!("chokepoint-bench-{}", std::process::id()));
        fs::write(&image, vec![0x5a; DEVICE_BYTES as usize])
            .with_context(|| format!("cannot write {}", image.display()))?;
        let mut device = Self { path: String::new(), image, file: None };
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&device.image).output();
        let output = output.context("cannot run losetup")?;
        ensure!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        device.path = String::from_utf8(output.stdout)?.trim().to_owned();
        // So that requests are inserted before they are issued, which costs a program more. How often that ran tells whether they were.
        let name = device.path.trim_start_matches("/dev/");
        let _ = fs::write(format!("/sys/block/{name}/queue/scheduler"), SCHEDULER);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&device.path);
        device.file = Some(opened.with_context(|| format!("cannot open {}", device.path))?);
        Ok(device)
    }

    /// Reads pages of it here and there, past the page cache, one after the other.
    fn read(&self) -> Result<Rate> {
        let file = self.file.as_ref().context("the device is not open")?;
        let mut memory = vec![0; 2 * READ_BYTES];
        let aligned = memory.as_ptr().align_offset(READ_BYTES);
        let start = Instant::now();
        let mut events = 0;
        let pages = DEVICE_BYTES / READ_BYTES as u64;
        while start.elapsed() < LASTS {
            // A step that has no divisor in common with the number of pages meets each of them.
            let page = events * 7_919 % pages;
            file.read_exact_at(&mut memory[aligned..aligned + READ_BYTES], page * READ_BYTES as u64)?;
            events += 1;
        }
        Ok(Rate { events, seconds: start.elapsed().as_secs_f64() })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.file = None;
        if !self.path.is_empty() {
            let _ = Command::new("losetup").args(["--detach", &self.path]).status();
        }
        let _ = fs::remove_file(&self.image);
    }
}
