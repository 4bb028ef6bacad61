//! Since when something limits a service, what was rolled out then, what is usual, and which function takes more time since: of a store, and as the
//! program answers it over HTTP and on the command line.

#[path = "common/mod.rs"]
mod common;
#[path = "../src/golden.rs"]
mod golden;

use std::process::Command;

use chokepoint_collector::query::fleet::regressions::{Regressions, regressions};
use chokepoint_collector::query::fleet::{Change, Fleet, Past, fleet};
use chokepoint_collector::query::limits::Limits;
use chokepoint_collector::query::question::{Question, Range};
use serde::Serialize;
use serde::de::DeserializeOwned;

use common::rollout::{ROLLED_OUT, WINDOW, WINDOWS, store};
use common::secured::{Collector, PROGRAM, Place, run, text};
use common::{HOUR, SECOND, START};

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

/// What is read of an answer as it is written: numbers are not read to the last bit.
fn reread<T: Serialize + DeserializeOwned>(answer: &T) -> T {
    let json = serde_json::to_string(answer).expect("JSON");
    serde_json::from_str(&json).expect("the same")
}

/// What the time from here to the end is called in a query.
fn time(from_unix_ns: u64) -> [String; 2] {
    [from_unix_ns, START + WINDOWS * WINDOW].map(|time| (time / SECOND).to_string())
}

#[test]
fn the_program_answers_over_http_and_on_the_command_line_what_the_store_answers() {
    let place = Place::new();
    let limits = Limits::default();
    let since = ROLLED_OUT + HOUR / 2;
    let question = |text: &str, by: &[&str], from_unix_ns| {
        let range = Range { from_unix_ns, until_unix_ns: START + WINDOWS * WINDOW };
        let by = by.iter().map(|label| (*label).to_owned()).collect();
        Question::new(text, range, by, &limits).expect("a question")
    };
    let store = store(&place.path("store"));
    let ask = |text, by: &[&str], most| {
        fleet(&store, &question(text, by, since), most, &Past::default(), &limits).expect("an answer")
    };
    let fleets =
        [ask("{}", &[], 50), ask("{host=\"host-1\"}", &["host", "service"], 50), ask("{}", &["host"], 1)];
    assert_eq!((fleets[1].services.len(), fleets[2].services.len(), fleets[2].left_out), (1, 1, 1));
    let changed = regressions(&store, &question("{}", &[], ROLLED_OUT - HOUR), &limits).expect("an answer");
    let changed = reread(&changed);
    drop(store);

    let ages = ["--keep-windows", "--keep-minutes", "--keep-hours"];
    let ages: Vec<String> = ages.iter().flat_map(|age| [(*age).to_owned(), "1000000".to_owned()]).collect();
    let collector = Collector::start(&place, &ages);
    let get = |path: &str, parameters: &[&str], from_unix_ns| {
        let [from, until] = time(from_unix_ns);
        let mut arguments = vec!["-G".to_owned()];
        for parameter in parameters.iter().map(|parameter| (*parameter).to_owned()) {
            arguments.extend(["--data-urlencode".to_owned(), parameter]);
        }
        for parameter in [format!("from={from}"), format!("until={until}")] {
            arguments.extend(["-d".to_owned(), parameter]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = collector.curl(&arguments, &format!("/api/v1/{path}"));
        (answer.status, answer.body)
    };
    let asked: [&[&str]; 3] = [&[], &["query={host=\"host-1\"}", "by=host,service"], &["by=host", "limit=1"]];
    for (parameters, expected) in asked.into_iter().zip(fleets) {
        let (status, body) = get("fleet", parameters, since);
        assert_eq!(status, 200, "{body}");
        let told: Fleet = serde_json::from_str(&body).expect("it is one");
        assert_eq!(told, reread(&expected), "{parameters:?}");
    }
    let (status, body) = get("regressions", &[], ROLLED_OUT - HOUR);
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Regressions>(&body).expect("it is one"), changed);

    for path in ["fleet", "regressions"] {
        for (parameter, wanted, part) in [
            ("query={host", 400, "expected"),
            ("query=cpu{}", 400, "type of profile"),
            ("by=host,,service", 400, "not empty"),
            ("by=a,b,c,d,e,f,g,h,i", 422, "use fewer"),
            ("step=1m", 400, "unknown parameter"),
            ("limit=0", 400, "limit"),
            ("limit=100000", if path == "fleet" { 422 } else { 400 }, "limit"),
        ] {
            let (status, body) = get(path, &[parameter], since);
            assert_eq!(status, wanted, "{path} {parameter}: {body}");
            assert!(body.contains(part), "{path} {parameter}: {body}");
        }
        let (status, body) = get(path, &[], START + WINDOWS * WINDOW);
        assert_eq!(status, 400, "{body}");
        assert!(body.contains("is not before"), "{body}");
        let (status, body) = get(path, &[], START - 93 * 24 * HOUR);
        assert_eq!(status, 422, "{body}");
    }

    let query = |words: &[&str], from_unix_ns| {
        let [from, until] = time(from_unix_ns);
        let output = run(Command::new(PROGRAM)
            .arg("query")
            .args(words)
            .args(["--from", &from, "--until", &until, "--url", &collector.queries])
            .env("CHOKEPOINT_LOG", "off"));
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    for (name, words, from) in [
        ("fleet", &["fleet"] as &[&str], since),
        ("fleet-well", &["fleet", "{version=\"1\"}"], ROLLED_OUT - HOUR),
        ("fleet-nothing", &["fleet", "{service=\"db\"}"], since),
        ("regressions", &["regressions"], ROLLED_OUT - HOUR),
        ("regressions-nothing", &["regressions"], since),
    ] {
        let (code, out, error) = query(words, from);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{name}");
        golden::check(&format!("query-{name}.txt"), &out);
    }
    let (code, json, _) = query(&["regressions", "--json"], ROLLED_OUT - HOUR);
    assert_eq!((code, serde_json::from_str::<Regressions>(&json).ok()), (Some(0), Some(changed)));
    for (words, part) in [(["fleet", "{host"], "bad query"), (["regressions", "cpu"], "type of profile")] {
        let (code, out, error) = query(&words, since);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{words:?}: {error}");
        assert!(error.contains(part), "{error}");
    }
}
