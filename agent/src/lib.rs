//! The host agent of Chokepoint.

pub mod address;
pub mod symbolize;
