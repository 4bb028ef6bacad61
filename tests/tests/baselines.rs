//! Baselines of a program that changes in a known way, and what comparing them says.

use std::path::Path;
use std::time::Duration;

use chokepoint_analysis::baseline::{Baseline, Kind, read};
use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};

/// Windows of a baseline of the test: two more than a comparison asks for, of a second each.
const SECONDS: &str = "10";
/// The change is half as much again in all. What is the same is to be nearer to none than to that, and what changed nearer to that:
/// it is the clock of the CPU, and who has the core's other half, that a unit's time still depends on.
const THRESHOLD: &str = "25";

/// A hypervisor that takes the CPUs in waves makes a unit's time drift, so that ten windows may say nothing: then it is asked again. That
/// the same is a regression, it is never to say.
const ROUNDS: u32 = 3;

fn capture(workload: &Workload, count: &Path, seconds: &str, file: &Path) -> Agent {
    let (pid, count, file) = (workload.pid().to_string(), count.to_string_lossy(), file.to_string_lossy());
    Agent::new([
        "baseline",
        "capture",
        "--pid",
        &pid,
        "-d",
        seconds,
        "--every",
        "1",
        "--work-counter",
        &count,
        "-o",
        &file,
    ])
}

fn baseline(file: &Path) -> Baseline {
    read(&std::fs::read(file).expect("the agent has written it")).expect("it can be read")
}

#[test]
fn a_function_that_takes_twice_the_time_is_a_regression_and_the_same_again_is_none() {
    let _live = live();
    skip_if!(in_vm(), "under emulation, a unit of work takes what the emulation lets it");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let file = |name: &str| directory.path().join(name);
    let count = file("count");
    let mut workload = Workload::start("shift_c", &[&count.to_string_lossy()]);
    workload.wait_for_line("begun");
    let [usual, again, slower, short] = ["usual", "again", "slower", "short"].map(file);
    let compare = |after: &Path, more: &[&str]| {
        let [before, after] = [&usual, after].map(|path| path.to_string_lossy().into_owned());
        let fixed = ["compare", &before, &after, "--threshold", THRESHOLD];
        Agent::new(fixed.iter().chain(more)).run()
    };
    // SAFETY: the workload has not been waited for, so the number is still its own.
    let change = || unsafe { libc::kill(workload.pid() as i32, libc::SIGUSR1) };
    let host = HostTime::begin();
    let mut changed = None;
    for _ in 0..ROUNDS {
        let _ = capture(&workload, &count, SECONDS, &usual).run().succeeded();
        change();
        let _ = capture(&workload, &count, SECONDS, &slower).run().succeeded();
        change();
        let compared = compare(&slower, &["-o", "diff.svg", "--json"]);
        let is_found = compared.code == Some(7);
        changed = Some(compared);
        if is_found {
            break;
        }
    }
    let changed = changed.expect("there was a round");
    skip_if!(
        changed.code != Some(7) && host.is_disturbed(),
        "the hypervisor took CPUs away: {}",
        changed.stdout
    );
    assert_eq!(changed.code, Some(7), "{}{}", changed.stdout, changed.stderr);
    let _ = capture(&workload, &count, SECONDS, &again).run().succeeded();
    let same = compare(&again, &[]);
    skip_if!(same.code != Some(0) && host.is_disturbed(), "the hypervisor took CPUs away: {}", same.stdout);
    assert_eq!(same.code, Some(0), "{}{}", same.stdout, same.stderr);

    let captured = baseline(&usual);
    let work = captured.series(Kind::Work, "work").expect("work is counted");
    assert!(work.values.iter().flatten().all(|rate| *rate > 0.0), "{work:?}");
    let on_cpu = captured.series(Kind::Time, "cpu.user").expect("it ran");
    assert!(on_cpu.values.iter().flatten().all(|threads| (0.05..1.05).contains(threads)), "{on_cpu:?}");
    // Verdicts of windows rest on the same sources as others.
    for source in ["queueing for CPUs", "block devices", "signals were not read"] {
        assert!(captured.missing.iter().all(|missing| !missing.contains(source)), "{:?}", captured.missing);
    }
    let page = Agent::new(["baseline".as_ref(), "show".as_ref(), usual.as_os_str()]).run().succeeded().stdout;
    assert!(page.contains("cpu.user") && page.contains("What limited the target"), "{page}");

    let json: serde_json::Value = serde_json::from_str(&changed.stdout).expect("it is JSON");
    assert_eq!(json["outcome"], "regression");
    let function = &json["functions"][0];
    assert_eq!(function["name"], "price_order", "{}", changed.stdout);
    let [before, after] = ["before", "after"].map(|side| function[side].as_f64().expect("a number"));
    // Some 200 samples of each leave 10 %; five times that is what the ratio of two may be off.
    assert!((1.5..2.7).contains(&(after / before)), "{before} {after}");
    let picture = std::fs::read_to_string(changed.file("diff.svg")).expect("it is written");
    assert!(picture.contains("price_order") && picture.contains("for the same work"));

    // An hour that is over after some seconds.
    let running = capture(&workload, &count, "1h", &short).start();
    std::thread::sleep(Duration::from_secs(6));
    running.signal(libc::SIGINT);
    let _ = running.finish().succeeded();
    assert!((1..8).contains(&baseline(&short).windows.len()));
    assert_eq!(compare(&short, &[]).code, Some(8));
}
