//! Targets: only what was asked for is sampled, decided in the kernel.

use std::path::Path;

use chokepoint_analysis::profile::Profile;
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::host_time::HostTime;
use chokepoint_tests::stacks::{pids, process_names, share_with};
use chokepoint_tests::{Agent, Workload, agent, in_vm, live, skip_if};

/// One process is the target, another burns as much beside it.
fn only_the_target(profile: &Profile, target: u32) {
    assert_eq!(pids(profile).into_iter().collect::<Vec<_>>(), [target]);
    assert!(profile.coverage.outside_target > 0, "the kernel turned the other away: {:?}", profile.coverage);
}

#[test]
fn a_process_by_its_id() {
    let _live = live();
    let (target, _other) = (Workload::start("nest_c", &[]), Workload::start("threads_c", &[]));
    let profile = agent::record(&["--pid", &target.pid().to_string(), "-d", "1"]);
    only_the_target(&profile, target.pid());
}

#[test]
fn several_processes_by_their_ids() {
    let _live = live();
    let targets = [Workload::start("nest_c", &[]), Workload::start("nest_c", &[])];
    let _other = Workload::start("threads_c", &[]);
    let list = targets.each_ref().map(|target| target.pid().to_string()).join(",");
    let profile = agent::record(&["--pid", &list, "-d", "2"]);
    assert_eq!(pids(&profile), targets.iter().map(Workload::pid).collect());
}

#[test]
fn a_process_by_its_name_and_a_thread_by_its_own() {
    let _live = live();
    let (target, threads) = (Workload::start("nest_c", &[]), Workload::start("threads_c", &[]));
    let by_process = agent::record(&["--comm", "nest_c", "-d", "1"]);
    only_the_target(&by_process, target.pid());

    let by_thread = agent::record(&["--comm", "alpha", "-d", "1"]);
    only_the_target(&by_thread, threads.pid());
    assert!(by_thread.threads.iter().all(|thread| thread.thread_name == "alpha"), "{:?}", by_thread.threads);

    // The kernel keeps fifteen bytes of a name, and so must the comparison.
    let by_long_name = agent::record(&["--comm", "nest_", "-d", "500ms"]);
    assert_eq!(by_long_name.total_count(), 0, "the beginning of a name is not the name");
}

/// The target is in a group below the one named.
fn a_cgroup_with_those_below(hierarchy: &Path) {
    let group = Cgroup::new(hierarchy, "chokepoint-test").expect("a group can be made");
    let below = group.child("below");
    let (target, other) = (Workload::start("nest_c", &[]), Workload::start("threads_c", &[]));
    below.add(target.pid());
    let path = group.path().to_str().unwrap();
    only_the_target(&agent::record(&["--cgroup", path, "-d", "1"]), target.pid());
    // The same group as /proc/PID/cgroup names it.
    let relative = format!("/{}/below", group.path().file_name().unwrap().to_str().unwrap());
    only_the_target(&agent::record(&["--cgroup", &relative, "-d", "1"]), target.pid());
    drop((target, other));
}

#[test]
fn a_cgroup_of_version_two() {
    let _live = live();
    let mount = Cgroup::v2_mount();
    skip_if!(mount.is_none(), "the version 2 hierarchy is not mounted");
    a_cgroup_with_those_below(&mount.unwrap());
}

#[test]
fn a_cgroup_of_a_version_one_controller() {
    let _live = live();
    let mount = Path::new("/sys/fs/cgroup/pids");
    skip_if!(
        !mount.join("cgroup.procs").exists(),
        "no version 1 controller is mounted at {}",
        mount.display()
    );
    a_cgroup_with_those_below(mount);
}

#[test]
fn children_forked_before_and_after() {
    let _live = live();
    // So short that several fit into the window, however much of the machine other work has.
    let (milliseconds, durations) = if in_vm() { ("500", ["15", "45"]) } else { ("50", ["3", "15"]) };
    let workload = Workload::start("family_c", &[milliseconds, "100000"]);
    let pid = workload.pid().to_string();
    let without = agent::record(&["--pid", &pid, "-d", "1"]);
    assert_eq!(share_with(&without, "burn_in_child"), 0.0, "children are not the target unless asked for");

    let record = |duration| {
        let profile = agent::record(&["--pid", &pid, "--children", "-d", duration]);
        let children: Vec<u32> =
            pids(&profile).into_iter().filter(|sampled| *sampled != workload.pid()).collect();
        (profile, children)
    };
    let (mut with, mut children) = record(durations[0]);
    if children.len() < 3 {
        (with, children) = record(durations[1]);
    }
    assert!(children.len() >= 3, "the child of the start and those forked later: {children:?}");
    // What is sampled while libc reads the clock has lost its caller: libc has no frame pointers.
    let share = share_with(&with, "burn_in_child");
    assert!(share > 0.8, "{share}");
}

#[test]
fn a_command_and_its_children_until_it_ends() {
    let _live = live();
    let family = chokepoint_tests::workload::path("family_c");
    let family = family.to_str().unwrap();
    let record = ["record", "-F", "499", "-o", "profile.json", "--", family, "200", "4"];
    let host = HostTime::begin();
    let finished = Agent::new(record).run().succeeded();
    let stolen_ns = host.stolen_at_most_ns();
    let profile = finished.profile("profile.json");
    assert!(finished.stderr.contains("exited with 0"), "{}", finished.stderr);
    assert!(profile.header.target.starts_with("command "), "{}", profile.header.target);
    assert!(share_with(&profile, "burn_in_child") > 0.5, "{:?}", process_names(&profile));
    assert!(pids(&profile).len() >= 4, "every child was sampled: {:?}", pids(&profile));
    skip_if!(in_vm(), "an emulated timer misses ticks");
    // Four times 200 ms of CPU time are 399 ticks. Where other work has the CPU in between, their number scatters like that
    // of independent events: by at most its square root, 20, of which five are allowed.
    let ticks = profile.total_weight() / profile.header.period;
    // A hypervisor that takes the CPU makes ticks come late, several as one, and some that stand for the time it had.
    let came = (profile.coverage.fired as f64 / profile.coverage.expected.max(1) as f64).min(1.0);
    let (least, most) = (299.0 * came, 499.0 + stolen_ns as f64 / profile.header.period as f64);
    assert!((least..=most).contains(&(ticks as f64)), "{ticks} ticks, {least:.0} to {most:.0} expected");
}

#[test]
fn a_recording_ends_with_its_target() {
    let _live = live();
    let mut workload = Workload::start("family_c", &["1500", "1"]);
    let finished =
        Agent::new(["record", "-d", "600", "-o", "profile.json", "--pid", &workload.pid().to_string()])
            .run()
            .succeeded();
    assert!(finished.stderr.contains("until the target ended"), "{}", finished.stderr);
    assert!(finished.profile("profile.json").header.duration_ns < 300_000_000_000);
    workload.wait();
}
