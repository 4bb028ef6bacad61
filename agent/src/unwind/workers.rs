//! Builds tables on threads of their own, the most wanted first.
//!
//! The drain tells what was sampled ([`Unwinding::sampled`]); a file whose table is missing is wanted the more, the more
//! samples miss it. Nothing here blocks the drain: it shares one short lock with the workers, and reads of files, parsing and
//! loading happen outside of it.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chokepoint_ebpf::unwind::file::{FileKey, NewFile, VDSO_KEY};
use chokepoint_ebpf::unwind::frame::{Place, VDSO_ID};

use super::cache::{Key, TableCache};
use super::loaded::{LoadedTables, NoRoom};
use super::source::{self, BuildError};
use super::table::Table;
use crate::drain::decode::Sample;
use crate::load::LoadError;
use crate::load::unwind_maps::UnwindMaps;
use crate::process::binaries::BinaryId;

/// What tables may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Kernel memory of all rows, bytes; taken in chunks of 192 KB.
    pub budget_bytes: usize,
    /// Where tables are kept between runs; `None` to build each anew.
    pub cache: Option<CacheDirectory>,
}

/// Where tables are kept between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheDirectory {
    /// Where the user wants them; that it cannot be used is told.
    Asked(PathBuf),
    /// The usual place, which may be another user's.
    Usual(PathBuf),
}

impl CacheDirectory {
    /// Of the host, for whoever may write there.
    #[must_use]
    pub fn usual() -> Self {
        Self::Usual("/var/cache/chokepoint/unwind".into())
    }
}

impl Options {
    /// As usual, with tables kept between runs.
    #[must_use]
    pub fn cached() -> Self {
        Self { cache: Some(CacheDirectory::usual()), ..Self::default() }
    }
}

impl Default for Options {
    /// 64 MB, which hold the tables of a hundred large programs and libraries; no cache.
    fn default() -> Self {
        Self { budget_bytes: 64 << 20, cache: None }
    }
}

/// What was built, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tables built from files.
    pub built: u64,
    /// Tables taken from the cache.
    pub cached: u64,
    /// Files without call-frame information.
    pub without: u64,
    /// Files whose call-frame information cannot be used: damaged, too large, or not readable.
    pub failed: u64,
    /// Tables given up for others that were sampled more.
    pub evicted: u64,
    /// Tables for which there was no room.
    pub no_room: u64,
    /// Kernel memory of the rows, bytes.
    pub row_bytes: usize,
    /// Tables loaded at the end.
    pub tables: usize,
    /// Time that building took, all threads together.
    pub build_time: Duration,
}

/// Tables on the disk: those of a host's usual programs many times over.
const CACHE_BYTES: u64 = 256 << 20;

/// One builds while the other is held up by a giant.
const WORKERS: usize = 2;

/// The workers, and what they share with the drain. Dropping it lets them end.
pub struct Unwinding {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    tables: Mutex<LoadedTables>,
    cache: Option<TableCache>,
}

#[derive(Default)]
struct State {
    files: HashMap<u32, BinaryId>,
    binaries: HashMap<BinaryId, Wanted>,
    /// What the kernel programs are to be told, at once.
    news: Vec<News>,
    /// How often each file was announced that could not be opened.
    unopened: HashMap<FileKey, u32>,
    statistics: Statistics,
    over: bool,
}

/// What the kernel programs are to be told of a file.
enum News {
    /// One whose table is loaded has another key or id.
    Renamed(BinaryId, FileKey, u32),
    /// One could not be opened: they are to announce it again.
    Forget(FileKey),
    /// There is no table for it, and none will come.
    Nothing(FileKey, u32),
}

/// Announcements after which a file that cannot be opened is given up. A process that is sampled rarely lives for the time
/// of an announcement only where all of its kind are short-lived.
const MAX_ANNOUNCEMENTS: u32 = 32;

/// Keys and ids of one file that are kept. It has several while it is mapped from several places that the kernel does not
/// take for one, and comes by new ones when the kernel forgets it.
const MAX_NAMES: usize = 64;
/// Files that could not be opened whose announcements are counted; of more, each is given up at once.
const MAX_UNOPENED: usize = 4096;

/// What is asked of a worker.
enum Job {
    Tell(News),
    Build(BinaryId, Arc<File>),
}

/// A file and its table.
struct Wanted {
    file: Arc<File>,
    file_bytes: u64,
    /// The kernel's keys and ids of it.
    names: Vec<(FileKey, u32)>,
    status: Status,
    /// Samples in it.
    usage: u64,
    /// Samples that missed its table since it was last tried.
    missed: u64,
    /// How many must miss it before it is tried.
    patience: u64,
}

impl Wanted {
    /// Puts the next try off: there was no room for it, or it was given up for others. With each time it takes four times
    /// as many samples, so that files that do not all fit do not keep pushing each other out.
    fn put_off(&mut self) {
        self.status = Status::Missing;
        self.missed = 0;
        self.patience = self.patience.saturating_mul(4).max(FIRST_PATIENCE);
    }

    fn is_due(&self) -> bool {
        self.status == Status::Missing && self.missed >= self.patience
    }
}

/// Samples that must miss a table that was put off once.
const FIRST_PATIENCE: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Missing,
    Building,
    Loaded,
    /// There is none to be had.
    Nothing,
}

impl Unwinding {
    /// Starts the workers, and loads the vDSO's table.
    ///
    /// # Errors
    /// Where the maps cannot be written, or the kernel refuses threads.
    pub fn start(maps: UnwindMaps, options: &Options) -> Result<Self, LoadError> {
        let mut tables = LoadedTables::new(maps, options.budget_bytes);
        load_vdso(&mut tables)?;
        let cache = options.cache.as_ref().and_then(open_cache);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            tables: Mutex::new(tables),
            cache,
        });
        for _ in 0..WORKERS {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("unwind-tables".to_owned())
                .spawn(move || work(&shared))
                .map_err(|source| LoadError::Io { what: "no thread for unwind tables", source })?;
        }
        Ok(Self { shared })
    }

    /// Takes note of a file that is now known as `binary`.
    pub fn announce(&self, new: &NewFile, binary: BinaryId, file: &Arc<File>) {
        let mut state = self.shared.state();
        state.files.insert(new.id, binary);
        let wanted = state.want(binary, file);
        // What the kernel's own table of files forgot comes back under another id.
        wanted.names.retain(|(key, _)| *key != new.key);
        // The kernel may have forgotten the inode, too, and have it elsewhere now: older names lead nowhere.
        wanted.names.truncate(MAX_NAMES - 1);
        wanted.names.insert(0, (new.key, new.id));
        match wanted.status {
            Status::Missing => wanted.missed += 1,
            Status::Building => return,
            Status::Loaded => {
                drop(state);
                return self.tell_now(News::Renamed(binary, new.key, new.id));
            }
            Status::Nothing => state.news.push(News::Nothing(new.key, new.id)),
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Tells the kernel programs at once, unless that would mean to wait for a table that is being loaded.
    fn tell_now(&self, news: News) {
        if let Ok(mut tables) = self.shared.tables.try_lock() {
            if let Err(error) = tell(&mut tables, &news) {
                tracing::warn!(%error, "the kernel programs cannot be told of an unwind table");
            }
            return;
        }
        self.shared.state().news.push(news);
        self.shared.wake.notify_one();
    }

    /// Has tables built before any sample misses them, and waits for them, but not for long.
    pub fn prepare<'f>(&self, binaries: impl Iterator<Item = (BinaryId, &'f Arc<File>)>) {
        let mut prepared = Vec::new();
        let mut state = self.shared.state();
        for (binary, file) in binaries {
            state.want(binary, file).missed = 1;
            prepared.push(binary);
        }
        drop(state);
        self.shared.wake.notify_all();
        let deadline = Instant::now() + MAX_PREPARATION;
        while Instant::now() < deadline {
            let state = self.shared.state();
            let is_under_way = |binary| {
                state
                    .binaries
                    .get(binary)
                    .is_some_and(|wanted| matches!(wanted.status, Status::Missing | Status::Building))
            };
            if !prepared.iter().any(is_under_way) {
                return;
            }
            drop(state);
            thread::sleep(PREPARATION_STEP);
        }
    }

    /// Takes note of a file that could not be opened, most often because its process had ended.
    pub fn unopened(&self, new: &NewFile) {
        let mut state = self.shared.state();
        let announcements = match state.unopened.get(&new.key) {
            Some(earlier) => earlier + 1,
            None if state.unopened.len() < MAX_UNOPENED => 1,
            None => MAX_ANNOUNCEMENTS,
        };
        let news = if announcements < MAX_ANNOUNCEMENTS {
            state.unopened.insert(new.key, announcements);
            News::Forget(new.key)
        } else {
            News::Nothing(new.key, new.id)
        };
        state.news.push(news);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Counts a sample for the files it has frames in.
    pub fn sampled(&self, sample: &Sample<'_>) {
        let mut state = self.shared.state();
        let mut last = VDSO_ID;
        let mut is_wanted = false;
        for frame in sample.user_frames() {
            let Some(Place::File(id, _)) = frame.place() else { continue };
            if id == last {
                continue;
            }
            last = id;
            let Some(binary) = state.files.get(&id).copied() else { continue };
            let Some(wanted) = state.binaries.get_mut(&binary) else { continue };
            wanted.usage += 1;
            if wanted.status == Status::Missing {
                wanted.missed += 1;
                is_wanted |= wanted.is_due();
            }
        }
        drop(state);
        if is_wanted {
            self.shared.wake.notify_one();
        }
    }

    /// What was built, so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let tables = self.shared.tables();
        let (row_bytes, evicted, loaded) = (tables.row_bytes(), tables.evicted(), tables.tables());
        drop(tables);
        Statistics { row_bytes, evicted, tables: loaded, ..self.shared.state().statistics }
    }
}

/// How long a recording waits for the tables of its target: enough for a large runtime, not for a library of hundreds of
/// megabytes.
const MAX_PREPARATION: Duration = Duration::from_millis(200);
const PREPARATION_STEP: Duration = Duration::from_millis(2);

impl State {
    /// The entry of a binary, made if it is new.
    fn want(&mut self, binary: BinaryId, file: &Arc<File>) -> &mut Wanted {
        self.binaries.entry(binary).or_insert_with(|| Wanted {
            file: Arc::clone(file),
            file_bytes: file.metadata().map_or(0, |facts| facts.len()),
            names: Vec::new(),
            status: Status::Missing,
            usage: 0,
            missed: 0,
            patience: 1,
        })
    }
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables(&self) -> MutexGuard<'_, LoadedTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_cache(directory: &CacheDirectory) -> Option<TableCache> {
    let (CacheDirectory::Asked(path) | CacheDirectory::Usual(path)) = directory;
    match TableCache::open(path, CACHE_BYTES) {
        Ok(cache) => return Some(cache),
        Err(error) if matches!(directory, CacheDirectory::Asked(_)) => {
            tracing::warn!(%error, "unwind tables are not kept");
        }
        Err(error) => tracing::debug!(%error, "unwind tables are not kept"),
    }
    None
}

/// Builds and loads what is wanted most, until it is over.
fn work(shared: &Shared) {
    while let Some(job) = next(shared) {
        let done = match job {
            Job::Tell(news) => tell(&mut shared.tables(), &news),
            Job::Build(binary, file) => build(shared, binary, &file),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the kernel programs cannot be told of an unwind table");
        }
    }
}

/// What is to be done next; waits for it. `None` when it is over.
fn next(shared: &Shared) -> Option<Job> {
    let mut state = shared.state();
    loop {
        if state.over {
            return None;
        }
        if let Some(news) = state.news.pop() {
            return Some(Job::Tell(news));
        }
        // The most samples for the work: a giant does not keep many small ones waiting.
        let most =
            state.binaries.iter_mut().filter(|(_, wanted)| wanted.is_due()).max_by(|(_, a), (_, b)| {
                let worth =
                    |wanted: &Wanted| wanted.missed as f64 / (wanted.file_bytes + TYPICAL_FILE_BYTES) as f64;
                worth(a).total_cmp(&worth(b))
            });
        if let Some((binary, wanted)) = most {
            wanted.status = Status::Building;
            return Some(Job::Build(*binary, Arc::clone(&wanted.file)));
        }
        state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Below it, files take about the same time.
const TYPICAL_FILE_BYTES: u64 = 1 << 20;

fn tell(tables: &mut LoadedTables, news: &News) -> Result<(), LoadError> {
    match *news {
        // If it was given up meanwhile, all of its names are told when it comes back.
        News::Renamed(binary, key, id) => tables.add_file(binary, key, id).map(drop),
        News::Forget(key) => tables.forget(&key),
        News::Nothing(key, id) => tables.nothing_for(key, id),
    }
}

fn build(shared: &Shared, binary: BinaryId, file: &File) -> Result<(), LoadError> {
    let started = Instant::now();
    let (table, from_cache) = obtain(file, shared.cache.as_ref());
    let took = started.elapsed();
    let mut state = shared.state();
    state.statistics.build_time += took;
    match &table {
        Ok(_) if from_cache => state.statistics.cached += 1,
        Ok(_) => state.statistics.built += 1,
        Err(BuildError::NoCallFrames) => state.statistics.without += 1,
        Err(_) => state.statistics.failed += 1,
    }
    drop(state);
    match table {
        Ok(table) => load(shared, binary, &table),
        Err(error) => {
            tracing::debug!(?binary, %error, "no unwind table");
            settle(shared, binary)
        }
    }
}

fn obtain(file: &File, cache: Option<&TableCache>) -> (Result<Table, BuildError>, bool) {
    let key = cache.and_then(|cache| Some((cache, Key::of(file)?)));
    if let Some((cache, key)) = &key
        && let Some(table) = cache.load(key)
    {
        return (Ok(table), true);
    }
    let built = source::build(file);
    // On other processors the field that is left out holds the return address.
    let built = if cfg!(target_arch = "x86_64") { built.map(Table::compact) } else { built };
    if let (Some((cache, key)), Ok(table)) = (&key, &built)
        && let Err(error) = cache.store(key, table)
    {
        tracing::debug!(%error, "an unwind table cannot be cached");
    }
    (built, false)
}

fn load(shared: &Shared, binary: BinaryId, table: &Table) -> Result<(), LoadError> {
    let (names, usage) = {
        let state = shared.state();
        let usage: HashMap<BinaryId, u64> = state
            .binaries
            .iter()
            .map(|(binary, wanted)| (*binary, wanted.usage.max(wanted.missed)))
            .collect();
        (state.binaries.get(&binary).map(|wanted| wanted.names.clone()).unwrap_or_default(), usage)
    };
    let mut given_up = Vec::new();
    let mut tables = shared.tables();
    // What every process has is never given up.
    let usage =
        |binary| if binary == BinaryId::VDSO { u64::MAX } else { usage.get(&binary).copied().unwrap_or(0) };
    let loaded = tables.load(binary, table, &names, &usage, &mut |binary| given_up.push(binary));
    drop(tables);
    let mut state = shared.state();
    for binary in given_up {
        if let Some(wanted) = state.binaries.get_mut(&binary) {
            wanted.put_off();
        }
    }
    let has_room = match &loaded {
        Ok(Err(NoRoom)) => {
            state.statistics.no_room += 1;
            false
        }
        _ => true,
    };
    let late = match state.binaries.get_mut(&binary) {
        Some(wanted) => {
            if has_room {
                wanted.status = Status::Loaded;
            } else {
                wanted.put_off();
            }
            wanted.names.iter().filter(|name| !names.contains(name)).copied().collect()
        }
        None => Vec::new(),
    };
    drop(state);
    let mut tables = shared.tables();
    for (key, id) in late {
        tables.add_file(binary, key, id)?;
    }
    loaded.map(drop)
}

/// There is no table for this file, and none will come.
fn settle(shared: &Shared, binary: BinaryId) -> Result<(), LoadError> {
    let names = {
        let mut state = shared.state();
        let Some(wanted) = state.binaries.get_mut(&binary) else { return Ok(()) };
        wanted.status = Status::Nothing;
        wanted.names.clone()
    };
    let mut tables = shared.tables();
    names.into_iter().try_for_each(|(key, id)| tables.nothing_for(key, id))
}

fn load_vdso(tables: &mut LoadedTables) -> Result<(), LoadError> {
    match source::build_vdso() {
        Ok(table) => {
            let loaded =
                tables.load(BinaryId::VDSO, &table, &[(VDSO_KEY, VDSO_ID)], &|_| u64::MAX, &mut |_| {})?;
            if loaded == Err(NoRoom) {
                tracing::debug!("no room for the vDSO's unwind table");
            }
            Ok(())
        }
        Err(error) => {
            tracing::debug!(%error, "the vDSO has no unwind table");
            tables.nothing_for(VDSO_KEY, VDSO_ID)
        }
    }
}
