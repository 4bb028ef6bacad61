//! Tables for the kernel's unwinder, made of what compilers leave in binaries.
//!
//! [`Unwinding`] keeps the kernel's tables: `workers` build what samples miss most, `loaded` decides where it goes (in `space`)
//! and what is given up for it, `cache` keeps tables between runs. [`build`] takes an open file and gives a [`Table`]. Behind
//! it:
//!
//! - `eh_frame` reads call-frame information; `cfi` is the meaning of its instructions, `x86_64` and `aarch64` what of it a
//!   rule can say;
//! - `go` reads the tables of Go binaries, which have no call-frame information, and the names of their functions;
//! - `prologue` guesses the rules of the few short functions that nothing describes;
//! - `runs` collects functions and lays them out as a table, `table` is the result;
//! - `source` decides which of it a file has;
//! - [`cache`] keeps tables on disk.
//!
//! Files are hostile: a table is bounded in size, and so is the time to build it. What a file says wrong costs at most its own
//! stacks.

mod aarch64;
mod bytes;
pub mod cache;
mod cfi;
mod eh_frame;
mod go;
mod loaded;
mod prologue;
mod runs;
mod source;
mod space;
mod table;
mod workers;
mod x86_64;

#[cfg(test)]
mod tests;

pub use cache::{CacheError, TableCache};
pub use go::GoFunctions;
pub use source::{BuildError, build, build_from_bytes, build_vdso};
pub use table::{MAX_CODE_OFFSET, MAX_ROWS, PageRows, Table, TooLarge};
pub use workers::{CacheDirectory, Options, Statistics, Unwinding};
