//! Streams that are open, and what each has been told: the store's numbers of the stream's. These names stay while the stream does.
//!
//! A busy host's stream has some hundred thousand numbers, and each window needs them once: they are in a file between windows, which has no
//! name and goes with the process. Two thousand streams have some 500 MB of them, of which the kernel keeps in memory what it has room for.
//! The file is cut into pieces of one length; a stream has a list of pieces, in which each window's new numbers follow those before.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::names::Of;
use super::{failed, varint};
use crate::store::StoreError;

/// Bytes of a piece of the file.
const PIECE: usize = 16 << 10;

/// Bytes of a number at most: five as it is written, four in a list, which grows by doubling.
const NUMBER_BYTES: usize = 13;

/// What each number of a stream is in the store, list by list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) strings: Vec<u32>,
    pub(super) functions: Vec<u32>,
    pub(super) modules: Vec<u32>,
    pub(super) locations: Vec<u32>,
    pub(super) nodes: Vec<u32>,
    /// Series.
    pub(super) subjects: Vec<u32>,
}

impl Numbers {
    /// All of them, with what they are numbers of.
    pub(super) fn lists(&self) -> [(Of, &[u32]); 6] {
        [
            (Of::Strings, &self.strings),
            (Of::Functions, &self.functions),
            (Of::Modules, &self.modules),
            (Of::Locations, &self.locations),
            (Of::Nodes, &self.nodes),
            (Of::Series, &self.subjects),
        ]
    }

    /// How many there are of each.
    pub(super) fn lengths(&self) -> [usize; 6] {
        self.lists().map(|(_, numbers)| numbers.len())
    }

    /// Bytes that they take in memory when they are read: as they are written, and in lists that grow.
    pub(super) fn bytes(&self) -> usize {
        self.lengths().iter().sum::<usize>() * NUMBER_BYTES
    }

    /// What came after these.
    fn written(&self, after: [usize; 6]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for ((_, numbers), after) in self.lists().into_iter().zip(after) {
            let new = &numbers[after..];
            varint::put(&mut bytes, new.len() as u64);
            let mut before = 0;
            for number in new {
                varint::put_difference(&mut bytes, before, u64::from(*number));
                before = u64::from(*number);
            }
        }
        bytes
    }

    /// Takes what was written, one window after the other.
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut all = Self::default();
        while !bytes.is_empty() {
            let Self { strings, functions, modules, locations, nodes, subjects } = &mut all;
            for list in [strings, functions, modules, locations, nodes, subjects] {
                let mut before = 0;
                for _ in 0..varint::take(&mut bytes)? {
                    before = varint::take_difference(&mut bytes, before)?;
                    list.push(u32::try_from(before).ok()?);
                }
            }
        }
        Some(all)
    }
}

/// A stream as the rest of the store knows it.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The label set of the host.
    pub(super) host: u32,
    /// Where its numbers are, and how many bytes they take.
    pieces: Vec<u32>,
    bytes: usize,
}

/// A stream, shared by who takes it in and who looks at all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream(Arc<Mutex<Told>>);

impl Stream {
    pub(super) fn lock(&self) -> MutexGuard<'_, Told> {
        // What panicked has left a stream that ends.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The streams that are open.
#[derive(Debug)]
pub(super) struct Streams {
    open: Mutex<Open>,
    /// Held by who gives numbers to a batch until it is written.
    under_way: RwLock<()>,
    file: File,
    pieces: Mutex<Pieces>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, Stream>,
}

#[derive(Debug, Default)]
struct Pieces {
    next: u32,
    free: Vec<u32>,
}

impl Streams {
    /// None yet. What they are told goes into a file of this directory.
    ///
    /// # Errors
    /// Where there can be none.
    pub(super) fn new(directory: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            open: Mutex::default(),
            under_way: RwLock::default(),
            file: tempfile::tempfile_in(directory).map_err(failed(keeping))?,
            pieces: Mutex::default(),
        })
    }

    /// Opens one; by this number it is closed.
    pub(super) fn open_one(&self) -> (u64, Stream) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, stream) = (open.next, Stream::default());
        open.next += 1;
        open.streams.insert(number, stream.clone());
        (number, stream)
    }

    /// Closes it: it refers to nothing any more.
    pub(super) fn close(&self, number: u64) {
        let stream = self.open.lock().unwrap_or_else(PoisonError::into_inner).streams.remove(&number);
        if let Some(stream) = stream {
            self.forget(&mut stream.lock());
        }
    }

    /// Those that are open now.
    pub(super) fn open(&self) -> Vec<Stream> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).streams.values().cloned().collect()
    }

    /// Begins something that refers to names before others can see it, until this is dropped.
    pub(super) fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.under_way.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for all that has begun. None begins until this is dropped.
    pub(super) fn wait(&self) -> RwLockWriteGuard<'_, ()> {
        self.under_way.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream has been told.
    ///
    /// # Errors
    /// Where the disk fails.
    pub(super) fn load(&self, told: &Told) -> Result<Numbers, StoreError> {
        let mut bytes = vec![0; told.bytes];
        for (part, piece) in bytes.chunks_mut(PIECE).zip(&told.pieces) {
            self.file.read_exact_at(part, offset(*piece)).map_err(failed(keeping))?;
        }
        Numbers::read(&bytes).ok_or_else(|| failed(keeping)("it is not what was written"))
    }

    /// Keeps what a stream is told beyond these.
    ///
    /// # Errors
    /// Where the disk does not take it. The stream cannot go on before it begins anew.
    pub(super) fn keep(
        &self,
        told: &mut Told,
        numbers: &Numbers,
        after: [usize; 6],
    ) -> Result<(), StoreError> {
        if numbers.lengths() == after {
            return Ok(());
        }
        let written = numbers.written(after);
        let mut bytes = written.as_slice();
        while !bytes.is_empty() {
            let at = told.bytes % PIECE;
            if at == 0 {
                told.pieces.push(self.take_piece()?);
            }
            let piece = told.pieces[told.bytes / PIECE];
            let (part, rest) = bytes.split_at(bytes.len().min(PIECE - at));
            self.file.write_all_at(part, offset(piece) + at as u64).map_err(failed(keeping))?;
            told.bytes += part.len();
            bytes = rest;
        }
        Ok(())
    }

    /// Forgets what a stream was told.
    pub(super) fn forget(&self, told: &mut Told) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.free.append(&mut told.pieces);
        told.bytes = 0;
    }

    fn take_piece(&self) -> Result<u32, StoreError> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(piece) = pieces.free.pop() {
            return Ok(piece);
        }
        let piece = pieces.next;
        pieces.next = piece.checked_add(1).ok_or_else(|| failed(keeping)("there are too many"))?;
        Ok(piece)
    }
}

fn offset(piece: u32) -> u64 {
    u64::from(piece) * PIECE as u64
}

fn keeping() -> String {
    "cannot keep what streams are told".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_what_they_were_told_and_leave_their_place_to_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let streams = Streams::new(directory.path()).expect("a file");
        let (first, one) = streams.open_one();
        let (_, other) = streams.open_one();
        let mut expected = Numbers::default();
        // Windows of different lengths, so that they end everywhere in a piece.
        for window in 0..200 {
            let before = expected.lengths();
            expected.nodes.extend((0..window * 7).map(|node| node * 977 % 100_003));
            expected.strings.extend(0..window % 3);
            streams.keep(&mut one.lock(), &expected, before).expect("it is kept");
            let own = Numbers { subjects: vec![window; 100], ..Numbers::default() };
            streams.keep(&mut other.lock(), &own, [0; 6]).expect("it is kept");
        }
        assert_eq!(streams.load(&one.lock()).expect("it is there"), expected);
        let subjects = streams.load(&other.lock()).expect("it is there").subjects;
        assert!(subjects.into_iter().eq((0..200).flat_map(|window| [window; 100])));
        assert!(one.lock().pieces.len() > 5);
        streams.close(first);
        let used = streams.pieces.lock().expect("nobody panicked").next;
        let (_, third) = streams.open_one();
        streams.keep(&mut third.lock(), &expected, [0; 6]).expect("it is kept");
        assert_eq!(streams.load(&third.lock()).expect("it is there"), expected);
        assert_eq!(streams.pieces.lock().expect("nobody panicked").next, used);
    }
}
