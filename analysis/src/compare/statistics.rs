//! Whether the means of two series differ, where neighbours in a series depend on each other and the series differ in length.
//!
//! Windows that follow each other are no independent observations: what a window does, the next one mostly goes on with. A test that
//! takes them as independent finds differences where there are none. So the variance of a mean is the long-run variance, which is
//! estimated here by the equal-weighted cosine estimator with critical values of Student's t, as Lazarus, Lewis, Stock and Watson
//! recommend it ("HAR Inference: Recommendations for Practice", Journal of Business & Economic Statistics 36, 2018): the mean of the
//! squared projections on the slowest cosines, each of which is one degree of freedom. What those miss of the variance, as far as the
//! correlation of neighbours tells, is added: without, two series of thirty windows with a correlation of 0.9 would differ at 5 % in
//! one of eight pairs, with it in one of fifteen. Two means are compared by Welch's rule.
//!
//! Considered and rejected: a bootstrap or a permutation of blocks. Both need random numbers, cannot tell p-values below one in the
//! number of their rounds, which is too coarse for many comparisons, and their blocks must be several times as long as the memory of the
//! series, of which sixty windows then hold few. Medians: that they stay says nothing of the total, which is what is paid for.

use std::f64::consts::PI;

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Windows of a series from which on its variance is estimated: two cosines need several times as many values.
pub const LEAST_WINDOWS: usize = 8;
/// Fewer cosines have no t-distribution to speak of; the more there are, the sharper the test.
const LEAST_COSINES: usize = 2;
/// Of the cosines, so many for a number of windows to the power of two thirds, as the recommendation has it.
const COSINES: f64 = 0.4;
/// Fewer cosines are taken where the memory of the series would have them miss more than this part of the variance.
const MISSED: f64 = 0.1;
/// Memory is taken to be at most this: a series that has more drifts, and has no mean to speak of.
const MOST_MEMORY: f64 = 0.95;
/// The confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// What was counted, and by what it is divided, window by window: time and length, time and work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ratio {
    /// What was counted in each window, and what it is divided by.
    pub windows: Vec<(f64, f64)>,
}

/// The mean of a series, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean: all that was counted by all that it is divided by.
    pub mean: f64,
    /// Its squared standard error, and the degrees of freedom of that; `None` where there are too few windows.
    pub error: Option<(f64, f64)>,
}

/// A difference of two means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The second less the first.
    pub change: f64,
    /// What holds the true one with a confidence of 95 %.
    pub interval: (f64, f64),
    /// How likely so great a difference is where there is none.
    pub p: f64,
}

impl Ratio {
    /// The mean; `None` where it is divided by nothing.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let count = self.windows.len() as f64;
        let counted: f64 = self.windows.iter().map(|(counted, _)| counted).sum();
        let by: f64 = self.windows.iter().map(|(_, by)| by).sum();
        if by <= 0.0 {
            return None;
        }
        let mean = counted / by;
        let mean_by = by / count;
        // What each window has too much: the ratio's first-order deviations, which add up to nothing.
        let deviations: Vec<f64> =
            self.windows.iter().map(|(counted, by)| (counted - mean * by) / mean_by).collect();
        Some(Estimate { mean, error: error(&deviations) })
    }
}

/// The squared standard error of the mean of deviations, and its degrees of freedom.
fn error(deviations: &[f64]) -> Option<(f64, f64)> {
    let count = deviations.len();
    if count < LEAST_WINDOWS {
        return None;
    }
    let (cosines, seen) = cosines(count, memory(deviations));
    let projection = |frequency: usize| {
        let at = |position: usize| (PI * frequency as f64 * (position as f64 + 0.5) / count as f64).cos();
        let sum: f64 = deviations.iter().enumerate().map(|(position, value)| value * at(position)).sum();
        (2.0 / count as f64).sqrt() * sum
    };
    let variance = (1..=cosines).map(|frequency| projection(frequency).powi(2)).sum::<f64>() / cosines as f64;
    Some((variance / seen / count as f64, cosines as f64))
}

/// How much of a deviation the next one still has: the correlation of neighbours, without the bias that a short series gives it.
fn memory(deviations: &[f64]) -> f64 {
    let squares: f64 = deviations.iter().map(|value| value * value).sum();
    if squares <= 0.0 {
        return 0.0;
    }
    let neighbours: f64 = deviations.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let found = neighbours / squares;
    // Kendall's correction of the first order.
    let corrected = found + (1.0 + 3.0 * found) / deviations.len() as f64;
    corrected.clamp(0.0, MOST_MEMORY)
}

/// How many cosines are taken, and which part of the variance they see. At the frequency of a cosine, an autoregressive series of
/// this memory has less of its variance than at none; so there are as many as the recommendation has, or as few as the memory asks for.
fn cosines(count: usize, memory: f64) -> (usize, f64) {
    let most = (COSINES * (count as f64).powf(2.0 / 3.0)).round() as usize;
    let at = |frequency: usize| {
        let angle = PI * frequency as f64 / count as f64;
        (1.0 - memory).powi(2) / (1.0 - 2.0 * memory * angle.cos() + memory * memory)
    };
    let seen = |cosines: usize| (1..=cosines).map(at).sum::<f64>() / cosines as f64;
    let enough = (LEAST_COSINES..=most).take_while(|cosines| seen(*cosines) >= 1.0 - MISSED).last();
    let cosines = enough.unwrap_or(LEAST_COSINES);
    (cosines, seen(cosines))
}

/// Compares two means; `None` where one of them has no error.
#[must_use]
pub fn difference(before: &Estimate, after: &Estimate) -> Option<Difference> {
    let ((one, one_freedom), (other, other_freedom)) = (before.error?, after.error?);
    let change = after.mean - before.mean;
    let variance = one + other;
    if variance <= 0.0 {
        // Neither ever changes.
        let p = if change == 0.0 { 1.0 } else { 0.0 };
        return Some(Difference { change, interval: (change, change), p });
    }
    // Welch and Satterthwaite.
    let freedom = variance.powi(2) / (one.powi(2) / one_freedom + other.powi(2) / other_freedom);
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let error = variance.sqrt();
    let reach = error * student.inverse_cdf(f64::midpoint(1.0, CONFIDENCE));
    Some(Difference {
        change,
        interval: (change - reach, change + reach),
        p: 2.0 * student.cdf(-(change / error).abs()),
    })
}

/// The p-values of several comparisons as if there were one (Holm's rule, which asks nothing of how they depend on each other): where
/// nothing differs, the chance that any of them is below a level is that level.
#[must_use]
pub fn corrected(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|one, other| p_values[*one].total_cmp(&p_values[*other]));
    let mut corrected = vec![1.0; p_values.len()];
    let mut least = 0.0_f64;
    for (rank, position) in order.into_iter().enumerate() {
        least = least.max(p_values[position] * (p_values.len() - rank) as f64);
        corrected[position] = least.min(1.0);
    }
    corrected
}

/// How often a window of the second series is above one of the first, half of those that are the same included: 0.5 where they are
/// alike, 1 where all are.
#[must_use]
pub fn superiority(before: &[f64], after: &[f64]) -> Option<f64> {
    if before.is_empty() || after.is_empty() {
        return None;
    }
    let mut before = before.to_vec();
    before.sort_by(f64::total_cmp);
    let above: f64 = after
        .iter()
        .map(|value| {
            let below = before.partition_point(|other| other < value);
            let same = before.partition_point(|other| other <= value) - below;
            below as f64 + same as f64 / 2.0
        })
        .sum();
    Some(above / (before.len() * after.len()) as f64)
}

#[cfg(test)]
mod tests;
