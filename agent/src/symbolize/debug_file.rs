//! The search for the debug file of a stripped binary.
//!
//! Distributions and build systems put debug information into files of its own, found in two ways: by the build id
//! (`DIR/.build-id/xx/yyyy.debug` in each debug directory) or by a name in the binary (`.gnu_debuglink`), looked
//! for beside the binary, in `.debug/` beside it, and under each debug directory at the binary's own path.
//!
//! Each place is tried in the root of the binary's own mount namespace first, where the container's image may bring
//! its debug files, then on the host, where an operator may have installed them for images without. A file counts
//! only if its build id is the binary's, or, where one of them has none, if its content has the checksum that the
//! binary's link names.
//!
//! Where `dwz` has moved what several debug files have in common to one more file, that one is found by the path
//! and the build id in `.gnu_debugaltlink`, in the same roots. blazesym reads names from it, but not the functions
//! that were moved there whole: where those were inlined, their frames are missing.

use std::ffi::OsStr;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::elf::{BuildId, Elf};

/// A checksum reads the whole file; a gigabyte takes a third of a second, and files that large have build ids.
const MAX_CHECKSUM_BYTES: u64 = 1 << 30;

/// A debug file that belongs to the binary.
pub(super) struct DebugFile {
    pub(super) file: File,
    pub(super) elf: Elf,
    /// Where it was found, within its root.
    pub(super) path: PathBuf,
}

/// What a search came to.
#[derive(Default)]
pub(super) struct Search {
    pub(super) found: Option<DebugFile>,
    /// Files at the right place that belong to another build.
    pub(super) rejected: u64,
}

/// Looks for the debug file of `binary`, which its process knows as `path` within `root`.
pub(super) fn find(binary: &File, elf: &Elf, path: &Path, root: &Path, debug_dirs: &[PathBuf]) -> Search {
    let link = elf.debug_link(binary);
    let mut search = Search::default();
    for (is_own, root) in roots(root) {
        for candidate in candidates(elf, link.as_ref(), path, debug_dirs, is_own) {
            let Ok(file) = root.open_regular(&candidate) else { continue };
            match accept(&file, binary, elf, link.as_ref().map(|link| link.1)) {
                Some(elf) => {
                    search.found = Some(DebugFile { file, elf, path: candidate });
                    return search;
                }
                None => search.rejected += 1,
            }
        }
    }
    search
}

/// Looks for the file with what `elf`, found at `path` within `root`, has in common with others.
pub(super) fn find_common(
    file: &File,
    elf: &Elf,
    path: &Path,
    root: &Path,
    debug_dirs: &[PathBuf],
) -> Option<DebugFile> {
    let (link, id) = elf.alternate_link(file)?;
    let link = PathBuf::from(OsString::from_vec(link));
    let mut candidates = by_build_id(&id, debug_dirs);
    // An absolute link replaces the directory.
    candidates.push(path.parent().unwrap_or(Path::new("/")).join(link));
    roots(root).find_map(|(_, root)| {
        candidates.iter().find_map(|candidate| {
            let file = root.open_regular(candidate).ok()?;
            let elf = Elf::read(&file).ok()?;
            let is_meant = elf.gnu_build_id.as_ref() == Some(&id);
            is_meant.then(|| DebugFile { file, elf, path: candidate.clone() })
        })
    })
}

/// The root that the binary is in, and the host's where it is another; whether it is the former.
fn roots(own: &Path) -> impl Iterator<Item = (bool, Root)> {
    let (own, host) = (Root::open(own).ok(), Root::open(Path::new("/")).ok());
    // `/proc/PID/root` of most processes is the host's.
    let is_same = own.as_ref().zip(host.as_ref()).is_some_and(|(own, host)| own.directory == host.directory);
    let own = own.map(|root| (true, root));
    own.into_iter().chain(host.filter(|_| !is_same).map(|root| (false, root)))
}

fn by_build_id(id: &BuildId, debug_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let hex = id.to_string();
    // An id of one byte has no file name left.
    let Some((first, rest)) = hex.split_at_checked(2).filter(|(_, rest)| !rest.is_empty()) else {
        return Vec::new();
    };
    let file = format!(".build-id/{first}/{rest}.debug");
    debug_dirs.iter().map(|dir| dir.join(&file)).collect()
}

/// The places to look at, best first, as paths within a root.
fn candidates(
    elf: &Elf,
    link: Option<&(Vec<u8>, u32)>,
    path: &Path,
    debug_dirs: &[PathBuf],
    beside: bool,
) -> Vec<PathBuf> {
    let mut places = elf.gnu_build_id.as_ref().map(|id| by_build_id(id, debug_dirs)).unwrap_or_default();
    if let (Some((name, _)), Some(directory)) = (link, path.parent()) {
        let name = OsString::from_vec(name.clone());
        if beside {
            places.push(directory.join(&name));
            places.push(directory.join(".debug").join(&name));
        }
        let relative = directory.strip_prefix("/").unwrap_or(directory);
        places.extend(debug_dirs.iter().map(|dir| dir.join(relative).join(&name)));
    }
    places
}

/// The headers of `file`, if it describes the build that `binary` is.
fn accept(file: &File, binary: &File, binary_elf: &Elf, checksum: Option<u32>) -> Option<Elf> {
    let (own, other) = (binary.metadata().ok()?, file.metadata().ok()?);
    // A link to itself is legal, and says nothing new.
    if (own.dev(), own.ino()) == (other.dev(), other.ino()) {
        return None;
    }
    let elf = Elf::read(file).ok()?;
    let belongs = match (&elf.gnu_build_id, &binary_elf.gnu_build_id) {
        (Some(own), Some(other)) => own == other,
        _ => checksum.is_some_and(|expected| content_checksum(file).is_ok_and(|sum| sum == expected)),
    };
    belongs.then_some(elf)
}

fn content_checksum(file: &File) -> io::Result<u32> {
    if file.metadata()?.len() > MAX_CHECKSUM_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut sum = flate2::Crc::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(sum.sum());
        }
        sum.update(&buffer[..read]);
        at += read as u64;
    }
}

/// A directory that nothing below it can lead out of, whatever symbolic links a container puts there.
struct Root {
    fd: OwnedFd,
    /// Device and inode.
    directory: (u64, u64),
}

impl Root {
    fn open(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a C string; the returned descriptor belongs to nobody else.
        let file = unsafe {
            match libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) {
                fd if fd < 0 => return Err(io::Error::last_os_error()),
                fd => File::from_raw_fd(fd),
            }
        };
        let metadata = file.metadata()?;
        Ok(Self { directory: (metadata.dev(), metadata.ino()), fd: file.into() })
    }

    /// Opens a regular file. Devices and pipes, whose mere opening may block or act, are not opened.
    fn open_regular(&self, path: &Path) -> io::Result<File> {
        let found = self.locate(path)?;
        if !found.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        File::open(OsStr::new(&format!("/proc/self/fd/{}", found.as_raw_fd())))
    }

    fn locate(&self, path: &Path) -> io::Result<File> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let path = CString::new(relative.as_os_str().as_bytes())?;
        // SAFETY: open_how is plain memory for which all zeros is valid; the pointers outlive the call; the
        // returned descriptor belongs to nobody else. openat2 came with Linux 5.6, before any kernel we run on.
        unsafe {
            let mut how: libc::open_how = std::mem::zeroed();
            how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
            how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
            let size = size_of::<libc::open_how>();
            let fd = libc::syscall(libc::SYS_openat2, self.fd.as_raw_fd(), path.as_ptr(), &how, size);
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd as i32)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_cannot_be_left() {
        let dir = tempfile::tempdir().unwrap();
        let root_path = dir.path().join("root");
        fs::create_dir_all(root_path.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(root_path.join("etc/inside"), "inside").unwrap();
        symlink("../../secret", root_path.join("etc/relative")).unwrap();
        symlink(dir.path().join("secret"), root_path.join("etc/absolute")).unwrap();
        symlink("/etc/inside", root_path.join("etc/within")).unwrap();
        let root = Root::open(&root_path).unwrap();
        let read = |path: &str| root.open_regular(Path::new(path)).and_then(io::read_to_string).ok();
        assert_eq!(read("/etc/inside").as_deref(), Some("inside"));
        assert_eq!(read("/etc/within").as_deref(), Some("inside"));
        assert_eq!(read("/etc/relative"), None);
        assert_eq!(read("/etc/absolute"), None);
        assert_eq!(read("/../secret"), None);
        assert_eq!(read("/etc"), None);
    }

    #[test]
    fn a_pipe_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = CString::new(dir.path().join("pipe").as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        // Would block until somebody writes.
        assert!(Root::open(dir.path()).unwrap().open_regular(Path::new("pipe")).is_err());
    }

    #[test]
    fn checksums_span_several_reads() {
        let content: Vec<u8> = (0..700_000_u32).map(|i| i as u8).collect();
        let file = crate::symbolize::file_of(&content);
        let mut whole = flate2::Crc::new();
        whole.update(&content);
        assert_eq!(content_checksum(&file).unwrap(), whole.sum());
    }
}
