//! What the kernel programs count, and what they cost.

use std::time::Duration;

use aya::maps::PerCpuArray;
use aya::sys::Stats;
use chokepoint_ebpf::counters::Counter;

use super::{LoadError, Programs};

/// The kernel programs' counters at one moment, summed over the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters([u64; Counter::COUNT as usize]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::COUNT as usize])
    }
}

impl Counters {
    /// One of them.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = *self;
        counts.0.iter_mut().zip(earlier.0).for_each(|(now, before)| *now = now.saturating_sub(before));
        counts
    }
}

/// What the kernel programs have cost since they were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// Time they ran.
    pub run_time: Duration,
    /// How often they ran.
    pub run_count: u64,
}

impl ProgramCost {
    /// What came since an earlier moment.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            run_time: self.run_time.saturating_sub(earlier.run_time),
            run_count: self.run_count.saturating_sub(earlier.run_count),
        }
    }
}

impl Programs {
    /// Reads every counter, summed over the CPUs; in the order of [`Counter::ALL`].
    ///
    /// # Errors
    /// [`LoadError::Map`] where the kernel refuses.
    pub fn counters(&self) -> Result<Counters, LoadError> {
        const NAME: &str = "COUNTERS";
        let unusable = |source| LoadError::Map { name: NAME, source };
        let map = self.ebpf.map(NAME).ok_or(LoadError::Missing(NAME))?;
        let array: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(unusable)?;
        let mut counters = Counters::default();
        for counter in Counter::ALL {
            let values = array.get(&(counter as u32), 0).map_err(unusable)?;
            counters.0[counter as usize] = values.iter().sum();
        }
        Ok(counters)
    }

    /// What the programs have cost so far, while that was measured.
    #[must_use]
    pub fn cost(&self) -> ProgramCost {
        self.ebpf
            .programs()
            .filter_map(|(_, program)| program.info().ok())
            .map(|info| ProgramCost { run_time: info.run_time(), run_count: info.run_count() })
            .fold(ProgramCost::default(), |sum, cost| ProgramCost {
                run_time: sum.run_time + cost.run_time,
                run_count: sum.run_count + cost.run_count,
            })
    }

    /// Says at the log target `chokepoint::cost` what each program that ran has cost so far. Benchmarks read it.
    pub(super) fn log_costs(&self) {
        for (name, program) in self.ebpf.programs() {
            let Ok(info) = program.info() else { continue };
            if info.run_count() > 0 {
                let run_ns = info.run_time().as_nanos() as u64;
                tracing::debug!(target: "chokepoint::cost", runs = info.run_count(), run_ns, "{name}");
            }
        }
    }

    /// Whether the kernel measures the programs' run time where it is asked to, as it is from loading on; it wants `CAP_SYS_ADMIN`.
    #[must_use]
    pub fn cost_is_measured(&self) -> bool {
        self.may_measure_cost
    }

    /// Has the kernel measure the programs' run time from now on, or not any more: that costs each run of each of the host's programs two
    /// looks at the clock. Whether it measures now.
    pub fn measure_cost(&mut self, on: bool) -> bool {
        if !on || !self.may_measure_cost {
            self.statistics = None;
        } else if self.statistics.is_none() {
            self.statistics = aya::sys::enable_stats(Stats::RunTime).ok();
        }
        self.statistics.is_some()
    }
}
