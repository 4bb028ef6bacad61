//! What an agent must not forget: who it is, which numbers it has used, how many batches it has dropped.
//!
//! The file has two places of 512 bytes, written in turn and in place: that needs no room on a full disk, and whatever happens meanwhile,
//! the place before is whole. Of the two, the one with the higher turn and a checksum that holds counts.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use thiserror::Error;

const MAGIC: &[u8; 8] = b"CPAGENT1";
/// A disk writes so much at once or not at all.
const PLACE_BYTES: usize = 512;
/// Magic, turn, identity, three numbers.
const USED_BYTES: usize = 8 + 8 + 16 + 3 * 8;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) identity: [u8; 16],
    /// The next sequence number.
    pub(super) next: u64,
    /// Batches dropped so far.
    pub(super) dropped: u64,
    /// Batches that are in memory only.
    pub(super) in_memory: u64,
}

impl Entry {
    /// Of an agent that has sent nothing yet.
    pub(super) fn new(identity: [u8; 16]) -> Self {
        Self { identity, next: 1, dropped: 0, in_memory: 0 }
    }
}

/// Why there is no ledger.
#[derive(Debug, Error)]
pub(super) enum LedgerError {
    #[error(transparent)]
    Io(io::Error),
    #[error("another process has locked it")]
    Locked,
    /// It was there, and neither place holds.
    #[error("it is damaged")]
    Damaged(Ledger),
}

/// The file, locked.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    turn: u64,
}

impl Ledger {
    /// Opens or makes it; with what it has, unless it is new.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Entry>), LedgerError> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(LedgerError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LedgerError::Locked),
            Err(TryLockError::Error(error)) => return Err(LedgerError::Io(error)),
        }
        let mut bytes = [0; 2 * PLACE_BYTES];
        let read = read_all(&file, &mut bytes).map_err(LedgerError::Io)?;
        let places: Vec<_> = bytes.chunks(PLACE_BYTES).filter_map(decode).collect();
        let is_one_damaged = places.len() < 2
            && bytes
                .chunks(PLACE_BYTES)
                .any(|place| decode(place).is_none() && place.iter().any(|byte| *byte != 0));
        match places.into_iter().max_by_key(|(turn, _)| *turn) {
            Some((turn, mut entry)) => {
                // It may be the later one, which had used one number more.
                entry.next += u64::from(is_one_damaged);
                Ok((Self { file, turn }, Some(entry)))
            }
            None if read == 0 => Ok((Self { file, turn: 0 }, None)),
            None => Err(LedgerError::Damaged(Self { file, turn: 0 })),
        }
    }

    /// Writes it, so that it survives the loss of power.
    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let turn = self.turn + 1;
        let place = turn % 2 * PLACE_BYTES as u64;
        self.file.write_all_at(&encode(turn, entry), place)?;
        if self.turn == 0 {
            // The second place has its room from the beginning, too.
            self.file.write_all_at(&[0; PLACE_BYTES], 0)?;
        }
        self.file.sync_data()?;
        self.turn = turn;
        Ok(())
    }
}

fn read_all(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

fn encode(turn: u64, entry: &Entry) -> [u8; PLACE_BYTES] {
    let mut bytes = [0; PLACE_BYTES];
    let numbers = [entry.next, entry.dropped, entry.in_memory].map(u64::to_le_bytes).concat();
    let used = [&MAGIC[..], &turn.to_le_bytes(), &entry.identity, &numbers].concat();
    bytes[..USED_BYTES].copy_from_slice(&used);
    bytes[USED_BYTES..USED_BYTES + 4].copy_from_slice(&crc32fast::hash(&used).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Entry)> {
    let (used, rest) = bytes.split_at_checked(USED_BYTES)?;
    let is_whole = used.starts_with(MAGIC) && rest.starts_with(&crc32fast::hash(used).to_le_bytes());
    let number = |at: usize| Some(u64::from_le_bytes(used.get(at..at + 8)?.try_into().ok()?));
    let identity = used.get(16..32)?.try_into().ok()?;
    let entry = Entry { identity, next: number(32)?, dropped: number(40)?, in_memory: number(48)? };
    is_whole.then_some((number(8)?, entry))
}
