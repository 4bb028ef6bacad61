//! The demo's workload: an order service in miniature, whose three functions burn 70, 20 and 10 % of its
//! CPU time.

use std::{hint::black_box, io, thread};

use anyhow::{Context, Result};

/// Rounds of work in one per cent of a turn: a turn takes a few milliseconds, so that even a short window
/// sees many.
const ROUNDS_PER_PCT: u64 = 10_000;

/// A chain in which each round waits for the last, so that time is proportional to `rounds` alone.
///
/// A macro, and operators only: an inlined function would have a frame of its own in the flame graph, and
/// take the time from its caller.
macro_rules! churn {
    ($seed:expr, $rounds:expr) => {{
        let mut state: u64 = black_box($seed) | 1;
        let mut round = 0;
        while round < $rounds {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            round += 1;
        }
        black_box(state)
    }};
}

/// Burns CPU time until standard input closes. Whoever started the workload holds the other end, so it ends
/// with its starter, in whatever way that ended.
pub fn run() -> Result<()> {
    thread::Builder::new().name("order-service".to_owned()).spawn(serve).context("cannot start a thread")?;
    io::copy(&mut io::stdin(), &mut io::sink()).context("cannot wait for standard input to close")?;
    Ok(())
}

fn serve() {
    let mut orders = 1;
    loop {
        orders = handle(orders);
    }
}

#[inline(never)]
fn handle(orders: u64) -> u64 {
    write_receipts(price_orders(match_orders(orders)))
}

#[inline(never)]
fn match_orders(seed: u64) -> u64 {
    churn!(seed, 70 * ROUNDS_PER_PCT)
}

#[inline(never)]
fn price_orders(seed: u64) -> u64 {
    churn!(seed, 20 * ROUNDS_PER_PCT)
}

#[inline(never)]
fn write_receipts(seed: u64) -> u64 {
    churn!(seed, 10 * ROUNDS_PER_PCT)
}
