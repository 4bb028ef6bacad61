//! The contract between the kernel programs and the agent: every record, map key and limit that crosses the
//! border, in one set of `no_std`, `repr(C)` types that both sides compile.
//!
//! Each record in the ring buffer starts with a [`record::Kind`]. The programs themselves are in
//! `main.rs` and the modules below `kernel/`, and are compiled for the BPF target only.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod block;
pub mod counters;
pub mod failed_calls;
pub mod gate;
pub mod memory;
pub mod record;
pub mod run_queue;
pub mod sample;
pub mod sched;
pub mod tcp;
pub mod unwind;

/// Length of a kernel task name, with its terminating zero (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
