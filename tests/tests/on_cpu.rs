//! The on-CPU source: weights, stacks and modes are right.

use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::stacks::{functions, share_with, weight_where};
use chokepoint_tests::{Agent, Workload, agent, in_vm, live, share_tolerance, skip_if};

/// Samples that say enough of a share.
const PLENTY: u64 = 500;

/// A workload does rounds of equal length in three functions and counts them; the profile must show the same shares.
fn shares_are_true(workload: &str) {
    let _live = live();
    let workload = Workload::start(workload, &[]);
    let pid = workload.pid().to_string();
    let frequency = if in_vm() { "199" } else { "997" };
    let profile = agent::record_samples(PLENTY, &["--pid", &pid, "-F", frequency]);
    let truth = workload.truth();

    let samples = profile.total_count();
    let total: f64 = truth.values().sum();
    assert_eq!(truth.len(), 3, "{truth:?}");
    // The time between the three is in no function of the truth.
    let in_functions: f64 = truth.keys().map(|function| share_with(&profile, function)).sum();
    assert!(in_functions > 0.9, "only {in_functions} of the samples show a function of the workload");
    for (function, rounds) in &truth {
        let expected = rounds / total;
        let measured = share_with(&profile, function) / in_functions;
        let tolerance = share_tolerance(expected, samples);
        assert!(
            (measured - expected).abs() < tolerance,
            "{function}: {measured:.4} measured, {expected:.4} true, tolerance {tolerance:.4} from {samples} samples"
        );
    }
}

#[test]
fn shares_are_true_in_c() {
    shares_are_true("shares_c");
}

#[test]
fn shares_are_true_in_cpp() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    shares_are_true("shares_cc");
}

#[test]
fn shares_are_true_in_rust() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    shares_are_true("shares_rs");
}

#[test]
fn shares_are_true_in_go() {
    skip_if!(in_vm(), "to the kernel it is the same as C");
    shares_are_true("shares_go");
}

#[test]
fn a_stack_has_its_callers_in_order_with_files_and_lines() {
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let pid = workload.pid().to_string();
    let profile = agent::record(&["--pid", &pid, "--user-only", "-d", "2"]);

    let chain = ["main", "outer", "middle", "inner"];
    let total = profile.total_weight();
    let in_chain = weight_where(&profile, |names| names.ends_with(&chain));
    // The caller is missing only from samples in a function's first or last instructions, where the frame is not set up.
    assert!(in_chain as f64 > 0.97 * total as f64, "{in_chain} of {total} samples show {chain:?}");

    let sample = profile.samples.iter().find(|sample| functions(&profile, sample).ends_with(&chain)).unwrap();
    let leaf = profile.location(profile.stack(sample.stack)[0]);
    let line = leaf.lines[0];
    assert!(
        profile.function(line.function).file.ends_with("nest.c"),
        "{:?}",
        profile.function(line.function)
    );
    assert!((7..=15).contains(&line.line), "inner is in lines 7 to 15, not in {}", line.line);
}

#[test]
fn weights_add_up_to_the_cpu_time_used() {
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let pid = workload.pid();
    let (host, before) = (HostTime::begin(), cpu_time_ns(pid));
    let profile = agent::record(&["--pid", &pid.to_string(), "-d", "3", "-F", "199"]);
    let used = cpu_time_ns(pid) - before;
    let stolen = host.stolen_at_most_ns();

    // `used` also covers loading, before the first sample, and symbolizing, after the last. So the profile may lack up to the
    // time the agent ran outside of its window, and one tick on each side.
    let weight = profile.total_weight();
    let window = profile.header.duration_ns;
    // A tick that came due while the hypervisor had the CPU comes late, but comes.
    assert!(
        weight <= used + stolen + 2 * profile.header.period,
        "{weight} ns sampled, only {used} ns used and at most {stolen} ns stolen"
    );
    assert!(weight <= window + 2 * profile.header.period, "one thread cannot run longer than the window");
    skip_if!(in_vm(), "loading takes most of the time under emulation");
    // Of several that came due, only one comes.
    let came = (profile.coverage.fired as f64 / profile.coverage.expected.max(1) as f64).min(1.0);
    assert!(
        weight as f64 > 0.6 * came * used as f64,
        "{weight} ns sampled of {used} ns used; {came:.2} of the ticks came"
    );
}

/// utime + stime of a process, to the nanosecond.
fn cpu_time_ns(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_tick_is_accounted_for() {
    let _live = live();
    let _workload = Workload::start("nest_c", &[]);
    let coverage = agent::record(&["-d", "2"]).coverage;
    let told = coverage.idle + coverage.outside_target + coverage.other_mode + coverage.attempted;
    assert_eq!(coverage.fired, told, "{coverage:?}");
    assert_eq!(coverage.attempted, coverage.captured + coverage.total_lost(), "{coverage:?}");
    assert!(coverage.captured > 0);
    let stacks = &coverage.user_stacks;
    let ends = stacks.complete + stacks.truncated + stacks.total_incomplete() + stacks.absent;
    assert_eq!(coverage.captured, ends, "{coverage:?}");
}

#[test]
fn threads_are_told_apart_by_name() {
    let _live = live();
    let workload = Workload::start("threads_c", &[]);
    let pid = workload.pid().to_string();
    let profile = agent::record(&["--pid", &pid, "-d", "2", "--per-thread"]);
    for (thread, function) in [("alpha", "burn_alpha"), ("beta", "burn_beta")] {
        let samples: Vec<_> = profile
            .samples
            .iter()
            .filter(|sample| profile.thread(sample.thread).thread_name == thread)
            .collect();
        assert!(!samples.is_empty(), "no sample of thread {thread}");
        for sample in samples {
            assert_eq!(profile.thread(sample.thread).process_name, "threads_c");
            let names = functions(&profile, sample);
            let other = if function == "burn_alpha" { "burn_beta" } else { "burn_alpha" };
            assert!(!names.contains(&other), "thread {thread} is said to run {names:?}");
        }
    }
}

#[test]
fn time_in_the_kernel_is_seen_as_asked() {
    let _live = live();
    let workload = Workload::start("syscalls_c", &[]);
    let pid = workload.pid().to_string();
    // Under emulation a second has a handful of samples, and clearing memory takes less of the time.
    let (duration, enough) = if in_vm() { ("5", 0.1) } else { ("1", 0.3) };
    let record =
        |mode: &[&str]| agent::record(&[&["--pid", &pid, "-d", duration, "-F", "499"], mode].concat());
    let in_kernel = |name: &str| name == "read_zero" || name.contains("clear_user");

    let both = record(&[]);
    let joined = weight_where(&both, |names| {
        let user = names.iter().position(|name| *name == "read_zeros");
        let kernel = names.iter().position(|name| in_kernel(name));
        user.is_some_and(|user| kernel.is_some_and(|kernel| user < kernel))
    });
    assert!(joined as f64 > enough * both.total_weight() as f64, "kernel frames lie on top of read_zeros");

    let user_only = record(&["--user-only"]);
    let share = share_with(&user_only, "read_zeros");
    assert!(share > enough, "time in the kernel counts for the caller, which has {share}");
    assert_eq!(weight_where(&user_only, |names| names.iter().any(|name| in_kernel(name))), 0);

    let kernel_only = record(&["--kernel-only"]);
    assert!(kernel_only.coverage.other_mode > 0, "time in user mode is left out and counted");
    assert!(kernel_only.total_count() > 0);
    assert_eq!(weight_where(&kernel_only, |names| names.contains(&"read_zeros")), 0);
}

#[test]
fn the_kernel_programs_log_when_asked() {
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let pid = workload.pid();
    let record = |log: &[&str]| Agent::new(["record", "-d", "1"].iter().chain(log)).run().succeeded().stderr;
    // Where no process is named, the first sample in a file is always without its table.
    let message = format!("no unwind table yet for process {pid}");
    let asked = record(&["--log", "debug"]);
    assert!(asked.contains(&message), "{asked}");
    let quiet = record(&[]);
    assert!(!quiet.contains(&message), "{quiet}");
}
