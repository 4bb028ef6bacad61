//! A store with a day of a fleet, up to now, for the page's first view. `cargo xtask bench page` runs it.
//!
//!     day DIR HOSTS HOURS [ROWS]
//!
//! Where ROWS are given, each window has no more rows of samples of a kind, and no more signals, than these: the first view reads no samples, and
//! one signal.
//!
//! Samples and signals are those of recorded windows, with other weights on each host. What limits a host is made up, for hosts have to
//! differ in it, in the words of a real diagnosis.

#[path = "../fleet/hours.rs"]
mod hours;
#[path = "../../tests/fleet/recorded.rs"]
mod recorded;

use std::path::Path;
use std::time::{Instant, SystemTime};

use chokepoint_analysis::verdict::code::Code;
use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::stream::Verdict;

use crate::hours::{HOUR_NS, Hours, SECOND_NS, Told, WINDOW_NS};

/// A diagnosis of `chokepoint diagnose --json`.
const DIAGNOSIS: &str = include_str!("diagnosis.json");
/// Of so many hosts each of the constraints below limits one.
const HOSTS_OF_ONE: u64 = 8;
const CONSTRAINTS: [(Code, u32, &str); 3] = [
    (Code::CpuSaturated, 3, "threads want more CPUs than there are, and queue 60 % of their time"),
    (Code::LockMutex, 2, "threads wait 40 % of their time for one lock"),
    (Code::IoRead, 3, "threads wait 50 % of their time to read from a device that is busy"),
];
/// How long a host that has a constraint has it, and then for as long has none.
const SPELL_NS: u64 = 20 * 60 * SECOND_NS;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (fixed, rows) = arguments.split_at(arguments.len().min(3));
    let ([store, hosts, hours], [] | [_]) = (fixed, rows) else { panic!("day DIR HOSTS HOURS [ROWS]") };
    let number = |text: &String| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no number"));
    let rows = rows.first().map_or(usize::MAX, |rows| number(rows) as usize);
    write(Path::new(store), number(hosts), number(hours), rows);
}

fn write(path: &Path, hosts: u64, hours: u64, most_rows: usize) {
    let store = Embedded::open(path, Options::default()).expect("a store");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let end_unix_ns = now - now % WINDOW_NS;
    let told = Told::new(most_rows);
    let begin = Instant::now();
    let hours = Hours { store: &store, told, hosts, hours, end_unix_ns, verdict: Some(verdict) };
    let rows = hours.write(|to_go, start| {
        while store.maintain(start + HOUR_NS).expect("maintenance") {}
        eprintln!("{to_go} hours to go after {:.0} s", begin.elapsed().as_secs_f64());
    });
    println!("rows {rows}");
    println!("write_seconds {:.1}", begin.elapsed().as_secs_f64());
    println!("until_unix_s {}", end_unix_ns / SECOND_NS);
}

/// What limits a host at a time.
fn verdict(host: u64, at_unix_ns: u64) -> Verdict {
    let of = CONSTRAINTS.get((host % HOSTS_OF_ONE) as usize);
    // Not all at the same time.
    let spell = (at_unix_ns / SPELL_NS).wrapping_add(host / HOSTS_OF_ONE);
    match of.filter(|_| spell.is_multiple_of(2)) {
        Some((code, severity, summary)) => Verdict {
            code: code.name().to_owned(),
            confidence: 0.9,
            severity: *severity,
            share: 0.5,
            summary: (*summary).to_owned(),
            diagnosis: DIAGNOSIS.trim_end().to_owned(),
        },
        None => Verdict {
            code: Code::NoneHealthy.name().to_owned(),
            confidence: 0.9,
            severity: 0,
            share: 0.0,
            summary: "nothing limits it".to_owned(),
            diagnosis: DIAGNOSIS.trim_end().to_owned(),
        },
    }
}
