//! What holds of windows of any length, with any number of threads, CPUs and hosts.

use super::*;
use crate::fleet::{Target, Whose};

/// As many threads as busy ones and idle ones, on so many CPUs, for so long.
fn crowd(busy: u32, idle: u32, cpus: u32, window_ns: u64) -> Diagnosis {
    let mut r = Recording::new();
    for n in 0..busy {
        let who = r.thread(1, 1 + n, "worker");
        r.spends(who, Class::CpuUser, None, &["works"], window_ns);
    }
    for n in 0..idle {
        let who = r.thread(2, 100_000 + n, "idle");
        r.spends(who, Class::Event, None, &["waits"], window_ns);
    }
    let mut profile = r.finish();
    (profile.header.cpus, profile.header.duration_ns) = (cpus, window_ns);
    diagnose(&profile)
}

#[test]
fn as_many_threads_as_cpus_saturate_them_and_one_of_many_is_alone() {
    for cpus in [2, 4, 512] {
        let told = |busy, idle| crowd(busy, idle, cpus, WINDOW).verdict;
        assert_eq!(told(cpus, 0).code, Code::CpuSaturated, "{cpus} CPUs");
        assert_eq!(told(1, 3).code, Code::CpuSingleThread, "{cpus} CPUs");
        assert_eq!(told(0, 3).code, Code::NoneIdle, "{cpus} CPUs");
    }
    // One more thread would gain next to nothing.
    assert_eq!(crowd(511, 0, 512, WINDOW).verdict.code, Code::CpuSaturated);
    let many = crowd(512, 10_000, 512, WINDOW);
    assert_eq!((many.verdict.code, many.coverage.threads), (Code::CpuSaturated, 10_512));
    assert_eq!(many.decomposition["event"], 100_000.0);
}

#[test]
fn ten_thousand_threads_that_queue_are_too_many_for_the_cpus() {
    let mut r = Recording::new();
    for n in 0..10_000 {
        let who = r.thread(1, 1 + n, "worker");
        r.spends(who, Class::CpuUser, None, &["works"], 4 * WINDOW / 10_000);
        r.spends(who, Class::RunQueue, None, &["works"], 9_996 * WINDOW / 10_000);
    }
    r.run_queue = Some(queued_behind(1, 1, 9_996 * WINDOW));
    let verdict = diagnose(&r.finish()).verdict;
    assert_eq!((verdict.code, verdict.severity), (Code::CpuSaturated, Severity::Critical));
    assert!((verdict.share - 0.9996).abs() < 1e-6, "{}", verdict.share);
}

#[test]
fn a_window_of_one_second_has_the_same_answer_and_is_less_sure_of_it() {
    let long = diagnose(&convoy(Class::CpuUser));
    let mut profile = convoy(Class::CpuUser);
    profile.header.duration_ns /= 10;
    for sample in &mut profile.samples {
        sample.weight /= 10;
    }
    for wake in &mut profile.wakes {
        wake.weight /= 10;
    }
    for time in &mut profile.thread_times {
        time.elapsed_ns /= 10;
        time.parts.on_cpu_ns /= 10;
        time.parts.interruptible_ns /= 10;
    }
    let short = diagnose(&profile);
    assert_eq!((short.verdict.code, short.window_s), (Code::LockMutex, 1.0));
    assert!((short.verdict.share - long.verdict.share).abs() < 1e-9);
    // A tenth of what a window that is long enough adds.
    assert!((long.verdict.confidence - short.verdict.confidence - 0.18).abs() < 1e-9);
}

#[test]
fn parts_add_up_and_shares_are_shares_whatever_happened() {
    for seed in 100..150 {
        let profile = random(seed, 1 + (seed % 7) as u32 * 6, false);
        let diagnosis = diagnose(&profile);
        let [all, behind, demand] =
            [diagnosis.decomposition.values().sum::<f64>(), sum(&diagnosis.behind), sum(&diagnosis.demand)];
        // Each number is told to the millisecond.
        let rounding = 0.0005 * (diagnosis.decomposition.len() + diagnosis.behind.len()) as f64;
        assert!((all - behind).abs() <= rounding, "seed {seed}: {all} and {behind}");
        assert!(demand <= all + rounding, "seed {seed}: {demand} of {all}");
        for finding in diagnosis.ranked.iter().chain([&diagnosis.verdict]) {
            let is_share = |value: f64| (0.0..=1.0).contains(&value);
            assert!(is_share(finding.share) && is_share(finding.confidence), "seed {seed}: {finding:#?}");
        }
    }
}

fn sum(of: &BTreeMap<String, f64>) -> f64 {
    of.values().sum()
}

/// What a host's threads did, by a generator with this seed.
fn host(seed: u64) -> Vec<(String, Class, u64)> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let row = |_| {
        let class = Class::ALL[next(Class::ALL.len() as u64) as usize];
        (format!("worker-{}", next(3)), class, 1 + next(SECOND))
    };
    (0..12).map(row).collect()
}

#[test]
fn hosts_merge_to_the_same_in_whatever_order_and_groups() {
    let told = |hosts: &[u64]| {
        let mut target = Target::new("service web", 0, WINDOW);
        for seed in hosts {
            for (thread, class, ns) in host(*seed) {
                target.add(Whose { process: "web", thread: &thread }, class, Vec::new(), 1, ns);
            }
        }
        diagnose(&target.finish(None))
    };
    for first in 0..20 {
        let seeds: Vec<u64> = (first..first + 6).collect();
        let mut other = seeds.clone();
        other.reverse();
        other.rotate_left(first as usize % 6);
        let (one, turned) = (told(&seeds), told(&other));
        assert_eq!(one.decomposition, turned.decomposition, "seed {first}");
        assert_eq!((one.verdict.code, &one.behind), (turned.verdict.code, &turned.behind), "seed {first}");
        // What the parts come to is what the whole does.
        let (left, right) = (told(&seeds[..2]), told(&seeds[2..]));
        for (class, seconds) in &one.decomposition {
            let of = |part: &Diagnosis| part.decomposition.get(class).copied().unwrap_or_default();
            assert!((of(&left) + of(&right) - seconds).abs() < 0.0016, "seed {first}: {class}");
        }
    }
}
