//! The continuous mode: windows of a host follow each other for as long as it runs, and go to a collector.
//!
//! [`config`] is what it is told, [`governor`] keeps it within its budget, [`calendar`] says when windows end; [`run`] is the loop. Three
//! threads stand beside it: one names windows and diagnoses them (`reader`), one talks to others (`service`), one reads the host's resources
//! ([`crate::signals::watch`]). What the agent tells of itself are [`counts`], which [`pages`] serve.

pub mod calendar;
pub mod config;
pub mod counts;
pub mod governor;
pub mod pages;
mod reader;
mod run;
mod service;

pub use run::run;
