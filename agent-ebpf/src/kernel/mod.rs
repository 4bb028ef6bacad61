//! The programs' parts: [`on_cpu`] and [`sched`] (with [`waits`] and [`threads`]) and [`tcp`] are sources; [`gate`], [`sample`], [`stack`] (with [`unwind`], [`vma`] and [`path`]), [`task`], [`trusted`],
//! [`counters`] and [`ring`] serve every source; [`config`] holds what the agent sets before loading and [`arch`] what differs between processors.

pub mod arch;
pub mod config;
pub mod counters;
pub mod gate;
pub mod on_cpu;
pub mod path;
pub mod ring;
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
