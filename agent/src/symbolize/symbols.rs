//! What the symbolizer is asked for and what it answers.

use std::io;
use std::path::PathBuf;

use super::elf::{BuildId, ElfError};
use crate::address::{AbsoluteAddress, VirtualOffset};

/// What to look for, where, and what it may cost.
#[derive(Clone, Debug)]
pub struct Options {
    /// Report the functions that were inlined at an address as frames of their own. On: without them a flame graph of
    /// optimised code blames callers, and they cost nothing beside the lines.
    pub inlined: bool,
    /// Report source files and lines. On.
    pub source_lines: bool,
    /// Where separate debug files are looked for, in each root.
    pub debug_dirs: Vec<PathBuf>,
    /// Binaries with more `.debug_info` than this, uncompressed, are symbolized from their symbol tables, with a
    /// [`Note`]. The first lookup reads the header of every unit, which takes about a second and makes about as much
    /// memory resident as there is `.debug_info`, for a moment. The default of 256 MB takes about 0.2 s.
    pub max_debug_info_bytes: u64,
    /// What binaries may cost in memory between batches.
    pub cache_bytes: u64,
    /// How many binaries stay open between batches. Each keeps up to three descriptors, of the usual 1,024, and file pages
    /// resident. None, where each binary is asked for once.
    pub cache_binaries: usize,
}

impl Options {
    /// Whether symbol tables have all that is asked for.
    pub(super) fn wants_functions_alone(&self) -> bool {
        !self.inlined && !self.source_lines
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inlined: true,
            source_lines: true,
            debug_dirs: vec![PathBuf::from("/usr/lib/debug")],
            max_debug_info_bytes: 256 << 20,
            cache_bytes: 24 << 20,
            cache_binaries: 64,
        }
    }
}

/// A function, and where in its source an address is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceLine {
    /// The demangled name, without control characters.
    pub function: String,
    /// The source file as the compiler recorded it; empty where unknown.
    pub file: String,
    /// 0 where unknown.
    pub line: u32,
}

impl SourceLine {
    /// A function of which no more is known.
    pub(super) fn of_function(function: String) -> Self {
        Self { function, file: String::new(), line: 0 }
    }
}

/// An address and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolized<A> {
    /// The address.
    pub address: A,
    /// In the kernel, the module that it belongs to, as `[nf_tables]`, or `[bpf]`; else `None`.
    pub module: Option<Box<str>>,
    /// The function, preceded by those inlined into it, innermost first. Empty where nothing is known.
    pub lines: Vec<SourceLine>,
}

/// What is known of a batch of addresses in one binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinarySymbols {
    /// The build that was mapped.
    pub build_id: BuildId,
    /// Parallel to the offsets asked for. An offset that the loader maps nowhere has no address.
    pub symbols: Vec<Symbolized<Option<VirtualOffset>>>,
    /// Why there is less than there could be.
    pub notes: Vec<Note>,
}

/// What a file in which a runtime names the code it compiled says about a batch of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitSymbols {
    /// Parallel to the addresses asked for. A perf map knows no source files and lines.
    pub symbols: Vec<Symbolized<AbsoluteAddress>>,
    /// Lines of a perf map that are not of the format, or too long; its last line counts if the runtime was in the middle of it.
    /// Of a jitdump, 1 if it is damaged: nothing behind the damage can be found.
    pub skipped: u64,
    /// Bytes of a file too large to read in full, at the start of a perf map and at the end of a jitdump: what only they name
    /// has no symbol.
    pub unread_bytes: u64,
}

/// Why a binary is symbolized with less than all it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Its debug information is over [`Options::max_debug_info_bytes`], or, compressed, unfolds to too much.
    DebugInfoTooLarge,
    /// Its debug information could not be read, for this reason.
    DebugInfoDamaged(String),
    /// Its symbol tables are larger than any real ones, or could not be read.
    SymbolsDamaged,
    /// This many separate debug files were in place but belong to another build.
    DebugFilesOfOtherBuilds(u64),
}

/// What happened since the symbolizer was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Binaries opened, again after eviction included.
    pub binaries: u64,
    /// Separate debug files in use.
    pub debug_files: u64,
    /// Separate debug files in place that belong to another build.
    pub debug_files_rejected: u64,
    /// Binaries whose debug information was left out for its size.
    pub debug_info_too_large: u64,
    /// Binaries of which debug information or symbols could not be read.
    pub damaged: u64,
    /// Panics of the parsers, each on a malformed file.
    pub panics: u64,
    /// Binaries that lost content while they were read.
    pub shrunk: u64,
    /// Binaries dropped from the cache.
    pub evicted: u64,
    /// Lines of perf maps that are not of the format.
    pub perf_map_lines_skipped: u64,
    /// Bytes of perf maps too large to read in full.
    pub perf_map_bytes_unread: u64,
    /// Damaged jitdumps.
    pub jitdumps_damaged: u64,
    /// Bytes of jitdumps too large to read in full.
    pub jitdump_bytes_unread: u64,
}

/// Why nothing is known of a whole batch.
#[derive(Debug, thiserror::Error)]
pub enum SymbolizeError {
    /// A directory, pipe or device stands where a binary or a map should be.
    #[error("not a regular file")]
    NotRegular,
    /// What is mapped is not a binary.
    #[error("not an ELF file")]
    NotElf,
    /// The headers contradict themselves or the file.
    #[error("malformed ELF file: {0}")]
    Malformed(String),
    /// The file cannot be read.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
    /// The kernel's symbols cannot be read.
    #[error("cannot read /proc/kallsyms: {0}")]
    Kernel(#[source] io::Error),
    /// `/proc/kallsyms` has no addresses.
    #[error(
        "the kernel hides its addresses; give the agent CAP_SYSLOG, or set kernel.kptr_restrict to 0 or 1 if it is 2"
    )]
    KernelAddressesHidden,
}

impl From<ElfError> for SymbolizeError {
    fn from(error: ElfError) -> Self {
        match error {
            ElfError::NotElf => Self::NotElf,
            ElfError::Io(error) => Self::Io(error),
            error => Self::Malformed(error.to_string()),
        }
    }
}
