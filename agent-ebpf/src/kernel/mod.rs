//! The programs' parts: [`on_cpu`] is a source; [`gate`], [`stack`] (with [`unwind`], [`vma`] and [`path`]), [`task`], [`counters`] and
//! [`ring`] serve every source; [`config`] holds what the agent sets before loading and [`arch`] what differs between processors.

pub mod arch;
pub mod config;
pub mod counters;
pub mod gate;
pub mod on_cpu;
pub mod path;
pub mod ring;
pub mod stack;
pub mod task;
pub mod unwind;
pub mod vma;
