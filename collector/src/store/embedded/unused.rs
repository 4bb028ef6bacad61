//! Deletes names that nothing refers to any more: strings, functions, places, stacks, label sets and the like. What history refers to goes
//! with history; code that runtimes compile has new addresses in each process, so without this a catalogue would grow for ever.
//!
//! **In use** is what a window that is not in a segment, a segment, an agent, a verdict, or a stream that is open refers to, and what these
//! names refer to. It is found out in many small steps while batches come in and windows become segments:
//!
//! 1. From the beginning on, each number that is given out is in use ([`InUse`](super::marks::InUse)). Batches that were under way are
//!    waited for, all names are written, and what open streams have been told is marked. So whatever refers to a name later got its number
//!    from a stream that was marked, or from then on.
//! 2. Fresh windows are read, then segments: what becomes a segment meanwhile is in the list of segments, for their numbers ascend. Of
//!    segments only those are read that are no part of a coarser one, which has the same names.
//! 3. What names refer to is marked, table by table, stacks from the last to the first: callers have lower numbers.
//! 4. Who was reading when it began gets time to end: sums are asked for first, and what their stacks are made of after that.
//! 5. What is not marked is deleted, those first that refer to others; each transaction while no number is given out.
//! 6. The files that tell other programs what numbers mean are written anew where they have numbers that are gone.
//!
//! A crash loses what was found out and nothing else: at any moment no name is gone that anything refers to.

use rusqlite::{Connection, OptionalExtension};

use super::directory::Folder;
use super::marks::Marks;
use super::names::{BYTES, Of};
use super::retention::{self, Doomed};
use super::scan::Every;
use super::segments::{Content, readings, samples};
use super::writer::{Work, signed};
use super::{MINUTE_NS, Shared, export, failed, fresh, varint};
use crate::store::StoreError;

/// Windows that are read in one step.
const WINDOWS_A_STEP: usize = 64;
/// Names that are followed in one step.
const NAMES_A_STEP: usize = 1 << 14;
/// Names that are looked at in one transaction: while it lasts, batches wait.
const NAMES_A_TRANSACTION: usize = 1 << 11;
/// Longer than queries take, and the pause between two questions that one of them asks.
const REST_NS: u64 = MINUTE_NS;
/// Where all that may go is gone, and there is still too much, it is tried again so much later: streams that end free names, too.
const AGAIN_NS: u64 = 10 * MINUTE_NS;

/// The total of names that were deleted.
pub(super) const DELETED: &str = "deleted_names";
/// The total of bytes that names had when they were last looked through.
const KEPT: &str = "kept_name_bytes";
/// Rows that had been deleted then.
const KEPT_AT: &str = "kept_at_deleted_rows";

/// Where the search for names that are not in use has got to.
#[derive(Debug, Default)]
pub(super) struct Unused {
    stage: Stage,
    began_unix_ns: u64,
    /// Rows that had been deleted when it began.
    deleted_rows: i64,
    /// How many went, of stacks and series: by ranges of numbers, as files of names have them.
    deleted: [Vec<u32>; 2],
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// Nothing is looked for.
    #[default]
    Idle,
    /// After this window.
    Windows(i64),
    /// After this segment.
    Segments(i64),
    /// Names of this table below this number.
    Follow(usize, u32),
    Rest,
    /// The same.
    Delete(usize, u32),
    /// After this file, up to another.
    Files(i64, i64),
}

/// Does a part of what is due. Whether more is due now.
///
/// # Errors
/// Where the disk cannot be read or written. It goes on later.
pub(super) fn delete(
    shared: &Shared,
    now_unix_ns: u64,
    unused: &mut Unused,
    doomed: &mut Doomed,
) -> Result<bool, StoreError> {
    let next = match unused.stage {
        Stage::Idle => {
            if !unused.is_due(shared, now_unix_ns, doomed)? {
                return Ok(false);
            }
            begin(shared)?;
            unused.began_unix_ns = now_unix_ns;
            unused.deleted = Default::default();
            Stage::Windows(0)
        }
        Stage::Windows(after) => read_windows(shared, after)?.map_or(Stage::Segments(0), Stage::Windows),
        Stage::Segments(after) => match read_segment(shared, after)? {
            Some(id) => Stage::Segments(id),
            None => {
                mark_hosts(shared)?;
                Stage::Follow(0, u32::MAX)
            }
        },
        Stage::Follow(table, before) => match follow(shared, Of::ALL[table], before)? {
            Some(lowest) => Stage::Follow(table, lowest),
            None if table + 1 < Of::ALL.len() => Stage::Follow(table + 1, u32::MAX),
            None => Stage::Rest,
        },
        Stage::Rest => {
            // The clock may have been set back.
            if now_unix_ns.abs_diff(unused.began_unix_ns) < REST_NS {
                return Ok(false);
            }
            Stage::Delete(0, u32::MAX)
        }
        Stage::Delete(table, before) => match unused.delete_some(shared, Of::ALL[table], before)? {
            Some(lowest) => Stage::Delete(table, lowest),
            None if table + 1 < Of::ALL.len() => Stage::Delete(table + 1, u32::MAX),
            None => Stage::Files(0, unused.end(shared)?),
        },
        Stage::Files(after, until) => {
            let [stacks, series] = &unused.deleted;
            match export::renew(shared, (after, until), [stacks, series])? {
                Some(file) => Stage::Files(file, until),
                None => Stage::Idle,
            }
        }
    };
    unused.stage = next;
    Ok(!matches!(next, Stage::Idle))
}

impl Unused {
    /// Whether it is time: names have grown by a part since, and some of what referred to them was deleted; or there are nearly too many,
    /// and then the oldest history goes.
    fn is_due(&mut self, shared: &Shared, now_unix_ns: u64, doomed: &mut Doomed) -> Result<bool, StoreError> {
        let read = || {
            let catalogue = shared.catalogue();
            let total = |name| retention::total(&catalogue, name);
            Ok::<_, rusqlite::Error>((
                total(BYTES)?,
                total(KEPT)?,
                total(KEPT_AT)?,
                total(retention::DELETED_ROWS)?,
            ))
        };
        let (bytes, kept, kept_at, deleted_rows) = read().map_err(failed(looking))?;
        let options = &shared.options;
        self.deleted_rows = signed(deleted_rows);
        let has_lost_some = deleted_rows > kept_at;
        // Above the limit nothing new is taken; there is to be room before.
        if bytes > options.max_name_bytes / 8 * 7 {
            if has_lost_some || now_unix_ns.abs_diff(self.began_unix_ns) >= AGAIN_NS {
                return Ok(true);
            }
            let is_any = retention::delete_oldest(shared, doomed)?;
            if is_any {
                tracing::warn!(
                    bytes,
                    limit = options.max_name_bytes,
                    "the oldest history goes: the catalogue has too many names"
                );
            }
            // What went is counted, so the next look finds it.
            return if is_any { self.is_due(shared, now_unix_ns, doomed) } else { Ok(false) };
        }
        let has_grown = bytes > kept + (kept / 4).max(options.name_slack_bytes);
        Ok(has_grown && has_lost_some)
    }

    /// Deletes names of a table that are not in use, from a number down. The lowest that was looked at.
    fn delete_some(&mut self, shared: &Shared, of: Of, before: u32) -> Result<Option<u32>, StoreError> {
        let mut catalogue = shared.catalogue();
        // Until it is over, no number is given out that may be going.
        let mut names = shared.names.lock();
        let mut attempt = || {
            let transaction = catalogue.transaction()?;
            let (deleted, bytes, lowest) =
                names.delete_unused(&transaction, of, before, NAMES_A_TRANSACTION)?;
            retention::add_to_total(&transaction, BYTES, -signed(bytes))?;
            retention::add_to_total(&transaction, DELETED, deleted.len() as i64)?;
            transaction.commit()?;
            Ok::<_, rusqlite::Error>((deleted, bytes, lowest))
        };
        let (deleted, bytes, lowest) = attempt().map_err(failed(|| "cannot delete names".to_owned()))?;
        names.deleted(bytes);
        match of {
            Of::Nodes => self.deleted[0].extend(ranges(deleted)),
            Of::Series => self.deleted[1].extend(ranges(deleted)),
            _ => {}
        }
        Ok(lowest)
    }

    /// Ends the search. Returns the last file of names.
    fn end(&self, shared: &Shared) -> Result<i64, StoreError> {
        shared.names.lock().end_marking();
        shared.readers.forget_index();
        let write = || {
            let mut catalogue = shared.catalogue();
            let transaction = catalogue.transaction()?;
            let bytes = signed(retention::total(&transaction, BYTES)?);
            retention::set_total(&transaction, KEPT, bytes)?;
            retention::set_total(&transaction, KEPT_AT, self.deleted_rows)?;
            let last =
                transaction.query_row("SELECT coalesce(max(id), 0) FROM names", (), |row| row.get(0))?;
            transaction.commit()?;
            Ok::<_, rusqlite::Error>((bytes, last))
        };
        let (bytes, last) = write().map_err(failed(looking))?;
        tracing::info!(bytes, "names that nothing refers to are deleted");
        Ok(last)
    }
}

/// Numbers that are near each other are one: which files have them is all that is asked.
fn ranges(numbers: Vec<u32>) -> Vec<u32> {
    let mut ranges: Vec<u32> = numbers.into_iter().map(|number| number >> export::RANGE_BITS).collect();
    ranges.dedup();
    ranges
}

fn begin(shared: &Shared) -> Result<(), StoreError> {
    shared.names.lock().begin_marking();
    // Batches that are under way may refer to what was given out before.
    drop(shared.streams.wait());
    // With all names written, each refers to what is written.
    if let Err(error) = shared.queue.write(Work::Names) {
        shared.names.lock().end_marking();
        return Err(error);
    }
    let marked = mark_streams(shared);
    if marked.is_err() {
        shared.names.lock().end_marking();
    }
    marked
}

/// Marks what open streams have been told.
fn mark_streams(shared: &Shared) -> Result<(), StoreError> {
    for stream in shared.streams.open() {
        let told = stream.lock();
        let numbers = shared.streams.load(&told)?;
        let mut names = shared.names.lock();
        names.in_use(Of::LabelSets).mark(told.host);
        for (of, numbers) in numbers.lists() {
            let in_use = names.in_use(of);
            numbers.iter().for_each(|number| in_use.mark(*number));
        }
    }
    Ok(())
}

/// What windows and segments refer to.
#[derive(Default)]
struct Found {
    kinds: Marks,
    series: Marks,
    /// Of classes.
    strings: Marks,
    nodes: Marks,
    signals: Marks,
}

impl Found {
    fn sample(&mut self, row: &super::rows::Sample) {
        self.kinds.add(row.kind);
        self.series.add(row.series);
        self.strings.add(row.class);
        self.nodes.add(row.stack);
    }

    fn reading(&mut self, row: &super::rows::Reading) {
        self.series.add(row.series);
        self.signals.add(row.signal);
    }

    fn mark(&self, shared: &Shared) {
        let mut names = shared.names.lock();
        let all = [
            (Of::Kinds, &self.kinds),
            (Of::Series, &self.series),
            (Of::Strings, &self.strings),
            (Of::Nodes, &self.nodes),
            (Of::Signals, &self.signals),
        ];
        for (of, numbers) in all {
            names.in_use(of).mark_all(numbers);
        }
    }
}

/// Marks what some windows refer to. The last of them; `None`: there are no more.
fn read_windows(shared: &Shared, after: i64) -> Result<Option<i64>, StoreError> {
    let access = shared.read()?;
    let mut windows = access
        .catalogue()
        .prepare_cached("SELECT id, samples, signals FROM windows WHERE id > ?1 ORDER BY id LIMIT ?2")
        .map_err(failed(looking))?;
    let mut windows = windows.query((after, WINDOWS_A_STEP)).map_err(failed(looking))?;
    let mut found = Found::default();
    let mut last = None;
    while let Some(window) = windows.next().map_err(failed(looking))? {
        last = Some(window.get(0).map_err(failed(looking))?);
        let [of_samples, of_signals] =
            [1, 2].map(|column| window.get::<_, Vec<u8>>(column).map_err(failed(looking)));
        let (of_samples, of_signals) = (of_samples?, of_signals?);
        if !of_samples.is_empty() {
            fresh::samples(&of_samples, 0)?.iter().for_each(|row| found.sample(row));
        }
        if !of_signals.is_empty() {
            fresh::readings(&of_signals, 0)?.iter().for_each(|row| found.reading(row));
        }
    }
    found.mark(shared);
    Ok(last)
}

/// Marks what a segment refers to. Which it was; `None`: there are no more.
fn read_segment(shared: &Shared, after: i64) -> Result<Option<i64>, StoreError> {
    let access = shared.read()?;
    let sql = "SELECT id, file, content FROM segments WHERE parent = 0 AND id > ?1 ORDER BY id LIMIT 1";
    let segment: Option<(i64, String, i64)> = access
        .catalogue()
        .query_row(sql, [after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()
        .map_err(failed(looking))?;
    let Some((id, file, content)) = segment else { return Ok(None) };
    let every = Every::new(access.index.len());
    // Nobody else deletes segments.
    access.let_go()?;
    let path = shared.directory.file(Folder::Segments, &file);
    let mut found = Found::default();
    if content == Content::Samples as i64 {
        samples(&path, &every.wanted(), &mut |row| {
            found.sample(row);
            Ok(())
        })?;
    } else {
        readings(&path, &every.wanted(), &mut |row| {
            found.reading(row);
            Ok(())
        })?;
    }
    found.mark(shared);
    Ok(Some(id))
}

/// Marks the label sets of hosts.
fn mark_hosts(shared: &Shared) -> Result<(), StoreError> {
    let access = shared.read()?;
    for sql in ["SELECT DISTINCT host FROM agents", "SELECT DISTINCT host FROM verdicts"] {
        let hosts = numbers(access.catalogue(), sql).map_err(failed(looking))?;
        let mut names = shared.names.lock();
        hosts.into_iter().for_each(|host| names.in_use(Of::LabelSets).mark(host));
    }
    Ok(())
}

fn numbers(catalogue: &Connection, sql: &str) -> rusqlite::Result<Vec<u32>> {
    let mut statement = catalogue.prepare(sql)?;
    let numbers = statement.query_map((), |row| row.get(0))?;
    numbers.collect()
}

/// Marks what the next lower names of a table refer to, of those that are in use. The lowest of them; `None`: there are no more.
fn follow(shared: &Shared, of: Of, before: u32) -> Result<Option<u32>, StoreError> {
    let access = shared.read()?;
    let sql = match of {
        Of::Series => "SELECT id, host, own FROM series",
        Of::LabelSets => "SELECT id, labels FROM label_sets",
        Of::Signals => "SELECT id, name, resource, kind, unit FROM signals",
        Of::Nodes => "SELECT id, parent, location FROM nodes",
        Of::Locations => "SELECT id, module, lines FROM locations",
        Of::Functions => "SELECT id, name, file FROM functions",
        Of::Modules => "SELECT id, path FROM modules",
        // They refer to nothing.
        Of::Kinds | Of::Strings => return Ok(None),
    };
    let sql = format!("{sql} WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
    let mut statement = access.catalogue().prepare_cached(&sql).map_err(failed(looking))?;
    let mut rows = statement.query((before, NAMES_A_STEP)).map_err(failed(looking))?;
    let mut lowest = None;
    let mut names = shared.names.lock();
    while let Some(row) = rows.next().map_err(failed(looking))? {
        let number = |column| row.get::<_, u32>(column).map_err(failed(looking));
        let blob = |column| row.get::<_, Vec<u8>>(column).map_err(failed(looking));
        let id = number(0)?;
        lowest = Some(id);
        if !names.in_use(of).has(id) {
            continue;
        }
        match of {
            Of::Series => {
                let sets = [number(1)?, number(2)?];
                sets.into_iter().for_each(|set| names.in_use(Of::LabelSets).mark(set));
            }
            Of::LabelSets => each(&blob(1)?, 1, |string| names.in_use(Of::Strings).mark(string))?,
            Of::Signals => {
                for column in 1..=4 {
                    let string = number(column)?;
                    names.in_use(Of::Strings).mark(string);
                }
            }
            Of::Nodes => {
                names.in_use(Of::Nodes).mark(number(1)?);
                names.in_use(Of::Locations).mark(number(2)?);
            }
            Of::Locations => {
                names.in_use(Of::Modules).mark(number(1)?);
                let lines = blob(2)?;
                let mut lines = lines.as_slice();
                varint::take(&mut lines).ok_or_else(damaged)?;
                each(lines, 2, |function| names.in_use(Of::Functions).mark(function))?;
            }
            Of::Functions => {
                let strings = [number(1)?, number(2)?];
                strings.into_iter().for_each(|string| names.in_use(Of::Strings).mark(string));
            }
            Of::Modules => names.in_use(Of::Strings).mark(number(1)?),
            Of::Kinds | Of::Strings => {}
        }
    }
    Ok(lowest)
}

/// Shows each of these numbers, or the first of so many that belong together.
fn each(mut bytes: &[u8], together: usize, mut visit: impl FnMut(u32)) -> Result<(), StoreError> {
    let mut position = 0;
    while !bytes.is_empty() {
        let number = varint::take_u32(&mut bytes).ok_or_else(damaged)?;
        if position % together == 0 {
            visit(number);
        }
        position += 1;
    }
    Ok(())
}

fn looking() -> String {
    "cannot find out which names are in use".to_owned()
}

fn damaged() -> StoreError {
    failed(looking)("a name refers to what is not there")
}
