//! The mapped files of all processes, each opened once while one of them lives.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::maps::FileIdentity;

/// Index of a [`Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BinaryId(u32);

impl BinaryId {
    /// Position in [`Binaries`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file that some process maps executable.
#[derive(Debug)]
pub struct Binary {
    /// Path in the mount namespace of the process that showed it first.
    pub path: PathBuf,
    /// Root of that mount namespace, as seen from here; it goes when the process does.
    pub root: PathBuf,
    /// The file itself. `None` where it could not be opened: its code keeps module and offset only.
    pub file: Option<File>,
}

/// The most files that are kept. A host that runs a thousand different programs maps fewer; beyond it files stay without
/// symbols.
const MAX_BINARIES: usize = 16_384;

/// Every file once.
#[derive(Debug, Default)]
pub struct Binaries {
    entries: Vec<Binary>,
    ids: HashMap<FileIdentity, BinaryId>,
    /// Files that could not be opened.
    unopened: u64,
}

impl Binaries {
    /// The file mapped at `range` in process `tgid`; opened if it is new. `None` when there are too many.
    pub fn identify(&mut self, tgid: u32, range: &Range<u64>, identity: &FileIdentity) -> Option<BinaryId> {
        if let Some(id) = self.ids.get(identity) {
            return Some(*id);
        }
        if self.entries.len() >= MAX_BINARIES {
            return None;
        }
        let root = PathBuf::from(format!("/proc/{tgid}/root"));
        let file = open(tgid, range, identity, &root)
            .inspect_err(|error| {
                self.unopened += 1;
                tracing::debug!(path = %identity.path.display(), tgid, %error, "mapped file cannot be opened");
            })
            .ok();
        let id = BinaryId(self.entries.len() as u32);
        self.entries.push(Binary { path: identity.path.clone(), root, file });
        self.ids.insert(identity.clone(), id);
        Some(id)
    }

    /// The file at this index.
    #[must_use]
    pub fn get(&self, id: BinaryId) -> &Binary {
        &self.entries[id.index()]
    }

    /// How many files could not be opened.
    #[must_use]
    pub fn unopened(&self) -> u64 {
        self.unopened
    }
}

/// Opens what is mapped, not what has the path now.
fn open(tgid: u32, range: &Range<u64>, identity: &FileIdentity, root: &Path) -> io::Result<File> {
    // The link leads to the mapped file itself, but asks for CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    let link = format!("/proc/{tgid}/map_files/{:x}-{:x}", range.start, range.end);
    if let Ok(file) = open_regular(Path::new(&link)) {
        return Ok(file);
    }
    let relative = identity.path.strip_prefix("/").unwrap_or(&identity.path);
    if let Ok(file) = open_regular(&root.join(relative))
        && file.metadata()?.ino() == identity.inode
    {
        return Ok(file);
    }
    // The process has ended, or the agent may not look at its root. On the host's own file systems the path may still lead
    // to the file; here the device must be the same too, because the process may have lived in another mount namespace.
    let file = open_regular(&identity.path)?;
    let facts = file.metadata()?;
    let device = (libc::major(facts.dev()), libc::minor(facts.dev()));
    if facts.ino() == identity.inode && device == (identity.major, identity.minor) {
        Ok(file)
    } else {
        Err(io::Error::other("another file has taken the path"))
    }
}

/// A path may by now lead to a pipe or a device, which must neither block nor be read.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}
