//! What the machine's CPUs did meanwhile, as the kernel counts it: time that other work or the hypervisor had is not to be mistaken
//! for anything else.

use std::fs;
use std::time::Instant;

/// A moment from which on it is measured.
#[derive(Clone, Copy, Debug)]
pub struct HostTime {
    start: Instant,
    begin: Ticks,
}

#[derive(Clone, Copy, Debug)]
struct Ticks {
    idle: u64,
    stolen: u64,
}

/// `USER_HZ`: what the kernel counts in for user space.
const TICK_NS: u64 = 10_000_000;

impl HostTime {
    /// Begins to measure.
    #[must_use]
    pub fn begin() -> Self {
        Self { start: Instant::now(), begin: Ticks::now() }
    }

    /// Time that the hypervisor and interrupts took from threads on all CPUs together until now, nanoseconds: at most this much,
    /// since the kernel counts whole ticks for each CPU.
    #[must_use]
    pub fn stolen_at_most_ns(self) -> u64 {
        (Ticks::now().stolen - self.begin.stolen + cpus()) * TICK_NS
    }

    /// Time until now, nanoseconds.
    #[must_use]
    pub fn elapsed_ns(self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Whether the hypervisor and interrupts took a tenth of the CPUs' time until now, or more.
    #[must_use]
    pub fn is_disturbed(self) -> bool {
        self.stolen_at_most_ns() as f64 > 0.1 * self.elapsed_ns() as f64 * cpus() as f64
    }

    /// Time in which no CPU was idle, so that who wanted one may have had to wait: at most this much, nanoseconds.
    #[must_use]
    pub fn contended_at_most_ns(self) -> u64 {
        let idle_ns = (Ticks::now().idle - self.begin.idle).saturating_sub(cpus()) * TICK_NS;
        self.elapsed_ns().saturating_sub(idle_ns / cpus())
    }

    /// Share of the CPUs' time until now that neither was idle nor so many nanoseconds of one's own: 0 to 1.
    #[must_use]
    pub fn share_of_others(self, own_ns: u64) -> f64 {
        let all_ns = self.elapsed_ns() as f64 * cpus() as f64;
        let idle_ns = ((Ticks::now().idle - self.begin.idle) * TICK_NS) as f64;
        ((all_ns - idle_ns - own_ns as f64) / all_ns).clamp(0.0, 1.0)
    }
}

impl Ticks {
    /// From the line for all CPUs.
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").expect("/proc/stat can be read");
        let line = text.lines().next().unwrap_or_default();
        let numbers: Vec<u64> =
            line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        let [_, _, _, idle, waiting, hard, soft, stolen, ..] = numbers[..] else { panic!("{line}") };
        Self { idle: idle + waiting, stolen: hard + soft + stolen }
    }
}

fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64
}
