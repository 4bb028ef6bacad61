//! Page faults, reclaim and kills for want of memory, against the kernel's own numbers.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use chokepoint_analysis::memory::ProcessMemory;
use chokepoint_analysis::profile::{Profile, Unit};
use chokepoint_tests::agent::{Finished, Running};
use chokepoint_tests::bpf::Objects;
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::stacks::{functions, weight_where};
use chokepoint_tests::workload::eventually;
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};

const PAGE: u64 = 4096;

/// The workload of this file, that has not begun.
struct Idle {
    workload: Workload,
    done: PathBuf,
}

impl Idle {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let done = directory.join(format!("{}.done", arguments.join("-").replace(['/', '.'], "_")));
        let done_argument = done.to_str().expect("a path of text").to_owned();
        let arguments: Vec<&str> = [done_argument.as_str()].iter().chain(arguments).copied().collect();
        let workload = Workload::start("memory_c", &arguments);
        let idle = Self { workload, done };
        idle.wait_for(&idle.done.with_extension("ready"));
        idle
    }

    /// Waits until it has made a file, and sleeps.
    fn wait_for(&self, file: &Path) {
        eventually("the workload", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
            let sleeps = status.lines().any(|line| line.starts_with("State:\tS"));
            (file.exists() && sleeps).then_some(())
        });
    }

    fn pid(&self) -> u32 {
        self.workload.pid()
    }

    fn signal(&self) {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.pid() as i32, libc::SIGUSR1) };
    }

    fn run(&self) {
        self.signal();
        self.wait_for(&self.done);
    }

    /// Minor and major faults so far, as the kernel counts them.
    fn faults(&self) -> [u64; 2] {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        let fields: Vec<&str> = fields.split(' ').collect();
        // The tenth and twelfth of the whole line; the third is the first here.
        [7, 9].map(|at| fields[at].parse().expect("a number"))
    }
}

/// Records the page faults of a process, and what it was made to reclaim, until it is told to end.
fn start(arguments: &[&str]) -> Running {
    let fixed = ["-o", "out.json", "-d", "5m"];
    let agent = Agent::new(["record"].iter().chain(arguments).chain(&fixed)).start();
    eventually("the programs to be attached", attached);
    agent
}

/// Whether the program that is attached last is so on all CPUs.
fn attached() -> Option<()> {
    let cpus = std::thread::available_parallelism().expect("there are CPUs").get();
    let last = |program: &ProgramInfo| program.name_as_str() == Some("major_fault");
    let programs: Vec<u32> = loaded_programs().flatten().filter(last).map(|program| program.id()).collect();
    let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id())).count();
    // Before 5.15 the programs hang on the perf events themselves.
    (links >= cpus || Objects::now().perf_events >= 2 * cpus).then_some(())
}

fn stop(agent: Running) -> Finished {
    agent.signal(libc::SIGINT);
    let finished = agent.finish().succeeded();
    eprintln!("{}", finished.stderr);
    finished
}

fn process(profile: &Profile, pid: u32) -> &ProcessMemory {
    let memory = profile.memory.as_ref().expect("the recording accounts for memory");
    let mut found = memory.processes.iter().filter(|process| process.pid == pid);
    let process = found.next().unwrap_or_else(|| panic!("{pid} is not in {memory:?}"));
    assert!(found.next().is_none(), "{memory:?}");
    process
}

/// That everything which was to be taken is there or told to be lost.
fn adds_up(profile: &Profile) {
    let coverage = &profile.coverage;
    let lost: u64 = coverage.lost.iter().map(|loss| loss.samples).sum();
    assert_eq!(coverage.attempted, coverage.captured + lost, "{coverage:?}");
}

fn with_all(profile: &Profile, names: &[&str]) -> u64 {
    weight_where(profile, |functions| names.iter().all(|name| functions.contains(name)))
}

#[test]
fn minor_faults_are_those_that_the_kernel_counts() {
    let _live = live();
    const PAGES: u64 = 5_000;
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let one = Idle::start(directory.path(), &["fresh", "5000"]);
    let several = Idle::start(directory.path(), &["fresh", "5000", "4"]);
    let pids = format!("{},{}", one.pid(), several.pid());
    let agent = start(&["-e", "fault", "--pid", &pids]);
    let before = [one.faults(), several.faults()];
    one.run();
    several.run();
    let after = [one.faults(), several.faults()];
    let finished = stop(agent);
    let profile = finished.profile("out.json");
    adds_up(&profile);
    assert_eq!((profile.header.unit, profile.header.period), (Unit::Count, 1));
    for (idle, before, after, pages) in
        [(&one, before[0], after[0], PAGES), (&several, before[1], after[1], 4 * PAGES)]
    {
        let seen = process(&profile, idle.pid());
        let [minor, major] = [0, 1].map(|at| after[at] - before[at]);
        eprintln!("measured: {seen:?}, the kernel says {minor} and {major}");
        assert!(minor >= pages, "the workload has its faults");
        assert_eq!((seen.minor_faults, seen.major_faults), (minor, major));
        let weight: u64 = profile
            .samples
            .iter()
            .filter(|sample| profile.thread(sample.thread).pid == idle.pid())
            .map(|sample| sample.weight)
            .sum();
        assert_eq!(weight, minor + major, "the stacks add up to what there was");
    }
    // All stacks are taken until the agent has seen that there are too many a second, then some at random, each of which stands
    // for as many. Of n faults of which m are sampled the deviation is below n / sqrt(m); five of them.
    let touched = with_all(&profile, &["touch_fresh_pages", "[minor fault]"]);
    let tolerance = 5.0 * touched as f64 / (profile.total_count() as f64).sqrt();
    assert!((touched.abs_diff(5 * PAGES) as f64) <= tolerance, "{touched}, tolerance {tolerance}");
    let names: Vec<_> = profile.samples.iter().map(|sample| functions(&profile, sample)).collect();
    assert!(names.iter().any(|names| names.contains(&"main") && names.contains(&"touch_fresh_pages")));
    assert!(names.iter().any(|names| names.contains(&"toucher") && names.contains(&"touch_fresh_pages")));
    let [one, several] = [one.workload.truth(), several.workload.truth()];
    assert!(one["minor"] >= PAGES as f64 && several["minor"] >= 4.0 * PAGES as f64, "{one:?} {several:?}");
}

#[test]
fn major_faults_are_those_that_the_kernel_counts_and_have_their_waits() {
    let _live = live();
    skip_if!(in_vm(), "the virtual machines' files are in memory");
    const PAGES: u64 = 300;
    // Not below /tmp, which may be in memory.
    let directory = tempfile::tempdir_in("/var/tmp").expect("a temporary directory can be made");
    let file = directory.path().join("mapped");
    fs::write(&file, vec![1; (PAGES * PAGE) as usize]).expect("the file can be written");
    let idle = Idle::start(directory.path(), &["mapped", file.to_str().expect("a path of text")]);
    let agent = start(&["-e", "fault,io", "--pid", &idle.pid().to_string()]);
    let before = idle.faults();
    idle.run();
    let [minor, major] = [0, 1].map(|at| idle.faults()[at] - before[at]);
    let finished = stop(agent);
    let (profile, waits) = (finished.profile("out.fault.json"), finished.profile("out.io.json"));
    adds_up(&profile);
    let seen = process(&profile, idle.pid());
    eprintln!("measured: {seen:?}, the kernel says {minor} and {major}");
    skip_if!(major == 0, "the temporary directory's file system is in memory");
    assert_eq!((seen.minor_faults, seen.major_faults), (minor, major));
    // Each of them has its stack.
    assert_eq!(with_all(&profile, &["main", "touch_mapped_pages", "[major fault]"]), major);
    // What waited in them waited for the device, and no longer than they took.
    let waited = seen.fault_wait_ns.expect("waits were recorded");
    let truth = idle.workload.truth();
    assert_eq!(truth["major"] as u64, major);
    assert!(waited > 0 && waited as f64 <= truth["nanoseconds"], "{waited} of {truth:?}");
    let io = with_all(&waits, &["touch_mapped_pages"]);
    // The rest of the waits in faults is for locks and memory.
    assert!(io > 0 && io <= waited, "{io} of {waited}");
}

/// A group whose memory is limited; `None` where this host has no such groups.
fn limited(bytes: u64) -> Option<Cgroup> {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    let mount = if v1.join("memory.limit_in_bytes").exists() { v1.to_owned() } else { Cgroup::v2_mount()? };
    let group = Cgroup::new(&mount, "chokepoint-memory")?;
    let set = |file: &str, value: &str| fs::write(group.path().join(file), value).is_ok();
    let is_limited =
        set("memory.limit_in_bytes", &bytes.to_string()) || set("memory.max", &bytes.to_string());
    // Without swap the limits of it are not there.
    let _ = set("memory.memsw.limit_in_bytes", &bytes.to_string()) || set("memory.swap.max", "0");
    is_limited.then_some(group)
}

/// Puts the workload into the group, and makes sure that it is in it, and that it would be the first to be killed.
fn confine(idle: &Idle, group: &Cgroup) {
    group.add(idle.pid());
    fs::write(format!("/proc/{}/oom_score_adj", idle.pid()), "1000").expect("it can be raised");
    let members = fs::read_to_string(group.path().join("cgroup.procs")).expect("the group is there");
    assert!(members.lines().any(|pid| pid == idle.pid().to_string()), "{members}");
}

fn path_in_hierarchy(group: &Cgroup) -> String {
    format!("/{}", group.path().file_name().expect("it has a name").to_string_lossy())
}

#[test]
fn what_a_group_at_its_limit_reclaims_is_told() {
    let _live = live();
    skip_if!(in_vm(), "the virtual machines' files are in memory, where nothing of them can be reclaimed");
    const LIMIT: u64 = 16 << 20;
    const FILE: u64 = 96 << 20;
    let Some(group) = limited(LIMIT) else { return eprintln!("skipped: no groups that limit memory") };
    let directory = tempfile::tempdir_in("/var/tmp").expect("a temporary directory can be made");
    let file = directory.path().join("read");
    fs::write(&file, vec![1; FILE as usize]).expect("the file can be written");
    let idle = Idle::start(directory.path(), &["read", file.to_str().expect("a path of text")]);
    confine(&idle, &group);
    let agent = start(&["-e", "reclaim,fault", "--pid", &idle.pid().to_string()]);
    idle.run();
    let stat = fs::read_to_string(group.path().join("memory.stat")).expect("the group is there");
    let number = |names: [&str; 2]| {
        let mut fields = stat.lines().filter_map(|line| line.split_once(' '));
        let found = fields.find(|(name, _)| names.contains(name)).and_then(|(_, number)| number.parse().ok());
        found.unwrap_or_else(|| panic!("{names:?} is not in {stat}"))
    };
    let refaults: u64 = number(["workingset_refault_file", "workingset_refault"]);
    let kept: u64 = number(["cache", "file"]) / PAGE;
    let finished = stop(agent);
    let (profile, pid) = (finished.profile("out.reclaim.json"), idle.pid());
    let truth = idle.workload.truth();
    adds_up(&profile);
    let seen = process(&profile, pid);
    let reclaim = seen.reclaim;
    eprintln!("measured: {seen:?} in {truth:?}");
    assert_eq!(seen.group.path, path_in_hierarchy(&group));
    // Every page of the file came in once, some again since they were freed before they had been read, and what is not there now
    // was reclaimed. Older kernels also count what they free of their own, a few per cent.
    let freed = FILE / PAGE + refaults - kept;
    assert!(reclaim.pages.abs_diff(freed) <= freed / 20, "{reclaim:?}, {freed} by the kernel's numbers");
    assert!(reclaim.count > 0 && reclaim.total_ns > 0 && reclaim.total_ns as f64 <= truth["nanoseconds"]);
    let steps = [reclaim.p50_ns, reclaim.p95_ns, reclaim.p99_ns, reclaim.max_ns];
    assert!(steps.is_sorted() && steps[0] > 0 && reclaim.max_ns <= reclaim.total_ns, "{reclaim:?}");
    // Where the time went, stacks and all.
    assert_eq!(profile.header.unit, Unit::Nanoseconds);
    assert_eq!(profile.total_weight(), reclaim.total_ns);
    let stacks = with_all(&profile, &["main", "read_file", "try_to_free_mem_cgroup_pages", "[mem.reclaim]"]);
    assert!(stacks as f64 >= 0.99 * reclaim.total_ns as f64, "{stacks} of {reclaim:?}");
    let faults = finished.profile("out.fault.json");
    assert_eq!(process(&faults, pid).reclaim, reclaim);
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_told() {
    let _live = live();
    const LIMIT: u64 = 24 << 20;
    let Some(group) = limited(LIMIT) else { return eprintln!("skipped: no groups that limit memory") };
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let mut idle = Idle::start(directory.path(), &["grow", "64"]);
    confine(&idle, &group);
    let pid = idle.pid();
    let agent = start(&["-e", "fault", "--comm", "memory_c"]);
    idle.signal();
    idle.workload.wait();
    let kills = |file: &str| {
        let text = fs::read_to_string(group.path().join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())
    };
    let killed = kills("memory.events").or_else(|| kills("memory.oom_control"));
    let finished = stop(agent);
    let profile = finished.profile("out.json");
    let memory = profile.memory.as_ref().expect("it is accounted for");
    assert_eq!(killed.expect("the kernel counts them"), 1);
    assert_eq!(memory.kills.len(), 1, "{memory:?}");
    let kill = &memory.kills[0];
    eprintln!("measured: {kill:?}, {:?}", process(&profile, pid));
    assert_eq!((kill.pid, kill.process_name.as_str()), (pid, "memory_c"));
    assert_eq!((kill.by_pid, kill.by_name.as_str()), (pid, "memory_c"));
    assert_eq!(kill.group.path, path_in_hierarchy(&group));
    // It was killed at the limit, by its own memory but for what the kernel holds of it: tables of pages, and what CPUs keep at
    // hand. Threads and CPUs may each have 64 pages that are not in the sum yet.
    let cpus = std::thread::available_parallelism().expect("there are CPUs").get() as u64;
    let anonymous = kill.anonymous_bytes.expect("it asked for the memory itself, so the kernel tells");
    assert!(anonymous <= LIMIT + 64 * PAGE * cpus && anonymous >= LIMIT / 2, "{anonymous}");
    assert!(kill.total_bytes.expect("it tells") >= 64 << 20);
    // Before that it tried to find some.
    let seen = process(&profile, pid);
    assert!(seen.reclaim.count > 0 && seen.minor_faults >= LIMIT / 2 / PAGE, "{seen:?}");
    assert!(finished.stderr.contains("killed for want of memory"), "{}", finished.stderr);
}
