//! Streams that are open, and what each has been told: the store's numbers of the stream's. These names stay while the stream does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::names::Of;

/// What each number of a stream is in the store, list by list.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) strings: Vec<u32>,
    pub(super) functions: Vec<u32>,
    pub(super) modules: Vec<u32>,
    pub(super) locations: Vec<u32>,
    pub(super) nodes: Vec<u32>,
    /// Series.
    pub(super) subjects: Vec<u32>,
}

/// A stream as the rest of the store knows it.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The label set of the host.
    pub(super) host: u32,
    pub(super) numbers: Numbers,
}

impl Told {
    /// All that it may still refer to.
    pub(super) fn numbers(&self) -> [(Of, impl Iterator<Item = u32>); 7] {
        let Numbers { strings, functions, modules, locations, nodes, subjects } = &self.numbers;
        [
            (Of::LabelSets, std::slice::from_ref(&self.host)),
            (Of::Strings, strings),
            (Of::Functions, functions),
            (Of::Modules, modules),
            (Of::Locations, locations),
            (Of::Nodes, nodes),
            (Of::Series, subjects),
        ]
        .map(|(of, numbers)| (of, numbers.iter().copied()))
    }
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
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Mutex<Open>,
    /// Held by who gives numbers to a batch until it is written.
    under_way: RwLock<()>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, Stream>,
}

impl Streams {
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
        self.open.lock().unwrap_or_else(PoisonError::into_inner).streams.remove(&number);
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
}
