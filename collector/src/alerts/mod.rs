//! Tells others what limits the fleet: as series that Prometheus reads ([`series`]), by which its own rules decide, and as calls of a webhook
//! ([`webhook`], [`watch`]) when a constraint of a host or a service crosses its level; and has a profile made then ([`profiles`], [`trigger`]).

mod case;
mod config;
mod profiles;
pub mod series;
pub mod trigger;
pub mod watch;
mod webhook;

pub use config::{BadConfig, Config, Profiling};
pub use webhook::tell;
