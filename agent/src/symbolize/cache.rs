//! Which binaries stay open between batches, and what they may cost.
//!
//! blazesym maps a file and keeps every index that it builds: for 200 addresses spread over a 126 MB debug build,
//! 38 MB of indexes and 88 MB of resident file pages. Both are bounded here. File pages are given back to the kernel
//! as soon as a batch has touched many ([`release_file_pages`]); they are in the page cache still and come back in
//! microseconds. Indexes count against a budget, by what the process grew while they were built, and the binaries
//! used longest ago go first.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;

use super::elf::{BuildId, Elf};
use super::symbols::Note;
use crate::unwind::GoFunctions;

/// Which content a file has, as far as its metadata tells: device and inode say which file, size and times whether
/// it still has the content it had. The time of change cannot be set back by its owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// An open binary and the files that tell its functions.
pub(super) struct Binary {
    pub(super) identity: Identity,
    pub(super) elf: Elf,
    pub(super) build_id: BuildId,
    /// Asked in turn for what the ones before did not know.
    pub(super) layers: Vec<Layer>,
    /// Asked last, in a Go binary whose symbol table was stripped.
    pub(super) go: Option<GoFunctions>,
    pub(super) notes: Vec<Note>,
    /// Memory held for it: images, and blazesym's indexes as far as measured.
    pub(super) cost_bytes: u64,
    last_use: u64,
}

impl Binary {
    pub(super) fn new(identity: Identity, elf: Elf, build_id: BuildId) -> Self {
        let (layers, notes) = (Vec::new(), Vec::new());
        Self { identity, elf, build_id, layers, go: None, notes, cost_bytes: 0, last_use: 0 }
    }

    pub(super) fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// One file to ask, and how.
pub(super) struct Layer {
    /// Shared by the layers that ask the same file, so that blazesym knows it by one path only.
    pub(super) file: Rc<File>,
    /// Whether its DWARF is read, or only its symbol tables.
    pub(super) dwarf: bool,
    /// A file that `file` refers to by [`path_of`] it.
    pub(super) common: Option<Rc<File>>,
}

/// The path under which blazesym knows an open file: it leads to the file itself, whatever its name is now.
pub(super) fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The cached binaries.
pub(super) struct Cache {
    binaries: Vec<Binary>,
    limit_bytes: u64,
    max_binaries: usize,
    clock: u64,
}

impl Cache {
    /// Holds at most `max_binaries`, costing at most `limit_bytes` once [`Cache::surplus`] is emptied.
    pub(super) fn new(limit_bytes: u64, max_binaries: usize) -> Self {
        Self { binaries: Vec::new(), limit_bytes, max_binaries, clock: 0 }
    }

    /// Takes a binary out to work on it; [`Cache::put`] it back.
    pub(super) fn take(&mut self, identity: Identity) -> Option<Binary> {
        let at = self.binaries.iter().position(|binary| binary.identity == identity)?;
        Some(self.binaries.swap_remove(at))
    }

    pub(super) fn put(&mut self, mut binary: Binary) {
        self.clock += 1;
        binary.last_use = self.clock;
        self.binaries.push(binary);
    }

    /// The binary to give up next, while there are too many or they cost too much.
    pub(super) fn surplus(&mut self) -> Option<Binary> {
        let cost: u64 = self.binaries.iter().map(|binary| binary.cost_bytes).sum();
        if cost <= self.limit_bytes && self.binaries.len() <= self.max_binaries {
            return None;
        }
        // Among those that cost nothing worth speaking of, giving one up helps only against their number.
        let over_cost = cost > self.limit_bytes;
        let candidates = self.binaries.iter().enumerate().filter(|(_, b)| !over_cost || b.cost_bytes > 0);
        let (at, _) = candidates.min_by_key(|(_, binary)| binary.last_use)?;
        Some(self.binaries.swap_remove(at))
    }

    pub(super) fn clear(&mut self) {
        self.binaries.clear();
    }
}

/// How much memory the process has resident.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Resident {
    /// Heap and stacks.
    pub(super) anonymous_bytes: u64,
    /// Pages of mapped files, those in memory included.
    pub(super) file_bytes: u64,
}

impl Resident {
    /// From `/proc/self/statm`; zero where that cannot be read, which turns the bounds off, not the symbols.
    pub(super) fn now() -> Self {
        let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = text.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
        let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
        let page_bytes = page_bytes();
        Self {
            anonymous_bytes: resident.saturating_sub(shared) * page_bytes,
            file_bytes: shared * page_bytes,
        }
    }
}

/// Unmaps the pages of `file` that blazesym's reading made resident; they return when they are touched again.
pub(super) fn release_file_pages(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let device = format!("{major:02x}:{minor:02x}");
    let inode = metadata.ino().to_string();
    let whole = metadata.len().next_multiple_of(page_bytes());
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(mode), Some(offset), Some(dev), Some(node)) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let parsed = range.split_once('-').and_then(|(start, end)| {
            Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
        });
        let Some((start, end)) = parsed else { continue };
        // Shared, read-only and of the whole file: blazesym's own. The loader's mappings of a library that the agent
        // itself uses are private, in several parts, some with relocated data that must not be dropped.
        let is_ours = mode == "r--s" && offset.bytes().all(|digit| digit == b'0') && end - start == whole;
        if is_ours && dev == device && node == inode {
            // SAFETY: a shared mapping holds nothing but the file's content, which MADV_DONTNEED leaves there.
            unsafe { libc::madvise(start as *mut libc::c_void, whole as usize, libc::MADV_DONTNEED) };
        }
    }
    Ok(())
}

fn page_bytes() -> u64 {
    // SAFETY: reads a constant of the system.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(inode: u64, cost_bytes: u64) -> Binary {
        let own = File::open("/proc/self/exe").unwrap();
        let elf = Elf::read(&own).unwrap();
        let build_id = elf.build_id(&own).unwrap();
        let identity = Identity { device: 1, inode, size: 0, modified: (0, 0), changed: (0, 0) };
        Binary { cost_bytes, ..Binary::new(identity, elf, build_id) }
    }

    #[test]
    fn pages_of_a_mapped_file_are_given_back() {
        const BYTES: usize = 32 << 20;
        let file = crate::symbolize::file_of(&vec![1; BYTES]);
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice, unmapped below.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let before = Resident::now().file_bytes;
        release_file_pages(&file).unwrap();
        let given_back = before.saturating_sub(Resident::now().file_bytes);
        // Other tests map and unmap at the same time.
        assert!(given_back > BYTES as u64 / 2, "{given_back} of {BYTES} bytes");
        // SAFETY: the content is still there to read, and the mapping is the one made above.
        unsafe {
            assert_eq!(start.cast::<u8>().add(BYTES - 1).read_volatile(), 1);
            libc::munmap(start, BYTES);
        }
    }

    #[test]
    fn the_binary_used_longest_ago_goes_first_and_only_if_it_costs() {
        const MAX_BINARIES: usize = 64;
        let mut cache = Cache::new(100, MAX_BINARIES);
        for (inode, cost) in [(1, 0), (2, 60), (3, 30), (4, 50)] {
            cache.put(binary(inode, cost));
        }
        let used = cache.take(binary(2, 0).identity).unwrap();
        cache.put(used);
        assert_eq!(cache.surplus().unwrap().identity.inode, 3);
        assert_eq!(cache.surplus().unwrap().identity.inode, 4);
        assert!(cache.surplus().is_none());
        for inode in 10..10 + MAX_BINARIES as u64 {
            cache.put(binary(inode, 0));
        }
        assert_eq!(cache.surplus().unwrap().identity.inode, 1);
    }
}
