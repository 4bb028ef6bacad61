//! Batches that no collector has yet, on the host's disk.
//!
//! **Constraints.** No sequence number is ever used for two contents, also after `kill -9` and on a full disk. The disk takes no more than
//! [`Limits::disk_bytes`]; what is over goes, the oldest first, and is counted for good.
//!
//! **Layout.** `agent.ledger` has the agent's identity, the next sequence number and the count of dropped batches ([`ledger`]); each
//! batch is a file of its own ([`batch_file`]), `spool/00000000000000000042.batch`.
//!
//! **Writing.** First the batch, under another name and then renamed; then the ledger, in place. Only then is the batch in the index, and may
//! be sent. What was not renamed is removed at the next start; a batch that is there with a ledger that does not know it moves the ledger.
//! Where the disk is full, a batch stays in memory, within [`Limits::memory_bytes`]; the ledger says how many do, so that they are counted
//! as dropped if the agent dies. Where not even the ledger can be written, the batch is dropped: its number could come again.
//!
//! **Deletion.** A batch goes when the collector has answered, when its checksum does not hold, or when there is no room.
//!
//! Where the state directory cannot be written at all, everything is in memory and the identity is a new one at each start.

mod batch_file;
mod ledger;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use ledger::{Entry, Ledger, LedgerError};

/// Bytes of a batch's file beside the window, at most: its header and what is empty of its last block.
const FILE_OVERHEAD: u64 = 4096;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// On disk.
    pub disk_bytes: u64,
    /// In memory, while the disk cannot be written.
    pub memory_bytes: u64,
}

impl Default for Limits {
    /// On disk, a night of windows of 100 kB; in memory some ten minutes.
    fn default() -> Self {
        Self { disk_bytes: 256 << 20, memory_bytes: 8 << 20 }
    }
}

/// A spool cannot be opened.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Another agent has it.
    #[error("another agent uses {}: pass another --state-dir", .0.display())]
    InUse(PathBuf),
    /// There is no source of random numbers.
    #[error("cannot make an identity for this agent: {0}")]
    Random(io::Error),
}

/// A batch that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its number.
    pub sequence: u64,
    /// The window, compressed.
    pub window: Vec<u8>,
    /// Bytes of it uncompressed.
    pub window_bytes: u64,
}

/// How full it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Batches that wait.
    pub batches: u64,
    /// Bytes of them, on disk and in memory.
    pub bytes: u64,
    /// Batches dropped since this agent's identity was made.
    pub dropped: u64,
}

enum Place {
    Disk,
    Memory(Vec<u8>),
}

struct Indexed {
    place: Place,
    /// Bytes that it takes, there.
    bytes: u64,
    /// Bytes of the window uncompressed; of one on disk, its file says them.
    window_bytes: u64,
}

/// The batches that wait, by their numbers.
pub struct Spool {
    /// `None` where the state directory cannot be written.
    home: Option<(PathBuf, Ledger)>,
    entry: Entry,
    limits: Limits,
    index: BTreeMap<u64, Indexed>,
    disk_bytes: u64,
    memory_bytes: u64,
    /// Whether the last batch could not be written to the disk.
    is_disk_failing: bool,
}

impl Spool {
    /// Opens or makes the spool below a state directory. Also returns what is wrong with it, in words, where it works all the same.
    ///
    /// # Errors
    /// [`SpoolError`] where there can be no agent.
    pub fn open(state: &Path, limits: Limits) -> Result<(Self, Vec<String>), SpoolError> {
        let mut remarks = Vec::new();
        let directory = state.join("spool");
        // What processes are called, and what they do, is for nobody else.
        let ledger = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(LedgerError::Io)
            .and_then(|()| Ledger::open(&state.join("agent.ledger")));
        let (home, entry) = match ledger {
            Ok((ledger, Some(entry))) => (Some((directory, ledger)), entry),
            Ok((ledger, None)) => (Some((directory, ledger)), Entry::new(random_identity()?)),
            Err(LedgerError::Locked) => return Err(SpoolError::InUse(state.to_owned())),
            Err(LedgerError::Damaged(ledger)) => {
                remarks.push(format!(
                    "{} is damaged: this agent has a new identity",
                    state.join("agent.ledger").display()
                ));
                (Some((directory, ledger)), Entry::new(random_identity()?))
            }
            Err(LedgerError::Io(error)) => {
                remarks.push(format!(
                    "the state directory {} cannot be written ({error}): batches wait in memory, {} at most, and this agent's identity is \
                     new at each start",
                    state.display(),
                    chokepoint_analysis::units::bytes(limits.memory_bytes),
                ));
                (None, Entry::new(random_identity()?))
            }
        };
        let mut spool = Self {
            home,
            entry,
            limits,
            index: BTreeMap::new(),
            disk_bytes: 0,
            memory_bytes: 0,
            is_disk_failing: false,
        };
        spool.read_index();
        // What an agent that died had in memory.
        spool.entry.dropped += std::mem::take(&mut spool.entry.in_memory);
        spool.make_room(0);
        if !spool.write_ledger() && spool.home.is_some() {
            remarks.push(format!("{} cannot be written", state.display()));
        }
        Ok((spool, remarks))
    }

    /// 16 random bytes that name this agent.
    #[must_use]
    pub fn identity(&self) -> [u8; 16] {
        self.entry.identity
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> Fill {
        Fill {
            batches: self.index.len() as u64,
            bytes: self.disk_bytes + self.memory_bytes,
            dropped: self.entry.dropped,
        }
    }

    /// Whether batches wait in memory, where a dying agent takes them along.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.home.is_none() || self.is_disk_failing
    }

    /// Lets it take another amount of disk from now on.
    pub fn set_disk_bytes(&mut self, disk_bytes: u64) {
        self.limits.disk_bytes = disk_bytes;
        self.make_room(0);
        self.write_ledger();
    }

    /// Keeps a window. Returns its number; `None` where it had to be dropped.
    pub fn append(&mut self, window: Vec<u8>, window_bytes: u64) -> Option<u64> {
        let sequence = self.entry.next;
        self.entry.next += 1;
        let indexed = self.keep(sequence, window, window_bytes);
        self.entry.in_memory =
            self.in_memory() + u64::from(matches!(&indexed, Some(Indexed { place: Place::Memory(_), .. })));
        self.entry.dropped += u64::from(indexed.is_none());
        let is_told = self.home.is_none() || self.write_ledger();
        match indexed {
            Some(indexed) if is_told => {
                self.add(sequence, indexed);
                Some(sequence)
            }
            Some(indexed) => {
                tracing::warn!(
                    sequence,
                    "a window is dropped: its number cannot be kept in the state directory"
                );
                self.entry.dropped += 1;
                if matches!(indexed.place, Place::Disk) {
                    self.remove_file(sequence);
                }
                None
            }
            None => None,
        }
    }

    /// Where it has room for a batch, which is not in the index yet.
    fn keep(&mut self, sequence: u64, window: Vec<u8>, window_bytes: u64) -> Option<Indexed> {
        let file_bytes = window.len() as u64 + FILE_OVERHEAD;
        if let Some((directory, _)) = &self.home
            && file_bytes <= self.limits.disk_bytes
        {
            let path = batch_file::path(directory, sequence);
            self.make_room(file_bytes);
            match batch_file::write(&path, sequence, window_bytes, &window) {
                Ok(()) => {
                    if std::mem::take(&mut self.is_disk_failing) {
                        tracing::info!("windows are on the disk again");
                    }
                    return Some(Indexed { place: Place::Disk, bytes: file_bytes, window_bytes });
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_disk_failing, true) {
                        tracing::warn!(path = %path.display(), %error, "windows wait in memory: the disk cannot be written");
                    }
                }
            }
        }
        let bytes = window.len() as u64;
        if bytes > self.limits.memory_bytes {
            return None;
        }
        while self.memory_bytes + bytes > self.limits.memory_bytes {
            let is_in_memory = |(_, batch): &(&u64, &Indexed)| matches!(batch.place, Place::Memory(_));
            let Some(oldest) = self.index.iter().find(is_in_memory).map(|(sequence, _)| *sequence) else {
                break;
            };
            self.drop_batch(oldest);
        }
        Some(Indexed { place: Place::Memory(window), bytes, window_bytes })
    }

    /// Drops the oldest on disk until this much more has room.
    fn make_room(&mut self, bytes: u64) {
        while self.disk_bytes > 0 && self.disk_bytes + bytes > self.limits.disk_bytes {
            let is_on_disk = |(_, batch): &(&u64, &Indexed)| matches!(batch.place, Place::Disk);
            let Some(oldest) = self.index.iter().find(is_on_disk).map(|(sequence, _)| *sequence) else {
                break;
            };
            self.drop_batch(oldest);
        }
    }

    fn drop_batch(&mut self, sequence: u64) {
        if self.take_out(sequence) {
            self.entry.dropped += 1;
        }
    }

    /// The number of the first batch after this one.
    #[must_use]
    pub fn next_after(&self, sequence: u64) -> Option<u64> {
        self.index.range(sequence.checked_add(1)?..).next().map(|(next, _)| *next)
    }

    /// A batch that waits. One that cannot be read is dropped: `None` then, as where there is none.
    pub fn read(&mut self, sequence: u64) -> Option<Spooled> {
        let Indexed { place, window_bytes, .. } = self.index.get(&sequence)?;
        match place {
            Place::Memory(window) => {
                Some(Spooled { sequence, window: window.clone(), window_bytes: *window_bytes })
            }
            Place::Disk => {
                let (directory, _) = self.home.as_ref()?;
                let path = batch_file::path(directory, sequence);
                match batch_file::read(&path, sequence) {
                    Ok((window, window_bytes)) => Some(Spooled { sequence, window, window_bytes }),
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "a window is dropped: it cannot be read");
                        self.drop_batch(sequence);
                        self.write_ledger();
                        None
                    }
                }
            }
        }
    }

    /// The collector has it, or will never take it.
    pub fn remove(&mut self, sequence: u64) {
        self.take_out(sequence);
        let in_memory = self.in_memory();
        if in_memory != self.entry.in_memory {
            self.entry.in_memory = in_memory;
            self.write_ledger();
        }
    }

    /// Drops one that is not what it should be.
    pub fn drop_damaged(&mut self, sequence: u64) {
        self.drop_batch(sequence);
        self.write_ledger();
    }

    fn add(&mut self, sequence: u64, indexed: Indexed) {
        match indexed.place {
            Place::Disk => self.disk_bytes += indexed.bytes,
            Place::Memory(_) => self.memory_bytes += indexed.bytes,
        }
        self.index.insert(sequence, indexed);
    }

    /// Whether it was there.
    fn take_out(&mut self, sequence: u64) -> bool {
        let Some(indexed) = self.index.remove(&sequence) else { return false };
        match indexed.place {
            Place::Disk => {
                self.disk_bytes -= indexed.bytes;
                self.remove_file(sequence);
            }
            Place::Memory(_) => self.memory_bytes -= indexed.bytes,
        }
        true
    }

    fn remove_file(&self, sequence: u64) {
        if let Some((directory, _)) = &self.home {
            let path = batch_file::path(directory, sequence);
            if let Err(error) = fs::remove_file(&path) {
                // The next start sends it again: the collector stores it once.
                tracing::warn!(path = %path.display(), %error, "a window that is sent cannot be removed");
            }
        }
    }

    fn in_memory(&self) -> u64 {
        self.index.values().filter(|batch| matches!(batch.place, Place::Memory(_))).count() as u64
    }

    /// Whether the ledger has everything. `false` without a disk, too.
    fn write_ledger(&mut self) -> bool {
        let Some((_, ledger)) = &mut self.home else { return false };
        let written = ledger.write(&self.entry);
        if let Err(error) = &written {
            tracing::warn!(%error, "the state directory cannot be written");
        }
        written.is_ok()
    }

    fn read_index(&mut self) {
        let Some((directory, _)) = &self.home else { return };
        for (sequence, file_bytes) in batch_file::list(directory) {
            self.entry.next = self.entry.next.max(sequence + 1);
            // What is wrong with it shows when it is read.
            let indexed = Indexed { place: Place::Disk, bytes: file_bytes + FILE_OVERHEAD, window_bytes: 0 };
            self.disk_bytes += indexed.bytes;
            self.index.insert(sequence, indexed);
        }
    }
}

fn random_identity() -> Result<[u8; 16], SpoolError> {
    use io::Read;
    let mut identity = [0; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut identity));
    read.map(|()| identity).map_err(SpoolError::Random)
}

#[cfg(test)]
mod tests;
