//! Verdicts on programs whose constraint is known: the quick part of `cargo xtask verdicts`.

use chokepoint_tests::bottlenecks::case;
use chokepoint_tests::bottlenecks::judge::{Answer, Run};
use chokepoint_tests::{in_vm, live, skip_if};

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

#[test]
fn a_flush_within_a_mutex() {
    check("mutex-around-flush");
}

#[test]
fn a_server_that_waits_for_requests() {
    check("idle-server");
}
