//! Who waits for an answer, so that nobody reads on for someone who has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::StoreError;

/// Who waits for an answer. All copies are of the same one.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    has_gone: Arc<AtomicBool>,
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
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.has_gone.store(true, Ordering::Relaxed);
    }
}
