//! How long to wait before trying again.

use std::time::Duration;

/// Tries that failed one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// So long after the first try; each further pause is twice as long, up to the longest.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next pause. `chance` from 0 to 1 takes up to a quarter from it, or adds as much: so that not all come at the same time.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        let pause = self.next.mul_f64(0.75 + 0.5 * chance);
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..5).map(|_| backoff.next(0.5).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.next(0.0), Duration::from_millis(3750));
    }
}
