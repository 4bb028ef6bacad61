//! Chokepoint's model of a profile, and everything that is computed from it.
//!
//! Nothing here does IO, needs a privilege or asks the time: values go in, values come out, so the agent and the
//! collector run the same code, and it is tested without either.

#![forbid(unsafe_code)]

pub mod activity;
pub mod baseline;
pub mod block;
pub mod collectors;
pub mod compare;
pub mod connections;
pub mod coverage;
pub mod durations;
pub mod export;
pub mod failed_calls;
pub mod fleet;
pub mod frames;
pub mod interpreters;
pub mod kernel_frames;
pub mod memory;
pub mod moments;
pub mod names;
pub mod part;
pub mod profile;
pub mod report;
pub mod run_queue;
pub mod signals;
pub mod thread_time;
pub mod top;
pub mod units;
pub mod verdict;
