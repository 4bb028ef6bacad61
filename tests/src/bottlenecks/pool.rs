//! Bound by a pool that is too small for what its users ask and what lies behind it could do.

use super::{Case, Missing, Names, Stage};

const EIGHTFOLD: &str =
    "16 members in place of 2, and a server that takes 10 ms for each of any number: 8 times as much";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "pool-threads",
        truth: &["pool.threads"],
        same_because: "",
        names: Names::functions(&["submit_and_wait"]),
        relief: "as many threads as handlers",
        least_gain: 4.0,
        because: EIGHTFOLD,
        play: |stage| play(stage, "threads"),
    },
    Case {
        name: "pool-connections",
        truth: &["pool.connections"],
        same_because: "",
        names: Names::functions(&["borrow_connection"]),
        relief: "as many connections as handlers",
        least_gain: 4.0,
        because: EIGHTFOLD,
        play: |stage| play(stage, "connections"),
    },
];

fn play(stage: &mut Stage, pool: &str) -> Result<(), Missing> {
    let port = stage.port();
    let size = stage.of("2", "16");
    stage.run("bound_net_c", &["backend", &port, "nap", "10000"])?;
    stage.subject("bound_pool_c", &[pool, &port, "16", size]).map(drop)
}
