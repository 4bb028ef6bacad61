//! What the continuous agent sends to a collector: a window becomes a message, waits on disk, and goes out.
//!
//! [`encode`] makes a message of a profile and what was said of it, with the labels that [`owners`] knows; [`spool`] keeps it until the
//! collector has it; [`connection`] sends. Where the collector names the functions of binaries, [`symbols`] gives it what it needs for that.

pub mod connection;
pub mod encode;
pub mod owners;
pub mod spool;
pub mod symbols;
