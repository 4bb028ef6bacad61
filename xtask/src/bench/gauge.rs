//! Measures from the inside what a profiler's interrupts take from a running program.
//!
//! A loop reads the clock, without end. Where two readings lie further apart than the loop takes, something ran in
//! between: another thread if the loop lost its CPU meanwhile, else an interrupt. Those summed up are what interrupts
//! cost, whoever they are charged to; without a profiler they are the timer's. That is sharper by far than the work the
//! loop gets done, which the gauge counts too: caches and frequencies move that by more than a sample costs.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::sys::context_switches;

/// Shorter gaps are the loop itself.
const SHORTEST_INTERRUPT: Duration = Duration::from_nanos(800);
/// Longer gaps are those in which the machine's host gave the CPU to another machine.
const LONGEST_INTERRUPT: Duration = Duration::from_micros(500);
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
    /// Time taken by other threads and other machines.
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

    fn add_gap(&mut self, gap: Duration, lost_cpu: bool) {
        let gap_ns = gap.as_nanos() as u64;
        if lost_cpu || gap > LONGEST_INTERRUPT {
            self.preempted_ns += gap_ns;
        } else {
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
    let mut switches = context_switches();
    while last.duration_since(start) < duration {
        let mut now = Instant::now();
        reading.turns += 1;
        let gap = now.duration_since(last);
        if gap >= SHORTEST_INTERRUPT {
            let switches_before = switches;
            switches = context_switches();
            reading.add_gap(gap, switches != switches_before);
            // The question took time too; what interrupts it goes unseen, which is rare.
            now = Instant::now();
        }
        last = now;
    }
    reading.elapsed_ns = last.duration_since(start).as_nanos() as u64;
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_told_apart() {
        let mut reading = Reading { turns: 600, elapsed_ns: 10_000_000, ..Reading::default() };
        for (gap_us, lost_cpu) in [(5, false), (20, true), (15, false), (3_980, false)] {
            reading.add_gap(Duration::from_micros(gap_us), lost_cpu);
        }
        let expected = (2, 20_000, 4_000_000);
        assert_eq!((reading.interrupts, reading.interrupted_ns, reading.preempted_ns), expected);
        assert_eq!(reading.turns_per_s(), 100_000.0);
        assert!((reading.interrupted_ppm() - 3_333.3).abs() < 0.1);
    }

    #[test]
    fn the_loop_measures_for_as_long_as_asked() {
        let reading = below(3, Duration::from_millis(5));
        assert!(reading.turns > 1_000 && reading.elapsed_ns >= 5_000_000, "{reading:?}");
    }
}
