//! The programs' parts. Sources: [`on_cpu`]; [`sched`], with [`waits`], [`polled`], [`run_queue`] and [`threads`]; [`tcp`]; [`memory`]; [`block`]; [`failed_calls`]. What serves every source:
//! [`gate`]; [`sample`] and [`stack`], with [`unwind`], [`vma`] and [`path`]; [`task`] and [`trusted`], which read the kernel's
//! structures; [`counters`], [`ring`], [`clock`] and [`atomic`]. [`config`] holds what the agent sets before loading, [`arch`] what differs
//! between processors.

pub mod arch;
pub mod atomic;
pub mod block;
pub mod clock;
pub mod config;
pub mod counters;
pub mod failed_calls;
pub mod gate;
pub mod memory;
pub mod on_cpu;
pub mod path;
pub mod polled;
pub mod quota;
pub mod ring;
pub mod run_queue;
pub mod sample;
pub mod sched;
pub mod stack;
pub mod task;
pub mod tcp;
pub mod threads;
pub mod trusted;
pub mod unwind;
pub mod vma;
pub mod waits;
