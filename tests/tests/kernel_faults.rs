//! No load of a kernel program faults. The kernel is meant to mend that, but Linux 5.10 does not always find what to mend it with, and
//! dies: in programs with functions of their own, where two tables lie at the same address.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use chokepoint_tests::block::LoopDevice;
use chokepoint_tests::bpf::attached;
use chokepoint_tests::cgroup::Cgroup;
use chokepoint_tests::tracefs::Trace;
use chokepoint_tests::workload::eventually;
use chokepoint_tests::{Agent, live};

/// Everything that has kernel programs.
const ALL: &str = "cpu,off-cpu,run-queue,io,lock,net,fault,offwake,wall,retransmit,reclaim";
const FAULTS: &str = "exceptions/page_fault_kernel";
/// How long each of the loads lasts.
const LOADED: Duration = Duration::from_secs(2);
const BLOCK: usize = 64 << 10;

#[test]
fn no_load_of_a_program_faults() {
    let _live = live();
    let Some(trace) = Trace::new(&[FAULTS]) else {
        return eprintln!("skipped: the kernel does not tell of its page faults");
    };
    let before = attached("block_rq_insert");
    let agent = Agent::new(["record", "-e", ALL, "-d", "5m", "-o", "out.json"]).start();
    eventually("the programs to be attached", || (attached("block_rq_insert") > before).then_some(()));

    // Threads without memory of their own and requests without a bio, queues of groups, processes that begin and end.
    let group = Cgroup::with_quota("chokepoint-faults", 20);
    let mut burn =
        Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell can be run");
    if let Some(group) = &group {
        group.add(burn.id());
    }
    let device = LoopDevice::new(BLOCK as u64 * 64);
    let start = Instant::now();
    let mut at = 0;
    while start.elapsed() < LOADED {
        if let Some(device) = &device {
            let open = device.open();
            open.write(at % 64 * BLOCK as u64, BLOCK).expect("the device can be written to");
            open.flush().expect("it has what was written");
            at += 1;
        }
        let status = Command::new("sh").args(["-c", "true | true"]).stdin(Stdio::null()).status();
        assert!(status.expect("a shell can be run").success());
    }
    sleep(LOADED);
    burn.kill().expect("it still runs");
    burn.wait().expect("it is a child");
    agent.signal(libc::SIGINT);
    let summary = agent.finish().succeeded().stderr;

    let text = trace.text();
    let faults: Vec<&str> = text.lines().filter(|line| line.contains("ip=bpf_prog_")).collect();
    eprintln!("measured: {} faults of the kernel, {} of its programs", text.lines().count(), faults.len());
    assert!(faults.is_empty(), "{}\n{summary}", faults[..faults.len().min(10)].join("\n"));
}
