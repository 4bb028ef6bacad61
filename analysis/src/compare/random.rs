//! Series for tests, of which it is known what they are.

use std::f64::consts::PI;

/// Random numbers that are the same in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// In [0, 1), by SplitMix64.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of the standard normal distribution, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (2.0 * PI * angle).cos()
    }

    /// An autoregressive series with this mean and standard deviation: `memory` is the correlation of neighbours.
    pub(super) fn series(&mut self, windows: usize, memory: f64, mean: f64, deviation: f64) -> Vec<f64> {
        let mut value = self.normal();
        (0..windows)
            .map(|_| {
                value = memory * value + (1.0 - memory * memory).sqrt() * self.normal();
                mean + deviation * value
            })
            .collect()
    }
}
