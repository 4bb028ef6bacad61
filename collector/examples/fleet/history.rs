//! A store with history, and questions to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Instant, SystemTime};

use chokepoint_collector::query::flame::{ClassFrames, flame};
use chokepoint_collector::query::limits::Limits;
use chokepoint_collector::query::question::{Question, Range};
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_collector::store::{StackId, Store, SumQuery};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::hours::{HOUR_NS, Hours, Told};

/// How often each question is asked.
const TURNS: usize = 7;
/// The service that is asked for: it has most of the recording.
pub const SERVICE: &str = "rustc";

/// When the history of a store ends that is written now: a while ago, so that all of it goes into segments.
fn end_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    now - now % HOUR_NS - HOUR_NS
}

/// Writes the history of so many hosts.
pub fn write(path: &Path, hosts: u64, hours: u64) {
    let store = Embedded::open(path, Options::default()).expect("a store");
    let end = end_now();
    // All that is ever referred to is told first, and then windows are columns of numbers.
    let told = Told::new(usize::MAX);
    let begin = Instant::now();
    let hours = Hours { store: &store, told, hosts, hours, end_unix_ns: end, verdict: None };
    let rows = hours.write(|_, _| while store.maintain(end + HOUR_NS).expect("maintenance") {});
    let seconds = begin.elapsed().as_secs_f64();
    let holdings = store.holdings().expect("holdings");
    println!("rows {rows}");
    println!("write_seconds {seconds:.1}");
    println!("segments {}", holdings.segments);
    println!("name_bytes {}", holdings.name_bytes);
    println!("end_unix_ns {end}");
    let mut of_level: BTreeMap<String, (u64, i64)> = BTreeMap::new();
    for entry in std::fs::read_dir(path.join("segments")).expect("segments") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().rsplit_once('-').expect("a number").0.to_owned();
        let file = SerializedFileReader::new(File::open(entry.path()).expect("a file")).expect("Parquet");
        let (bytes, rows) = of_level.entry(name).or_default();
        *bytes += entry.metadata().expect("a length").len();
        *rows += file.metadata().file_metadata().num_rows();
    }
    for (level, (bytes, rows)) in of_level {
        println!("{level} {bytes}\n{level}-rows {rows}");
    }
}

/// Asks for flame graphs, and prints how long each took.
pub fn ask(path: &Path) {
    let store = Embedded::open(path, Options::default()).expect("a store");
    let spans = store.agents().expect("agents");
    let end = spans.iter().map(|agent| agent.last_window_unix_ns).max().expect("an agent");
    println!("hosts {}", spans.len());
    let service = format!("wall{{process=\"{SERVICE}\"}}");
    let questions = [
        ("hour", service.clone(), end - HOUR_NS, end, 20_000),
        ("day", service.clone(), end - 24 * HOUR_NS, end, 20_000),
        ("odd", service.clone(), end - HOUR_NS + 1, end - 1, 20_000),
        ("all_nodes", "wall".to_owned(), end - HOUR_NS, end, 200_000),
    ];
    let limits = Limits { max_sums: 1_000_000, ..Limits::default() };
    for (name, text, from_unix_ns, until_unix_ns, nodes) in questions {
        let question = Question::new(&text, Range { from_unix_ns, until_unix_ns }, Vec::new(), &limits);
        let question = question.expect("a question");
        let mut told = String::new();
        timed(name, || {
            let answer =
                flame(&store, &question, Some(ClassFrames::Leaf), nodes, &limits).expect("an answer");
            let json = serde_json::to_vec(&answer).expect("it is written");
            told = format!(
                "{} nodes, {} merged, {} bytes",
                answer.nodes.parent.len(),
                answer.merged_nodes,
                json.len()
            );
        });
        println!("# {name}: {told}");
        // What of it is filter and sum, and what are names.
        let sums = SumQuery {
            selection: question.selection(),
            kind: "wall".to_owned(),
            by_class: true,
            by_stack: true,
            max_sums: limits.max_sums,
            ..SumQuery::default()
        };
        let mut stacks: Vec<StackId> = Vec::new();
        timed(&format!("{name}_sums"), || {
            let sums = store.sums(&sums).expect("sums");
            stacks = sums.sums.into_iter().filter_map(|sum| sum.stack).collect();
        });
        stacks.sort_unstable();
        stacks.dedup();
        timed(&format!("{name}_frames"), || drop(store.frames(&stacks).expect("frames")));
    }
}

/// Does something some times, and prints how long it took.
fn timed(name: &str, mut work: impl FnMut()) {
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..TURNS {
        let begin = Instant::now();
        work();
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("{name}_ms {:.1}", times[TURNS / 2]);
    println!("{name}_ms_least {:.1}", times[0]);
}
