//! Deletes what is old or too much, and tells how much there is.
//!
//! Segments go as a family: all that have the same parent at once, and with a segment all that is finer of it. So for any time either
//! all rows of a level are there or none, and the next coarser level is the finest that is left.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::directory::Folder;
use super::segments::Level;
use super::writer::signed;
use super::{DAY_NS, HOUR_NS, Shared, failed, names, unused};
use crate::store::{Holdings, StoreError};

/// Segments that are deleted in one go.
const MAX_TOGETHER: usize = 64;

/// Files that the catalogue does not list any more, each with the turn before which who may still read it began.
#[derive(Debug, Default)]
pub(super) struct Doomed(Vec<(u64, String)>);

/// Deletes what is due, the oldest first. Whether there was any.
///
/// # Errors
/// Where the disk does not let it.
pub(super) fn delete(shared: &Shared, now_unix_ns: u64, doomed: &mut Doomed) -> Result<bool, StoreError> {
    doomed.sweep(shared)?;
    let mut files = Vec::new();
    let mut catalogue = shared.catalogue();
    let mut attempt = |files: &mut Vec<String>| {
        let transaction = catalogue.transaction()?;
        let mut is_any = delete_old(shared, &transaction, now_unix_ns, files)?;
        while files.len() < MAX_TOGETHER && has_too_many_bytes(shared, &transaction)? {
            let Some(victim) = least_missed(&transaction)? else { break };
            delete_family(&transaction, victim, files)?;
        }
        is_any |= !files.is_empty();
        transaction.commit()?;
        Ok::<_, rusqlite::Error>(is_any)
    };
    let is_any = attempt(&mut files).map_err(failed(|| "cannot delete what is old".to_owned()))?;
    drop(catalogue);
    doomed.add(shared, files);
    doomed.sweep(shared)?;
    Ok(is_any)
}

/// Deletes by age.
fn delete_old(
    shared: &Shared,
    transaction: &Transaction<'_>,
    now_unix_ns: u64,
    files: &mut Vec<String>,
) -> rusqlite::Result<bool> {
    let options = &shared.options;
    // Whole hours, for families are of one hour.
    let before = |keep: u64| {
        let end = now_unix_ns.saturating_sub(keep);
        signed(end - end % HOUR_NS)
    };
    let ends = [options.windows_ns, options.minutes_ns, options.hours_ns].map(before);
    for (level, end) in Level::ALL.into_iter().zip(ends) {
        // What has no parent yet gets one first, unless there is none to get.
        let oldest = "SELECT id FROM segments WHERE level = ?1 AND until_unix_ns <= ?2 AND (parent <> 0 OR level = 2) LIMIT 1";
        let mut oldest = transaction.prepare_cached(oldest)?;
        while files.len() < MAX_TOGETHER {
            let Some(id) = oldest.query_row((level as i64, end), |row| row.get(0)).optional()? else { break };
            delete_family(transaction, id, files)?;
        }
    }
    let [.., end] = ends;
    let rows: i64 = transaction.query_row(
        "SELECT coalesce(sum(rows), 0) FROM windows WHERE start_unix_ns + duration_ns <= ?1",
        [end],
        |row| row.get(0),
    )?;
    let windows =
        transaction.execute("DELETE FROM windows WHERE start_unix_ns + duration_ns <= ?1", [end])?;
    let verdicts = transaction.execute("DELETE FROM verdicts WHERE until_unix_ns <= ?1", [end])?;
    count(transaction, rows, 0)?;
    let agents = forget_agents(transaction, now_unix_ns, options.hours_ns)?;
    Ok(agents + windows + verdicts > 0 || !files.is_empty())
}

/// Forgets agents of which nothing is stored any more, and that have not been seen since all that they last sent went: what their spools
/// still had would be stored anew. Those that never sent anything go sooner.
fn forget_agents(transaction: &Transaction<'_>, now_unix_ns: u64, keep_ns: u64) -> rusqlite::Result<usize> {
    // The last stays, so that its number is not given out again.
    let sql = "DELETE FROM agents WHERE id < (SELECT max(id) FROM agents) AND seen_unix_ns <= ?1 AND last_window_unix_ns <= ?2
               AND NOT EXISTS (SELECT 1 FROM windows WHERE windows.agent = agents.id)
               AND NOT EXISTS (SELECT 1 FROM verdicts WHERE verdicts.agent = agents.id)";
    let before = signed(now_unix_ns.saturating_sub(keep_ns).saturating_sub(SPOOLED_NS));
    let agents = transaction.execute(sql, [before, before])?;
    let idle =
        "DELETE FROM agents WHERE id < (SELECT max(id) FROM agents) AND batches = 0 AND seen_unix_ns <= ?1";
    let strangers = transaction.execute(idle, [signed(now_unix_ns.saturating_sub(SPOOLED_NS))])?;
    if agents > 0 {
        transaction.execute("DELETE FROM stored WHERE agent NOT IN (SELECT id FROM agents)", ())?;
    }
    add_to_total(transaction, FORGOTTEN_AGENTS, (agents + strangers) as i64)?;
    Ok(agents + strangers)
}

fn has_too_many_bytes(shared: &Shared, transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let bytes: i64 =
        transaction.query_row("SELECT coalesce(sum(bytes), 0) FROM segments", (), |row| row.get(0))?;
    Ok(bytes > signed(shared.options.max_bytes))
}

/// The segment that is missed least: the oldest of the finest whose sums are kept elsewhere; where there is none, the oldest.
fn least_missed(transaction: &Transaction<'_>) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM segments ORDER BY (level = 2 OR parent = 0), level, from_unix_ns LIMIT 1";
    transaction.query_row(sql, (), |row| row.get(0)).optional()
}

/// Deletes a segment with all that have the same parent, and all that is finer of them.
fn delete_family(transaction: &Transaction<'_>, id: i64, files: &mut Vec<String>) -> rusqlite::Result<()> {
    let parent: i64 =
        transaction.query_row("SELECT parent FROM segments WHERE id = ?1", [id], |row| row.get(0))?;
    let mut family = if parent == 0 { vec![id] } else { children(transaction, parent)? };
    let mut position = 0;
    while let Some(member) = family.get(position) {
        family.extend(children(transaction, *member)?);
        position += 1;
    }
    for member in family {
        let (file, rows, bytes): (String, i64, i64) = transaction
            .prepare_cached("DELETE FROM segments WHERE id = ?1 RETURNING file, rows, bytes")?
            .query_row([member], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        count(transaction, rows, bytes)?;
        files.push(file);
    }
    transaction.execute("UPDATE segments SET is_finest = 1 WHERE id = ?1", [parent])?;
    Ok(())
}

fn children(transaction: &Transaction<'_>, parent: i64) -> rusqlite::Result<Vec<i64>> {
    let mut children = transaction.prepare_cached("SELECT id FROM segments WHERE parent = ?1")?;
    let children = children.query_map([parent], |row| row.get(0))?;
    children.collect()
}

fn count(transaction: &Transaction<'_>, rows: i64, bytes: i64) -> rusqlite::Result<()> {
    add_to_total(transaction, DELETED_ROWS, rows)?;
    add_to_total(transaction, DELETED_BYTES, bytes)
}

/// The total of agents that were forgotten.
const FORGOTTEN_AGENTS: &str = "forgotten_agents";
/// Longer than agents keep what they could not send.
const SPOOLED_NS: u64 = 30 * DAY_NS;
/// Totals of what was deleted.
pub(super) const DELETED_ROWS: &str = "deleted_rows";
const DELETED_BYTES: &str = "deleted_bytes";

/// A total; 0 where nothing was counted.
pub(super) fn total(catalogue: &Connection, name: &str) -> rusqlite::Result<u64> {
    let mut read = catalogue.prepare_cached("SELECT coalesce(sum(value), 0) FROM totals WHERE name = ?1")?;
    read.query_row([name], |row| row.get(0)).map(i64::unsigned_abs)
}

/// Adds to a total.
pub(super) fn add_to_total(transaction: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    if value == 0 {
        return Ok(());
    }
    let mut add = transaction.prepare_cached(
        "INSERT INTO totals (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = value + ?2",
    )?;
    add.execute(params![name, value]).map(drop)
}

/// Makes a total this.
pub(super) fn set_total(transaction: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let mut set =
        transaction.prepare_cached("INSERT OR REPLACE INTO totals (name, value) VALUES (?1, ?2)")?;
    set.execute(params![name, value]).map(drop)
}

/// Deletes the oldest hours of history with all that is finer of them, a tenth of all. Whether there was any.
///
/// # Errors
/// Where the disk does not let it.
pub(super) fn delete_oldest(shared: &Shared, doomed: &mut Doomed) -> Result<bool, StoreError> {
    let mut catalogue = shared.catalogue();
    let mut files = Vec::new();
    let mut attempt = || {
        let transaction = catalogue.transaction()?;
        let count = "SELECT count(*) FROM segments WHERE parent = 0";
        let left: i64 = transaction.query_row(count, (), |row| row.get(0))?;
        let left = left - (left + 9) / 10;
        // Of an hour all, so that no query sees a part of it.
        let oldest = "SELECT id FROM segments WHERE parent = 0 AND from_unix_ns / ?1 =
                      (SELECT min(from_unix_ns) / ?1 FROM segments WHERE parent = 0)";
        while transaction.query_row(count, (), |row| row.get::<_, i64>(0))? > left {
            let hour: Vec<i64> = transaction
                .prepare_cached(oldest)?
                .query_map([signed(HOUR_NS)], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for id in hour {
                delete_family(&transaction, id, &mut files)?;
            }
        }
        transaction.commit()
    };
    attempt().map_err(failed(|| "cannot delete the oldest history".to_owned()))?;
    drop(catalogue);
    doomed.add(shared, files.clone());
    Ok(!files.is_empty())
}

impl Doomed {
    /// Takes files that the catalogue has just ceased to list.
    fn add(&mut self, shared: &Shared, files: Vec<String>) {
        let turn = shared.readers.next_turn();
        self.0.extend(files.into_iter().map(|file| (turn, file)));
    }

    /// Removes the files that nobody can be reading.
    fn sweep(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let mut result = Ok(());
        self.0.retain(|(turn, file)| {
            if !shared.readers.has_ended_before(*turn) {
                return true;
            }
            let removed = shared.directory.remove(Folder::Segments, file);
            let is_kept = removed.is_err();
            if is_kept {
                result = removed;
            }
            is_kept
        });
        result
    }
}

/// Removes files that the catalogue does not list: that were not finished, or deleted and not yet gone.
///
/// # Errors
/// Where the directory cannot be read or written.
pub(super) fn remove_leftovers(shared: &Shared) -> Result<(), StoreError> {
    let catalogue = shared.catalogue();
    let step = || "cannot list the store's files".to_owned();
    for folder in Folder::ALL {
        let sql = match folder {
            Folder::Segments => "SELECT count(*) FROM segments WHERE file = ?1",
            Folder::Names => "SELECT count(*) FROM names WHERE file = ?1",
        };
        let mut listed = catalogue.prepare(sql).map_err(failed(step))?;
        for file in shared.directory.files(folder)? {
            let is_listed: bool = listed.query_row([&file], |row| row.get(0)).map_err(failed(step))?;
            if !is_listed {
                tracing::info!(file, "removing a file that was not finished");
                shared.directory.remove(folder, &file)?;
            }
        }
    }
    Ok(())
}

/// What the store holds.
///
/// # Errors
/// Where the catalogue cannot be read.
pub(super) fn holdings(shared: &Shared) -> Result<Holdings, StoreError> {
    let access = shared.read()?;
    let read = |sql| number(access.catalogue(), sql);
    let counted = |name| total(access.catalogue(), name).map_err(failed(|| "cannot count rows".to_owned()));
    Ok(Holdings {
        fresh_rows: read("SELECT coalesce(sum(rows), 0) FROM windows")?,
        segments: read("SELECT count(*) FROM segments")?,
        segment_rows: read("SELECT coalesce(sum(rows), 0) FROM segments")?,
        segment_bytes: read("SELECT coalesce(sum(bytes), 0) FROM segments")?,
        deleted_rows: counted(DELETED_ROWS)?,
        deleted_bytes: counted(DELETED_BYTES)?,
        name_bytes: counted(names::BYTES)?,
        deleted_names: counted(unused::DELETED)?,
        forgotten_agents: counted(FORGOTTEN_AGENTS)?,
    })
}

fn number(catalogue: &Connection, sql: &str) -> Result<u64, StoreError> {
    let number: i64 =
        catalogue.query_row(sql, (), |row| row.get(0)).map_err(failed(|| "cannot count rows".to_owned()))?;
    Ok(number.unsigned_abs())
}
