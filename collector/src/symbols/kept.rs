//! Symbols in a directory: a file for each build, whole or not there.
//!
//! A file is named by its build id in hexadecimal digits. Its first line is JSON, who told it ([`Origin`]); what follows is as
//! `symbols/src/format.rs` has it. It gets its name when it is on the disk. Its time of change is when somebody needed it last, about: by it the
//! files go that nobody needed for long, and those needed longest ago where there are too many bytes. Nothing else is kept anywhere, so
//! that several collectors may have one directory, and an operator may delete any file: it is asked for again.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chokepoint_symbols::format::{FormatError, MAX_BYTES};
use chokepoint_symbols::{Quality, Symbols};
use thiserror::Error;

use super::origin::{Origin, hex};
use crate::clock::now_unix_ns;

/// Memory for symbols that were needed lately.
pub const MEMORY_BYTES: usize = 96 << 20;
/// Builds of which it is remembered that their file is of no use, or how good it is.
const MAX_REMEMBERED: usize = 4_096;
/// Bytes of a file's first line.
const MAX_ORIGIN_BYTES: u64 = 16 << 10;
/// A file's time is changed at most so often.
const TOUCH_EVERY: Duration = Duration::from_secs(3_600);
/// What a file is called until it is whole, at the beginning.
const UNFINISHED: &str = ".unfinished";
/// What is unfinished for longer was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);
/// How files' names end.
const ENDING: &str = ".symbols";

/// Symbols that are not kept.
#[derive(Debug, Error)]
pub enum NotKept {
    /// What is known tells as much.
    #[error("they tell no more than what is known")]
    NotBetter,
    /// They cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The disk does not take them.
    #[error("cannot write them: {0}")]
    Io(#[from] io::Error),
}

/// The directory, with what was read of it lately.
pub(super) struct Kept {
    directory: PathBuf,
    max_bytes: u64,
    keep: Duration,
    read: Mutex<Memory>,
    /// One is written at a time: two of one build would not know of each other.
    writing: Mutex<()>,
}

/// Which content a name has: a file that takes another's place has another inode.
type Content = (u64, u64);

#[derive(Default)]
struct Memory {
    builds: HashMap<Vec<u8>, InMemory>,
    bytes: usize,
    uses: u64,
}

struct InMemory {
    content: Content,
    /// `None`: the file is of no use.
    symbols: Option<Arc<Symbols>>,
    last_use: u64,
}

impl Kept {
    pub(super) fn open(directory: PathBuf, max_bytes: u64, keep: Duration) -> io::Result<Self> {
        // What code is called may be a secret.
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        // Whether it can be written is to be known now.
        tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&directory)?;
        Ok(Self { directory, max_bytes, keep, read: Mutex::default(), writing: Mutex::new(()) })
    }

    fn path(&self, build_id: &[u8]) -> PathBuf {
        self.directory.join(hex(build_id) + ENDING)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How good the symbols of a build are; `None`: there are none.
    pub(super) fn quality(&self, build_id: &[u8]) -> Option<Quality> {
        let path = self.path(build_id);
        let file = File::open(&path).ok()?;
        touch(&file);
        read_origin(&mut BufReader::new(file)).ok()?.quality()
    }

    /// The symbols of a build.
    pub(super) fn get(&self, build_id: &[u8]) -> Option<Arc<Symbols>> {
        let path = self.path(build_id);
        let metadata = fs::metadata(&path).ok()?;
        let content = (metadata.ino(), metadata.len());
        if let Some(known) = self.memory().find(build_id, content) {
            return known;
        }
        let symbols = read(&path).inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "symbols cannot be read: delete the file, and they are asked for again");
        });
        let symbols = symbols.ok().map(|(_, symbols)| Arc::new(symbols));
        self.memory().remember(build_id, content, symbols.clone());
        symbols
    }

    /// Keeps symbols. Where some are known and the new ones' origin does not take their place, all that is known stays, and what is new is
    /// added. Returns how good they are then.
    ///
    /// # Errors
    /// Where they tell no more than what is known, and where they cannot be written.
    pub(super) fn keep(&self, symbols: Symbols, mut origin: Origin) -> Result<Quality, NotKept> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(symbols.build_id());
        let known = match read(&path) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "symbols cannot be read, and others take their place");
                None
            }
        };
        let symbols = match known {
            Some((_, known)) if symbols.quality() <= known.quality() => return Err(NotKept::NotBetter),
            Some((by, known)) if !origin.replaces(&by) => {
                origin = origin.after(&by);
                symbols.adding_to(&known)
            }
            _ => symbols,
        };
        (origin.quality, origin.stored_unix_ns) = (symbols.quality() as u32, now_unix_ns());
        let written = symbols.write()?;
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.directory)?;
        serde_json::to_writer(&mut file, &origin).map_err(io::Error::from)?;
        file.write_all(b"\n")?;
        file.write_all(&written)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(symbols.quality())
    }

    /// Lets go of files that nobody needed for long, and of those needed longest ago while there are too many bytes. Returns how many went.
    pub(super) fn sweep(&self, now_unix_ns: u64) -> io::Result<u64> {
        let now = UNIX_EPOCH + Duration::from_nanos(now_unix_ns);
        let (mut files, mut bytes, mut gone) = (Vec::new(), 0, 0);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // Another collector may have been faster.
            let Ok(metadata) = entry.metadata() else { continue };
            let age =
                metadata.modified().ok().and_then(|used| now.duration_since(used).ok()).unwrap_or_default();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(UNFINISHED) && age > LEFT_BEHIND {
                _ = fs::remove_file(entry.path());
            } else if name.ends_with(ENDING) && age > self.keep {
                gone += u64::from(fs::remove_file(entry.path()).is_ok());
            } else if name.ends_with(ENDING) {
                bytes += metadata.len();
                files.push((age, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        for (_, length, path) in files {
            if bytes <= self.max_bytes {
                break;
            }
            if fs::remove_file(path).is_ok() {
                bytes -= length;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

impl Memory {
    fn find(&mut self, build_id: &[u8], content: Content) -> Option<Option<Arc<Symbols>>> {
        self.uses += 1;
        let known = self.builds.get_mut(build_id).filter(|known| known.content == content)?;
        known.last_use = self.uses;
        Some(known.symbols.clone())
    }

    fn remember(&mut self, build_id: &[u8], content: Content, symbols: Option<Arc<Symbols>>) {
        let bytes = |symbols: &Option<Arc<Symbols>>| symbols.as_ref().map_or(0, |symbols| symbols.bytes());
        self.bytes += bytes(&symbols);
        let known = InMemory { content, symbols, last_use: self.uses };
        if let Some(before) = self.builds.insert(build_id.to_vec(), known) {
            self.bytes -= bytes(&before.symbols);
        }
        while (self.bytes > MEMORY_BYTES && self.builds.len() > 1) || self.builds.len() > MAX_REMEMBERED {
            let oldest = self.builds.iter().min_by_key(|(_, known)| known.last_use);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { return };
            if let Some(before) = self.builds.remove(&oldest) {
                self.bytes -= bytes(&before.symbols);
            }
        }
    }
}

/// Takes note that a file was needed.
fn touch(file: &File) {
    let is_old = |used: SystemTime| used.elapsed().is_ok_and(|age| age > TOUCH_EVERY);
    if file.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old) {
        // Of another user's file the time cannot be changed: whoever wrote it needs it too, or it is asked for again.
        let _ = file.set_modified(SystemTime::now());
    }
}

fn read(path: &Path) -> io::Result<(Origin, Symbols)> {
    let file = File::open(path)?;
    touch(&file);
    let mut reader = BufReader::new(file);
    let origin = read_origin(&mut reader)?;
    let mut written = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut written)?;
    let symbols =
        Symbols::read(&written).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((origin, symbols))
}

fn read_origin(reader: &mut impl BufRead) -> io::Result<Origin> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_ORIGIN_BYTES).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use chokepoint_proto::stream::Hello;
    use chokepoint_symbols::{Builder, Function};

    use super::*;

    fn symbols(name: &str, quality: Quality) -> Symbols {
        let mut builder = Builder::new(vec![0xab, 1]);
        builder.fill(vec![Function { range: 0x10..0x20, name: name.to_owned() }], quality);
        builder.finish()
    }

    fn told(kept: &Kept) -> Option<String> {
        let symbols = kept.get(&[0xab, 1])?;
        symbols.at(0x12).first().map(|line| line.function.to_owned())
    }

    fn by(name: &str) -> Origin {
        Origin::of_agent(&Hello::default(), Some(name))
    }

    #[test]
    fn better_symbols_are_kept_and_another_agents_names_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Kept::open(directory.path().join("symbols"), 1 << 20, TOUCH_EVERY).expect("it opens");
        let kept = open();
        assert_eq!((told(&kept), kept.quality(&[0xab, 1])), (None, None));
        kept.keep(symbols("first", Quality::Exported), by("a")).expect("it is new");
        assert_eq!(told(&kept).as_deref(), Some("first"));
        let again = kept.keep(symbols("again", Quality::Exported), by("b"));
        assert!(matches!(again, Err(NotKept::NotBetter)));
        kept.keep(symbols("better", Quality::Functions), by("b")).expect("it is better");
        assert_eq!(told(&kept).as_deref(), Some("first"), "another's name stays");
        // And what the operator's own source tells takes the place of both. A collector that begins anew has it still.
        kept.keep(symbols("true", Quality::Debug), Origin::of_server("http://x")).expect("it is better");
        assert_eq!(told(&kept).as_deref(), Some("true"));
        let anew = open();
        assert_eq!((told(&anew).as_deref(), anew.quality(&[0xab, 1])), (Some("true"), Some(Quality::Debug)));
    }

    #[test]
    fn damaged_files_have_no_names_and_are_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = Kept::open(directory.path().to_owned(), 1 << 20, TOUCH_EVERY).expect("it opens");
        for damaged in [&b""[..], b"{}\n", b"{\"by\":\"a\",\"quality\":2}\nno symbols"] {
            fs::write(kept.path(&[0xab, 1]), damaged).expect("it is written");
            assert_eq!(told(&kept), None);
            kept.keep(symbols("new", Quality::Exported), by("b")).expect("nothing is known");
            assert_eq!(told(&kept).as_deref(), Some("new"));
        }
    }

    #[test]
    fn what_nobody_needs_goes_and_what_is_too_much() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = Kept::open(directory.path().to_owned(), 100, Duration::from_secs(50)).expect("it opens");
        let now = SystemTime::now();
        for (name, age_s, bytes) in [("old", 60, 1), ("used", 9, 90), ("new", 1, 20)] {
            let file = File::create(directory.path().join(format!("{name}{ENDING}"))).expect("a file");
            file.set_len(bytes).expect("it has a length");
            file.set_modified(now - Duration::from_secs(age_s)).expect("it has a time");
        }
        let now_unix_ns = now.duration_since(UNIX_EPOCH).expect("it is later").as_nanos() as u64;
        assert_eq!(kept.sweep(now_unix_ns).expect("it can be listed"), 2);
        let left: Vec<_> = fs::read_dir(directory.path()).expect("a directory").collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].as_ref().expect("an entry").file_name(), *format!("new{ENDING}"));
    }
}
