//! Verdicts on programs whose constraint is known: the quick part of `cargo xtask verdicts`.

use chokepoint_tests::agent::{AS_NOBODY, ForAnybody};
use chokepoint_tests::bottlenecks::case;
use chokepoint_tests::bottlenecks::judge::{Answer, Run};
use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::workload::on_path;
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};

/// Asks about a case. Where other work bounds it instead, nothing is judged.
fn check(name: &str) {
    /// Enough for thirds of a window to be compared.
    const SECONDS: f64 = 3.0;
    let _live = live();
    skip_if!(in_vm(), "what bounds a program under emulation is the emulation");
    let run = match Run::undisturbed(case(name), SECONDS) {
        Ok(run) => run,
        Err(missing) => return eprintln!("skipped: this machine lacks {missing}"),
    };
    skip_if!(
        run.is_disturbed(),
        "others were busy all the time, so the answer may be right: {}",
        run.ranking()
    );
    assert_eq!(run.answer(), Answer::Right, "{:#?}", run.told);
}

#[test]
fn a_thread_that_is_always_busy() {
    check("cpu-single-thread");
}

#[test]
fn a_quota() {
    check("cpu-quota");
}

#[test]
fn another_process_in_the_way() {
    check("cpu-neighbour");
}

#[test]
fn a_mutex() {
    check("lock-mutex");
}

#[test]
fn a_pool_of_connections() {
    check("pool-connections");
}

#[test]
fn reads_from_a_device() {
    check("io-read");
}

/// How long a flush takes is up to the machine's disk, so that of the mixtures this one is asked about here.
#[test]
fn a_quota_within_a_mutex() {
    check("mutex-under-quota");
}

#[test]
fn a_server_that_waits_for_requests() {
    check("idle-server");
}

#[test]
fn a_recording_gives_the_same_verdict_to_anybody() {
    let _live = live();
    skip_if!(!on_path("setpriv"), "there is no setpriv");
    let workload = Workload::start("waits_c", &["spin"]);
    let recording = ForAnybody::record(workload.pid());
    let path = recording.path();
    let path = path.to_str().expect("a plain path");
    let read =
        |prefix: &[&str]| Agent::through(prefix, ["diagnose", path, "--json"]).run().succeeded().stdout;
    let (own, others) = (read(&[]), read(&AS_NOBODY));
    assert_eq!(own, others);
    let value: serde_json::Value = serde_json::from_str(&own).expect("it is JSON");
    assert_eq!(value["schema"], 1);
    // It does nothing but run: whatever is said of it, its time is on CPUs or in the queue for one.
    let seconds = |class: &str| value["decomposition"][class].as_f64().unwrap_or_default();
    let all: f64 =
        value["decomposition"].as_object().expect("classes").values().filter_map(|v| v.as_f64()).sum();
    let told = ["cpu.user", "cpu.kernel", "cpu.stolen", "run-queue"].map(seconds).iter().sum::<f64>();
    assert!(all > 1.0 && told > 0.9 * all, "{value:#}");
    let page = Agent::new(["diagnose", path, "--explain"]).run().succeeded().stdout;
    for part in [value["verdict"]["code"].as_str().expect("a code"), "Time of the threads", "[threads]"] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn a_second_look_tells_whether_a_verdict_holds() {
    let _live = live();
    skip_if!(in_vm(), "what bounds a program under emulation is the emulation");
    let workload = Workload::start("bound_lock_c", &["mutex", "inside", "4"]);
    let pid = workload.pid().to_string();
    let host = HostTime::begin();
    let finished =
        Agent::new(["diagnose", "--confirm", "--json", "-d", "2", "--pid", &pid]).run().succeeded();
    // One of the threads runs at a time, which is half of two CPUs' time.
    let contended = host.contended_at_most_ns() as f64 / host.elapsed_ns() as f64;
    skip_if!(contended > 0.7, "others were busy: {contended:.2} of the time no CPU was idle");
    let value: serde_json::Value = serde_json::from_str(&finished.stdout).expect("it is JSON");
    let (verdict, confirmation) = (&value["verdict"], &value["confirmation"]);
    assert_eq!(verdict["code"], "lock.mutex", "{value:#}");
    let outcome = confirmation["outcome"].as_str().expect("an outcome");
    assert!(["held", "changed"].contains(&outcome), "{confirmation:#}");
    let number = |of: &serde_json::Value, name: &str| of[name].as_f64().expect("a number");
    let differs = (number(verdict, "share") - number(confirmation, "share")).abs();
    assert!(outcome != "held" || differs <= number(confirmation, "tolerance"), "{value:#}");
}

#[test]
fn files_that_a_limit_refuses() {
    check("limit-files");
}
