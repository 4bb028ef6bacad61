//! Requests of block devices: against what the kernel and biolatency count, on loop devices made for it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chokepoint_analysis::block::{Block, Operation, Requests, Totals};
use chokepoint_analysis::profile::Profile;
use chokepoint_tests::agent::Running;
use chokepoint_tests::block::{IoGroup, Limited, LoopDevice, Mapped};
use chokepoint_tests::bpf::attached;
use chokepoint_tests::tracefs::Trace;
use chokepoint_tests::workload::{eventually, on_path};
use chokepoint_tests::{Agent, in_vm, live, skip_if};

const DEVICE_BYTES: u64 = 32 << 20;
/// Of requests whose times this host may hide, since it hides some threads from tracing: two in a hundred.
const UNTIMED_SHARE: f64 = 0.02;
/// By how much two tools may see the same request at different moments, nanoseconds: what the programs of the one take at each of its
/// ends, behind which those of the other run.
fn between_tools_ns() -> u64 {
    if in_vm() { 250_000 } else { 5_000 }
}

fn record(arguments: &[&str]) -> Running {
    let before = attached("block_rq_insert");
    let fixed = ["record", "-e", "io", "-o", "out.json"];
    let running = Agent::new(fixed.iter().chain(arguments)).start();
    // The last one to be attached.
    eventually("the programs to be attached", || (attached("block_rq_insert") > before).then_some(()));
    running
}

fn finish(running: Running) -> (Block, String) {
    let (profile, summary) = finish_profile(running);
    (profile.block.expect("block devices were watched"), summary)
}

fn finish_profile(running: Running) -> (Profile, String) {
    running.signal(libc::SIGINT);
    let finished = running.finish().succeeded();
    (finished.profile("out.json"), finished.stderr)
}

fn of_device(block: &Block, device: &str, operation: Operation) -> Totals {
    let devices = block.by_device(false);
    let found = devices.into_iter().find(|((known, of), _)| known.name == device && *of == operation);
    found.map(|(_, totals)| totals).unwrap_or_default()
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel's own record of requests.
struct Events(Trace);

impl Events {
    fn new() -> Option<Self> {
        Trace::new(&["block/block_rq_issue", "block/block_rq_complete"]).map(Self)
    }

    /// Time from issue to completion of each request of a device, nanoseconds. Requests are told apart by their place, so there may
    /// be one at a time at each.
    fn device_times_ns(&self, numbers: &str) -> Vec<u64> {
        let text = self.0.text();
        let device = numbers.replace(':', ",");
        let mut issued = std::collections::HashMap::new();
        let mut times = Vec::new();
        for line in text.lines() {
            let Some((before, after)) = line.split_once(": block_rq_") else { continue };
            let Some((event, facts)) = after.split_once(": ") else { continue };
            // `7,0 R 4096 () 8 + 8 none,0,0 [dd]`, where completions have no size.
            let mut words = facts.split(' ');
            if words.next() != Some(&device) {
                continue;
            }
            let Some((place, _)) =
                facts.split_once(") ").map(|(_, rest)| rest).and_then(|rest| rest.split_once(" ["))
            else {
                continue;
            };
            let place = place.split(' ').take(3).collect::<Vec<_>>().join(" ");
            let seconds: f64 = before.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a time");
            let ns = (seconds * 1e9) as u64;
            if event == "issue" {
                issued.insert(place, ns);
            } else if let Some(start) = issued.remove(&place) {
                times.push(ns - start);
            }
        }
        times
    }
}

/// The counts of biolatency for a disk, by the lower ends of their buckets in µs.
fn histogram(text: &str, disk: &str) -> Vec<(u64, u64)> {
    let heading = format!("disk = {disk}");
    let lines = text.lines().skip_while(|line| line.trim() != heading).skip(2);
    lines
        .map_while(|line| {
            let (range, rest) = line.split_once(':')?;
            let from = range.split("->").next()?.trim().parse().ok()?;
            Some((from, rest.split('|').next()?.trim().parse().ok()?))
        })
        .collect()
}

/// Times of a disk's requests with the device that biosnoop tells of, nanoseconds, in lines such as
/// `0.000123    dd             4242    loop0   R  4096    4096    0.115`.
fn snooped(text: &str, disk: &str) -> Vec<u64> {
    let time = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of_disk = words.contains(&disk);
        words.last().filter(|_| of_disk)?.parse().ok().map(|ms: f64| (ms * 1e6) as u64)
    };
    text.lines().filter_map(time).collect()
}

/// Starts a tool of Debian's libbpf-tools, and waits until it sees requests; `None` where it is not installed, or this kernel refuses its
/// programs.
fn peer(name: &str, arguments: &[&str]) -> Option<Process> {
    if !on_path(name) {
        eprintln!("skipped: {name} is not installed");
        return None;
    }
    let before = attached("block_rq_complete");
    let mut command = Command::new(name);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    chokepoint_tests::workload::die_with_test(&mut command);
    let mut child = Process(command.spawn().expect("it can be run"));
    let sees = eventually(name, || {
        let has_ended = child.0.try_wait().expect("it can be asked for").is_some();
        if has_ended { Some(false) } else { (attached("block_rq_complete") > before).then_some(true) }
    });
    if !sees {
        eprintln!("skipped: this kernel refuses the programs of {name}");
    }
    sees.then_some(child)
}

/// What a tool has written, which is told to end.
fn said(peer: &mut Process) -> String {
    // SAFETY: the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(peer.0.id() as i32, libc::SIGINT) };
    let mut text = String::new();
    let mut stdout = peer.0.stdout.take().expect("it is a pipe");
    std::io::Read::read_to_string(&mut stdout, &mut text).expect("it tells");
    text
}

#[test]
fn requests_are_those_that_the_kernel_counts() {
    let _live = live();
    let Some(device) = LoopDevice::new(DEVICE_BYTES) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let direct = device.open();
    let events = Events::new();
    let biolatency = peer("biolatency", &["-D", "600", "1"]);
    let biosnoop = peer("biosnoop", &["-d", &device.name()]);
    let agent = record(&["-d", "5m"]);
    let before = device.statistics();
    for page in 0..500 {
        direct.read(page * 4096, 4096).expect("it is read");
    }
    // Every other one of 8 KiB, backwards: none begins where one ended.
    for place in (0..200).rev() {
        direct.read(place * 16384, 8192).expect("it is read");
    }
    for place in 0..100 {
        direct.write(place * 16384, 16384).expect("it is written");
    }
    let flushes = 7;
    for _ in 0..flushes {
        direct.flush().expect("it is flushed");
    }
    let after = device.statistics();
    let (block, summary) = finish(agent);
    eprintln!("{summary}");

    let reads = of_device(&block, &device.name(), Operation::Read);
    let writes = of_device(&block, &device.name(), Operation::Write);
    let flushed = of_device(&block, &device.name(), Operation::Flush);
    assert_eq!((reads.requests, reads.bytes), (700, 500 * 4096 + 200 * 8192), "{summary}");
    assert_eq!((writes.requests, writes.bytes), (100, 100 * 16384), "{summary}");
    // The same by the kernel's own count, in which the frame around a flush is a write of nothing.
    assert_eq!(reads.requests, after.reads - before.reads);
    assert_eq!(reads.bytes / 512, after.read_sectors - before.read_sectors);
    assert_eq!(writes.requests + flushes, after.writes - before.writes);
    assert_eq!(writes.bytes / 512, after.written_sectors - before.written_sectors);
    assert!(
        flushed.requests + flushed.untimed >= flushes && flushed.requests <= after.flushes - before.flushes
    );
    assert!(reads.untimed as f64 <= 1.0 + reads.requests as f64 * UNTIMED_SHARE, "{} untimed", reads.untimed);
    assert_eq!(reads.device.times.count() + reads.untimed, reads.requests);
    assert_eq!(reads.failed() + writes.failed(), 0);
    // The first is neither; the one that turns around is random, and so are all backwards.
    let slack = 2 * reads.untimed + 1;
    assert!(reads.random.abs_diff(200) <= slack && reads.sequential.abs_diff(499) <= slack, "{reads:?}");
    let own = block.requests.iter().filter(|requests| requests.key.device.name == device.name());
    let mine = own.filter(|requests| {
        requests.key.owner.pid == std::process::id() && requests.key.operation == Operation::Read
    });
    let mine: u64 = mine.map(|requests| requests.totals.requests).sum();
    assert!(mine + reads.untimed >= reads.requests, "{mine} of the test's own process");
    let backing = block.requests.iter().find(|requests| requests.key.device.name == device.name());
    assert_eq!(backing.expect("it is told").key.device.backing, device.image().to_string_lossy());
    assert!(!block.has_target);

    let timed_ns = reads.device.total_ns + writes.device.total_ns;
    if let Some(events) = events {
        let times = events.device_times_ns(&device.numbers());
        let (sum_ns, number) = (times.iter().sum::<u64>(), times.len() as u64);
        eprintln!(
            "measured: device time {timed_ns} ns, by the kernel's events {sum_ns} ns of {number} requests"
        );
        // Flushes among them. Both see each request at about the same moments, but for a CPU that is taken in between.
        let timed_ns = timed_ns + flushed.device.total_ns;
        let tolerance_ns = sum_ns / 10 + between_tools_ns() * number;
        assert!(timed_ns.abs_diff(sum_ns) <= tolerance_ns, "{timed_ns} and {sum_ns}");
    }
    if let Some(mut biolatency) = biolatency {
        let text = said(&mut biolatency);
        let buckets = histogram(&text, &device.name());
        let number: u64 = buckets.iter().map(|(_, count)| count).sum();
        let mut all = reads.clone();
        all.add(&writes);
        all.add(&flushed);
        eprintln!(
            "measured: biolatency {number} requests, chokepoint {} ({} untimed)",
            all.requests, all.untimed
        );
        // It loses those that the host hides, too, but not the same.
        let slack = (all.requests as f64 * UNTIMED_SHARE) as u64 + 1;
        assert!(number.abs_diff(all.requests) <= slack, "{text}");
        let mut seen = 0;
        let median = buckets.iter().find(|(_, count)| {
            seen += count;
            2 * seen >= number
        });
        let from_us = median.expect("there are requests").0;
        let own_us = all.device.times.quantile_ns(0.5).expect("there are requests") / 1000;
        eprintln!("measured: median of biolatency {from_us} µs and more, of chokepoint up to {own_us} µs");
        // Its bucket is as wide as its lower end, ours a quarter of that.
        let apart_us = between_tools_ns() / 1_000;
        assert!(own_us + apart_us >= from_us * 3 / 4 && own_us <= 2 * from_us * 5 / 4 + apart_us, "{text}");
    }
    if let Some(mut biosnoop) = biosnoop {
        let text = said(&mut biosnoop);
        let times = snooped(&text, &device.name());
        let (sum_ns, number) = (times.iter().sum::<u64>(), times.len() as u64);
        let requests = reads.requests + writes.requests + flushed.requests;
        let own_ns = timed_ns + flushed.device.total_ns;
        eprintln!(
            "measured: biosnoop {number} requests in {sum_ns} ns, chokepoint {requests} in {own_ns} ns"
        );
        let slack = (requests as f64 * UNTIMED_SHARE) as u64 + 1;
        assert!(number.abs_diff(requests) <= slack, "{text}");
        // As with the kernel's events, and it tells whole microseconds.
        let tolerance_ns = sum_ns / 10 + (between_tools_ns() + 1_000) * number;
        assert!(own_ns.abs_diff(sum_ns) <= tolerance_ns, "{text}");
    }
}

#[test]
fn failed_requests_are_told_by_kind() {
    let _live = live();
    skip_if!(in_vm(), "behind the end of a file in the guests' memory there are zeros, and no error");
    let Some(device) = LoopDevice::new(DEVICE_BYTES) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let direct = device.open();
    fs::File::options()
        .write(true)
        .open(device.image())
        .and_then(|file| file.set_len(1 << 20))
        .expect("it is cut");
    let agent = record(&["-d", "5m"]);
    for place in 0..5 {
        assert!(direct.read((8 << 20) + place * 4096, 4096).is_err(), "nothing is behind it");
    }
    let (block, summary) = finish(agent);
    let reads = of_device(&block, &device.name(), Operation::Read);
    assert_eq!(reads.requests, 5, "{summary}");
    // Of one that ended while the host hides it, nobody knows how.
    let failed = reads.failed();
    assert!(failed > 0 && failed + reads.untimed == 5, "{summary}");
    assert!(reads.errors.iter().all(|(kind, _)| kind == "I/O"), "{summary}");
    assert!(summary.contains(&format!("{failed} failed: I/O")), "{summary}");
}

/// How long a process waited for devices, nanoseconds.
fn waited_ns(profile: &Profile, pid: u32) -> u64 {
    let samples = profile.samples.iter().filter(|sample| profile.thread(sample.thread).pid == pid);
    samples.map(|sample| sample.weight).sum()
}

/// Starts dd, in a group.
fn dd(group: Option<&Path>, arguments: &str) -> Process {
    let enter =
        group.map(|group| format!("echo $$ > {}/cgroup.procs && ", group.display())).unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{enter}exec dd {arguments} iflag=direct status=none")]);
    chokepoint_tests::workload::die_with_test(&mut command);
    Process(command.spawn().expect("a shell can be run"))
}

#[test]
fn the_targets_requests_are_told_apart_from_the_devices() {
    let _live = live();
    let Some(device) = LoopDevice::new(DEVICE_BYTES) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let path = device.path().display();
    let mut other = dd(None, &format!("if={path} of=/dev/null bs=4k count=100"));
    other.0.wait().expect("it ends");
    let before = device.statistics();
    let program = format!("dd if={path} of=/dev/null bs=8k count=300 iflag=direct status=none; sleep 1");
    let fixed = ["record", "-e", "io", "-o", "out.json", "--", "sh", "-c"];
    let running = Agent::new(fixed.iter().chain(&[program.as_str()])).start();
    eventually("the target's requests", || (device.statistics().reads >= before.reads + 300).then_some(()));
    let mut other = dd(None, &format!("if={path} of=/dev/null bs=4k count=100"));
    other.0.wait().expect("it ends");
    let finished = running.finish().succeeded();
    let block = finished.profile("out.json").block.expect("block devices were watched");
    assert!(block.has_target);
    let all = of_device(&block, &device.name(), Operation::Read);
    let of_target: u64 = block
        .requests
        .iter()
        .filter(|requests| requests.key.device.name == device.name() && requests.key.of_target)
        .map(|requests| requests.totals.requests)
        .sum();
    eprintln!("measured: {of_target} of the target, {} in all, {} untimed", all.requests, all.untimed);
    assert!(of_target <= 300 && of_target + all.untimed >= 300, "{}", finished.stderr);
    // The other one may outlast the window.
    assert!(all.requests > of_target && all.requests <= 400, "{}", finished.stderr);
    assert!(finished.stderr.contains("whole device, for comparison"), "{}", finished.stderr);
}

#[test]
fn what_a_limit_holds_back_is_told() {
    let _live = live();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel has a release");
    skip_if!(
        release.starts_with("5.10."),
        "on 5.10 what a limit has released is not told, as the README says"
    );
    let Some(device) = LoopDevice::new(DEVICE_BYTES) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let Some(group) = IoGroup::new("chokepoint-io") else {
        return eprintln!("skipped: no group can be made");
    };
    let operations = group.limit(&device, Limited::ReadsPerSecond);
    skip_if!(!operations.is_there(), "this kernel has no limits for block devices");
    operations.set(50);
    let agent = record(&["-d", "5m"]);
    let mut reader =
        dd(Some(group.path()), &format!("if={} of=/dev/null bs=4k count=150", device.path().display()));
    reader.0.wait().expect("it ends");
    operations.set(0);
    // What waits for longer than the recording takes: 64 kB at 1 kB a second.
    let bytes = group.limit(&device, Limited::ReadBytesPerSecond);
    bytes.set(1_024);
    let start = Instant::now();
    let stuck =
        dd(Some(group.path()), &format!("if={} of=/dev/null bs=64k count=1", device.path().display()));
    sleep(Duration::from_secs(2));
    let (profile, summary) = finish_profile(agent);
    let block = profile.block.as_ref().expect("block devices were watched");
    let at_most_ns = start.elapsed().as_nanos() as u64;
    bytes.set(0);
    drop(stuck);
    eprintln!("{summary}");

    let own = group.name();
    let reads = of_device(block, &device.name(), Operation::Read);
    assert_eq!(reads.requests, 150, "what is held back does not reach the device: {summary}");
    let holds: Vec<_> = block.holds.iter().filter(|hold| hold.key.device.name == device.name()).collect();
    assert!(!holds.is_empty(), "{summary}");
    assert!(
        holds.iter().all(|hold| hold.key.owner.cgroup == own && hold.key.operation == Operation::Read),
        "{holds:?}"
    );
    let held_ns: u64 = holds.iter().map(|hold| hold.held.total_ns).sum();
    let bios: u64 = holds.iter().map(|hold| hold.bios).sum();
    // One read at a time: while its reader waited for it, it was held or at the device.
    let expected_ns = waited_ns(&profile, reader.0.id()).saturating_sub(reads.device.total_ns);
    eprintln!("measured: {bios} bios held for {held_ns} ns, expected {expected_ns} ns");
    // Where looks find them, each counts with an error of up to the time between two looks at either end, 10 ms and what others
    // take of the CPU.
    assert!(held_ns.abs_diff(expected_ns) <= expected_ns * 3 / 10 + 200_000_000, "{summary}");
    assert!((5..=150).contains(&bios), "{summary}");

    let held: Vec<_> = block.held.iter().filter(|held| held.key.device.name == device.name()).collect();
    let [held] = held.as_slice() else { panic!("{held:?} {summary}") };
    assert_eq!((held.bios, held.bytes, held.key.owner.cgroup.as_str()), (1, 65_536, own.as_str()));
    assert!(held.held_ns >= 1_000_000_000 && held.held_ns <= at_most_ns + 200_000_000, "{held:?}");
    assert!(summary.contains("still held back by a limit"), "{summary}");
}

#[test]
fn what_the_device_mapper_passes_on_is_told_of_the_device_below() {
    /// Reads of each mapped device.
    const READS: u64 = 50;
    /// What the one of them waits with each, milliseconds; of which the tick under way at the beginning, of 4 ms, may be almost over.
    const DELAY_MS: u64 = 20;
    const LEAST_NS: u64 = READS * (DELAY_MS - 4) * 1_000_000;
    let _live = live();
    let Some(device) = LoopDevice::new(DEVICE_BYTES) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let Some(group) = IoGroup::new("chokepoint-mapped") else {
        return eprintln!("skipped: no group can be made");
    };
    let maps = Mapped::new(&device, "linear", "").zip(Mapped::new(&device, "delay", &DELAY_MS.to_string()));
    let Some((linear, delay)) = maps else {
        return eprintln!("skipped: this kernel has no device mapper");
    };
    let agent = record(&["-d", "5m"]);
    let before = device.statistics();
    let mut pids = Vec::new();
    for mapped in [&linear, &delay] {
        let read = format!("if={} of=/dev/null bs=4k count={READS}", mapped.path().display());
        let mut reader = dd(Some(group.path()), &read);
        assert!(reader.0.wait().expect("it ends").success());
        pids.push(reader.0.id());
    }
    let after = device.statistics();
    let (profile, summary) = finish_profile(agent);
    eprintln!("{summary}");

    let block = profile.block.as_ref().expect("block devices were watched");
    let all = of_device(block, &device.name(), Operation::Read);
    assert_eq!((all.requests, after.reads - before.reads), (2 * READS, 2 * READS), "{summary}");
    let reads = block.requests.iter().filter(|requests| {
        requests.key.device.name == device.name() && requests.key.operation == Operation::Read
    });
    let of = |is_it: &dyn Fn(&Requests) -> bool| {
        reads.clone().filter(|requests| is_it(requests)).map(|requests| requests.totals.requests).sum::<u64>()
    };
    // What comes late is submitted by a kernel thread. Whose it is shows in the group that is charged.
    let charged = of(&|requests| requests.key.owner.cgroup == group.name());
    assert!(charged + all.untimed >= 2 * READS, "{charged} charged to the group: {summary}");
    let at_once = of(&|requests| requests.key.owner.pid == pids[0]);
    assert!(at_once <= READS && at_once + all.untimed >= READS, "{at_once} of the reader: {summary}");
    assert_eq!(of(&|requests| requests.key.owner.pid == pids[1]), 0, "{summary}");
    // The delay is in the time that the reader waits for its disk, and in none of the device's.
    let waited_ns = waited_ns(&profile, pids[1]);
    let device_ns = all.queue.total_ns + all.device.total_ns;
    eprintln!("measured: waited {waited_ns} ns for {READS} reads, {device_ns} ns of all at the device");
    assert!(waited_ns >= LEAST_NS && waited_ns.saturating_sub(device_ns) >= LEAST_NS / 2, "{summary}");
}

#[test]
fn writeback_is_told_as_of_the_group_that_dirtied() {
    let _live = live();
    let Some(device) = LoopDevice::new(DEVICE_BYTES) else {
        return eprintln!("skipped: this machine has no loop devices");
    };
    let Some(group) = IoGroup::new("chokepoint-dirty") else {
        return eprintln!("skipped: no group can be made");
    };
    // As long as it is open, nothing is written because somebody closes it.
    let open = fs::File::options().write(true).open(device.path()).expect("the device can be opened");
    const WRITTEN: u64 = 8 << 20;
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec dd if=/dev/zero of={} bs=64k count={} conv=notrunc status=none",
        group.path().display(),
        device.path().display(),
        WRITTEN >> 16
    );
    let agent = record(&["-d", "5m"]);
    let status = Command::new("sh").args(["-c", &script]).status().expect("a shell can be run");
    assert!(status.success());
    // Another process, of another group, has it written.
    open.sync_all().expect("it is written");
    let (block, summary) = finish(agent);
    let is_write = |requests: &&Requests| {
        requests.key.device.name == device.name() && requests.key.operation == Operation::Write
    };
    let writes: Vec<_> = block.requests.iter().filter(is_write).collect();
    let bytes: u64 = writes.iter().map(|requests| requests.totals.bytes).sum();
    assert_eq!(bytes, WRITTEN, "{summary}");
    let of_group = writes.iter().filter(|requests| requests.key.owner.cgroup == group.name());
    let charged: u64 = of_group.map(|requests| requests.totals.bytes).sum();
    eprintln!("measured: {charged} of {bytes} bytes charged to the group that dirtied them");
    if group.is_charged_with_writeback() {
        // Pages whose inode changes hands meanwhile are the other's.
        assert!(charged >= WRITTEN * 9 / 10, "{summary}");
    } else {
        // Version 1 charges whoever has it written.
        assert_eq!(charged, 0, "{summary}");
    }
}
