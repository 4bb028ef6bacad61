//! Answers about the fleet of [`fleet`], each number of which is added up by hand.

use chokepoint_analysis::export::Format;

use super::flame::{ClassFrames, FlameGraph, Side, flame};
use super::limits::Limits;
use super::question::{Question, Range};
use super::*;
use crate::store::Asker;
use crate::store_in_memory::fleet::{self, START_NS};

const S: u64 = 1_000_000_000;

fn range(from_s: u64, until_s: u64) -> Range {
    Range { from_unix_ns: START_NS + from_s * S, until_unix_ns: START_NS + until_s * S }
}

fn ask(text: &str, by: &[&str]) -> Question {
    let by = by.iter().map(ToString::to_string).collect();
    Question::new(text, range(0, 20), by, &Limits::default()).expect(text)
}

/// Each node as its path, with its weights in seconds.
fn paths(flame: &FlameGraph, side: usize) -> Vec<(String, u64, u64)> {
    let mut paths: Vec<String> = Vec::new();
    for (at, frame) in flame.nodes.frame.iter().enumerate() {
        let name = &flame.strings[flame.frames.name[*frame as usize] as usize];
        let path = match flame.nodes.parent[at] as usize {
            parent if parent == at => String::new(),
            parent => format!("{}/{name}", paths[parent]),
        };
        paths.push(path);
    }
    let Side { own, total, .. } = &flame.sides[side];
    paths
        .into_iter()
        .zip(own.iter().zip(total))
        .map(|(path, (own, total))| (path, own / S, total / S))
        .collect()
}

#[test]
fn flame_graphs_merge_hosts_and_show_inlined_functions() {
    let store = fleet::store();
    let limits = Limits::default();
    let found =
        flame(&store, &ask(r#"cpu{service="web"}"#, &[]), None, 1000, &limits).expect("a flame graph");
    let expected = [
        ("", 0, 9),
        ("/main", 0, 9),
        ("/main/handle", 0, 9),
        ("/main/handle/parse", 8, 8),
        ("/main/handle/sys_read", 1, 1),
    ];
    assert_eq!(paths(&found, 0), expected.map(|(path, own, total)| (path.to_owned(), own, total)));
    assert_eq!((found.sides[0].samples, found.sides[0].weight), (90, 9 * S));
    assert_eq!((found.subject.unit.as_str(), found.subject.title.as_str()), ("ns", "CPU time"));
    let kind = |name: &str| {
        let string = found.strings.iter().position(|known| known == name).expect(name);
        let frame = found.frames.name.iter().position(|known| *known as usize == string).expect(name);
        found.kinds[found.frames.kind[frame] as usize].as_str()
    };
    assert_eq!(["all", "parse", "sys_read"].map(kind), ["root", "user", "kernel"]);

    // Within the bound, with nothing lost.
    let small = flame(&store, &ask(r#"cpu{service="web"}"#, &[]), None, 4, &limits).expect("a flame graph");
    assert_eq!(small.nodes.parent.len(), 4);
    assert_eq!((small.merged_nodes, small.sides[0].own.iter().sum::<u64>()), (2, 9 * S));
}

#[test]
fn classes_stand_where_they_are_asked_for() {
    let store = fleet::store();
    let of = |text, by: &[&str], class| {
        let found = flame(&store, &ask(text, by), class, 1000, &Limits::default()).expect(text);
        paths(&found, 0)
            .into_iter()
            .filter(|(_, own, _)| *own > 0)
            .map(|(path, own, _)| (path, own))
            .collect::<Vec<_>>()
    };
    let expect = |expected: &[(&str, u64)]| {
        expected.iter().map(|(path, own)| ((*path).to_owned(), *own)).collect::<Vec<_>>()
    };
    assert_eq!(
        of(r#"wall{host="a"}"#, &[], None),
        expect(&[
            ("/main/handle/parse/[cpu.user]", 4),
            ("/main/handle/sys_read/[cpu.kernel]", 1),
            ("/main/lock/[futex]", 15),
        ])
    );
    assert_eq!(
        of(r#"wall{host="a"}"#, &["service"], Some(ClassFrames::Root)),
        expect(&[
            ("/[cpu.kernel]/service=web/main/handle/sys_read", 1),
            ("/[cpu.user]/service=web/main/handle/parse", 4),
            ("/[futex]/service=web/main/lock", 15),
        ])
    );
    // Where the stack is not known, the class is all that is.
    assert_eq!(of("idle", &[], None), expect(&[("/[idle]", 16)]));
    assert_eq!(of("idle", &[], Some(ClassFrames::None)), expect(&[("/[no stack]", 16)]));
}

#[test]
fn tables_have_the_heaviest_functions_first() {
    let store = fleet::store();
    let found = table::table(&store, &ask("cpu", &[]), 2, &Limits::default()).expect("a table");
    let rows: Vec<_> =
        found.functions.iter().map(|row| (row.name.as_str(), row.own / S, row.total / S)).collect();
    assert_eq!(rows, [("parse", 8, 8), ("nginx+0x4242", 4, 4)]);
    assert_eq!((found.weight / S, found.samples, found.left_out), (13, 130, 3));
    // Time of which there is no sample is time.
    let all = table::table(&store, &ask("wall", &[]), 100, &Limits::default()).expect("a table");
    assert_eq!(all.functions[0].name, "[no stack]");
    assert_eq!(all.functions.iter().map(|row| row.own).sum::<u64>(), all.weight);
}

#[test]
fn diffs_compare_shares() {
    let store = fleet::store();
    let limits = Limits::default();
    let before = Question { range: range(0, 10), ..ask(r#"wall{host="a"}"#, &[]) };
    let after = Question { range: range(10, 20), ..before.clone() };
    let size = diff::Size { max_nodes: 100, max_functions: 2 };
    let found = diff::diff(&store, &before, &after, None, size, &limits).expect("a diff");
    assert_eq!(found.flame.sides.iter().map(|side| side.weight).collect::<Vec<_>>(), [10 * S, 10 * S]);
    let lock = |side| {
        paths(&found.flame, side).into_iter().find(|(path, ..)| path == "/main/lock/[futex]").expect("lock")
    };
    assert_eq!((lock(0).1, lock(1).1), (6, 9));
    let first = &found.functions[0];
    assert_eq!((first.name.as_str(), found.left_out), ("lock", 3));
    assert!((first.self_share_before - 0.6).abs() < 1e-9 && (first.grew() - 0.3).abs() < 1e-9);
    let counted = ask("faults", &[]);
    assert!(matches!(diff::diff(&store, &before, &counted, None, size, &limits), Err(QueryError::Bad(_))));
}

#[test]
fn series_tell_nothing_stored_from_nothing_happened() {
    let store = fleet::store();
    let limits = Limits::default();
    let found = series::series(&store, &ask("cpu", &["service"]), Some(10 * S), 10, &limits).expect("series");
    let values: Vec<_> = found
        .series
        .iter()
        .map(|series| {
            (series.labels["service"].as_str(), series.values.iter().map(|v| v.map(|v| v / S)).collect())
        })
        .collect::<Vec<(&str, Vec<Option<u64>>)>>();
    assert_eq!(values, [("web", vec![Some(6), Some(3)]), ("db", vec![Some(4), None])]);
    assert_eq!((found.step_ms, &found.others), (10_000, &None));
    let one = series::series(&store, &ask("cpu", &["service"]), Some(10 * S), 1, &limits).expect("series");
    let others = one.others.expect("one more");
    assert_eq!((one.series.len(), others.series, others.values), (1, 1, vec![Some(4 * S), None]));
}

#[test]
fn decompositions_add_up_to_all_time() {
    let store = fleet::store();
    let found =
        decomposition::decomposition(&store, &ask("wall", &["host"]), Some(10 * S), 10, &Limits::default())
            .expect("a decomposition");
    let classes: Vec<_> =
        found.classes.iter().map(|class| (class.name.as_str(), class.group.as_str())).collect();
    assert_eq!(classes, [("cpu.user", "cpu"), ("cpu.kernel", "cpu"), ("futex", "lock"), ("idle", "idle")]);
    assert_eq!(found.classes[0].colour, "#e0680c");
    // b has 24 s, a has 20 s.
    let weights: Vec<Vec<u64>> =
        found.scopes.iter().map(|scope| scope.weights.iter().map(|weight| weight / S).collect()).collect();
    assert_eq!(weights, [[8, 0, 0, 16], [4, 1, 15, 0]]);
    let second = &found.scopes[1].steps[1];
    assert_eq!(
        (second.start_unix_ms, &second.weights),
        ((START_NS + 10 * S) / 1_000_000, &vec![S, 0, 9 * S, 0])
    );
    let counted = decomposition::decomposition(&store, &ask("faults", &[]), None, 10, &Limits::default());
    assert!(matches!(counted, Err(QueryError::Bad(_))));
}

#[test]
fn constraints_say_on_how_many_hosts_and_since_when() {
    let store = fleet::store();
    let limits = Limits::default();
    let found = constraints::constraints(&store, &ask("{}", &["zone"]), true, &limits).expect("constraints");
    let [zone] = found.scopes.as_slice() else { panic!("{found:?}") };
    assert_eq!((zone.labels["zone"].as_str(), zone.hosts), ("z1", 2));
    let told: Vec<_> = zone
        .constraints
        .iter()
        .map(|found| {
            (found.code.as_str(), found.hosts_now, found.windows, found.severity, found.since_unix_ms)
        })
        .collect();
    let start_ms = START_NS / 1_000_000;
    assert_eq!(
        told,
        [
            ("lock.mutex", 1, 2, 3, start_ms),
            ("none.healthy", 1, 1, 0, start_ms + 10_000),
            ("cpu.quota", 0, 1, 2, start_ms),
        ]
    );
    assert_eq!(zone.constraints[0].diagnosis, Some(serde_json::json!({"window": 2})));
    let by_host =
        constraints::constraints(&store, &ask("{host=\"b\"}", &[]), false, &limits).expect("constraints");
    assert_eq!(by_host.scopes.len(), 1);
    assert!(constraints::constraints(&store, &ask("cpu{}", &[]), false, &limits).is_err());
}

#[test]
fn signals_have_their_windows_or_steps() {
    let store = fleet::store();
    let limits = Limits::default();
    let question = ask(r#"cpu.utilization{host="a"}"#, &[]);
    let found = signals::signals(&store, &question, None, &limits).expect("signals");
    assert_eq!(found.signals[0].values.iter().map(|value| value.value).collect::<Vec<_>>(), [41.0, 42.0]);
    let stepped = signals::signals(&store, &question, Some(20 * S), &limits).expect("signals");
    let value = stepped.signals[0].values[0];
    assert_eq!((value.value, value.max, value.level), (41.5, 82.0, 1));
    let few = Limits { max_signal_values: 1, ..limits };
    assert!(matches!(signals::signals(&store, &question, None, &few), Err(QueryError::TooLarge(_))));
}

#[test]
fn what_there_is_to_ask_for_is_told() {
    let store = fleet::store();
    let limits = Limits::default();
    let names = catalogue::label_names(&store, &ask("{}", &[]), &limits).expect("names");
    let names: Vec<_> = names.labels.iter().map(|label| (label.name.as_str(), label.values)).collect();
    assert_eq!(names, [("host", 2), ("process", 2), ("service", 2), ("thread", 1), ("zone", 1)]);
    let values =
        catalogue::label_values(&store, &ask("{host=\"b\"}", &[]), "service", &limits).expect("values");
    assert_eq!((values.values, values.is_cut), (vec!["db".to_owned(), "web".to_owned()], false));
    let unknown = catalogue::label_values(&store, &ask("{}", &[]), "pod", &limits);
    assert!(matches!(unknown, Err(QueryError::NotFound(_))));
    let agents = catalogue::agents(&store, &Asker::default()).expect("agents").agents;
    assert_eq!(
        (agents.len(), agents[0].batches, agents[0].last_window_unix_ms),
        (2, 2, START_NS / 1_000_000 + 20_000)
    );
}

#[test]
fn exports_are_what_record_writes() {
    let store = fleet::store();
    let folded = |text, by: &[&str]| {
        let file = export::export(&store, &ask(text, by), Format::Folded, &Limits::default()).expect(text);
        String::from_utf8(file).expect("text")
    };
    assert_eq!(
        folded(r#"cpu{service="web"}"#, &[]),
        "nginx;main;handle;parse 8000000\nnginx;main;handle;sys_read_[k] 1000000\n"
    );
    assert_eq!(
        folded("wall{class=\"futex\"}", &["host", "service"]),
        "host=a, service=web;main;lock;[futex] 15000000\n"
    );
    let svg = export::export(&store, &ask("wall", &[]), Format::Svg, &Limits::default()).expect("a picture");
    let svg = String::from_utf8(svg).expect("text");
    assert!(svg.contains("Thread time") && !svg.contains("<img") && !svg.contains('\u{1b}'));
    let firefox = export::export(&store, &ask("wall", &[]), Format::Firefox, &Limits::default());
    assert!(matches!(firefox, Err(QueryError::Bad(_))));
}

#[test]
fn more_sums_than_allowed_are_an_error() {
    let limits = Limits { max_sums: 1, ..Limits::default() };
    let found = flame(&fleet::store(), &ask("wall", &[]), None, 100, &limits);
    assert!(matches!(found, Err(QueryError::TooLarge(_))));
}
