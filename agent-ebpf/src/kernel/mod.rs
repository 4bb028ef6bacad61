//! The programs' parts: [`on_cpu`] is a source; [`gate`], [`stack`], [`task`], [`counters`] and [`ring`] serve every
//! source; [`config`] holds what the agent sets before loading and [`arch`] what differs between processors.

pub mod arch;
pub mod config;
pub mod counters;
pub mod gate;
pub mod on_cpu;
pub mod ring;
pub mod stack;
pub mod task;
