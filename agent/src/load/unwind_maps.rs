//! The unwinder's maps, as the agent writes them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use chokepoint_ebpf::unwind::file::{FileEntry, FileKey};
use chokepoint_ebpf::unwind::table::{CHUNK_BYTES, CHUNK_ROWS, MAX_PAGES, MAX_RULES, PackedRow, Page, Rule};

use super::LoadError;

/// Rows of a chunk as the kernel sees them: one value.
type ChunkValue = [u8; CHUNK_BYTES];

/// The unwinder's maps. Rules, pages and the chunks of rows are written through mappings.
pub struct UnwindMaps {
    outer: ArrayOfMaps<MapData, Array<MapData, ChunkValue>>,
    chunks: Vec<(OwnedFd, Array<MapData, ChunkValue>)>,
    pages: Mapped<Page>,
    rules: Mapped<Rule>,
    /// Counts changes of `files`.
    changes: Mapped<u64>,
    files: HashMap<MapData, [u64; 4], [u32; 6]>,
}

const OUTER: &str = "UNWIND_CHUNKS";

impl UnwindMaps {
    /// Takes the maps from the loaded object. They can be taken once.
    ///
    /// # Errors
    /// Where a map is missing or cannot be mapped.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let outer = take(ebpf, OUTER)?;
        let files = take(ebpf, "FILES")?;
        Ok(Self {
            outer: ArrayOfMaps::try_from(outer).map_err(|source| LoadError::Map { name: OUTER, source })?,
            chunks: Vec::new(),
            pages: Mapped::new(&descriptor(take(ebpf, "UNWIND_PAGES")?)?, MAX_PAGES)?,
            rules: Mapped::new(&descriptor(take(ebpf, "UNWIND_RULES")?)?, MAX_RULES)?,
            changes: Mapped::new(&descriptor(take(ebpf, "UNWIND_CHANGES")?)?, 1)?,
            files: HashMap::try_from(files).map_err(|source| LoadError::Map { name: "FILES", source })?,
        })
    }

    /// Every page's entry.
    pub fn pages(&mut self) -> &mut [Page] {
        self.pages.as_mut()
    }

    /// Every rule.
    pub fn rules(&mut self) -> &mut [Rule] {
        self.rules.as_mut()
    }

    /// A chunk; made, with those before it, if it is not there.
    ///
    /// # Errors
    /// Where the kernel has no memory for it.
    pub fn chunk(&mut self, index: u32) -> Result<Chunk, LoadError> {
        while self.chunks.len() <= index as usize {
            let made = new_chunk()?;
            self.outer
                .set(self.chunks.len() as u32, &made.1, 0)
                .map_err(|source| LoadError::Map { name: OUTER, source })?;
            self.chunks.push(made);
        }
        let (descriptor, _) = self.chunks.get(index as usize).ok_or(LoadError::Missing(OUTER))?;
        Mapped::new(descriptor, CHUNK_ROWS).map(Chunk)
    }

    /// Chunks there are. They stay until the programs go, to be filled again.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Returns when every program that may still read what was changed before has ended: the kernel waits for that in each
    /// change of a map of maps.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn wait_for_programs(&mut self) -> Result<(), LoadError> {
        match self.chunks.first() {
            Some((_, chunk)) => {
                self.outer.set(0, chunk, 0).map_err(|source| LoadError::Map { name: OUTER, source })
            }
            None => Ok(()),
        }
    }

    /// What the kernel programs are to know of a file.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_file(&mut self, key: &FileKey, entry: FileEntry) -> Result<(), LoadError> {
        let key = words(key);
        let value = [entry.id, entry.first_page, entry.pages, entry.known, entry.first_rule, 0];
        let set = self.files.insert(key, value, 0).map_err(|source| LoadError::Map { name: "FILES", source });
        self.count_change();
        set
    }

    /// Has the programs drop what they remember of files.
    fn count_change(&mut self) {
        // SAFETY: aligned memory of the map's only value, which lives as long as the mapping; the kernel programs only read it.
        let changes = unsafe { AtomicU64::from_ptr(self.changes.as_mut().as_mut_ptr()) };
        changes.fetch_add(1, Ordering::Release);
    }

    /// Makes the kernel programs forget a file, so that they announce it again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forget_file(&mut self, key: &FileKey) -> Result<(), LoadError> {
        let removed = self.files.remove(&words(key));
        self.count_change();
        match removed {
            // They forgot it themselves.
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(LoadError::Map { name: "FILES", source }),
        }
    }
}

/// The key as the map has it.
fn words(key: &FileKey) -> [u64; 4] {
    [key.inode_address, key.inode, key.size, u64::from(key.generation) | u64::from(key.device) << 32]
}

/// The rows of a chunk, mapped for writing.
pub struct Chunk(Mapped<PackedRow>);

impl Chunk {
    /// All of its rows.
    pub fn rows(&mut self) -> &mut [PackedRow] {
        self.0.as_mut()
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::Missing(name))
}

fn descriptor(map: Map) -> Result<OwnedFd, LoadError> {
    match map {
        Map::Array(map) => duplicate(&map),
        _ => Err(LoadError::Missing("array")),
    }
}

fn duplicate(map: &MapData) -> Result<OwnedFd, LoadError> {
    map.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| LoadError::Io { what: "a map's descriptor cannot be duplicated", source })
}

fn new_chunk() -> Result<(OwnedFd, Array<MapData, ChunkValue>), LoadError> {
    let unusable = |source| LoadError::Map { name: OUTER, source };
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        size_of::<u32>() as u32,
        CHUNK_BYTES as u32,
        1,
        BPF_F_MMAPABLE,
    );
    let map = MapData::create(shape, "unwind_chunk", None).map_err(unusable)?;
    let descriptor = duplicate(&map)?;
    Ok((descriptor, Array::try_from(Map::Array(map)).map_err(unusable)?))
}

/// An array map that this process writes like memory, while the kernel programs read it.
struct Mapped<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: it is memory of its own, and reached through `&mut self` alone.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    /// Maps `length` values of an array whose values have no padding between them.
    fn new(map: &OwnedFd, length: usize) -> Result<Self, LoadError> {
        // SAFETY: a new mapping, whose place the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Self { start, length }),
            None => {
                let source = io::Error::last_os_error();
                Err(LoadError::Io { what: "an unwinding map cannot be mapped", source })
            }
        }
    }

    fn as_mut(&mut self) -> &mut [T] {
        // SAFETY: the mapping has this length and lives as long as `self`. Only this process writes it, and any bytes are a
        // valid T: they are made of integers alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}
