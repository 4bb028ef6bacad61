//! The host agent: loads the kernel programs, drains their records, and turns them into profiles.
//!
//! The stages, in the order data flows: [`load`], [`drain`], [`process`], [`aggregate`], [`symbolize`], and then the
//! `chokepoint-analysis` crate; [`unwind`] goes the other way, from files to the tables that the kernel programs unwind by.
//! [`pipeline`] wires them.

pub use chokepoint_symbols::address;
pub mod aggregate;
pub mod amounts;
pub mod baseline;
pub mod block_devices;
pub mod block_watch;
pub mod block_windows;
pub mod cli;
pub mod connections;
pub mod containers;
pub mod continuous;
pub mod coverage;
pub mod demand;
pub mod destination;
pub mod disk_latencies;
pub mod doctor;
pub mod drain;
pub mod failed_calls;
pub mod failure;
pub mod held_bios;
pub mod host;
pub mod load;
pub mod memory;
pub mod memory_budget;
pub mod open_waits;
pub mod pipeline;
pub mod process;
pub mod queue_windows;
pub mod record;
pub mod run_queues;
pub mod signals;
pub mod sockets;
pub mod stream;
pub mod symbolize;
pub mod symbolized;
pub mod target;
pub mod thread_marks;
pub mod thread_times;
pub mod time_profiles;
pub mod top;
pub mod unwind;
pub mod wait_budget;
pub mod window;
