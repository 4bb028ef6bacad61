//! As shares.c, in Rust, behind a trait object and with an inlined function between.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    fn signal(signal: i32, handler: extern "C" fn(i32)) -> usize;
}

extern "C" fn on_term(_: i32) {
    STOP.store(true, Ordering::Relaxed);
}

trait Spin {
    fn spin_seventy(&self, unit: u64) -> u64;
    fn spin_twenty(&self, unit: u64) -> u64;
    fn spin_ten(&self, unit: u64) -> u64;
}

struct Engine;

impl Spin for Engine {
    #[inline(never)]
    fn spin_seventy(&self, unit: u64) -> u64 {
        churn(70 * unit)
    }
    #[inline(never)]
    fn spin_twenty(&self, unit: u64) -> u64 {
        churn(20 * unit)
    }
    #[inline(never)]
    fn spin_ten(&self, unit: u64) -> u64 {
        churn(10 * unit)
    }
}

#[inline(always)]
fn churn(rounds: u64) -> u64 {
    let mut state = black_box(1u64);
    let mut round = 0;
    while round < rounds {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ round;
        round += 1;
    }
    black_box(state)
}

fn main() {
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(15, on_term) };
    let engine: Box<dyn Spin> = black_box(Box::new(Engine));
    let mut units = 0;
    let mut seed = 1u64;
    while !STOP.load(Ordering::Relaxed) {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let unit = 2000 + (seed >> 40) % 4000;
        black_box(engine.spin_seventy(unit));
        black_box(engine.spin_twenty(unit));
        black_box(engine.spin_ten(unit));
        units += unit;
    }
    println!("spin_seventy {}\nspin_twenty {}\nspin_ten {}", 70 * units, 20 * units, 10 * units);
}
