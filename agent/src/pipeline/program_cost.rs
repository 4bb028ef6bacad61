//! What the kernel programs cost, from a part of the time.
//!
//! Where the kernel measures how long programs run, each run of any of the host's programs costs two more looks at the clock, which is a
//! tenth of what one of ours takes at a switch. Windows without end therefore measure a second now and then, and take it for the rest. The
//! time between two measurements is no round one, so that what comes round with the seconds, or with the windows, is not met each time or never.

use std::time::{Duration, Instant};

use crate::load::ProgramCost;

/// Time from the begin of a measurement to that of the next. A window of ten seconds has one, or parts of two.
const INTERVAL: Duration = Duration::from_millis(9_400);
/// How long one is.
const LENGTH: Duration = Duration::from_secs(1);

/// When to measure, and what came of it. Without a clock or a kernel of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct CostSampling {
    /// When the next measurement is to begin.
    due: Instant,
    /// The one under way.
    under_way: Option<Measurement>,
    /// What was measured in this window, and for how long.
    measured: (ProgramCost, Duration),
    /// What programs cost when that was measured last: the share of time that they ran, and how often a second.
    rate: Option<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
struct Measurement {
    end: Instant,
    /// Since when it is to be added to the window, and what programs had cost then.
    since: Instant,
    before: ProgramCost,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Measuring is to begin, and [`CostSampling::began`] to be told.
    Begin,
    /// It is to end, and [`CostSampling::ended`] to be told.
    End,
}

impl CostSampling {
    /// The first measurement is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, under_way: None, measured: Default::default(), rate: None }
    }

    /// What is due, if anything.
    pub(super) fn step(&self, now: Instant) -> Option<Step> {
        match self.under_way {
            None => (now >= self.due).then_some(Step::Begin),
            Some(Measurement { end, .. }) => (now >= end).then_some(Step::End),
        }
    }

    /// Programs are measured from now on, and had cost this much before.
    pub(super) fn began(&mut self, now: Instant, before: ProgramCost) {
        self.due = now + INTERVAL;
        self.under_way = Some(Measurement { end: now + LENGTH, since: now, before });
    }

    /// They are no more, and have cost this much.
    pub(super) fn ended(&mut self, now: Instant, cost: ProgramCost) {
        self.add(now, cost);
        self.under_way = None;
    }

    /// What programs cost in a window of this length that is over now: by what was measured in it, or last before it; `None` before there is
    /// any measurement. `cost` tells what they have cost, and is only asked while that is measured.
    pub(super) fn close_window(
        &mut self,
        now: Instant,
        length: Duration,
        cost: impl FnOnce() -> ProgramCost,
    ) -> Option<ProgramCost> {
        if self.under_way.is_some() {
            self.add(now, cost());
        }
        let (cost, time) = std::mem::take(&mut self.measured);
        if !time.is_zero() {
            let time_s = time.as_secs_f64();
            self.rate = Some((cost.run_time.as_secs_f64() / time_s, cost.run_count as f64 / time_s));
        }
        self.rate.map(|(share, runs_per_s)| ProgramCost {
            run_time: length.mul_f64(share),
            run_count: (runs_per_s * length.as_secs_f64()) as u64,
        })
    }

    /// Adds what has been measured since it was added last.
    fn add(&mut self, now: Instant, cost: ProgramCost) {
        let Some(measurement) = &mut self.under_way else { return };
        let more = cost.since(measurement.before);
        self.measured.0.run_time += more.run_time;
        self.measured.0.run_count += more.run_count;
        self.measured.1 += now.duration_since(measurement.since);
        (measurement.since, measurement.before) = (now, cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(250);
    const WINDOW: Duration = Duration::from_secs(10);

    /// Measures programs that run for a tenth of one second in each ten, from `offset` on, for so many windows of this length. What each
    /// window was told, and the share of time that was measured.
    fn told(windows: u32, length: Duration, offset: Duration) -> (Vec<Option<ProgramCost>>, f64) {
        let start = Instant::now();
        let mut sampling = CostSampling::new(start);
        let mut cost = ProgramCost::default();
        let mut measured = Duration::ZERO;
        let mut told = Vec::new();
        let mut elapsed = Duration::ZERO;
        for window in 1..=windows {
            while elapsed < length * window {
                match sampling.step(start + elapsed) {
                    Some(Step::Begin) => sampling.began(start + elapsed, cost),
                    Some(Step::End) => sampling.ended(start + elapsed, cost),
                    None => {}
                }
                if sampling.under_way.is_some() {
                    measured += STEP;
                    if (elapsed + offset).as_millis() % WINDOW.as_millis() < 1_000 {
                        cost.run_time += STEP / 10;
                        cost.run_count += 10;
                    }
                }
                elapsed += STEP;
            }
            told.push(sampling.close_window(start + elapsed, length, || cost));
        }
        (told, measured.as_secs_f64() / elapsed.as_secs_f64())
    }

    #[test]
    fn what_comes_round_with_the_windows_is_met_wherever_in_them_it_is_while_a_tenth_is_measured() {
        const WINDOWS: u32 = 500;
        for tenth_s in [0, 10, 25, 50, 95] {
            let (told, share) = told(WINDOWS, WINDOW, Duration::from_millis(100 * tenth_s));
            // One second of 9.4, or of as much more as a step is late.
            assert!((1.0 / 9.65..=1.0 / 9.4).contains(&share), "{share}");
            let run: Duration = told.iter().flatten().map(|cost| cost.run_time).sum();
            let of_truth = run.as_secs_f64() / (0.01 * (WINDOW * WINDOWS).as_secs_f64());
            // One window in ten meets it, by one to four steps of a measurement.
            assert!((0.75..1.25).contains(&of_truth), "{of_truth} at {tenth_s}");
        }
    }

    #[test]
    fn windows_without_a_measurement_are_told_by_the_one_before() {
        let (told, _) = told(30, Duration::from_secs(1), Duration::ZERO);
        // The first second had a tenth.
        let first = ProgramCost { run_time: Duration::from_millis(100), run_count: 40 };
        assert!(told[..9].iter().all(|told| *told == Some(first)), "{told:?}");
        assert!(told.iter().all(Option::is_some));
        let nothing = ProgramCost::default();
        assert_eq!(CostSampling::new(Instant::now()).close_window(Instant::now(), WINDOW, || nothing), None);
    }
}
