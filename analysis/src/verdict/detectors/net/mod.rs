//! Constraints of the network and of services behind it.

pub(super) mod downstream;
pub(super) mod loss;
pub(super) mod retry_storm;

/// One segment in a hundred: below, TCP makes up for it within a round trip.
const LOST_PCT: f64 = 1.0;
