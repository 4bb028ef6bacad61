//! Tells others what limits the fleet: as series that Prometheus reads ([`series`]), by which its own rules decide, and as calls of a webhook
//! ([`webhook`], [`watch`]) when a constraint crosses its level.

mod config;
pub mod series;
pub mod watch;
mod webhook;

pub use config::{BadConfig, Config};
pub use webhook::tell;
