//! The content of a section, decompressed where it is compressed.
//!
//! What a section says of its size is not believed: nothing is allocated for it, and no more is read than whoever asks takes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use thiserror::Error;

use crate::elf::{Fields, SHF_COMPRESSED, Section};

/// Why a section's content cannot be had.
#[derive(Debug, Error)]
pub enum UnfoldError {
    /// It is larger than whoever asked accepts.
    #[error("a section unfolds to more than {0} bytes")]
    TooLarge(u64),
    /// It is not in the file, or not what was compressed.
    #[error("cannot read a section: {0}")]
    Unreadable(io::Error),
    /// There is no memory to decompress it.
    #[error("cannot decompress a section: {0}")]
    Memory(io::Error),
    /// It is compressed in another way than zlib's and zstd's.
    #[error("a section is compressed in an unknown way ({0})")]
    Compression(u32),
    /// Only 64-bit files are unfolded.
    #[error("only 64-bit files can be unfolded")]
    Class,
}

/// A section of a 64-bit file as a stream, and how long it says that it is: the stream may end before, or go on.
///
/// # Errors
/// Where it cannot be begun.
pub fn unfold<'f>(from: &'f File, section: &Section) -> Result<(Box<dyn Read + 'f>, u64), UnfoldError> {
    const HEADER: u64 = 24;
    const ZLIB: u32 = 1;
    const ZSTD: u32 = 2;
    if section.flags & SHF_COMPRESSED == 0 {
        return Ok((Box::new(Range::of(from, section)), section.size));
    }
    let mut header = [0; HEADER as usize];
    from.read_exact_at(&mut header, section.offset).map_err(UnfoldError::Unreadable)?;
    let (kind, size) = match (Fields(&header).u32(0), Fields(&header).u64(8)) {
        (Some(kind), Some(size)) => (kind, size),
        _ => unreachable!("the header has 24 bytes"),
    };
    let folded = Range {
        file: from,
        at: section.offset.saturating_add(HEADER),
        left: section.size.saturating_sub(HEADER),
    };
    match kind {
        ZLIB => Ok((Box::new(flate2::read::ZlibDecoder::new(folded)), size)),
        ZSTD => {
            let mut decoder = zstd::Decoder::new(folded).map_err(UnfoldError::Memory)?;
            // 8 MiB, the largest that `zstd` itself accepts unless told otherwise: this much is allocated.
            decoder.window_log_max(23).map_err(UnfoldError::Memory)?;
            Ok((Box::new(decoder), size))
        }
        other => Err(UnfoldError::Compression(other)),
    }
}

/// All of a section, of `limit` bytes at most.
///
/// # Errors
/// Where it is larger, or cannot be had whole.
pub fn content(from: &File, section: &Section, limit: u64) -> Result<Vec<u8>, UnfoldError> {
    let (stream, size) = unfold(from, section)?;
    if size > limit {
        return Err(UnfoldError::TooLarge(limit));
    }
    let mut content = Vec::new();
    stream.take(size).read_to_end(&mut content).map_err(UnfoldError::Unreadable)?;
    if (content.len() as u64) < size {
        return Err(UnfoldError::Unreadable(io::ErrorKind::UnexpectedEof.into()));
    }
    content.shrink_to_fit();
    Ok(content)
}

/// Part of a file, read without moving the file's position, which its opener may use.
pub struct Range<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl<'a> Range<'a> {
    /// A section as it is in the file.
    #[must_use]
    pub fn of(file: &'a File, section: &Section) -> Self {
        Self { file, at: section.offset, left: section.size }
    }
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at = self.at.saturating_add(read as u64);
        self.left -= read as u64;
        Ok(read)
    }
}
