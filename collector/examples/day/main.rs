//! A store with a day of a fleet, up to now, for the page's first view. `cargo xtask bench page` runs it.
//!
//!     day DIR HOSTS HOURS [ROWS]
//!
//! Where ROWS are given, each window has no more rows of samples of a kind, and no more signals, than these: the first view reads no samples, and
//! one signal.
//!
//! Samples and signals are those of recorded windows, with other weights on each host. What limits a host is made up, for hosts have to
//! differ in it, in the words of a real diagnosis.

#[path = "../../tests/fleet/recorded.rs"]
mod recorded;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use chokepoint_analysis::verdict::code::Code;
use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::{Embedded, Options};
use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{Batch, Dictionary, Verdict, Window};

use crate::recorded::{Recorded, hello};

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3_600 * SECOND_NS;
/// Windows of the last hour, as agents send them.
const WINDOW_NS: u64 = 10 * SECOND_NS;
/// Those of the hours before: each recorded window once, so that sums of hours are as large.
const EARLIER_WINDOW_NS: u64 = 360 * SECOND_NS;
/// Writers at a time; what the store writes, it writes one after the other.
const WRITERS: usize = 4;
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
    let end = now - now % WINDOW_NS;
    let (all, windows) = told_first(most_rows);
    let begin = Instant::now();
    let rows = AtomicU64::new(0);
    for hour in (0..hours).rev() {
        let length = if hour == 0 { WINDOW_NS } else { EARLIER_WINDOW_NS };
        let start = end - (hour + 1) * HOUR_NS;
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    while let Some(host) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).filter(|host| *host < hosts)
                    {
                        let told = one(&store, host, (start, length), hours - hour, &all, &windows);
                        rows.fetch_add(told, Ordering::Relaxed);
                    }
                });
            }
        });
        while store.maintain(start + HOUR_NS).expect("maintenance") {}
        eprintln!("{hour} hours to go after {:.0} s", begin.elapsed().as_secs_f64());
    }
    println!("rows {}", rows.load(Ordering::Relaxed));
    println!("write_seconds {:.1}", begin.elapsed().as_secs_f64());
    println!("until_unix_s {}", end / SECOND_NS);
}

/// The recorded windows, as columns of numbers with no more rows of a kind and signals than so many, and all that they refer to.
fn told_first(most_rows: usize) -> (Dictionary, Vec<Window>) {
    let recorded = Recorded::load();
    let mut sender = Sender::new();
    let mut all = Dictionary { reset: true, ..Dictionary::default() };
    let mut windows = Vec::new();
    for number in 0..recorded.len() {
        let mut window = sender.next(&recorded.window(0, number, 0, WINDOW_NS)).expect("a whole window");
        let new = window.dictionary.take().expect("a dictionary");
        all.strings.extend(new.strings);
        all.functions.extend(new.functions);
        all.modules.extend(new.modules);
        all.locations.extend(new.locations);
        all.stack_parent.extend(new.stack_parent);
        all.stack_location.extend(new.stack_location);
        all.subjects.extend(new.subjects);
        window.signals.truncate(most_rows);
        for profile in &mut window.profiles {
            let columns = [&mut profile.subject, &mut profile.stack, &mut profile.class];
            columns.into_iter().for_each(|column| column.truncate(most_rows));
            profile.count.truncate(most_rows);
            profile.weight.truncate(most_rows);
        }
        windows.push(window);
    }
    (all, windows)
}

/// Sends a host's hour. How many rows of samples that was.
fn one(
    store: &Embedded,
    host: u64,
    (start, length): (u64, u64),
    hour: u64,
    all: &Dictionary,
    windows: &[Window],
) -> u64 {
    let mut appender = store.appender(&hello(host), None).expect("an appender");
    let mut random = (host + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hour;
    let nothing = Dictionary::default();
    let mut rows = 0;
    for number in 0..HOUR_NS / length {
        let start_unix_ns = start + number * length;
        let mut window = windows[(number % windows.len() as u64) as usize].clone();
        window.start_unix_ns = start_unix_ns;
        window.duration_ns = length;
        window.verdict = Some(verdict(host, start_unix_ns));
        for profile in &mut window.profiles {
            rows += profile.weight.len() as u64;
            for weight in &mut profile.weight {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *weight = *weight / 1024 * (768 + random % 512) + random % 1024;
            }
        }
        let batch = Batch { sequence: hour * HOUR_NS / WINDOW_NS + number + 1, ..Batch::default() };
        let new = if number == 0 { all } else { &nothing };
        appender.append(&batch, &window, new, number == 0).expect("it is stored");
    }
    rows
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
