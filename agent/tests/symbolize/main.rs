//! Symbolizing real binaries, compiled here with the machine's compilers so that the truth is known.

mod binaries;
mod build;
mod debug_files;
mod hostile;
mod sources;
