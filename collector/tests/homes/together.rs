//! Batches of many agents go to a server as one block: when enough samples wait, or the first has waited for long enough.

use std::time::Duration;

use chokepoint_collector::store::Appended;
use chokepoint_collector::store::clickhouse::{ClickHouse, Options};

use super::common::clickhouse::{Server, number, options, servers};
use super::common::*;

const AGENTS: u8 = 20;
/// Longer than anybody would wait.
const FOR_EVER: Duration = Duration::from_secs(600);

#[test]
fn batches_go_out_together_when_enough_wait_or_one_waits_long() {
    let Some(server) = Server::start() else { return };
    let at = servers(&[&server], "together");
    let whole = window(START, 10 * SECOND, &rows(&mut Random(9), 5), "cpu", 1.0);
    // With room for more than ever come, the first does not wait for ever.
    let patient = ClickHouse::open(&at, &Options { block_rows: usize::MAX, ..options() }).expect("a store");
    assert_eq!(Agent::new(&patient, 1).send_as(1, &whole).expect("it is stored"), Appended::New);
    let samples = number(&server, "SELECT sum(length(series)) + sum(length(signal)) FROM together.batches");
    assert!(samples > 5, "{samples}");
    let blocks =
        "SELECT max(max_block_number) FROM system.parts WHERE database = 'together' AND table = 'batches'";
    let before = number(&server, blocks);

    // So many that all together are enough, and none before.
    let block_rows = samples as usize * usize::from(AGENTS);
    let store =
        ClickHouse::open(&at, &Options { block_rows, linger: FOR_EVER, ..options() }).expect("a store");
    std::thread::scope(|scope| {
        for agent in 1..=AGENTS {
            let (store, whole) = (&store, &whole);
            scope.spawn(move || Agent::new(store, agent).send_as(2, whole).expect("it is stored"));
        }
    });
    assert_eq!(number(&server, blocks), before + 1);
    assert_eq!(
        number(&server, "SELECT uniqExact(agent) FROM together.batches WHERE sequence = 2"),
        u64::from(AGENTS)
    );
}
