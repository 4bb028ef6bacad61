//! What is where in an ELF file: readers that are bounded whatever a file says, and the symbols of a file as a fleet shares them.
//!
//! - [`elf`] is a bounded first look at a file, [`unfold`] the content of its sections;
//! - [`name`] makes names safe to show and fit to read;
//! - [`tables`] reads symbol tables, [`dwarf`] debug information;
//! - [`symbols`] is what they come to: functions, inlined functions and lines by address; [`format`](mod@format) how that is written;
//! - [`varint`] are its numbers;
//! - [`extract`](mod@extract) makes it of files, the best of them first.

#![forbid(unsafe_code)]

pub mod address;
pub mod dwarf;
pub mod elf;
pub mod extract;
pub mod format;
pub mod name;
pub mod symbols;
pub mod tables;
pub mod unfold;
pub mod varint;

pub use symbols::{Builder, Function, Line, Quality, Symbols};

/// A file with this content.
#[cfg(test)]
fn file_of(content: &[u8]) -> std::fs::File {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}
