//! Keeps the agent within its budget: what it gives up, in which order, and when it takes that back.
//!
//! Cheap things go first, and what they cost is given back last: a lower frequency makes a profile coarser, fewer stacks of waits leave more time
//! without a place, and without a source there are questions without an answer. The exact times of threads are last: everything is scaled
//! to them.
//!
//! A single window over budget says little, since tables and names are made when they are first needed. So it takes several in a row to go
//! down, and many well below the budget to go up; a step up that did not hold is tried again only after twice as long.

use std::fmt;

/// Windows in a row over budget, after which something is given up.
const OVER: u32 = 3;
/// Windows in a row below [`LOW_WATER`], after which something is taken back: five minutes of windows of 10 s.
const UNDER: u32 = 30;
/// The most of them, where a step up did not hold: an hour.
const MOST_UNDER: u32 = 360;
/// Windows after a change, and after the start, that are not counted: tables and names are being made.
const SETTLING: u32 = 3;
/// Share of the budget. The step up from 4 Hz, or with stacks again, may cost twice as much.
const LOW_WATER: f64 = 0.5;

/// Share of the usual budget of stacks of waits: 10 a second on each CPU. Each costs twice what a sample of what runs does, and comes with
/// one of what ended the wait; with half as many as there are samples the error of a class's share of a window grows by two fifths, and
/// that of exact times not at all.
const WAIT_SHARE: f64 = 0.1;

/// What is taken of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sources {
    /// Everything that windows tell.
    All,
    /// Not what ended waits, faults, connections and block devices.
    WithoutWakers,
    /// Only samples of what runs.
    CpuOnly,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Samples a second on each CPU.
    pub frequency_hz: u32,
    /// Share of the usual budget of stacks of waits.
    pub wait_share: f64,
    /// What is looked at.
    pub sources: Sources,
}

/// A step that the governor has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It gave something up.
    Down,
    /// It took something back.
    Up,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "gives up",
            Self::Up => "takes back",
        })
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Governor {
    /// Share of the host's CPUs.
    budget: f64,
    frequency_hz: u32,
    level: usize,
    settling: u32,
    over: u32,
    under: u32,
    /// Windows below low water that it takes to go up now.
    wanted_under: u32,
    /// Windows since the last step up; `None` where it has held.
    since_up: Option<u32>,
}

/// By how much the frequency is divided, the share of stacks of waits, and the sources of each level.
const LEVELS: [(u32, f64, Sources); 7] = [
    (1, 1.0, Sources::All),
    (2, 1.0, Sources::All),
    (4, 1.0, Sources::All),
    (4, 0.25, Sources::All),
    (4, 0.0625, Sources::All),
    (4, 0.0625, Sources::WithoutWakers),
    (4, 0.0625, Sources::CpuOnly),
];

impl Governor {
    /// Begins with everything. `budget` is the share of all of the host's CPUs that the agent may use.
    #[must_use]
    pub fn new(budget: f64, frequency_hz: u32) -> Self {
        Self {
            budget,
            frequency_hz,
            level: 0,
            settling: SETTLING,
            over: 0,
            under: 0,
            wanted_under: UNDER,
            since_up: None,
        }
    }

    /// Another budget or frequency from now on.
    pub fn set(&mut self, budget: f64, frequency_hz: u32) {
        (self.budget, self.frequency_hz) = (budget, frequency_hz);
        (self.over, self.under, self.settling) = (0, 0, SETTLING);
    }

    /// How far it has gone: 0 is everything.
    #[must_use]
    pub fn level(&self) -> usize {
        self.level
    }

    /// How closely to look now.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let (divisor, share, sources) = LEVELS[self.level];
        Rates { frequency_hz: (self.frequency_hz / divisor).max(1), wait_share: WAIT_SHARE * share, sources }
    }

    /// What it has given up, each a sentence.
    #[must_use]
    pub fn given_up(&self) -> Vec<String> {
        let rates = self.rates();
        let (_, share, _) = LEVELS[self.level];
        let mut given_up = Vec::new();
        if rates.frequency_hz < self.frequency_hz {
            given_up.push(format!(
                "CPUs are sampled {} times a second in place of {}",
                rates.frequency_hz, self.frequency_hz
            ));
        }
        if share < 1.0 && rates.sources < Sources::CpuOnly {
            given_up.push(format!("one in {:.0} of the usual stacks of waits is taken", 1.0 / share));
        }
        match rates.sources {
            Sources::All => {}
            Sources::WithoutWakers => {
                given_up.push(
                    "what ends waits, page faults, TCP connections and block devices are not looked at"
                        .to_owned(),
                );
            }
            Sources::CpuOnly => {
                given_up
                    .push("only what runs is looked at: no exact times, no waits, no run queues".to_owned());
            }
        }
        given_up
    }

    /// Takes note of a window in which the agent used this share of the host's CPUs. Returns the step that it makes, if any.
    pub fn observe(&mut self, used: f64) -> Option<Step> {
        self.since_up = self.since_up.map(|windows| windows + 1);
        if self.settling > 0 {
            self.settling -= 1;
            return None;
        }
        let is_over = used > self.budget;
        self.over = if is_over { self.over + 1 } else { 0 };
        self.under = if used < LOW_WATER * self.budget { self.under + 1 } else { 0 };
        if self.over >= OVER && self.level + 1 < LEVELS.len() {
            if self.since_up.take().is_some_and(|windows| windows <= self.wanted_under) {
                self.wanted_under = (2 * self.wanted_under).min(MOST_UNDER);
            }
            return Some(self.go(self.level + 1, Step::Down));
        }
        if self.under >= self.wanted_under && self.level > 0 {
            if self.since_up.is_some_and(|windows| windows > self.wanted_under) {
                // The last one held.
                self.wanted_under = UNDER;
            }
            self.since_up = Some(0);
            return Some(self.go(self.level - 1, Step::Up));
        }
        None
    }

    fn go(&mut self, level: usize, step: Step) -> Step {
        self.level = level;
        (self.over, self.under, self.settling) = (0, 0, SETTLING);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: f64 = 0.01;

    fn after(governor: &mut Governor, windows: u32, used: f64) -> Vec<Step> {
        (0..windows).filter_map(|_| governor.observe(used)).collect()
    }

    #[test]
    fn it_gives_up_step_by_step_while_it_is_over_budget() {
        let mut governor = Governor::new(BUDGET, 19);
        let mut seen = Vec::new();
        for _ in 0..LEVELS.len() {
            let Rates { frequency_hz, sources, .. } = governor.rates();
            seen.push((frequency_hz, sources, governor.given_up().len()));
            let steps = after(&mut governor, SETTLING + OVER, 2.0 * BUDGET);
            assert_eq!(
                steps.len(),
                usize::from(governor.level() < LEVELS.len() && seen.len() < LEVELS.len())
            );
        }
        let all = Sources::All;
        let truth = [(19, all, 0), (9, all, 1), (4, all, 1), (4, all, 2), (4, all, 2)];
        assert_eq!(seen[..5], truth);
        assert_eq!(seen[5..], [(4, Sources::WithoutWakers, 3), (4, Sources::CpuOnly, 2)]);
        assert_eq!(governor.level(), LEVELS.len() - 1);
    }

    #[test]
    fn single_windows_over_budget_are_nothing() {
        let mut governor = Governor::new(BUDGET, 19);
        for _ in 0..100 {
            assert_eq!(after(&mut governor, OVER - 1, 5.0 * BUDGET), []);
            assert_eq!(after(&mut governor, 1, 0.9 * BUDGET), []);
        }
    }

    #[test]
    fn it_takes_back_slowly_and_only_well_below_the_budget() {
        let mut governor = Governor::new(BUDGET, 19);
        after(&mut governor, SETTLING + OVER, 2.0 * BUDGET);
        assert_eq!(after(&mut governor, 1000, 0.8 * BUDGET), []);
        assert_eq!(after(&mut governor, UNDER - 1, 0.1 * BUDGET), []);
        assert_eq!(after(&mut governor, 1, 0.1 * BUDGET), [Step::Up]);
        assert_eq!((governor.level(), governor.given_up().len()), (0, 0));
    }

    #[test]
    fn a_step_up_that_does_not_hold_is_tried_again_after_twice_as_long() {
        let mut governor = Governor::new(BUDGET, 19);
        after(&mut governor, SETTLING + OVER, 2.0 * BUDGET);
        let mut waits = Vec::new();
        for _ in 0..5 {
            let mut windows = 0;
            while governor.observe(0.0).is_none() {
                windows += 1;
            }
            waits.push(windows + 1 - SETTLING);
            assert_eq!(after(&mut governor, SETTLING + OVER, 2.0 * BUDGET), [Step::Down]);
        }
        assert_eq!(waits, [30, 60, 120, 240, 360]);
    }

    #[test]
    fn a_low_frequency_stays_above_none() {
        let mut governor = Governor::new(BUDGET, 2);
        after(&mut governor, 100, 1.0);
        assert_eq!(governor.rates().frequency_hz, 1);
    }
}
