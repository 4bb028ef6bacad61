//! Tables on disk, so that a restarted agent need not build them again.
//!
//! **Constraints.** What is read back ends up in the kernel programs' memory, so nothing in the directory is trusted: it must
//! be ours alone, and a file that is damaged, foreign or of another version is removed and its table built again. Tables are
//! found by build id, owner, device and size of the file; files without a build id are not kept.
//!
//! **Layout.** One file a table, little-endian: magic, version, CRC-32 of all that follows, number of rules, rows and pages,
//! length of the identity, file size; then the identity (build id, owner, device), rules (8 bytes each), rows (4) and pages (8).
//!
//! **Recovery.** A file appears whole, by renaming, and is checked whole; one that was lost with the power costs one build.
//!
//! **Deletion.** What was used longest ago goes first, by its time of modification, once all would be more than allowed. What
//! an interrupted agent left behind goes the same way.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chokepoint_ebpf::unwind::table::{MAX_PAGES, MAX_RULES, Row};

use super::bytes::Bytes;
use super::table::{MAX_ROWS, PageRows, Table, rule_bits, rule_of_bits};
use crate::symbolize::elf::Elf;

const MAGIC: &[u8; 8] = b"ckptable";
/// Grows whenever a table of the same file would be another one, too.
const VERSION: u32 = 4;
/// Where what the checksum covers begins.
const CHECKED_AT: usize = 16;
const HEADER_BYTES: usize = 40;
/// Build ids have 8 to 20 bytes; owner and device follow.
const MAX_IDENTITY_BYTES: usize = 64;
/// The largest table there can be.
const MAX_FILE_BYTES: u64 =
    (HEADER_BYTES + MAX_IDENTITY_BYTES + MAX_RULES * 8 + MAX_ROWS * 4 + MAX_PAGES * 8) as u64;

/// Which file a table belongs to: its build id, its owner and device, and its size. A build id is what a file says of itself:
/// without the others, anyone's file could stand for the C library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    identity: Vec<u8>,
    file_bytes: u64,
}

impl Key {
    /// `None` for a file without a build id, or that is no binary.
    #[must_use]
    pub fn of(file: &File) -> Option<Self> {
        let mut identity = Elf::read(file).ok()?.gnu_build_id?.as_bytes().to_vec();
        let facts = file.metadata().ok()?;
        identity.extend(facts.uid().to_le_bytes());
        identity.extend(facts.dev().to_le_bytes());
        Some(Self { identity, file_bytes: facts.len() })
    }

    fn file_name(&self) -> String {
        let identity: String = self.identity.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{identity}-{:x}.table", self.file_bytes)
    }
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Others could put tables there.
    #[error(
        "{0} belongs to another user or can be written by others; remove it, or choose another directory"
    )]
    NotOurs(PathBuf),
    /// It cannot be made or opened.
    #[error("cannot use {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// A directory of tables.
#[derive(Debug)]
pub struct TableCache {
    /// Open, so that it stays the one that was checked.
    directory: File,
    max_bytes: u64,
}

impl TableCache {
    /// Opens the directory, or makes it for us alone. All tables in it will take at most `max_bytes`.
    ///
    /// # Errors
    /// [`CacheError`]
    pub fn open(directory: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let failed = |error| CacheError::Io(directory.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(directory).map_err(failed)?;
        let metadata = opened.metadata().map_err(failed)?;
        // SAFETY: it has no arguments and cannot fail.
        let own_user = unsafe { libc::geteuid() };
        if metadata.uid() != own_user || metadata.mode() & 0o022 != 0 {
            return Err(CacheError::NotOurs(directory.to_owned()));
        }
        Ok(Self { directory: opened, max_bytes })
    }

    /// The table of a file, if it is there and whole. It counts as used now.
    #[must_use]
    pub fn load(&self, key: &Key) -> Option<Table> {
        let path = self.path().join(key.file_name());
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).ok()?;
        let mut content = Vec::new();
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        let read = is_file && (&file).take(MAX_FILE_BYTES + 1).read_to_end(&mut content).is_ok();
        match decode(&content).filter(|(found, _)| read && found == key) {
            Some((_, table)) => {
                // Failing, it is thought to be used longer ago.
                let _ = file.set_modified(SystemTime::now());
                Some(table)
            }
            None => {
                // What cannot be removed is found damaged again.
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps a table; what was used longest ago makes room. One that is larger than all may be is not kept.
    ///
    /// # Errors
    /// The file cannot be written; nothing is left of it.
    pub fn store(&self, key: &Key, table: &Table) -> io::Result<()> {
        let content = encode(key, table);
        if content.len() as u64 > self.max_bytes || key.identity.len() > MAX_IDENTITY_BYTES {
            return Ok(());
        }
        let path = self.path();
        self.make_room(content.len() as u64)?;
        let mut file = tempfile::NamedTempFile::new_in(&path)?;
        file.write_all(&content)?;
        file.persist(path.join(key.file_name()))?;
        Ok(())
    }

    /// Leads to the directory itself, whatever has its name.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            // It may have gone since.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push((metadata.mtime(), metadata.mtime_nsec(), entry.file_name(), metadata.len()));
            }
        }
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(.., len)| len).sum();
        for (.., name, len) in files {
            if total.saturating_add(bytes) <= self.max_bytes {
                break;
            }
            match fs::remove_file(self.path().join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= len,
            }
        }
        Ok(())
    }
}

/// A table as a file.
#[must_use]
pub fn encode(key: &Key, table: &Table) -> Vec<u8> {
    let mut content = Vec::with_capacity(HEADER_BYTES + key.identity.len() + table.bytes());
    content.extend(MAGIC);
    content.extend(VERSION.to_le_bytes());
    content.extend([0; 4]);
    for count in [table.rules.len(), table.rows.len(), table.pages.len(), key.identity.len()] {
        content.extend((count as u32).to_le_bytes());
    }
    content.extend(key.file_bytes.to_le_bytes());
    content.extend(&key.identity);
    table.rules.iter().for_each(|rule| content.extend(rule_bits(*rule).to_le_bytes()));
    for row in &table.rows {
        content.extend(row.offset.to_le_bytes());
        content.extend(row.rule.to_le_bytes());
    }
    for page in &table.pages {
        content.extend(page.first.to_le_bytes());
        content.extend(u32::from(page.count).to_le_bytes());
    }
    let checksum = crc32fast::hash(&content[CHECKED_AT..]);
    content[CHECKED_AT - 4..CHECKED_AT].copy_from_slice(&checksum.to_le_bytes());
    content
}

/// A file's table and whose it is; `None` unless it is what [`encode`] makes, and keeps a table's invariants.
#[must_use]
pub fn decode(content: &[u8]) -> Option<(Key, Table)> {
    let mut fields = Bytes(content);
    if fields.take(MAGIC.len())? != MAGIC || fields.u32()? != VERSION {
        return None;
    }
    if fields.u32()? != crc32fast::hash(fields.0) {
        return None;
    }
    let mut count = || fields.u32().map(|count| count as usize);
    let (rules, rows, pages, identity) = (count()?, count()?, count()?, count()?);
    let file_bytes = fields.u64()?;
    let mut section = |count: usize, bytes: usize| fields.take(count.checked_mul(bytes)?);
    let identity = section(identity, 1)?;
    let (rules, rows, pages) = (section(rules, 8)?, section(rows, 4)?, section(pages, 8)?);
    if !fields.0.is_empty() || identity.len() > MAX_IDENTITY_BYTES {
        return None;
    }
    let rule = |bytes: &[u8; 8]| rule_of_bits(u64::from_le_bytes(*bytes));
    let row = |bytes: &[u8; 4]| {
        let [offset, rule] = [[bytes[0], bytes[1]], [bytes[2], bytes[3]]].map(u16::from_le_bytes);
        Row { offset, rule }
    };
    let page = |bytes: &[u8; 8]| {
        let mut fields = Bytes(bytes);
        Some(PageRows { first: fields.u32()?, count: fields.u32()?.try_into().ok()? })
    };
    let table = Table {
        rules: rules.as_chunks().0.iter().map(rule).collect(),
        rows: rows.as_chunks().0.iter().map(row).collect(),
        pages: pages.as_chunks().0.iter().map(page).collect::<Option<_>>()?,
    };
    table.check().then(|| (Key { identity: identity.to_vec(), file_bytes }, table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::build;
    use chokepoint_ebpf::unwind::table::Rule;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn key(number: u8) -> Key {
        Key { identity: vec![number; 20], file_bytes: 1000 }
    }

    fn small_table(offset: i32) -> Table {
        Table {
            rules: vec![Rule::NONE, Rule::register(7, offset)],
            rows: vec![Row { offset: 0, rule: 1 }, Row { offset: 64, rule: 0 }],
            pages: vec![PageRows { first: 0, count: 2 }],
        }
    }

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_table_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let file = File::open("/proc/self/exe").unwrap();
        let table = build(&file).unwrap();
        let key = Key::of(&file).unwrap_or_else(|| key(1));
        let cache = TableCache::open(&path, 100 << 20).unwrap();
        assert_eq!(cache.load(&key), None);
        cache.store(&key, &table).unwrap();
        drop(cache);
        let cache = TableCache::open(&path, 100 << 20).unwrap();
        assert_eq!(cache.load(&key), Some(table));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(names(&path), 1, "nothing temporary is left");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let one = encode(&key(0), &small_table(8)).len() as u64;
        let cache = TableCache::open(directory.path(), 3 * one).unwrap();
        let age = |number: u8, minutes| {
            let path = directory.path().join(key(number).file_name());
            let then = SystemTime::now() - Duration::from_secs(60 * minutes);
            File::open(path).unwrap().set_modified(then).unwrap();
        };
        for number in 0..3 {
            cache.store(&key(number), &small_table(8)).unwrap();
            age(number, 10 - u64::from(number));
        }
        assert!(cache.load(&key(0)).is_some(), "which makes it the youngest");
        cache.store(&key(3), &small_table(8)).unwrap();
        let kept = [0, 1, 2, 3].map(|number| cache.load(&key(number)).is_some());
        assert_eq!(kept, [true, false, true, true]);
        // Larger than all together.
        let small = TableCache::open(directory.path(), one - 1).unwrap();
        small.store(&key(4), &small_table(8)).unwrap();
        assert_eq!(small.load(&key(4)), None);
    }

    #[test]
    fn every_damaged_byte_and_every_prefix_is_refused_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = TableCache::open(directory.path(), 1 << 20).unwrap();
        let path = directory.path().join(key(1).file_name());
        let whole = encode(&key(1), &small_table(8));
        let refused = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            assert_eq!(cache.load(&key(1)), None);
            assert!(!path.exists());
        };
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            refused(&damaged);
            refused(&whole[..at]);
        }
        refused(&[&whole[..], &[0]].concat());
        // Whole, but another file's.
        refused(&encode(&key(2), &small_table(8)));
        fs::write(&path, &whole).unwrap();
        assert!(cache.load(&key(1)).is_some());
    }

    #[test]
    fn what_a_right_checksum_covers_is_checked_all_the_same() {
        let table = small_table(8);
        let with = |change: &dyn Fn(&mut Table)| {
            let mut table = table.clone();
            change(&mut table);
            decode(&encode(&key(1), &table))
        };
        assert!(with(&|_| {}).is_some());
        assert_eq!(with(&|table| table.rows[1].rule = 2), None);
        assert_eq!(with(&|table| table.rows[1].offset = 0), None);
        assert_eq!(with(&|table| table.rows[0].offset = 1), None);
        assert_eq!(with(&|table| table.rows[1].offset = 1 << 14), None);
        assert_eq!(with(&|table| table.pages[0].count = 3), None);
        assert_eq!(with(&|table| table.pages[0].first = u32::MAX), None);
        assert_eq!(with(&|table| table.pages.resize(MAX_PAGES + 1, PageRows::default())), None);
        assert_eq!(with(&|table| table.rules.resize(MAX_RULES + 1, Rule::NONE)), None);
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o702] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(TableCache::open(directory.path(), 1), Err(CacheError::NotOurs(_))));
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(TableCache::open(directory.path(), 1).is_ok());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert!(matches!(TableCache::open(&link, 1), Err(CacheError::Io(..))));
    }
}
