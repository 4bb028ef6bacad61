//! However the agent ends, the kernel is as it was.

use std::time::{Duration, Instant};

use chokepoint_tests::bpf::Objects;
use chokepoint_tests::workload::eventually;
use chokepoint_tests::{Agent, Workload, live};

/// Starts a recording, waits until it samples, ends it with a signal, and compares what is loaded.
fn nothing_is_left_after(signal: i32) -> chokepoint_tests::agent::Finished {
    nothing_loaded();
    let target = Workload::start("nest_c", &[]);
    let pid = target.pid().to_string();
    let running = Agent::new(["record", "--pid", &pid, "--children", "-d", "600"]).start();
    eventually("a running recording", || {
        let now = Objects::now();
        // Two programs: the sampler, and the one that follows forks. The perf events of the sampler are held by links, on
        // kernels before 5.15 by descriptors.
        (now.programs == 2 && now.maps > 0 && now.links + now.perf_events > 0).then_some(())
    });
    running.signal(signal);
    let finished = running.finish();
    drop(target);
    nothing_loaded();
    finished
}

/// The kernel frees programs and maps after a grace period, well below this.
const GRACE: Duration = Duration::from_secs(30);

/// Waits until nothing of any agent is loaded: before a test, so that what an earlier one left to the grace period is not
/// taken for its own, and after it.
fn nothing_loaded() {
    let start = Instant::now();
    while Objects::now() != Objects::default() {
        assert!(start.elapsed() < GRACE, "still loaded: {:?}", Objects::now());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn interrupt_stops_early_and_still_writes() {
    let _live = live();
    let finished = nothing_is_left_after(libc::SIGINT).succeeded();
    assert!(finished.stderr.contains("stopped early"), "{}", finished.stderr);
    assert_eq!(finished.left_behind(), ["flame.svg"]);
}

#[test]
fn terminate_stops_early_and_still_writes() {
    let _live = live();
    let finished = nothing_is_left_after(libc::SIGTERM).succeeded();
    assert_eq!(finished.left_behind(), ["flame.svg"]);
}

#[test]
fn kill_leaves_nothing() {
    let _live = live();
    let finished = nothing_is_left_after(libc::SIGKILL);
    assert_eq!(finished.code, None);
    assert_eq!(finished.left_behind(), Vec::<String>::new());
}

#[test]
fn kill_leaves_nothing_of_the_scheduler_s_programs() {
    let _live = live();
    nothing_loaded();
    let running = Agent::new(["record", "-e", "wall,offwake,fault,reclaim", "-d", "600"]).start();
    eventually("a running recording", || {
        let now = Objects::now();
        // The sampler and the looks at all threads; the sampler is attached last. Older kernels do without some of the others.
        (now.programs >= 3 && now.maps > 0 && now.perf_events + now.links > 0).then_some(())
    });
    running.signal(libc::SIGKILL);
    assert_eq!(running.finish().code, None);
    nothing_loaded();
}

#[test]
fn a_finished_recording_leaves_nothing() {
    let _live = live();
    nothing_loaded();
    let _ = Agent::new(["record", "-d", "500ms"]).run().succeeded();
    nothing_loaded();
}

#[test]
fn a_killed_agent_takes_the_command_it_held_with_it() {
    let _live = live();
    let running = Agent::new(["record", "--", "sleep", "1000"]).start();
    let child = eventually("the command's process", || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    });
    let comm = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    running.signal(libc::SIGKILL);
    if comm.trim() == "sleep" {
        // It had been released: it is the user's own process then, and goes on. End it for them.
        // SAFETY: the number is that of the command just seen.
        unsafe { libc::kill(child.parse().unwrap(), libc::SIGKILL) };
    }
    eventually("the end of the held command", || {
        std::fs::read_to_string(format!("/proc/{child}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
            .then_some(())
    });
    // Only now: the command shares the agent's standard output.
    let _ = running.finish();
}
