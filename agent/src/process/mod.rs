//! Processes: what is mapped where, found when a process is first sampled.
//!
//! [`maps`] reads `/proc/PID/maps`; [`table`] keeps one entry for each program a process has run; [`binaries`] keeps each
//! mapped file open, so that it can be read after the process has ended or the path has changed.

pub mod binaries;
pub mod maps;
pub mod table;
