//! Wires the stages of a session, with every capacity in sight. A recording is a session of one window.
//!
//! kernel programs -> ring buffer -> [`Drain`](crate::drain::Drain) -> [`Aggregate`](crate::aggregate::Aggregate) (with files and
//! processes) -> [`Symbolizing`] -> [`Profile`](chokepoint_analysis::profile::Profile), and from the drain's sight of files without
//! tables back to the kernel programs by [`Unwinding`](crate::unwind::Unwinding).
//!
//! One thread drains and sums, two build unwind tables, another one symbolizes. While samples come in the last only reads the
//! kernel's symbols, so that recording costs no more than sampling and its tables.
//!
//! A [`Session`] is loaded and started; it is [`Sampling`] then, into sums (`sums`), with looks at all threads (`looks`), window
//! after window, or until it ends as a [`Recording`].

mod looks;
mod program_cost;
mod recording;
mod sampling;
mod session;
mod sums;
mod symbolizing;

use std::ops::RangeInclusive;
use std::time::Duration;

pub use recording::{End, Facts, Recording, Stop};
pub use sampling::Sampling;
pub use session::{Session, highest_frequency_hz};
pub use symbolizing::Symbolizing;

use crate::aggregate::Limits;
use crate::record::Options;

/// The ring buffer holds at least this much time at full rate, so that reading the mappings of a host full of new processes
/// does not lose samples.
const RING_TIME: Duration = Duration::from_secs(1);
/// Bytes of a typical sample: 50 frames and the header.
const TYPICAL_SAMPLE_BYTES: u64 = 512;
/// Limits of the ring buffer's size. The upper one is counted twice in the agent's resident memory where it is all used.
const RING_BYTES: RangeInclusive<u64> = 256 << 10..=8 << 20;
/// The same for windows without end, which take few stacks: half a minute of those of a small host, and five seconds of a thousand processes
/// that end each second. Hosts with more than a few CPUs have [`RING_BYTES_PER_CPU`] for each.
const SPARING_RING_BYTES: u64 = 4 << 20;
const RING_BYTES_PER_CPU: u64 = 1 << 20;

/// How long processes that run code of no file, and what threads wait for, are remembered from window to window: those that
/// are gone leave nothing behind then.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Limits of the sums of one of many windows: 15 MB. Three are there at a time: one is summed, one is read and one is shown.
const WINDOW_LIMITS: Limits =
    Limits { frames: 500_000, sums: 100_000, threads: 32_768, timeline: 0, wakes: 65_536 };

/// Room for threads on a small host.
const MIN_THREADS: u32 = 8_192;

/// Target processes whose unwind tables are built before the first sample. Of more, files are built as they are sampled.
const PREPARED_PROCESSES: usize = 16;

fn ring_bytes(cpus: usize, options: &Options) -> u32 {
    if options.takes_sched() || options.takes_tcp() || options.takes_memory() {
        // Waits, losses and faults come in bursts.
        let most = *RING_BYTES.end();
        if !options.sparing {
            return most as u32;
        }
        let for_cpus = (cpus as u64).saturating_mul(RING_BYTES_PER_CPU).clamp(SPARING_RING_BYTES, most);
        return for_cpus.next_power_of_two() as u32;
    }
    let bytes = cpus as u64 * u64::from(options.frequency_hz) * TYPICAL_SAMPLE_BYTES * RING_TIME.as_secs();
    bytes.clamp(*RING_BYTES.start(), *RING_BYTES.end()).next_power_of_two() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::event::Event;

    #[test]
    fn the_ring_buffer_is_a_power_of_two_within_its_limits() {
        let at = |frequency_hz| Options { frequency_hz, ..Options::default() };
        assert_eq!(ring_bytes(1, &at(1)), 256 << 10);
        assert_eq!(ring_bytes(2, &at(999)), 1 << 20);
        assert_eq!(ring_bytes(512, &at(10_000)), 8 << 20);
        let wall = Options { events: vec![Event::Wall], ..Options::default() };
        assert_eq!(ring_bytes(1, &wall), 8 << 20);
        let sparing = Options { sparing: true, ..wall };
        assert_eq!([1, 2, 4, 5, 512].map(|cpus| ring_bytes(cpus, &sparing) >> 20), [4, 4, 4, 8, 8]);
    }
}
