//! Hours of a fleet, written into a store: recorded windows with other weights on each host.

use std::sync::atomic::{AtomicU64, Ordering};

use chokepoint_collector::store::Store;
use chokepoint_collector::store::embedded::Embedded;
use chokepoint_proto::dictionary::{Sender, extend};
use chokepoint_proto::stream::{Batch, Dictionary, Verdict, Window};

use crate::recorded::{Recorded, hello};

pub const SECOND_NS: u64 = 1_000_000_000;
pub const HOUR_NS: u64 = 3_600 * SECOND_NS;
/// Windows of the last hour, as agents send them.
pub const WINDOW_NS: u64 = 10 * SECOND_NS;
/// Those of the hours before: each recorded window once, so that sums of hours are as large, and 36 times as fast to write.
const EARLIER_WINDOW_NS: u64 = 360 * SECOND_NS;
/// Writers at a time; what the store writes, it writes one after the other.
const WRITERS: usize = 4;

/// The recorded windows as columns of numbers, and all that they refer to: that is told first.
pub struct Told {
    all: Dictionary,
    windows: Vec<Window>,
}

impl Told {
    /// With no more rows of a kind and no more signals than so many.
    pub fn new(most_rows: usize) -> Self {
        let recorded = Recorded::load();
        let mut sender = Sender::new();
        let mut all = Dictionary::default();
        let mut windows = Vec::new();
        for number in 0..recorded.len() {
            let mut window = sender.next(&recorded.window(0, number, 0, WINDOW_NS)).expect("a whole window");
            extend(&mut all, window.dictionary.take().expect("a dictionary"));
            window.signals.truncate(most_rows);
            for profile in &mut window.profiles {
                let columns = [&mut profile.subject, &mut profile.stack, &mut profile.class];
                columns.into_iter().for_each(|column| column.truncate(most_rows));
                profile.count.truncate(most_rows);
                profile.weight.truncate(most_rows);
            }
            windows.push(window);
        }
        Self { all: Dictionary { reset: true, ..all }, windows }
    }
}

/// What is written, and into what.
pub struct Hours<'s> {
    pub store: &'s Embedded,
    pub told: Told,
    pub hosts: u64,
    pub hours: u64,
    /// When the last hour ends.
    pub end_unix_ns: u64,
    /// What limits a host at a time; `None`: what was recorded.
    pub verdict: Option<fn(u64, u64) -> Verdict>,
}

impl Hours<'_> {
    /// Writes hour by hour, the earliest first; after each, `ended` learns how many are to go and when it began. How many rows of samples it was.
    pub fn write(&self, mut ended: impl FnMut(u64, u64)) -> u64 {
        let rows = AtomicU64::new(0);
        for hour in (0..self.hours).rev() {
            let start = self.end_unix_ns - (hour + 1) * HOUR_NS;
            let next = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..WRITERS {
                    scope.spawn(|| {
                        let host =
                            || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|host| *host < self.hosts);
                        while let Some(host) = host() {
                            rows.fetch_add(self.hour(host, hour, start), Ordering::Relaxed);
                        }
                    });
                }
            });
            ended(hour, start);
        }
        rows.into_inner()
    }

    /// Sends a host's hour. How many rows of samples that was.
    fn hour(&self, host: u64, to_go: u64, start: u64) -> u64 {
        let Told { all, windows } = &self.told;
        let length = if to_go == 0 { WINDOW_NS } else { EARLIER_WINDOW_NS };
        let hour = self.hours - to_go;
        let mut appender = self.store.appender(&hello(host), None).expect("an appender");
        let mut random = (host + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hour;
        let nothing = Dictionary::default();
        let mut rows = 0;
        for number in 0..HOUR_NS / length {
            let mut window = windows[(number % windows.len() as u64) as usize].clone();
            window.start_unix_ns = start + number * length;
            window.duration_ns = length;
            if let Some(verdict) = self.verdict {
                window.verdict = Some(verdict(host, window.start_unix_ns));
            }
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
}
