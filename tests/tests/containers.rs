//! Targets by the names that people know: containers and pods.

use std::collections::BTreeSet;
use std::path::Path;

use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::containers::{Containerd, processes_of};
use chokepoint_tests::stacks::pids;
use chokepoint_tests::workload::eventually;
use chokepoint_tests::{Agent, Workload, in_vm, live, skip_if};

/// Burns CPU time for as long as it lives.
const SPIN: &[&str] = &["sh", "-c", "while :; do :; done"];

fn burning(id: &str) -> u32 {
    eventually("a process in the container", || processes_of(id).into_iter().next())
}

#[test]
fn pods_and_containers_of_containerd() {
    skip_if!(in_vm(), "there is no containerd");
    let _live = live();
    let Some(mut containerd) = Containerd::start() else {
        skip_if!(true, "there is no containerd, and its package cannot be had");
        return;
    };
    let web = containerd.pod("shop", "web-0");
    let (server, side) =
        (containerd.container(&web, "server", SPIN), containerd.container(&web, "side", SPIN));
    let cache = containerd.pod("shop", "cache");
    let other = containerd.container(&cache, "server", SPIN);
    let [server_pid, side_pid, other_pid] = [&server, &side, &other].map(|id| burning(id));

    let socket = containerd.socket();
    let record = |target: &[&str]| {
        let fixed = [
            "record",
            "-o",
            "profile.json",
            "-d",
            "1500ms",
            "-F",
            "499",
            "--cri-socket",
            socket.to_str().unwrap(),
        ];
        Agent::new(fixed.iter().chain(target)).run()
    };
    let sampled = |target: &[&str]| {
        let finished = record(target).succeeded();
        let profile = finished.profile("profile.json");
        (pids(&profile), profile.header.target)
    };
    assert_eq!(
        sampled(&["--pod", "shop/web-0"]),
        (BTreeSet::from([server_pid, side_pid]), "pod shop/web-0".to_owned())
    );
    assert_eq!(
        sampled(&["--container", "side"]),
        (BTreeSet::from([side_pid]), "container side of pod shop/web-0".to_owned())
    );
    assert_eq!(sampled(&["--container", &other[..16]]).0, BTreeSet::from([other_pid]));

    let ambiguous = record(&["--container", "server"]);
    assert_eq!(ambiguous.code, Some(5));
    assert!(ambiguous.stderr.contains("container server of pod shop/cache"), "{}", ambiguous.stderr);
    let missing = record(&["--pod", "shop/db"]);
    assert_eq!(missing.code, Some(5));
    assert!(missing.stderr.contains("on this host run shop/cache, shop/web-0"), "{}", missing.stderr);
}

#[test]
fn a_container_of_docker_is_found_by_its_id() {
    let _live = live();
    let id = "c0ffee".repeat(10) + "1234";
    let hierarchy = Cgroup::v2_mount().unwrap_or_else(|| "/sys/fs/cgroup/cpu".into());
    let Some(group) = Cgroup::new(&hierarchy, "chokepoint-docker") else {
        skip_if!(true, "no control groups are to be had");
        return;
    };
    // As Docker has it with systemd.
    let container = group.child(&format!("docker-{id}.scope"));
    let workload = Workload::start("waits_c", &["spin"]);
    container.add(workload.pid());
    let window = if in_vm() { "4" } else { "1" };
    let finished = Agent::new(["record", "-o", "profile.json", "-d", window, "--container", "c0ffeec0ff"])
        .run()
        .succeeded();
    let profile = finished.profile("profile.json");
    assert_eq!(pids(&profile), BTreeSet::from([workload.pid()]));
    assert_eq!(profile.header.target, "container c0ffeec0ffee of Docker");
}

#[test]
fn what_is_not_there_is_told() {
    let _live = live();
    let run = |arguments: &[&str]| {
        let finished = Agent::new(["record", "-d", "1"].iter().chain(arguments)).run();
        (finished.code, finished.stderr)
    };
    let (code, message) = run(&["--container", "nothing-of-this-name"]);
    assert_eq!(code, Some(5), "{message}");
    assert!(message.contains("no running container nothing-of-this-name"), "{message}");
    let (code, message) = run(&["--pod", "web-0"]);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("NAMESPACE/NAME"), "{message}");
    let (code, message) = run(&["--pod", "a/b", "--cri-socket", "/nonexistent.sock"]);
    assert_eq!(code, Some(5), "{message}");
    assert!(message.contains("cannot connect to the container runtime at /nonexistent.sock"), "{message}");
    if !Path::new("/run/containerd/containerd.sock").exists() && !Path::new("/run/crio/crio.sock").exists() {
        let (code, message) = run(&["--pod", "a/b"]);
        assert_eq!(code, Some(5), "{message}");
        assert!(message.contains("--cri-socket"), "{message}");
    }
}
