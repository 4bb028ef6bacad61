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
    alongside::{self, TOOL_S, alongside, program_time},
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
/// How long is read, and how long processes begin and end.
const LASTS: Duration = Duration::from_secs(3);
/// The peer of new processes: what counts them by who made them.
const FORKS_PEER: &str = "tracepoint:sched:sched_process_fork { @[comm] = count(); }";

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

/// Measures everything and says it as Markdown.
pub fn measure(sides: &Sides, directory: &Path, turns: usize) -> Result<String> {
    let mut text = alongside::heading()?;
    let device = Device::new(directory)?;
    let [mut bare, mut own, mut biolatency, mut biosnoop, mut rate]: [Readings; 5] = Default::default();
    let [mut with_block, mut without, mut block]: [Readings; 3] = Default::default();
    let [mut fork, mut fork_own, mut fork_peer, mut fork_programs]: [Readings; 4] = Default::default();
    let reads = || device.read();
    // Its programs are at functions, which some kernels refuse.
    let snoops = sides.privileged("biosnoop").arg("1").output().is_ok_and(|output| output.status.success());
    for _ in alongside::turns(turns) {
        let read = reads()?;
        bare.push(read.us_each());
        rate.push(read.events as f64 / read.seconds);
        // The waits of readers are accounted for with and without the block source: the difference is its own.
        let (read, all) = with_chokepoint(sides.chokepoint_record("io", TOOL_S), reads)?;
        own.push(read.us_each());
        let (_, waits) = with_chokepoint(sides.chokepoint_record("off-cpu", TOOL_S), reads)?;
        with_block.push(all);
        without.push(waits);
        block.push(all - waits);
        let mut peer = sides.privileged("biolatency");
        peer.args(["-D", TOOL_S, "1"]);
        biolatency.push(alongside(peer, reads)?.0.us_each());
        if snoops {
            let mut peer = sides.privileged("biosnoop");
            peer.arg(TOOL_S);
            biosnoop.push(alongside(peer, reads)?.0.us_each());
        }

        fork.push(forks()?.us_each());
        let mut command = sides.chokepoint_record("cpu", TOOL_S);
        command.args(["--pid", &std::process::id().to_string(), "--children"]);
        let (made, programs) = with_chokepoint(command, forks)?;
        fork_own.push(made.us_each());
        fork_programs.push(programs);
        let mut peer = sides.privileged("bpftrace");
        peer.args(["-e", &format!("{FORKS_PEER} interval:s:{TOOL_S} {{ clear(@); exit(); }}")]);
        fork_peer.push(alongside(peer, forks)?.0.us_each());
    }
    let pct = |ns: &Readings| ns.map(|ns| ns * EVENTS_PER_S / 1e9 * 100.0);
    let mut bars = Table::new(["bar", "measured", ""]);
    for (what, pct) in [
        ("requests of a block device a second, the block source alone", pct(&block)),
        ("new processes a second, with the samples of their CPU time", pct(&fork_programs)),
    ] {
        bars.row([
            format!("kernel programs at {EVENTS_PER_S} {what}: below {COST_BAR_PCT} % of a CPU"),
            pct.show(2, "%").to_string(),
            verdict(pct.median() < COST_BAR_PCT),
        ]);
    }
    let mut reading = Table::new(["side", "a read of 4 KiB", "added"]);
    for (name, side) in
        [("bare", &bare), ("chokepoint record -e io, the whole host", &own), ("biolatency -D", &biolatency)]
    {
        reading.row([name.to_owned(), side.show(1, "µs").to_string(), added(name, side, &bare)]);
    }
    if snoops {
        reading.row([
            "biosnoop".to_owned(),
            biosnoop.show(1, "µs").to_string(),
            added("biosnoop", &biosnoop, &bare),
        ]);
    } else {
        reading.row(["biosnoop".to_owned(), "this kernel refuses its programs".to_owned(), String::new()]);
    }
    let mut forking = Table::new(["side", "a process that begins and ends", "added"]);
    for (name, side) in [
        ("bare", &fork),
        ("chokepoint record --pid --children", &fork_own),
        ("bpftrace with a map of counts", &fork_peer),
    ] {
        forking.row([name.to_owned(), side.show(1, "µs").to_string(), added(name, side, &fork)]);
    }
    write!(text, "{bars}\n{reading}\n{forking}\n")?;
    writeln!(
        text,
        "There were {:.0} reads a second, one at a time. By the kernel's own count chokepoint's programs take {} of a read with all that `-e io` \
         accounts for, {} without the block source, which leaves {} for it.",
        rate.median(),
        with_block.show(0, "ns"),
        without.show(0, "ns"),
        block.show(0, "ns"),
    )?;
    Ok(text)
}

fn added(name: &str, side: &Readings, bare: &Readings) -> String {
    if name == "bare" { String::new() } else { side.less(bare).show(1, "µs").to_string() }
}

/// Measures while chokepoint records; with the nanoseconds that its kernel programs took for each event.
fn with_chokepoint(command: Command, measured: impl Fn() -> Result<Rate>) -> Result<(Rate, f64)> {
    let (rate, summary) = alongside(command, measured)?;
    Ok((rate, program_time(&summary)?.as_nanos() as f64 / rate.events.max(1) as f64))
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
