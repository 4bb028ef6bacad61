//! Collects what agents see on a fleet: takes their streams in, stores what they tell, and answers queries.
//!
//! Data flows one way: `ingest` checks what agents say and gives it to the [`store`], `query` asks the store, and `api` and the
//! command line show the answers. Two things go the other way: [`control`] has an agent make a profile now, and [`symbols`] asks for the names of code that
//! agents send as addresses. Nothing here knows of an agent's inside; both depend on `chokepoint-proto`, `chokepoint-analysis` and
//! `chokepoint-symbols` only.

#![forbid(unsafe_code)]

pub mod access;
pub mod alerts;
pub mod api;
mod backoff;
pub mod cli;
mod clock;
mod compression;
pub mod control;
#[cfg(test)]
mod golden;
pub mod ingest;
pub mod labels;
pub mod listen;
pub mod page;
pub mod pipeline;
pub mod profile_command;
pub mod protocols;
pub mod query;
pub mod query_command;
pub mod store;
#[cfg(test)]
mod store_in_memory;
pub mod symbols;
