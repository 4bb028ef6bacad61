//! Calls that fail for want of something limited are told with the process, the call, the error, and how many there were.

use chokepoint_tests::workload::path;
use chokepoint_tests::{Agent, Workload, live};

/// The shortest look at calls, nanoseconds.
const LOOK_NS: f64 = 10e6;

#[test]
fn calls_that_a_limit_refuses_are_told() {
    let _live = live();
    let program = path("refused_c");
    let program = program.to_str().expect("a plain path");
    let finished =
        Agent::new(["record", "-e", "all", "-o", "all.json", "--", program, "3000"]).run().succeeded();
    let truth = finished.stdout.lines().find_map(|line| line.strip_prefix("failed ")).expect("it tells");
    let truth: f64 = truth.parse().expect("a number");
    let profile = finished.profile("all.json");
    let told = profile.failed_calls.as_ref().expect("they were looked at");
    let [call] = &told.calls[..] else { panic!("{told:?}") };
    assert_eq!((call.process_name.as_str(), call.error.as_str()), ("refused_c", "EMFILE"));
    assert!(["open", "openat"].contains(&call.call.as_str()), "{call:?}");
    let (looked_ns, failed) = (told.looked_ns as f64, call.failed as f64);
    assert!(looked_ns <= 1.05 * profile.header.duration_ns as f64 && failed <= truth, "{told:?} of {truth}");
    // Three fail for one that does not; at each end of a look may be a part of such a round.
    let succeeded = (call.attempts - call.failed) as f64;
    let rounds = looked_ns / LOOK_NS + 2.0;
    assert!((3.0 * succeeded - failed).abs() <= 3.0 * rounds, "{told:?}");
    // The rounds are as frequent while nobody looks. A host that is busy meanwhile may slow them by half.
    let share = looked_ns / profile.header.duration_ns as f64;
    assert!(failed >= 0.5 * share * truth, "{failed} told of {truth}, looked at for {share} of the time");
}

#[test]
fn only_the_target_is_told_of() {
    let _live = live();
    let _other = Workload::start("refused_c", &["60000"]);
    let target = Workload::start("waits_c", &["spin"]);
    let pid = target.pid().to_string();
    let arguments = ["record", "-e", "all", "-d", "1", "-o", "all.json", "--pid", &pid];
    let profile = Agent::new(arguments).run().succeeded().profile("all.json");
    let told = profile.failed_calls.expect("they were looked at");
    assert!(told.looked_ns > 0 && told.calls.is_empty(), "{told:?}");
}
