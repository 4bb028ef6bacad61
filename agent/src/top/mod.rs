//! `chokepoint top`: where the time of threads goes, window after window, on a terminal.
//!
//! [`reader`] is a thread that turns each window of a session into a [`snapshot`] and names the stacks that are looked at;
//! [`rows`] sums a snapshot by process, cgroup or thread and sorts it by one of the [`columns`]; [`app`] is what is on the
//! screen and what keys do to it, without a terminal; [`screen`] draws it and [`plain`] writes it as text. [`terminal`] is the
//! real one, and [`run`] is the loop.

pub mod app;
pub mod columns;
pub mod host_use;
pub mod plain;
pub mod reader;
pub mod rows;
pub mod run;
pub mod screen;
pub mod snapshot;
pub mod terminal;
