//! Adds windows up to a baseline.

use std::collections::HashMap;

use super::stacks::Sums;
use super::{Baseline, Header, MAX_SERIES, MAX_WINDOWS, Measure, Series, Window, measures};
use crate::profile::Profile;
use crate::verdict::{Diagnosis, diagnose};

/// What is known of a window.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// A recording of everything in it, with its signals.
    pub profile: &'a Profile,
    /// What that says.
    pub diagnosis: &'a Diagnosis,
    /// Work that was done in a second; `None` where it was not counted.
    pub work_per_s: Option<f64>,
}

/// A baseline in the making.
#[derive(Debug)]
pub struct Recorder {
    header: Header,
    windows: Vec<Window>,
    /// How many that were taken in are one now.
    merged: usize,
    /// How many are in the last.
    in_last: usize,
    series: Vec<Series>,
    positions: HashMap<Measure, usize>,
    left_out: u64,
    sums: Sums,
    missing: Vec<String>,
}

impl Recorder {
    /// An empty baseline.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            header,
            windows: Vec::new(),
            merged: 1,
            in_last: 0,
            series: Vec::new(),
            positions: HashMap::new(),
            left_out: 0,
            sums: Sums::default(),
            missing: Vec::new(),
        }
    }

    /// How many windows there are.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Adds the window that follows.
    pub fn add(&mut self, observed: Observed<'_>) {
        let Observed { profile, diagnosis, work_per_s } = observed;
        let header = &profile.header;
        if self.windows.is_empty() {
            self.header.start_unix_ns = header.start_unix_ns;
        }
        let goes_on = self.in_last < self.merged && !self.windows.is_empty();
        if !goes_on && self.windows.len() == MAX_WINDOWS {
            self.merge_neighbours();
        }
        self.windows.push(Window {
            offset_ns: header.start_unix_ns.saturating_sub(self.header.start_unix_ns),
            duration_ns: header.duration_ns,
            verdict: diagnosis.verdict.code.name().to_owned(),
            severity: diagnosis.verdict.severity,
            samples: profile.coverage.captured,
            lost: profile.coverage.total_lost(),
        });
        for series in &mut self.series {
            series.values.push(series.measure.kind.is_zero_untold().then_some(0.0));
        }
        for (measure, value) in measures::of_window(profile, diagnosis, work_per_s) {
            self.add_value(measure, value);
        }
        if goes_on {
            let last = self.windows.len() - 1;
            self.merge(last - 1, last);
            self.windows.truncate(last);
            self.series.iter_mut().for_each(|series| series.values.truncate(last));
            self.in_last += 1;
        } else {
            self.in_last = 1;
        }
        self.sums.add(profile);
        self.note(&diagnosis.coverage.missing);
        self.note(profile.signals.as_ref().map_or(&[], |signals| &signals.missing));
    }

    /// Remembers what is missing, each once. Notes with numbers differ from window to window.
    pub fn note(&mut self, notes: &[String]) {
        /// More would not be read.
        const MAX_NOTES: usize = 32;
        for note in notes {
            let words = |note: &str| note.replace(|letter: char| letter.is_ascii_digit(), "");
            let is_known = self.missing.iter().any(|known| words(known) == words(note));
            if !is_known && self.missing.len() < MAX_NOTES {
                self.missing.push(note.clone());
            }
        }
    }

    /// Sets a measure's value in the last window.
    fn add_value(&mut self, measure: Measure, value: f64) {
        let position = match self.positions.get(&measure) {
            Some(position) => *position,
            None if self.series.len() >= MAX_SERIES => {
                self.left_out += 1;
                return;
            }
            None => {
                let untold = measure.kind.is_zero_untold().then_some(0.0);
                self.series.push(Series {
                    measure: measure.clone(),
                    values: vec![untold; self.windows.len()],
                    max: f64::NEG_INFINITY,
                });
                self.positions.insert(measure, self.series.len() - 1);
                self.series.len() - 1
            }
        };
        let series = &mut self.series[position];
        if let Some(last) = series.values.last_mut() {
            *last = Some(value);
        }
        series.max = series.max.max(value);
    }

    /// Makes one of every two windows.
    fn merge_neighbours(&mut self) {
        let pairs = self.windows.len() / 2;
        for pair in 0..pairs {
            self.merge(2 * pair, 2 * pair + 1);
            self.windows.swap(pair, 2 * pair);
            self.series.iter_mut().for_each(|series| series.values.swap(pair, 2 * pair));
        }
        self.windows.truncate(pairs);
        self.series.iter_mut().for_each(|series| series.values.truncate(pairs));
        self.merged *= 2;
    }

    /// Adds a window to the one before it. A value is the mean over the time of which it is known.
    fn merge(&mut self, one: usize, other: usize) {
        let [length, other_length] = [one, other].map(|window| self.windows[window].duration_ns as f64);
        for series in &mut self.series {
            series.values[one] = match (series.values[one], series.values[other]) {
                (Some(value), Some(other)) => {
                    Some((value * length + other * other_length) / (length + other_length).max(1.0))
                }
                (known, other) => known.or(other),
            };
        }
        let added = self.windows[other].clone();
        let window = &mut self.windows[one];
        window.duration_ns += added.duration_ns;
        window.samples += added.samples;
        window.lost += added.lost;
        if added.severity > window.severity {
            (window.severity, window.verdict) = (added.severity, added.verdict);
        }
    }

    /// The baseline. A last window that is less than half as long as the others is part of the one before it.
    #[must_use]
    pub fn finish(mut self) -> Baseline {
        if let [.., before, last] = self.windows.as_slice()
            && last.duration_ns < before.duration_ns / 2
        {
            let last = self.windows.len() - 1;
            self.merge(last - 1, last);
            self.windows.truncate(last);
            self.series.iter_mut().for_each(|series| series.values.truncate(last));
        }
        if self.left_out > 0 {
            self.missing.push(format!(
                "{} values of signals: there were more than {MAX_SERIES} of them",
                self.left_out
            ));
        }
        for series in &mut self.series {
            series.values.iter_mut().flatten().for_each(|value| *value = rounded(*value));
            series.max = rounded(series.max);
        }
        self.series.sort_by(|one, other| {
            let key = |series: &Series| {
                let Measure { kind, name, instance, .. } = &series.measure;
                (*kind, name.clone(), instance.clone())
            };
            key(one).cmp(&key(other))
        });
        let Self { header, windows, series, sums, missing, .. } = self;
        Baseline { header, windows, series, stacks: sums.finish(), missing }
    }
}

/// To four digits, which is more than a window is sure of.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let factor = 10_f64.powi(digits.abs());
    if digits >= 0 { (value * factor).round() / factor } else { (value / factor).round() * factor }
}

/// A recording of everything as a baseline of one window, of which nothing can be said with significance.
#[must_use]
pub fn of_recording(profile: &Profile) -> Baseline {
    let header = &profile.header;
    let mut recorder = Recorder::new(Header {
        host: header.host.clone(),
        target: header.target.clone(),
        cpus: header.cpus,
        start_unix_ns: header.start_unix_ns,
        every_ns: header.duration_ns,
        work: String::new(),
    });
    recorder.add(Observed { profile, diagnosis: &diagnose(profile), work_per_s: None });
    recorder.finish()
}

#[cfg(test)]
mod tests;
