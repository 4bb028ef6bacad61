//! `chokepoint doctor`.

use chokepoint_tests::{Agent, live};
use serde_json::Value;

fn checks(finished: &chokepoint_tests::agent::Finished) -> Value {
    serde_json::from_str(&finished.stdout).expect("JSON")
}

#[test]
fn a_host_that_can_profile() {
    let _live = live();
    let finished = Agent::new(["doctor", "--json"]).run().succeeded();
    let report = checks(&finished);
    assert_eq!(report["schema"], 1);
    assert_eq!(report["can_profile"], true);
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for expected in [
        "kernel",
        "kernel type information",
        "capability CAP_BPF",
        "kernel lockdown",
        "kernel.perf_event_paranoid",
        "locked memory",
        "cgroups",
        "container runtime",
        "hook: on-CPU sampling",
        "hook: following forks",
        "hook: TCP retransmits",
        "hook: memory",
        "hook: scheduler",
        "hook: block devices",
        "hook: failed calls",
    ] {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }

    let human = Agent::new(["doctor"]).run().succeeded();
    assert!(human.stdout.contains("profiling works on this host"), "{}", human.stdout);
}

#[test]
fn an_ordinary_user_learns_which_privileges_are_missing() {
    let _live = live();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let finished = Agent::through(&nobody, ["doctor", "--json"]).run();
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    let report = checks(&finished);
    assert_eq!(report["can_profile"], false);
    let failed: Vec<&str> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["status"] == "failed")
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert!(
        failed.contains(&"capability CAP_BPF") && failed.contains(&"capability CAP_PERFMON"),
        "{failed:?}"
    );
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(
            check["status"] == "ok",
            check.get("advice").is_none(),
            "what is not ok has advice: {check}"
        );
    }
}

#[test]
fn a_process_namespace_of_its_own_is_told() {
    let _live = live();
    let finished = Agent::through(&["unshare", "--pid", "--fork", "--mount-proc"], ["doctor"]).run();
    assert_eq!(finished.code, Some(4), "{}", finished.stdout);
    assert!(finished.stdout.contains("hostPID"), "{}", finished.stdout);
}
