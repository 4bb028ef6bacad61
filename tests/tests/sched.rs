//! The sched source: every thread's time is accounted for, in the right class, with the stack it waited in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use chokepoint_analysis::activity::Class;
use chokepoint_analysis::profile::Profile;
use chokepoint_tests::accounts::{adds_up, classes_of, share, thread, window};
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::stacks::functions;
use chokepoint_tests::workload::path;
use chokepoint_tests::{Agent, Workload, agent, in_vm, live, share_tolerance, skip_if};

/// Longest time between two ticks of a kernel, nanoseconds.
const TICK_NS: f64 = 10e6;

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
