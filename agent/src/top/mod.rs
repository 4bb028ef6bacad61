//! `chokepoint top`: where the time of threads goes, window after window, on a terminal.
//!
//! [`reader`] is a thread that turns each window of a session into a [`snapshot`] and names the stacks that are looked at;
//! [`rows`] sums a snapshot by process, cgroup or thread and sorts it by one of the [`columns`], [`latencies`] sums up run queues and
//! block devices, [`groups`] names cgroups; [`app`] is what is on the
//! screen and what keys do to it, without a terminal; [`screen`] draws it with its [`overlays`] and [`plain`] writes it as text. [`terminal`] is the
//! real one, and [`run`] is the loop.

pub mod app;
pub mod columns;
pub mod fitted;
pub mod groups;
pub mod host_use;
pub mod latencies;
pub mod latency_lines;
pub mod overlays;
pub mod plain;
pub mod reader;
pub mod rows;
pub mod run;
pub mod screen;
pub mod snapshot;
pub mod terminal;
