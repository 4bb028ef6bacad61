//! What limits a fleet: services, groups of pods or whatever else its hosts' processes have in common.
//!
//! A collector keeps the time of threads by class and stack, for whose they are, host by host. [`Target`] makes a profile of what a service
//! did on one host, so that [`crate::verdict`] reads it as it reads a recording: a service's verdict is that of its hosts, drawn by the same
//! code. [`scope::judge`] puts these together (on how many hosts, which hosts differ from the others), [`Callees`] follows waits for other
//! services to what limits those, [`differs`] finds hosts that stand out by a number, and [`usual`] says whether a number is what it
//! usually is at this hour.
//!
//! What ended a wait is not kept by a collector. So a lock is told by the functions that wait for it, and a service that is waited for by
//! its address ([`crate::verdict::peers`]); where the agent's own verdict, which knew, is of the same processes, it counts for the service.

pub mod callees;
pub mod differs;
pub mod scope;
mod target;
pub mod usual;

pub use callees::{Address, Callees, Served};
pub use target::{Beside, Target, Waited, Whose};
