//! The whole agent beside perf, which copies stacks and unwinds them afterwards.

use std::time::Duration;

use anyhow::Result;

use super::super::{
    sides::{Profiling, Sides},
    stats::Readings,
    workload::Load,
};

/// Rate of both sides.
const FREQUENCY_HZ: u32 = 99;

/// CPU time, milliseconds.
#[derive(Default)]
pub struct Peer {
    /// The agent with its kernel programs,
    pub chokepoint: Readings,
    /// and both parts of it.
    pub process: Readings,
    pub programs: Readings,
    /// `perf record`,
    pub perf: Readings,
    /// and what makes its recording readable.
    pub script: Readings,
}

/// Lets the sides take turns on the busy host.
pub fn measure(sides: &Sides, turns: usize, turn: Duration) -> Result<Peer> {
    let load = Load::start()?;
    let profiling = Profiling { duration: turn, frequency_hz: FREQUENCY_HZ };
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut peer = Peer::default();
    for _ in 0..turns {
        let chokepoint = sides.chokepoint(profiling)?;
        peer.process.push(ms(chokepoint.usage.cpu()));
        peer.programs.push(ms(chokepoint.programs));
        peer.chokepoint.push(ms(chokepoint.usage.cpu() + chokepoint.programs));
        let perf = sides.perf_unwinding(profiling)?;
        peer.perf.push(ms(perf.usage.cpu()));
        peer.script.push(ms(perf.script.cpu()));
    }
    drop(load);
    Ok(peer)
}
