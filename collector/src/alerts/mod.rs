//! Tells others what limits the fleet: as series that Prometheus reads, by which its own rules decide.

pub mod series;
