//! Who waits for an answer, so that nobody reads on for someone who has gone.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;

/// Who waits for an answer. All copies are of the same one.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    has_gone: Arc<AtomicBool>,
    /// What did not answer, each a sentence.
    missing: Arc<Mutex<BTreeSet<String>>>,
}

/// Its asker has gone when this is dropped.
#[derive(Debug)]
pub struct Waiting(Asker);

impl Asker {
    /// From here on it waits until what is returned is dropped. One that is never asked to wait does so for ever.
    #[must_use]
    pub fn wait(&self) -> Waiting {
        Waiting(self.clone())
    }

    /// Whether there is still somebody. What takes long asks every few milliseconds.
    ///
    /// # Errors
    /// [`StoreError::NobodyAsks`] where there is not.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.has_gone.load(Ordering::Relaxed) { Err(StoreError::NobodyAsks) } else { Ok(()) }
    }

    /// Tells it that a part of the store did not answer: what it gets is of the others only, and is to be shown as such.
    pub fn tell_missing(&self, what: String) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
    }

    /// What is missing of its answers so far, each a sentence; none where they are whole.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.has_gone.store(true, Ordering::Relaxed);
    }
}
