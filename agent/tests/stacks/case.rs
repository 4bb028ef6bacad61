//! A stack as it was recorded: what the walk reads, what tables are made of, and what is right.
//!
//! One JSON file each, with numbers in hexadecimal. Of a file only that is kept which decides on the rules of the code that
//! the stack is in: entries of call-frame information as they are in the file, where they are in it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::ParseIntError;

use serde::{Deserialize, Serialize};

/// A number that is written `0x1f`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl From<Hex> for String {
    fn from(number: Hex) -> Self {
        number.to_string()
    }
}

impl TryFrom<String> for Hex {
    type Error = ParseIntError;

    fn try_from(text: String) -> Result<Self, ParseIntError> {
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).map(Self)
    }
}

/// Bytes that are written two digits each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let bytes: Option<_> = (0..text.len()).step_by(2).map(byte).collect();
        bytes.map(Self).ok_or_else(|| format!("no bytes: {text}"))
    }
}

/// A thread's stack, of x86-64.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// What it shows.
    pub about: String,
    /// When, and on what.
    pub recorded: String,
    /// Who says that these are the frames.
    pub truth: String,
    /// What the walk has to give: of each frame the file and the offset in it, or the address where there is no file; then,
    /// for people, the function.
    pub frames: Vec<String>,
    /// How it has to end.
    pub end: String,
    /// The registers it begins with.
    pub registers: BTreeMap<String, Hex>,
    /// Executable memory of no file.
    pub anonymous: Vec<Mapped>,
    /// The files that the frames are in.
    pub files: Vec<Excerpt>,
    /// Memory that was read: words from an address on.
    pub memory: BTreeMap<Hex, String>,
}

/// The general registers by their DWARF numbers.
pub const REGISTERS: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
/// The program counter.
pub const PROGRAM_COUNTER: &str = "rip";

/// An executable mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// First address.
    pub start: Hex,
    /// First address behind it.
    pub end: Hex,
    /// Position of the first address in the file.
    pub offset: Hex,
}

/// What is kept of a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Excerpt {
    /// Its name, without the directory.
    pub name: String,
    /// Which build of it.
    pub build_id: Option<Bytes>,
    /// Where it was mapped.
    pub mappings: Vec<Mapped>,
    /// Its executable segments.
    pub code: Vec<Stretch>,
    /// The sections that matter to tables.
    pub sections: BTreeMap<String, Stretch>,
    /// Entries of its call-frame information, by their place in the section.
    pub call_frames: BTreeMap<Hex, Bytes>,
    /// Code that nothing describes, by its place in the file.
    pub content: BTreeMap<Hex, Bytes>,
    /// What Go's own tables say, made anew in the form of Go 1.20 and later.
    pub go: Option<Go>,
}

/// A part of a file, and the address that it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Address of the first byte, in the file's own addresses.
    pub address: Hex,
    /// Its place in the file.
    pub offset: Hex,
    /// Number of bytes.
    pub bytes: Hex,
}

/// Go's functions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Go {
    /// Address at which the code starts.
    pub text: Hex,
    /// Those that the stack is in, by address.
    pub functions: Vec<GoFunction>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoFunction {
    /// Its name.
    pub name: String,
    /// First address.
    pub start: Hex,
    /// First address behind it.
    pub end: Hex,
    /// `_func.flag`
    pub flag: u8,
    /// Distances between stack pointer and return address, as they are in the file.
    pub pcsp: Bytes,
}

/// The words of [`Case::memory`] by their addresses.
pub fn memory_words(lines: &BTreeMap<Hex, String>) -> BTreeMap<u64, u64> {
    let words = lines.iter().flat_map(|(start, line)| {
        let word = |(at, digits)| {
            let word = u64::from_str_radix(digits, 16).expect("memory is hexadecimal");
            (start.0 + 8 * at as u64, word)
        };
        line.split(' ').enumerate().map(word)
    });
    words.collect()
}
