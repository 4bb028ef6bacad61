//! The file of a batch.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `CPBATCH1` |
//! | 8 | sequence number, little-endian as all that follows |
//! | 8 | bytes of the window, uncompressed |
//! | 4 | CRC-32 of the 16 bytes before and of the window |
//! | 4 | zero |
//! | all others | the window, compressed with zstd |

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

const MAGIC: &[u8; 8] = b"CPBATCH1";
const HEADER_BYTES: usize = 32;
const ENDING: &str = ".batch";
/// A file that is larger was not written here: windows have some 100 kB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A file that is no batch.
#[derive(Debug, Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not a batch of this number")]
    Header,
    #[error("its checksum does not hold")]
    Checksum,
}

pub(super) fn path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:020}{ENDING}"))
}

/// Writes the file: all of it is there under its name, or none.
pub(super) fn write(path: &Path, sequence: u64, window_bytes: u64, window: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(&header(sequence, window_bytes, window))?;
        file.write_all(window)?;
        fs::rename(&unfinished, path)
    };
    write().inspect_err(|_| _ = fs::remove_file(&unfinished))
}

fn header(sequence: u64, window_bytes: u64, window: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&window_bytes.to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header[8..24]);
    checksum.update(window);
    header[24..28].copy_from_slice(&checksum.finalize().to_le_bytes());
    header
}

/// The window, and its bytes uncompressed.
pub(super) fn read(path: &Path, sequence: u64) -> Result<(Vec<u8>, u64), BatchError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    let window = bytes.get(HEADER_BYTES..).ok_or(BatchError::Header)?;
    let is_own = bytes[..8] == *MAGIC && bytes[8..16] == sequence.to_le_bytes();
    if !is_own {
        return Err(BatchError::Header);
    }
    let window_bytes = bytes[16..24].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    if bytes[..HEADER_BYTES] != header(sequence, window_bytes, window) {
        return Err(BatchError::Checksum);
    }
    bytes.drain(..HEADER_BYTES);
    Ok((bytes, window_bytes))
}

/// Numbers and sizes of the batches in a directory. What was never finished is removed.
pub(super) fn list(directory: &Path) -> Vec<(u64, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        if name.ends_with(".unfinished") {
            let _ = fs::remove_file(entry.path());
        }
        let sequence = name.strip_suffix(ENDING)?.parse().ok()?;
        // Found by its number again, whatever else the name may be.
        let is_own = path(directory, sequence) == entry.path() && sequence < u64::MAX;
        is_own.then_some((sequence, entry.metadata().ok()?.len()))
    });
    found.collect()
}
