//! Unwinding user stacks by tables made of call-frame information.
//!
//! For each place in a program, the compiler's call-frame information (`.eh_frame`) says how to find the caller's
//! registers. The agent turns it into sorted rows ([`table`]) that the kernel programs search. A row belongs to an offset
//! in a **file**, not to an address in a process: the kernel programs find the file behind an address in the kernel's own
//! list of mappings, at the moment of the sample. So one table serves every process that maps the file, a process that
//! starts, maps, unmaps or ends needs nothing from the agent, and frames leave the kernel as (file, offset) ([`frame`]).
//!
//! [`walk`] is the unwinder itself, without a kernel: it asks a [`walk::Host`] for memory, mappings and rules. The kernel
//! programs are one host; its tests are another, with a stack and rules of their own.

pub mod aarch64;
pub mod file;
pub mod frame;
pub mod memo;
pub mod table;
pub mod walk;
pub mod x86_64;

#[cfg(test)]
mod tests;
