//! What the kernel's verifier makes of the programs: how many instructions it had to look at. It gives up after a
//! million, so a program near that is refused by the next kernel.

use std::collections::BTreeMap;
use std::process::Command;

use chokepoint_tests::workload::path;
use chokepoint_tests::{Agent, Workload, live};

/// Instructions that the verifier looks at before it refuses a program.
const LIMIT: u64 = 1_000_000;
/// A program may take so much of that; the rest is for kernels to come.
const BAR: u64 = LIMIT / 4;

#[test]
fn instructions_looked_at() {
    let _live = live();
    let workload = Workload::start("nest_c", &[]);
    let pid = workload.pid().to_string();
    // The gate's rule is a constant of the program, which differs by it.
    let targets: [&[&str]; 3] = [&[], &["--pid", &pid, "--children"], &["--comm", "nest_c"]];
    let mut most: BTreeMap<String, u64> = BTreeMap::new();
    for target in targets {
        let events = "cpu,wall,io,offwake,retransmit,fault,reclaim";
        let fixed = ["record", "-e", events, "-d", "300ms", "-o", "out.folded"];
        let preload = format!("LD_PRELOAD={}", path("verifier_c").display());
        let finished = Agent::through(&["env", &preload], fixed.iter().chain(target)).run().succeeded();
        let told: Vec<_> = finished.stderr.lines().filter_map(parse).collect();
        assert!(!told.is_empty(), "{}", finished.stderr);
        for (program, instructions) in told {
            let most = most.entry(program).or_default();
            *most = instructions.max(*most);
        }
    }
    let release = Command::new("uname").arg("-r").output().expect("uname can be run");
    let release = String::from_utf8_lossy(&release.stdout);
    for (program, instructions) in &most {
        eprintln!("measured: verifier of {}, {program}: {instructions} instructions", release.trim());
    }
    for program in [
        "on_cpu",
        "follow_fork",
        "sched_switch",
        "sched_waking",
        "wait_over",
        "threads_begin",
        "threads_running",
        "tcp_retransmit_",
        "minor_fault",
        "major_fault",
        "mm_vmscan_memcg",
        "mark_victim",
        "block_rq_issue",
        "block_rq_comple",
    ] {
        assert!(most.contains_key(program), "{program} is not in {most:?}");
    }
    for (program, instructions) in &most {
        assert!(*instructions < BAR, "{program} takes {instructions} instructions");
    }
}

/// `verifier: on_cpu processed 3795 insns (limit 1000000) ...`.
fn parse(line: &str) -> Option<(String, u64)> {
    let (program, facts) = line.strip_prefix("verifier: ")?.split_once(" processed ")?;
    Some((program.to_owned(), facts.split(' ').next()?.parse().ok()?))
}
