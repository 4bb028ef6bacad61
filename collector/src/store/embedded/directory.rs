//! The store's directory: who holds it, and how files get into it so that they are whole or not there.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{OpenError, failed};
use crate::store::StoreError;

/// What a file is called until it is whole. Such files are leftovers of a crash.
const UNFINISHED: &str = "tmp";

/// What kinds of immutable files there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Folder {
    /// History.
    Segments,
    /// What its numbers mean, for other programs.
    Names,
}

impl Folder {
    /// All.
    pub(super) const ALL: [Self; 2] = [Self::Segments, Self::Names];

    fn name(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Names => "names",
        }
    }
}

/// The directory, held by this process alone for as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The kernel lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Directory {
    /// Takes the directory, which is made where it is not there.
    ///
    /// # Errors
    /// Where another process holds it, or it cannot be made.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let step = || format!("cannot use {} as a store", path.display());
        for folder in Folder::ALL {
            // What processes are called, and what they do, is for nobody else.
            let private = DirBuilder::new().recursive(true).mode(0o700).create(path.join(folder.name()));
            private.map_err(failed(step))?;
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed(step))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(path.to_owned()),
            TryLockError::Error(source) => failed(step)(source).into(),
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The catalogue's file.
    pub(super) fn catalogue(&self) -> PathBuf {
        self.path.join("catalogue.sqlite")
    }

    /// A file.
    pub(super) fn file(&self, folder: Folder, name: &str) -> PathBuf {
        self.path.join(folder.name()).join(name)
    }

    /// Writes a file: under another name first, to the disk, and only then under its own. Returns its bytes.
    ///
    /// # Errors
    /// What `write` says, and where the disk does not take it. Nothing is left then.
    pub(super) fn write(
        &self,
        folder: Folder,
        name: &str,
        write: impl FnOnce(&File) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let step = || format!("cannot write {name}");
        let unfinished = self.file(folder, name).with_extension(UNFINISHED);
        let attempt = || {
            let file = File::create(&unfinished).map_err(failed(step))?;
            write(&file)?;
            file.sync_all().map_err(failed(step))?;
            let bytes = file.metadata().map_err(failed(step))?.len();
            fs::rename(&unfinished, self.file(folder, name)).map_err(failed(step))?;
            self.sync(folder).map_err(failed(step))?;
            Ok(bytes)
        };
        let result = attempt();
        if result.is_err() {
            // One of the two is not there; what cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&unfinished);
            let _ = fs::remove_file(self.file(folder, name));
        }
        result
    }

    /// Removes a file; one that is not there is well.
    ///
    /// # Errors
    /// Where the disk does not let it.
    pub(super) fn remove(&self, folder: Folder, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.file(folder, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(|| format!("cannot remove {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Names of all files in a folder.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub(super) fn files(&self, folder: Folder) -> Result<Vec<String>, StoreError> {
        let step = || "cannot list the store's files".to_owned();
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path.join(folder.name())).map_err(failed(step))? {
            names.push(entry.map_err(failed(step))?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn sync(&self, folder: Folder) -> io::Result<()> {
        File::open(self.path.join(folder.name()))?.sync_all()
    }
}
