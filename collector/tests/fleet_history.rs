//! Since when something limits a service, what was rolled out then, what is usual, and which function takes more time since.

#[path = "common/mod.rs"]
mod common;

use chokepoint_collector::query::fleet::regressions::regressions;
use chokepoint_collector::query::fleet::{Change, Past, fleet};
use chokepoint_collector::query::limits::Limits;
use chokepoint_collector::query::question::{Question, Range};

use common::rollout::{ROLLED_OUT, WINDOW, WINDOWS, store};
use common::{HOUR, START};

#[test]
fn a_constraint_has_its_begin_its_change_and_what_was_usual_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(directory.path());
    let limits = Limits::default();
    let ask = |from_unix_ns| {
        let range = Range { from_unix_ns, until_unix_ns: START + WINDOWS * WINDOW };
        Question::new("{}", range, Vec::new(), &limits).expect("a question")
    };
    let past = Past::default();
    let found = fleet(&store, &ask(ROLLED_OUT + HOUR / 2), 10, &past, &limits).expect("an answer");
    let [constraint] = &found.services[0].constraints[..] else { panic!("{:#?}", found.services) };
    assert_eq!((constraint.code.as_str(), constraint.hosts), ("cpu.quota", 2));
    let began = (constraint.since_unix_ms, constraint.since_is_earlier);
    assert_eq!(began, (ROLLED_OUT / 1_000_000, false));
    let text = |text: &str| vec![text.to_owned()];
    let change = Change { label: "version".to_owned(), before: text("1"), since: text("2") };
    assert_eq!(constraint.changes, [change]);
    let usual = constraint.usual.as_ref().expect("thirteen hours are enough");
    assert!((0.4..0.6).contains(&usual.now), "{usual:?}");
    let told: Vec<_> = usual
        .baselines
        .iter()
        .map(|baseline| (baseline.over.as_str(), baseline.median, baseline.is_unusual))
        .collect();
    assert_eq!(told, [("24h", 0.0, true), ("7d", 0.0, true)]);

    // And what was rolled out made one function slower, and not the other.
    let found = regressions(&store, &ask(ROLLED_OUT - HOUR), &limits).expect("an answer");
    let [change] = &found.changes[..] else { panic!("{found:#?}") };
    assert_eq!((change.label.as_str(), &*change.before, &*change.after), ("version", "1", "2"));
    assert_eq!(change.at_unix_ms, ROLLED_OUT / 1_000_000);
    let names = |of: &[chokepoint_analysis::compare::selections::Compared]| -> Vec<String> {
        of.iter().map(|function| function.name.clone()).collect()
    };
    assert!(names(&change.grew).contains(&"compute".to_owned()), "{:#?}", change.grew);
    assert!(!names(&change.grew).contains(&"main".to_owned()), "{:#?}", change.grew);
}
