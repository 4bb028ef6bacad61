//! From addresses to functions, files and lines.
//!
//! [`Symbolizer`] is the only door. It takes open files, never paths to look up: what a process executes is the
//! file it mapped, whatever has that name by now. blazesym reads the symbol tables and the DWARF; around it stand:
//!
//! - `chokepoint_symbols::elf`, our own bounded look at a file before blazesym maps it, and the build id, and `name`, demangling and cleaning
//!   of whatever a file claims to be a name, both shared with the collector;
//! - `debug_file`, the search for separate debug files, also in a container's root;
//! - `image`, which decompresses sections into a sealed file of bounded size;
//! - `guard`, where a panic or a vanishing file page becomes an error;
//! - `scan`, which asks a file for nothing but functions, without blazesym, and `known`, what it was told before;
//! - `places`, where code is, for who names it elsewhere, and `build`, the symbols that are sent there;
//! - `cache`, which files stay open, and what they may cost;
//! - `symbols`, the question and the answer;
//! - `kernel`, `perf_map`, `jitdump` and `vdso`, the sources that are not ELF files on disk;
//! - `spin_wait`, what the instructions at an address tell.

mod build;
mod cache;
mod debug_file;
mod guard;
pub(crate) mod image;
mod jitdump;
mod kernel;
mod known;
mod perf_map;
mod places;
mod scan;
pub(crate) mod spin_wait;
mod symbolizer;
mod symbols;
pub(crate) mod vdso;

pub use build::Build;
pub use chokepoint_symbols::elf::BuildId;
pub(crate) use chokepoint_symbols::{elf, name};
pub use places::{Meet, Met};
pub use symbolizer::Symbolizer;
pub use symbols::{
    BinarySymbols, Counters, JitSymbols, Note, Options, SourceLine, SymbolizeError, Symbolized,
};

/// A file with this content.
#[cfg(test)]
fn file_of(content: &[u8]) -> std::fs::File {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}
