//! What the agent tells of itself, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::demand::OnDemand;
use crate::host::cost::{Cost, resident_bytes};
use crate::stream::connection::Status;
use crate::stream::spool::Fill;
use crate::stream::symbols;

/// Numbers since the agent started, and of its last window.
#[derive(Debug, Default)]
pub struct Counts {
    /// Windows that were read.
    pub windows: AtomicU64,
    /// Windows that were given up, since those before took too long.
    pub windows_given_up: AtomicU64,
    /// When the last one was read, seconds since the agent began.
    pub last_window_s: AtomicU64,
    /// Samples in them.
    pub samples: AtomicU64,
    /// How far the governor has gone.
    pub governor_level: AtomicU64,
    /// Samples a second on each CPU.
    pub frequency_hz: AtomicU64,
    /// Time that the kernel programs ran, nanoseconds.
    pub program_ns: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Samples lost, by cause.
    lost: BTreeMap<String, u64>,
    /// Code of the constraint of the last window.
    verdict: Option<String>,
}

/// Causes that are told apart; they are a closed set of phrases.
const MAX_CAUSES: usize = 64;

impl Counts {
    /// Takes note of a window.
    pub fn add_window<'l>(
        &self,
        samples: u64,
        lost: impl Iterator<Item = (&'l str, u64)>,
        verdict: Option<String>,
    ) {
        self.windows.fetch_add(1, Ordering::Relaxed);
        self.samples.fetch_add(samples, Ordering::Relaxed);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for (cause, samples) in lost {
            if said.lost.len() < MAX_CAUSES || said.lost.contains_key(cause) {
                *said.lost.entry(cause.to_owned()).or_default() += samples;
            }
        }
        said.verdict = verdict;
    }

    /// The page.
    #[must_use]
    pub fn page(&self, status: &Status, on_demand: &OnDemand, fill: Fill) -> String {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
        let own = Cost::of_this_process();
        let mut page = Page::default();
        page.counter("windows_total", "Windows that were read.", of(&self.windows));
        page.counter(
            "windows_given_up_total",
            "Windows that were given up, since those before took too long to read.",
            of(&self.windows_given_up),
        );
        page.counter("samples_total", "Samples in all windows.", of(&self.samples));
        {
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            page.head("samples_lost_total", "counter", "Samples that were lost, by cause.");
            for (cause, samples) in &said.lost {
                page.labelled("samples_lost_total", "cause", cause, *samples as f64);
            }
            page.head("verdict", "gauge", "What limits this host, by the last window: 1 for its code.");
            if let Some(code) = &said.verdict {
                page.labelled("verdict", "code", code, 1.0);
            }
        }
        page.gauge("spool_batches", "Batches that wait for the collector.", fill.batches as f64);
        page.gauge("spool_bytes", "Bytes of them.", fill.bytes as f64);
        page.counter(
            "spool_dropped_batches_total",
            "Batches dropped since this agent's identity was made.",
            fill.dropped as f64,
        );
        let is_connected = status.is_connected.load(Ordering::Relaxed);
        page.gauge(
            "connected",
            "Whether a stream to the collector holds.",
            f64::from(u8::from(is_connected)),
        );
        page.counter("streams_total", "Attempts to open a stream.", of(&status.streams));
        page.counter("batches_sent_total", "Batches sent, again ones included.", of(&status.sent));
        page.counter("sent_bytes_total", "Bytes of them.", of(&status.sent_bytes));
        page.counter("batches_stored_total", "Batches that the collector has stored.", of(&status.stored));
        page.counter("batches_refused_total", "Batches that no collector will store.", of(&status.refused));
        page.counter("commands_total", "Recordings on demand that were begun.", of(&on_demand.taken));
        page.counter("commands_refused_total", "Commands that were refused.", of(&on_demand.refused));
        page.counter(
            "commands_failed_total",
            "Recordings on demand that failed or were cancelled.",
            of(&on_demand.failed),
        );
        page.counter(
            "demand_cpu_seconds_total",
            "CPU time of the processes of recordings on demand, which cpu_seconds_total does not have.",
            on_demand.costs.cpu().as_secs_f64(),
        );
        page.counter(
            "demand_program_seconds_total",
            "CPU time of the kernel programs of recordings on demand that have ended, where the kernel measures it.",
            on_demand.costs.program_ns() as f64 / 1e9,
        );
        page.counter("cpu_seconds_total", "CPU time of the agent.", own.cpu.as_secs_f64());
        page.counter(
            "program_seconds_total",
            "CPU time of its kernel programs, where the kernel measures it.",
            of(&self.program_ns) / 1e9,
        );
        page.gauge("resident_bytes", "Memory of the agent.", resident_bytes() as f64);
        page.gauge(
            "governor_level",
            "How much the agent has given up to stay within its budget; 0 is nothing.",
            of(&self.governor_level),
        );
        page.gauge("frequency_hertz", "Samples a second on each CPU.", of(&self.frequency_hz));
        page.text
    }
}

/// What became of symbols, for the same page.
#[must_use]
pub fn symbols(counts: &symbols::Counts) -> String {
    let of = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
    let mut page = Page::default();
    page.counter("symbols_offered_total", "Builds whose symbols were offered.", of(&counts.offered));
    page.counter(
        "symbols_passed_over_total",
        "Builds that were not looked at, since too many were met at once.",
        of(&counts.passed_over),
    );
    page.counter("symbols_sent_total", "Builds whose symbols were sent.", of(&counts.sent));
    page.counter("symbols_sent_bytes_total", "Bytes of them.", of(&counts.sent_bytes));
    page.counter("symbols_failed_total", "Builds that were asked for and not made.", of(&counts.failed));
    page.counter("symbols_cpu_seconds_total", "CPU time of making symbols.", of(&counts.cpu_ns) / 1e9);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(
            self.text,
            "# HELP chokepoint_agent_{name} {help}\n# TYPE chokepoint_agent_{name} {kind}\n"
        );
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        let _ = writeln!(self.text, "chokepoint_agent_{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.text, "chokepoint_agent_{name} {value}");
    }

    fn labelled(&mut self, name: &str, label: &str, value: &str, number: f64) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = writeln!(self.text, "chokepoint_agent_{name}{{{label}=\"{value}\"}} {number}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_was_counted() {
        let counts = Counts::default();
        let lost = [("ring buffer full", 2), ("a \"b\"", 1)];
        counts.add_window(10, lost.into_iter(), Some("cpu.quota".to_owned()));
        counts.add_window(5, lost.into_iter(), Some("none.idle".to_owned()));
        let page = counts.page(
            &Status::default(),
            &OnDemand::default(),
            Fill { batches: 3, bytes: 900, dropped: 1 },
        );
        for line in [
            "chokepoint_agent_windows_total 2",
            "chokepoint_agent_samples_total 15",
            "chokepoint_agent_samples_lost_total{cause=\"ring buffer full\"} 4",
            "chokepoint_agent_samples_lost_total{cause=\"a \\\"b\\\"\"} 2",
            "chokepoint_agent_verdict{code=\"none.idle\"} 1",
            "chokepoint_agent_spool_bytes 900",
            "chokepoint_agent_connected 0",
            "chokepoint_agent_commands_total 0",
            "# TYPE chokepoint_agent_spool_dropped_batches_total counter",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in:\n{page}");
        }
    }
}
