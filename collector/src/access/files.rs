//! What is made of files, and made anew when they change.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chokepoint_tls::Stamp;

type Make<T> = Box<dyn Fn() -> Result<T, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// Something made of files.
pub struct FromFiles<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    make: Make<T>,
    now: RwLock<Arc<T>>,
    /// Of the files that were looked at last, whether they were of use or not.
    seen: Mutex<Stamp>,
}

/// What became of files that were looked at again.
#[derive(Debug)]
pub enum Refreshed {
    /// They are what they were, or are being written.
    Same,
    /// They are what counts from now on.
    New,
    /// They cannot be used, and what was before goes on.
    Failed(Box<dyn Error + Send + Sync>),
}

impl<T> FromFiles<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// What `make` says.
    pub fn new<E: Error + Send + Sync + 'static>(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let seen = stamp(&paths);
        let now = RwLock::new(Arc::new(make()?));
        let make: Make<T> = Box::new(move || Ok(make()?));
        Ok(Self { what, paths, make, now, seen: Mutex::new(seen) })
    }

    /// What counts now.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Something that is made anew when its files change.
pub trait Refresh: Send + Sync {
    /// What it is, for the log.
    fn what(&self) -> &'static str;

    /// Looks at the files. `is_told`: somebody says that they have changed and are whole.
    fn refresh(&self, is_told: bool) -> Refreshed;
}

impl<T: Send + Sync> Refresh for FromFiles<T> {
    fn what(&self) -> &'static str {
        self.what
    }

    fn refresh(&self, is_told: bool) -> Refreshed {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before they are read: what changes meanwhile is read the next time.
        let found = stamp(&self.paths);
        if !is_told && (found == *seen || !found.is_settled()) {
            return Refreshed::Same;
        }
        let is_new = found != *seen;
        *seen = found;
        match (self.make)() {
            Ok(made) => {
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                if is_new { Refreshed::New } else { Refreshed::Same }
            }
            Err(error) => Refreshed::Failed(error),
        }
    }
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    Stamp::of(paths.iter().map(PathBuf::as_path))
}

impl<T: fmt::Debug> fmt::Debug for FromFiles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFiles")
            .field("what", &self.what)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}
