//! The mapped files of all processes, each opened once while one of them lives.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chokepoint_ebpf::unwind::file::{FileKey, NewFile};

use super::maps::{self, Backing, FileIdentity, MAX_MAPS_BYTES, Mapping};

/// Index of a [`Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BinaryId(u32);

impl BinaryId {
    /// Stands for the vDSO, which is no file.
    pub const VDSO: Self = Self(u32::MAX);

    /// Position in [`Binaries`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file that some process maps executable.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Path in the mount namespace of the process that showed it first; where that had ended, as the kernel programs found it.
    pub path: PathBuf,
    /// Root of that mount namespace, as seen from here; it goes when the process does.
    pub root: PathBuf,
    /// The file itself. `None` where it could not be opened: its code keeps module and offset only.
    pub file: Option<Arc<File>>,
}

/// The most files that are kept. A host that runs a thousand different programs maps fewer; beyond it files stay without
/// symbols.
const MAX_BINARIES: usize = 16_384;

/// The most ids of the kernel programs that are kept. They forget files that are used seldom, and call them by new ids then.
const MAX_IDS: usize = 8 * MAX_BINARIES;

/// What tells an open file from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Facts {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// What became of an announced file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is this one, and open.
    Opened(BinaryId),
    /// It is this one, and could not be opened. It may be announced again, by a process that lives longer.
    Unopened(BinaryId),
}

/// Every file once.
#[derive(Clone, Debug, Default)]
pub struct Binaries {
    entries: Vec<Binary>,
    /// By the kernel programs' ids; a file that was forgotten and met again has several.
    ids: HashMap<u32, BinaryId>,
    facts: HashMap<Facts, BinaryId>,
    /// Files that could not be opened so far, with their ids.
    unopened: HashMap<FileKey, Vec<u32>>,
    refused: u64,
}

impl Binaries {
    /// Opens an announced file unless that was done before. `None` when there are too many, which is counted.
    pub fn announce(&mut self, new: &NewFile) -> Option<Announced> {
        let announced = if self.ids.len() < MAX_IDS { self.open_announced(new) } else { None };
        self.refused += u64::from(announced.is_none());
        announced
    }

    fn open_announced(&mut self, new: &NewFile) -> Option<Announced> {
        let root = PathBuf::from(format!("/proc/{}/root", new.tgid));
        match open(new, &root) {
            Ok((path, file)) => {
                let id = self.insert_opened(path, root, file)?;
                // Under the ids it had when it could not be opened it is the same file.
                let earlier = self.unopened.remove(&new.key).unwrap_or_default();
                self.ids.extend(earlier.into_iter().chain([new.id]).map(|name| (name, id)));
                Some(Announced::Opened(id))
            }
            Err(error) => {
                let path = announced_path(new);
                tracing::debug!(path = %path.display(), tgid = new.tgid, %error, "mapped file cannot be opened");
                let earlier = self.unopened.get(&new.key).and_then(|names| self.find(*names.first()?));
                let id = match earlier {
                    Some(id) => id,
                    None => self.insert(Binary { path, root, file: None })?,
                };
                self.unopened.entry(new.key).or_default().push(new.id);
                self.ids.insert(new.id, id);
                Some(Announced::Unopened(id))
            }
        }
    }

    /// Takes note that an announced file is one that is open already.
    pub fn introduce(&mut self, new: &NewFile, id: BinaryId) {
        self.ids.insert(new.id, id);
    }

    /// Opens every file that a process maps executable, before it is sampled.
    pub fn open_all(&mut self, tgid: u32) -> Vec<BinaryId> {
        let root = PathBuf::from(format!("/proc/{tgid}/root"));
        let mappings = mappings(tgid).unwrap_or_default();
        let files = mappings.into_iter().filter_map(|mapping| match mapping.backing {
            Backing::File(identity) => Some((mapping.range, identity)),
            Backing::Anonymous | Backing::Vdso => None,
        });
        files
            .filter_map(|(range, identity)| {
                let (path, file) = open_linked(tgid, &range)
                    .or_else(|| open_in_root(&root, identity))
                    .inspect(|(path, _)| tracing::trace!(path = %path.display(), tgid, "mapped file"))?;
                self.insert_opened(path, root.clone(), file)
            })
            .collect()
    }

    fn insert_opened(&mut self, path: PathBuf, root: PathBuf, file: File) -> Option<BinaryId> {
        let facts = file.metadata().ok().map(|facts| Facts {
            device: facts.dev(),
            inode: facts.ino(),
            size: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
        });
        let id = match facts.and_then(|facts| self.facts.get(&facts)) {
            Some(id) => *id,
            None => self.insert(Binary { path, root, file: Some(Arc::new(file)) })?,
        };
        self.facts.extend(facts.map(|facts| (facts, id)));
        Some(id)
    }

    fn insert(&mut self, binary: Binary) -> Option<BinaryId> {
        if self.entries.len() >= MAX_BINARIES {
            return None;
        }
        let id = BinaryId(self.entries.len() as u32);
        self.entries.push(binary);
        Some(id)
    }

    /// The file at this index.
    #[must_use]
    pub fn get(&self, id: BinaryId) -> &Binary {
        &self.entries[id.index()]
    }

    /// The file that the kernel programs call by this id; `None` where its announcement was lost.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<BinaryId> {
        self.ids.get(&id).copied()
    }

    /// Files that are not known, because there were too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many files could not be opened.
    #[must_use]
    pub fn unopened(&self) -> usize {
        self.unopened.len()
    }
}

/// The path that the kernel programs found, in the mount namespace of the process.
fn announced_path(new: &NewFile) -> PathBuf {
    let bytes = &new.path[..new.path.len().min(new.path_bytes as usize)];
    let mut path = PathBuf::from("/");
    let components = bytes.split(|byte| *byte == 0).filter(|component| !component.is_empty());
    components.rev().for_each(|component| path.push(OsStr::from_bytes(component)));
    path
}

/// Opens what was announced, not what has its path or its place in the process now.
fn open(new: &NewFile, root: &Path) -> io::Result<(PathBuf, File)> {
    if let Some((path, file)) = open_linked(new.tgid, &(new.start..new.end))
        && is_announced(new, &path, &file)?
    {
        return Ok((path, file));
    }
    if let Ok(identity) = identity(new)
        && let Some(opened) = open_in_root(root, identity)
    {
        return Ok(opened);
    }
    // The process has ended, or the agent may not look at it. On the host's own file systems the path that the kernel
    // programs found leads to the file; the device must be the same too, because the process may have lived in another mount
    // namespace.
    let path = announced_path(new);
    let file = open_regular(&path)?;
    let facts = file.metadata()?;
    let device =
        (u64::from(libc::major(facts.dev())) << KERNEL_MINOR_BITS) | u64::from(libc::minor(facts.dev()));
    if (facts.ino(), device) == (new.key.inode, u64::from(new.key.device)) {
        Ok((path, file))
    } else {
        Err(io::Error::other("another file has the path"))
    }
}

/// Whether an open file is the announced one. An overlay shows a file under another inode number than the one it maps; then it
/// is told by name and size.
fn is_announced(new: &NewFile, path: &Path, file: &File) -> io::Result<bool> {
    let facts = file.metadata()?;
    let is_like_it = || facts.size() == new.key.size && path.file_name() == announced_path(new).file_name();
    Ok(facts.ino() == new.key.inode || is_like_it())
}

/// By the kernel's link to the mapped file itself, which asks for CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
pub(super) fn open_linked(tgid: u32, range: &Range<u64>) -> Option<(PathBuf, File)> {
    let link = format!("/proc/{tgid}/map_files/{:x}-{:x}", range.start, range.end);
    let path = fs::read_link(&link).ok()?;
    Some((without_deleted_mark(path), open_regular(Path::new(&link)).ok()?))
}

/// By its path in the process's mount namespace.
pub(super) fn open_in_root(root: &Path, identity: FileIdentity) -> Option<(PathBuf, File)> {
    let relative = identity.path.strip_prefix("/").unwrap_or(&identity.path);
    let file = open_regular(&root.join(relative)).ok()?;
    (file.metadata().ok()?.ino() == identity.inode).then_some((identity.path, file))
}

/// The kernel's own device numbers have the major number above this many bits of the minor one.
const KERNEL_MINOR_BITS: u32 = 20;

/// What the kernel says of the mapping in the process's list.
fn identity(new: &NewFile) -> io::Result<FileIdentity> {
    mappings(new.tgid)?
        .into_iter()
        .find(|mapping| mapping.range.contains(&new.start))
        .and_then(|mapping| match mapping.backing {
            Backing::File(identity) => Some(identity),
            Backing::Anonymous | Backing::Vdso => None,
        })
        .filter(|identity| identity.inode == new.key.inode)
        .ok_or_else(|| io::Error::other("the mapping is gone"))
}

pub(super) fn mappings(tgid: u32) -> io::Result<Vec<Mapping>> {
    let mut text = Vec::new();
    File::open(format!("/proc/{tgid}/maps"))?.take(MAX_MAPS_BYTES).read_to_end(&mut text)?;
    Ok(maps::executable_mappings(&text))
}

fn without_deleted_mark(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(bytes) => PathBuf::from(OsStr::from_bytes(bytes)),
        None => path,
    }
}

/// A path may by now lead to a pipe or a device, which must neither block nor be read.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chokepoint_ebpf::unwind::file::FILE_PATH_LEN;

    /// Above the kernel's own limit for process ids.
    const NOBODY: u32 = 1 << 23;

    /// The mapping of this test's own code.
    fn own_file(id: u32) -> NewFile {
        let code = own_file as fn(u32) -> NewFile as usize as u64;
        let text = fs::read("/proc/self/maps").unwrap();
        let mapping = maps::executable_mappings(&text)
            .into_iter()
            .find(|mapping| mapping.range.contains(&code))
            .unwrap();
        let Backing::File(identity) = mapping.backing else { panic!("{mapping:?}") };
        let mut path = [0; FILE_PATH_LEN];
        let mut used = 0;
        for component in identity.path.iter().rev().filter(|component| *component != "/") {
            let bytes = component.as_bytes();
            path[used..used + bytes.len()].copy_from_slice(bytes);
            used += bytes.len() + 1;
        }
        NewFile {
            kind: 0,
            id,
            key: FileKey {
                inode: identity.inode,
                size: identity.path.metadata().unwrap().len(),
                device: identity.major << KERNEL_MINOR_BITS | identity.minor,
                ..FileKey::default()
            },
            tgid: std::process::id(),
            reserved: 0,
            start: mapping.range.start,
            end: mapping.range.end,
            path_bytes: used as u64,
            path,
        }
    }

    #[test]
    fn a_mapped_file_is_opened_once() {
        let mut binaries = Binaries::default();
        let Some(Announced::Opened(first)) = binaries.announce(&own_file(1)) else { panic!("not opened") };
        assert_eq!(binaries.announce(&own_file(9)), Some(Announced::Opened(first)));
        assert_eq!((binaries.find(1), binaries.find(9), binaries.find(2)), (Some(first), Some(first), None));
        let binary = binaries.get(first);
        assert_eq!(binary.path, std::env::current_exe().unwrap());
        assert!(binary.file.is_some());
    }

    #[test]
    fn what_took_the_place_of_a_mapping_is_not_taken_for_it() {
        let mut binaries = Binaries::default();
        let own = own_file(1);
        // As if this program had been mapped over another one, of another inode and name.
        let mut new = own;
        new.key.inode += 1;
        new.path = [0; FILE_PATH_LEN];
        new.path[..7].copy_from_slice(b"another");
        new.path_bytes = 8;
        assert!(matches!(binaries.announce(&new), Some(Announced::Unopened(_))));
    }

    #[test]
    fn the_file_of_a_process_that_is_gone_is_found_by_its_path() {
        let mut binaries = Binaries::default();
        let new = NewFile { tgid: NOBODY, ..own_file(1) };
        let Some(Announced::Opened(id)) = binaries.announce(&new) else { panic!("not opened") };
        assert_eq!(binaries.get(id).path, std::env::current_exe().unwrap());
    }

    #[test]
    fn where_another_file_has_the_path_it_is_not_taken_for_the_first() {
        let mut binaries = Binaries::default();
        let mut new = NewFile { tgid: NOBODY, ..own_file(1) };
        new.key.inode += 1;
        let Some(Announced::Unopened(id)) = binaries.announce(&new) else { panic!("opened") };
        assert_eq!(binaries.get(id).path, std::env::current_exe().unwrap());
        assert_eq!((binaries.get(id).file.is_none(), binaries.unopened()), (true, 1));
        // Announced again by a process that lives; the file is told by its name and size.
        let Some(Announced::Opened(opened)) = binaries.announce(&NewFile { key: new.key, ..own_file(2) })
        else {
            panic!("not opened")
        };
        assert_eq!((binaries.find(1), binaries.find(2)), (Some(opened), Some(opened)));
        assert_eq!(binaries.unopened(), 0);
    }
}
