//! The sched source: every thread's time is accounted for, in the right class, with the stack it waited in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::profile::Profile;
use chokepoint_analysis::thread_time::ThreadTime;
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::stacks::functions;
use chokepoint_tests::workload::path;
use chokepoint_tests::{Agent, Workload, agent, in_vm, live, share_tolerance, skip_if, target_dir};

/// Of a thread's time, what must be accounted for.
const ADDS_UP: f64 = 0.005;

/// Longest time between two ticks of a kernel, nanoseconds.
const TICK_NS: f64 = 10e6;
/// Of a host, until there are waits enough for a judgement.
const MOST_RECORDINGS: usize = 5;

/// Seconds of a recording.
fn window() -> &'static str {
    if in_vm() { "6" } else { "3" }
}

/// Weight of a process's samples that have this function, by class.
fn classes_of(profile: &Profile, function: &str) -> BTreeMap<Class, u64> {
    let mut classes = BTreeMap::new();
    for sample in &profile.samples {
        let names = functions(profile, sample);
        if function.is_empty() || names.contains(&function) {
            let class = names.iter().find_map(|name| Class::from_frame(name));
            *classes.entry(class.unwrap_or_else(|| panic!("no class in {names:?}"))).or_default() +=
                sample.weight;
        }
    }
    classes
}

fn share(classes: &BTreeMap<Class, u64>, class: Class) -> f64 {
    classes.get(&class).copied().unwrap_or_default() as f64 / classes.values().sum::<u64>().max(1) as f64
}

fn thread<'a>(profile: &'a Profile, name: &str) -> &'a ThreadTime {
    let threads: Vec<_> = profile.thread_times.iter().filter(|thread| thread.thread_name == name).collect();
    assert_eq!(threads.len(), 1, "threads named {name}: {threads:?}");
    threads[0]
}

/// Each thread's parts are its life, and the samples' weights are the threads' lives.
fn adds_up(profile: &Profile) {
    assert!(!profile.thread_times.is_empty());
    for thread in &profile.thread_times {
        let (total, elapsed) = (thread.parts.total_ns() as f64, thread.elapsed_ns as f64);
        assert!((total - elapsed).abs() <= ADDS_UP * elapsed, "{thread:?}");
    }
    let elapsed: u64 = profile.thread_times.iter().map(|thread| thread.elapsed_ns).sum();
    let weight = profile.total_weight();
    assert!(
        (weight as f64 - elapsed as f64).abs() <= ADDS_UP * elapsed as f64,
        "{weight} ns in samples, {elapsed} ns lived: {:#?}",
        told_otherwise(profile)
    );
}

/// Threads of which samples tell something else than their times: what either says.
fn told_otherwise(profile: &Profile) -> Vec<String> {
    let mut told: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
    for sample in &profile.samples {
        let thread = profile.thread(sample.thread);
        told.entry((thread.pid, thread.tid)).or_default().0 += sample.weight;
    }
    for time in &profile.thread_times {
        told.entry((time.pid, time.tid)).or_default().1 += time.elapsed_ns;
    }
    told.retain(|_, (sampled, lived)| (*sampled as f64 - *lived as f64).abs() > ADDS_UP * *lived as f64);
    let name = |tid| {
        let sampled = profile.threads.iter().find(|thread| thread.tid == tid);
        sampled.map(|thread| format!("{} {}", thread.process_name, thread.thread_name))
    };
    let line = |((pid, tid), (sampled, lived))| {
        let time = profile.thread_times.iter().find(|time| time.tid == tid);
        format!("{pid} {tid} {:?}: {sampled} ns in samples, {lived} ns lived, {time:?}", name(tid))
    };
    told.into_iter().map(line).collect()
}

/// Samples of a thread that ran.
fn on_cpu_samples(profile: &Profile, thread: &str) -> u64 {
    let is_on_cpu = |class: Class| matches!(class, Class::CpuUser | Class::CpuKernel);
    profile
        .samples
        .iter()
        .filter(|sample| profile.thread(sample.thread).thread_name == thread)
        .filter(|sample| {
            functions(profile, sample).iter().find_map(|name| Class::from_frame(name)).is_some_and(is_on_cpu)
        })
        .map(|sample| sample.count)
        .sum()
}

#[test]
fn time_by_function_and_class_is_true() {
    let _live = live();
    let program = path("waits_c");
    let milliseconds = if in_vm() { "6000" } else { "3000" };
    let arguments =
        ["record", "-e", "wall", "-o", "profile.json", "--", program.to_str().unwrap(), "mix", milliseconds];
    let finished = Agent::new(arguments).run().succeeded();
    let profile = finished.profile("profile.json");
    adds_up(&profile);

    let truth: BTreeMap<&str, f64> = finished
        .stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(function, ns)| (function, ns.parse().unwrap()))
        .collect();
    assert_eq!(truth.len(), 5, "{truth:?}");
    let mixer = thread(&profile, "mixer");
    let total: f64 = truth.values().sum();
    // The truth has all of the thread's life but its start and end, some milliseconds of three seconds.
    let tolerance = if in_vm() { 0.05 } else { 0.02 };
    // On-CPU time is told by samples, a hundred a second at most: how it is shared among functions scatters as they do. Of what was
    // stolen nobody knows the function.
    let ran = mixer.parts.on_cpu_ns as f64 / mixer.elapsed_ns as f64;
    let stolen = mixer.parts.stolen_ns as f64 / mixer.elapsed_ns as f64;
    let samples = on_cpu_samples(&profile, "mixer");
    assert!(samples > 0, "no sample of the mixer on a CPU: {mixer:?}");
    // Most of it is one function's.
    let sampling = ran * share_tolerance(0.8, samples);
    for (function, class) in
        [("burns", Class::CpuUser), ("naps", Class::Timer), ("reads", Class::Ipc), ("locks", Class::Futex)]
    {
        let classes = classes_of(&profile, function);
        let measured = classes.values().sum::<u64>() as f64 / mixer.elapsed_ns as f64;
        let expected = truth[function] / total;
        // An emulated timer misses ticks.
        let tolerance = sampling + if in_vm() && class == Class::CpuUser { 0.15 } else { tolerance };
        assert!(
            measured < expected + tolerance && measured > expected - tolerance - stolen,
            "{function}: {measured:.4} measured, {expected:.4} true, tolerance {tolerance:.4}, {stolen:.4} stolen; {classes:?}"
        );
        // The rest is what the call costs, and the way to a CPU.
        let share = share(&classes, class) + share(&classes, Class::RunQueue);
        let bar = if in_vm() { 0.6 } else { 0.9 };
        assert!(share > bar, "{function}: {share:.3} is {class}: {classes:?}");
    }
}

#[test]
fn everything_adds_up_while_threads_come_and_go() {
    let _live = live();
    let _spinners = [Workload::start("waits_c", &["spin"]), Workload::start("waits_c", &["spin"])];
    let _mix = Workload::start("waits_c", &["mix"]);
    let _churn = Workload::start("waits_c", &["churn", "100000"]);
    let host = HostTime::begin();
    let profile = agent::record(&["-e", "wall", "-d", window()]);
    let stolen_ns = host.stolen_at_most_ns();
    adds_up(&profile);

    let window_ns = profile.header.duration_ns as f64;
    let ended = profile.thread_times.iter().filter(|thread| thread.ended).count();
    // Under emulation a thread takes a tenth of a second from its birth to its end.
    let enough = if in_vm() { 5 } else { 20 };
    assert!(ended > enough, "only {ended} threads ended");
    let mut whole = 0;
    for thread in profile.thread_times.iter().filter(|thread| !thread.ended) {
        // The accounting begins a little before the window and ends with it.
        let longest = if in_vm() { 1.5 } else { 1.1 };
        assert!((thread.elapsed_ns as f64) < longest * window_ns, "{thread:?}");
        whole += usize::from(thread.elapsed_ns as f64 > 0.98 * window_ns);
    }
    assert!(whole > 10, "only {whole} threads lived all the time");
    // No CPU does more than one thing at a time.
    let on_cpu: u64 =
        profile.thread_times.iter().map(|thread| thread.parts.on_cpu_ns + thread.parts.stolen_ns).sum();
    let cpus = std::thread::available_parallelism().unwrap().get() as f64;
    let longest = profile.thread_times.iter().map(|thread| thread.elapsed_ns).max().unwrap() as f64;
    // The looks at all threads take a while, at each end of the window, and no thread is the first and the last in both. At its end
    // the programs are unloaded first, each of which waits for the kernel's readers: tens of milliseconds where CPUs are busy. A thread
    // that is counted twice would be a second and more.
    let looks_ns = if in_vm() { 0.12e9 } else { 0.05e9 };
    assert!(on_cpu as f64 <= cpus * (longest + looks_ns), "{on_cpu} ns on {cpus} CPUs in {longest} ns");
    // Two spinners leave no CPU idle.
    assert!(on_cpu as f64 > 0.9 * cpus.min(2.0) * window_ns, "{on_cpu} ns on {cpus} CPUs in {window_ns} ns");
    // Of all threads together the hypervisor took no more than it says; each thread's own clocks differ by a moment at each switch,
    // which under emulation is ten times as long.
    let moments = if in_vm() { 0.05 } else { 0.005 };
    let stolen: u64 = profile.thread_times.iter().map(|thread| thread.parts.stolen_ns).sum();
    let most = stolen_ns as f64 + moments * cpus * window_ns;
    assert!(stolen as f64 <= most, "{stolen} ns told as stolen, at most {most} ns were");
}

#[test]
fn run_and_queue_time_agree_with_the_kernels_own() {
    let _live = live();
    let program = path("waits_c");
    let program = program.to_str().unwrap();
    let milliseconds = if in_vm() { "6000" } else { "2000" };
    let arguments = ["record", "-e", "run-queue", "-o", "profile.json", "--", program, "queue", milliseconds];
    let finished = Agent::new(arguments).run().succeeded();
    let profile = finished.profile("profile.json");
    let mut compared = 0;
    for line in finished.stdout.lines().filter_map(|line| line.strip_prefix("schedstat ")) {
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [tid, run_ns, queue_ns, _, lived_ns] = numbers[..] else { panic!("{line}") };
        let time = profile.thread_times.iter().find(|time| u64::from(time.tid) == tid);
        let time = time.unwrap_or_else(|| panic!("no thread {tid} in {:?}", profile.thread_times));
        let told_queue_ns = time.parts.queued_ns();
        // The thread has begun before it took its time, and goes on after it has read its own. What the kernel says of a thread
        // that runs is up to a tick old.
        let unknown_ns = time.elapsed_ns.saturating_sub(lived_ns) as f64;
        let margin = |ns: u64| 0.01 * ns as f64 + 1e6 + TICK_NS + unknown_ns;
        let far = |told: u64, kernel: u64| (told as f64 - kernel as f64).abs() > margin(kernel);
        assert!(unknown_ns < 0.2 * lived_ns as f64, "{line}: {time:?}");
        assert!(!far(time.parts.on_cpu_ns, run_ns), "ran {run_ns} ns: {time:?}");
        assert!(!far(told_queue_ns, queue_ns), "queued {queue_ns} ns: {time:?}");
        assert!(queue_ns > run_ns / 2, "two threads on one CPU wait for each other: {line}");
        compared += 1;
    }
    assert_eq!(compared, 2, "{}", finished.stdout);
    let classes = classes_of(&profile, "spins");
    assert!(classes.keys().all(|class| *class == Class::RunQueue), "{classes:?}");
    assert!(classes.values().sum::<u64>() > 1_000_000_000, "{classes:?}");
}

#[test]
fn a_wait_that_does_not_end_is_there_with_its_stack() {
    let _live = live();
    let workload = Workload::start("waits_c", &["hang"]);
    // Its table is built by the window's end.
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "off-cpu", "--pid", &pid, "-d", "2"]);
    adds_up(&profile);
    let classes = classes_of(&profile, "");
    assert!(share(&classes, Class::Ipc) > 0.999, "{classes:?}");
    skip_if!(
        !reads_stacks_of_waiting_threads(),
        "this kernel cannot read the memory of a thread that does not run"
    );
    let hanging = classes_of(&profile, "hangs");
    assert!(
        hanging.values().sum::<u64>() as f64 > 0.999 * profile.total_weight() as f64,
        "the caller of read is in the stack: {:?}",
        profile.samples.iter().map(|sample| functions(&profile, sample)).collect::<Vec<_>>()
    );
}

/// `bpf_copy_from_user_task` came with Linux 5.18.
fn reads_stacks_of_waiting_threads() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(5), Some(18))
}

#[test]
fn waits_for_the_disk_are_told_with_the_file() {
    let _live = live();
    skip_if!(in_vm(), "the guests have no disk");
    let directory = tempfile::tempdir_in(target_dir()).unwrap();
    let file = directory.path().join("data");
    let workload = Workload::start("waits_c", &["sync", file.to_str().unwrap()]);
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "wall", "--pid", &pid, "-d", "2"]);
    adds_up(&profile);
    let mut classes = classes_of(&profile, "syncs");
    skip_if!(share(&classes, Class::CpuKernel) > 0.9, "this file system does not wait for a disk");
    // How long it queues is what others do on the machine.
    classes.retain(|class, _| !matches!(class, Class::RunQueue | Class::CpuUser | Class::CpuKernel));
    let io = [Class::IoSync, Class::IoWrite].map(|class| share(&classes, class)).iter().sum::<f64>();
    assert!(io > 0.9, "{classes:?}");
    let named = format!("[file {} on ", file.display());
    let with_name = profile
        .samples
        .iter()
        .any(|sample| functions(&profile, sample).iter().any(|name| name.starts_with(&named)));
    assert!(with_name, "{named} is in no stack");
}

#[test]
fn throttled_time_is_told_from_queueing() {
    let _live = live();
    let Some(group) = Cgroup::with_quota("chokepoint-throttled", 20) else {
        skip_if!(true, "no cpu controller is to be had");
        return;
    };
    let workload = Workload::start("waits_c", &["spin"]);
    group.add(workload.pid());
    let (host, start, throttled_before) = (HostTime::begin(), Instant::now(), throttled_ns(group.path()));
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "wall", "--pid", &pid, "-d", window()]);
    let throttled = (throttled_ns(group.path()) - throttled_before) as f64;
    let outside = start.elapsed().as_nanos() as f64 - profile.header.duration_ns as f64;
    adds_up(&profile);
    let classes = classes_of(&profile, "");
    // 20 ms of each 100 ms, or less where others want the CPUs. What the hypervisor took is not what the group used.
    let ran = share(&classes, Class::CpuUser) + share(&classes, Class::CpuKernel);
    assert!(ran < 0.25, "{classes:?}");
    // The group's own count is of a longer time: it has at most four fifths of what lies outside of the window, and what is not over
    // at its ends. It ends when the thread may run, not when it does, which is a matter of who else wants the CPU.
    let told = classes.get(&Class::Throttled).copied().unwrap_or_default() as f64;
    let (least, most) =
        (throttled - 0.8 * outside - 0.2e9, throttled + 0.1 * profile.header.duration_ns as f64);
    let contended = host.contended_at_most_ns() as f64;
    assert!(
        (least..most + contended).contains(&told),
        "{told} ns, {throttled} ns by the group's count, {outside} ns outside, {contended} ns busy: {classes:?}"
    );
}

#[test]
fn every_thread_of_a_throttled_group_is_told_as_throttled() {
    let _live = live();
    let Some(group) = Cgroup::with_quota("chokepoint-quota", 20) else {
        skip_if!(true, "no cpu controller is to be had");
        return;
    };
    // Two on each CPU, so that most are queued behind another, and some are asleep, when the quota is used up.
    let spinners: Vec<Workload> = (0..4).map(|_| Workload::start("waits_c", &["spin"])).collect();
    let mix = Workload::start("waits_c", &["mix"]);
    for workload in spinners.iter().chain([&mix]) {
        group.add(workload.pid());
    }
    let host = HostTime::begin();
    let profile = agent::record(&["-e", "wall", "-d", window()]);
    let contended_ns = host.contended_at_most_ns() as f64;
    adds_up(&profile);
    for spinner in &spinners {
        let times: Vec<_> = profile.thread_times.iter().filter(|time| time.pid == spinner.pid()).collect();
        let [time] = times[..] else { panic!("{times:?}") };
        let parts = &time.parts;
        // The group runs for 20 ms of 100 at most, on one CPU or on both; for the rest none of it may run, and nothing else keeps a
        // spinner from it but what others want of the CPUs.
        let least = 0.7 * time.elapsed_ns as f64 - contended_ns;
        assert!(parts.throttled_ns as f64 > least, "{least} ns at least, {contended_ns} ns busy: {time:?}");
        let queued = parts.queued_ns() as f64;
        assert!(queued < 0.25 * time.elapsed_ns as f64 + contended_ns, "{contended_ns} ns busy: {time:?}");
    }
    // Part of the profile by its class, also where it began with a sleep.
    let throttled_ns = |pid| {
        let samples = profile.samples.iter().filter(|sample| profile.thread(sample.thread).pid == pid);
        let is_throttled =
            |names: &[&str]| names.iter().find_map(|name| Class::from_frame(name)) == Some(Class::Throttled);
        samples
            .filter(|sample| is_throttled(&functions(&profile, sample)))
            .map(|sample| sample.weight)
            .sum::<u64>()
    };
    for workload in spinners.iter().chain([&mix]) {
        let pid = workload.pid();
        let exact: u64 = profile
            .thread_times
            .iter()
            .filter(|time| time.pid == pid)
            .map(|time| time.parts.throttled_ns)
            .sum();
        assert!(exact > 0, "{pid} was never throttled: {:?}", profile.thread_times);
        let told = throttled_ns(pid);
        assert!(told.abs_diff(exact) <= exact / 100, "{pid}: {told} ns in samples, {exact} ns in times");
    }
}

fn throttled_ns(group: &Path) -> u64 {
    let text = std::fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    field("throttled_time ").or_else(|| Some(1000 * field("throttled_usec ")?)).unwrap_or_default()
}

#[test]
fn what_ends_a_wait_is_joined_to_it() {
    let _live = live();
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid().to_string();
    let profile = agent::record(&["-e", "offwake", "--pid", &pid, "-d", window()]);
    let mut by_helper = 0;
    let mut by_interrupt = 0;
    let (mut reads, mut naps) = (0, 0);
    for sample in &profile.samples {
        // A waker's functions are in the stacks of what it woke.
        if profile.thread(sample.thread).thread_name != "mixer" {
            continue;
        }
        let names = functions(&profile, sample);
        if names.contains(&"reads") {
            reads += sample.weight;
            // The waker's stack is upside down, so that what woke is next to what waited.
            let wait = names.iter().position(|name| *name == "reads");
            let waker = names.iter().position(|name| *name == "answers_reader");
            by_helper += if waker > wait { sample.weight } else { 0 };
        }
        if names.contains(&"naps") {
            naps += sample.weight;
            by_interrupt += if names.contains(&"[woken by an interrupt]") { sample.weight } else { 0 };
        }
    }
    assert!(reads > 0 && naps > 0, "{} samples", profile.samples.len());
    assert!(by_helper as f64 > 0.9 * reads as f64, "{by_helper} of {reads} ns were ended by the helper");
    assert!(by_interrupt as f64 > 0.9 * naps as f64, "{by_interrupt} of {naps} ns were ended by a timer");
}

#[test]
fn several_events_have_a_file_each() {
    let _live = live();
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid().to_string();
    let arguments = ["record", "-e", "cpu,off-cpu,lock", "--pid", &pid, "-d", "1", "-o", "out.json"];
    let finished = Agent::new(arguments).run().succeeded();
    let mut files: Vec<PathBuf> = finished.left_behind().into_iter().map(PathBuf::from).collect();
    files.sort();
    assert_eq!(files, ["out.cpu.json", "out.lock.json", "out.off-cpu.json"].map(PathBuf::from));
    let lock = finished.profile("out.lock.json");
    assert_eq!(lock.header.kind, "lock");
    let classes = classes_of(&lock, "");
    assert_eq!(classes.keys().collect::<Vec<_>>(), [&Class::Futex], "{classes:?}");
    let cpu = finished.profile("out.cpu.json");
    assert!(
        cpu.samples
            .iter()
            .all(|sample| functions(&cpu, sample).iter().all(|name| Class::from_frame(name).is_none()))
    );
    let off_cpu = finished.profile("out.off-cpu.json");
    assert!(off_cpu.total_weight() > lock.total_weight());
    assert!(finished.stderr.contains("100.0%"), "{}", finished.stderr);

    let piped = Agent::new(["record", "-e", "cpu,lock", "-d", "1", "-o", "-"]).run();
    assert_eq!(piped.code, Some(2), "{}", piped.stderr);
}

#[test]
fn only_the_target_is_accounted_for() {
    let _live = live();
    let (target, _other) = (Workload::start("waits_c", &["mix"]), Workload::start("waits_c", &["mix"]));
    let profile = agent::record(&["-e", "wall", "--pid", &target.pid().to_string(), "-d", "1"]);
    assert!(profile.thread_times.iter().all(|time| time.pid == target.pid()), "{:?}", profile.thread_times);
    assert_eq!(profile.thread_times.len(), 2, "{:?}", profile.thread_times);
    assert!(profile.samples.iter().all(|sample| profile.thread(sample.thread).pid == target.pid()));
}

#[test]
fn every_chosen_wait_is_accounted_for() {
    let _live = live();
    let workload = Workload::start("waits_c", &["mix"]);
    let profile = agent::record(&["-e", "off-cpu", "--pid", &workload.pid().to_string(), "-d", window()]);
    let coverage = &profile.coverage;
    assert!(coverage.captured > 100, "{coverage:?}");
    assert_eq!(coverage.attempted, coverage.captured + coverage.total_lost(), "{coverage:?}");
    let switches: u64 = profile.thread_times.iter().map(|time| time.switches).sum();
    // All of a target's waits are taken, also those that go on; but for those whose end was hidden.
    assert!(
        coverage.attempted + 2 + unseen_arrivals(&profile) >= switches,
        "{switches} switches: {coverage:?}"
    );
    assert!(coverage.total_lost() * 100 <= coverage.attempted, "{coverage:?}");
    let stacks = &coverage.user_stacks;
    assert!(stacks.complete as f64 > 0.9 * coverage.captured as f64, "{coverage:?}");
}

/// Times that a thread came to its CPU unseen: some hosts hide threads from tracing, and whom they give the CPU to.
fn unseen_arrivals(profile: &Profile) -> u64 {
    let notes = profile.coverage.notes.iter();
    notes
        .filter_map(|note| note.split_once(" times a thread came to its CPU unseen")?.0.parse::<u64>().ok())
        .sum()
}

#[test]
fn it_agrees_with_offcputime() {
    let _live = live();
    skip_if!(in_vm() || !chokepoint_tests::workload::on_path("offcputime"), "offcputime is not installed");
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid().to_string();
    let watch = RunShares::watch(workload.pid());
    let mut peer = Command::new("offcputime");
    // On its errors' stream it tells of each stack that it could not take.
    peer.args(["-p", &pid, "4"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let peer = peer.spawn().expect("offcputime can be run");
    let profile = agent::record(&["-e", "off-cpu", "--pid", &pid, "-d", "3"]);
    let output = peer.wait_with_output().unwrap();
    let spread = watch.spread(Duration::from_secs(3));
    // `    -                mixer (4711)` and then microseconds.
    let text = String::from_utf8_lossy(&output.stdout);
    let mut theirs = 0.0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.contains("mixer (") {
            theirs += lines.next().unwrap().trim().parse::<f64>().unwrap();
        }
    }
    let mixer = thread(&profile, "mixer");
    let on_cpu_ns = mixer.parts.on_cpu_ns + mixer.parts.stolen_ns;
    let ours = 1.0 - on_cpu_ns as f64 / mixer.elapsed_ns as f64;
    let theirs = theirs / 4e6;
    // The two do not watch quite the same time: both are of windows in which the share of time on CPUs differed by this much.
    let tolerance = 0.03 + spread;
    assert!(
        (ours - theirs).abs() < tolerance,
        "off the CPU {ours:.3} of the time, {theirs:.3} by offcputime, tolerance {tolerance:.3}"
    );
}

/// Watches, by the kernel's own count, how much of the time a process's first thread runs.
struct RunShares {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<Vec<(Instant, f64)>>,
    host: HostTime,
}

impl RunShares {
    fn watch(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watcher = std::thread::spawn(move || {
            let mut readings = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).unwrap();
                readings.push((Instant::now(), text.split(' ').next().unwrap().parse().unwrap()));
                std::thread::sleep(Duration::from_millis(50));
            }
            readings
        });
        Self { stop, watcher, host: HostTime::begin() }
    }

    /// By how much the share of time on a CPU differs between windows of this length or more.
    fn spread(self, window: Duration) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let readings = self.watcher.join().unwrap();
        let first = readings[0].0;
        let stolen = self.host.stolen_at_most_ns() as f64 / first.elapsed().as_nanos() as f64;
        let mut shares = Vec::new();
        for (index, (begin, before)) in readings.iter().enumerate() {
            let end = readings[index..].iter().find(|(end, _)| end.duration_since(*begin) >= window);
            let share = |(end, after): &(Instant, f64)| {
                (after - before) / end.duration_since(*begin).as_nanos() as f64
            };
            shares.extend(end.map(share));
        }
        let most = shares.iter().copied().fold(0.0, f64::max);
        let least = shares.iter().copied().fold(1.0, f64::min);
        // What was stolen is not in the kernel's count, and may have come in one window alone.
        (most - least).max(0.0) + stolen
    }
}

#[test]
fn the_hosts_waits_are_chosen_without_bias() {
    let _live = live();
    skip_if!(in_vm(), "too few waits for a judgement");
    let workload = Workload::start("waits_c", &["mix"]);
    let pid = workload.pid();
    // Blocked time of the mixer by what it waited in, of all waits and of those that the budget chooses.
    let blocked = |profile: &Profile| {
        let mut by_class: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
        for sample in &profile.samples {
            let thread = profile.thread(sample.thread);
            let names = functions(profile, sample);
            let class = names.iter().find_map(|name| Class::from_frame(name)).expect("a class");
            if thread.pid == pid && thread.thread_name == "mixer" && class != Class::RunQueue {
                let sum = by_class.entry(class).or_default();
                *sum = (sum.0 + sample.count, sum.1 + sample.weight);
            }
        }
        by_class
    };
    let all = blocked(&agent::record(&["-e", "off-cpu", "--pid", &pid.to_string(), "-d", "2"]));
    // On a host where others have the CPUs, few of the chosen waits are the mixer's.
    let mut chosen: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
    let mut samples = 0;
    for _ in 0..MOST_RECORDINGS {
        for (class, (count, weight)) in blocked(&agent::record(&["-e", "off-cpu", "-d", "6"])) {
            let sum = chosen.entry(class).or_default();
            *sum = (sum.0 + count, sum.1 + weight);
        }
        samples = chosen.values().map(|(count, _)| count).sum();
        if samples > 50 {
            break;
        }
    }
    assert!(samples > 50, "{chosen:?}");
    let share = |sums: &BTreeMap<Class, (u64, u64)>, class: Class| {
        let total: u64 = sums.values().map(|(_, weight)| weight).sum();
        sums.get(&class).map_or(0.0, |(_, weight)| *weight as f64 / total as f64)
    };
    // Waits shorter than the period all stand for the same, so shares scatter as those of independent samples do.
    for class in [Class::Timer, Class::Ipc, Class::Futex] {
        let (expected, measured) = (share(&all, class), share(&chosen, class));
        let tolerance = share_tolerance(expected, samples) + 0.03;
        assert!(
            (measured - expected).abs() < tolerance,
            "{class}: {measured:.3} of the chosen, {expected:.3} of all, tolerance {tolerance:.3}: {chosen:?}"
        );
    }
}
