//! Nothing is wrong: more load is more work, in proportion.

use super::{Case, Missing, Names, Stage, Target};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "idle-daemon",
        truth: &["none.idle"],
        same_because: "",
        names: Names::NONE,
        relief: "it looks around five times as often",
        least_gain: 4.0,
        because: "nothing is in its way: 5 times as much, but for what an interval cuts off",
        play: |stage| {
            let interval_ms = stage.of("500", "100");
            stage.subject("decoy_c", &["sleepers", interval_ms]).map(drop)
        },
    },
    Case {
        name: "idle-server",
        truth: &["none.idle"],
        same_because: "",
        names: Names::NONE,
        relief: "five times the requests",
        least_gain: 4.5,
        because: IN_PROPORTION,
        play: |stage| play(stage, "20", "100"),
    },
    Case {
        name: "healthy-server",
        truth: &["none.healthy"],
        same_because: "",
        names: Names::NONE,
        relief: "twice the requests",
        least_gain: 1.9,
        because: IN_PROPORTION,
        play: |stage| play(stage, "600", "1200"),
    },
    Case {
        name: "healthy-service",
        truth: &["none.healthy"],
        same_because: "",
        names: Names::NONE,
        relief: "twice the jobs",
        least_gain: 1.9,
        because: IN_PROPORTION,
        play: |stage| {
            let jobs_per_s = stage.of("700", "1400");
            stage.subject("decoy_c", &["service", jobs_per_s]).map(drop)
        },
    },
    Case {
        name: "idle-node",
        truth: &["none.idle"],
        same_because: "",
        names: Names::NONE,
        relief: "five times the requests",
        least_gain: 4.5,
        because: IN_PROPORTION,
        play: |stage| {
            let port = stage.port();
            let server = stage.run("blocked_loop.js", &[&port, "none"])?;
            load(stage, &port, "5", "25", server)
        },
    },
];

const IN_PROPORTION: &str = "nothing is in its way: in proportion, but for a tenth";

fn play(stage: &mut Stage, few_per_s: &str, more_per_s: &str) -> Result<(), Missing> {
    let port = stage.port();
    let server = stage.run("bound_net_c", &["store", &port, "2", "300"])?;
    load(stage, &port, few_per_s, more_per_s, server)
}

/// Has clients ask a server, which the agent is asked about.
fn load(
    stage: &mut Stage,
    port: &str,
    few_per_s: &str,
    more_per_s: &str,
    server: u32,
) -> Result<(), Missing> {
    let per_s = stage.of(few_per_s, more_per_s);
    stage.run("decoy_c", &["load", port, per_s])?;
    stage.measure_last();
    stage.ask_about(Target::Pids(vec![server]));
    Ok(())
}
