// options: -O -Cpanic=abort -Cforce-frame-pointers=no -Csymbol-mangling-version=v0
//! A chain of calls as release builds of Rust have them, without frame pointers and without unwinding; until killed.
//! usage: unwind main|thread

use std::hint::black_box;

#[inline(never)]
fn spin(rounds: u64) -> u64 {
    let mut state = black_box(1u64);
    for _ in 0..black_box(rounds) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    }
    black_box(state)
}

trait Step {
    fn step(&self, depth: u64) -> u64;
}

struct Last(u64);

impl Step for Last {
    #[inline(never)]
    fn step(&self, depth: u64) -> u64 {
        black_box(spin(100_000)) + self.0 + depth
    }
}

#[inline(never)]
fn recurses(step: &dyn Step, depth: u64) -> u64 {
    if black_box(depth) == 0 {
        return black_box(step.step(depth)) + 1;
    }
    let local = black_box([depth; 7]);
    black_box(recurses(step, depth - 1)) + local[3]
}

#[inline(never)]
fn has_big_frame(step: &dyn Step) -> u64 {
    let mut local = [0u8; 70_000];
    black_box(&mut local);
    black_box(recurses(step, 20)) + u64::from(local[69_999])
}

#[inline(never)]
fn runs() {
    let step: Box<dyn Step> = black_box(Box::new(Last(3)));
    loop {
        black_box(has_big_frame(&*step));
    }
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("thread") {
        let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(runs);
        thread.unwrap().join().unwrap();
    } else {
        runs();
    }
}
