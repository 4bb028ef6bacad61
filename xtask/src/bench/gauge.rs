//! Measures from the inside what a profiler's interrupts take from a running program.
//!
//! A loop reads the clock, without end. Where two readings lie further apart than the loop takes, something ran in
//! between: an interrupt if it was short, another thread if it was long. The short ones summed up are what interrupts
//! cost, whoever they are charged to; without a profiler they are the timer's. That is sharper by far than the work the
//! loop gets done, which the gauge counts too: caches and frequencies move that by more than a sample costs.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Shorter gaps are the loop itself.
const SHORTEST_INTERRUPT: Duration = Duration::from_nanos(800);
/// Longer gaps are other threads' turns.
const LONGEST_INTERRUPT: Duration = Duration::from_micros(150);
/// Frames of the stack that the profilers find.
const FRAMES: u32 = 30;

/// Options of the gauge.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to measure, in milliseconds
    duration_ms: u64,
}

/// What the gauge found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Turns of the loop.
    pub turns: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Time they took.
    pub interrupted_ns: u64,
    /// Time taken by other threads.
    pub preempted_ns: u64,
    /// Time in all.
    pub elapsed_ns: u64,
}

impl Reading {
    /// Share of the time on the CPU that went to interrupts, in parts per million: microseconds a second.
    pub fn interrupted_ppm(&self) -> f64 {
        self.interrupted_ns as f64 * 1e6 / self.on_cpu_ns()
    }

    /// Work done in a second on the CPU.
    pub fn turns_per_s(&self) -> f64 {
        self.turns as f64 * 1e9 / self.on_cpu_ns()
    }

    fn on_cpu_ns(&self) -> f64 {
        self.elapsed_ns.saturating_sub(self.preempted_ns).max(1) as f64
    }

    fn add_gap(&mut self, gap: Duration) {
        let gap_ns = gap.as_nanos() as u64;
        if gap > LONGEST_INTERRUPT {
            self.preempted_ns += gap_ns;
        } else if gap >= SHORTEST_INTERRUPT {
            self.interrupts += 1;
            self.interrupted_ns += gap_ns;
        }
    }
}

/// Measures and prints the reading as JSON.
pub fn run(args: &Args) -> Result<()> {
    let reading = below(FRAMES, Duration::from_millis(args.duration_ms));
    println!("{}", serde_json::to_string(&reading).context("cannot print the reading")?);
    Ok(())
}

#[inline(never)]
fn below(frames: u32, duration: Duration) -> Reading {
    if frames == 0 {
        return measure(duration);
    }
    // Not a tail call: those leave no frame.
    black_box(below(black_box(frames - 1), duration))
}

#[inline(never)]
fn measure(duration: Duration) -> Reading {
    let mut reading = Reading::default();
    let start = Instant::now();
    let mut last = start;
    while last.duration_since(start) < duration {
        let now = Instant::now();
        reading.turns += 1;
        reading.add_gap(now.duration_since(last));
        last = now;
    }
    reading.elapsed_ns = last.duration_since(start).as_nanos() as u64;
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_told_apart_by_their_length() {
        let mut reading = Reading { turns: 600, elapsed_ns: 10_000_000, ..Reading::default() };
        for gap_us in [0, 5, 15, 4_000] {
            reading.add_gap(Duration::from_micros(gap_us));
        }
        assert_eq!(
            (reading.interrupts, reading.interrupted_ns, reading.preempted_ns),
            (2, 20_000, 4_000_000)
        );
        assert_eq!(reading.turns_per_s(), 100_000.0);
        assert!((reading.interrupted_ppm() - 3_333.3).abs() < 0.1);
    }

    #[test]
    fn the_loop_measures_for_as_long_as_asked() {
        let reading = below(3, Duration::from_millis(5));
        assert!(reading.turns > 1_000 && reading.elapsed_ns >= 5_000_000, "{reading:?}");
    }
}
