//! The field's protocols, spoken by the programs whose protocols they are: real clients, built from Go modules, and the real collector. What
//! they are told or send is what the collector's own queries tell.

#[path = "../common/mod.rs"]
mod common;
mod otlp;
mod peers;
mod prometheus;
mod pyroscope;
mod querier;
mod sent_on;
mod webhook;
