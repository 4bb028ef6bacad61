//! What belongs to processes, found when it is first sampled.
//!
//! [`binaries`] keeps each mapped file open, so that it can be read after the process has ended or the path has changed;
//! [`maps`] reads `/proc/PID/maps`, where the kernel will not show a mapped file directly; [`table`] keeps the processes that
//! run code of no file, [`objects`] names what threads wait for.

pub mod binaries;
pub mod maps;
pub mod objects;
pub mod table;
