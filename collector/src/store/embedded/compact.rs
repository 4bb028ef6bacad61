//! Turns fresh windows into segments, and segments of minutes into those of hours.
//!
//! A segment has windows of one hour only, so that what belongs to an hour can be told by its segments. Windows become one when their hour is
//! over, or earlier when there are enough of them. What comes later makes another segment of the same hour: sums are added up anyway.

use std::fs::File;

use rusqlite::{Connection, params};

use super::directory::Folder;
use super::readers::Access;
use super::rows::{Reading, Sample};
use super::scan::Every;
use super::segments::{Content, Level, Words, file_name, readings, samples, write_readings, write_samples};
use super::writer::signed;
use super::{DAY_NS, HOUR_NS, Shared, failed, fresh, varint};
use crate::store::StoreError;

/// A window that begins so much later than now is from a host whose clock is wrong; it does not wait for its time.
const MAX_AHEAD_NS: u64 = DAY_NS;

/// A segment that is on the disk and not in the catalogue yet.
struct Written {
    file: String,
    content: Content,
    level: Level,
    from_unix_ns: u64,
    until_unix_ns: u64,
    rows: usize,
    bytes: u64,
    series: Vec<u8>,
}

/// Writes segments of the oldest fresh windows that are due. Whether there were any.
///
/// # Errors
/// Where the disk does not take them. The windows stay then.
pub(super) fn fresh(shared: &Shared, now_unix_ns: u64) -> Result<bool, StoreError> {
    let access = shared.read()?;
    let Some(due) = due_windows(shared, &access, now_unix_ns)? else { return Ok(false) };
    // Names do not change, and nobody else deletes windows.
    access.let_go()?;
    let DueWindows { ids, mut samples, mut readings } = due;
    let mut written = Vec::new();
    let mut attempt = || {
        let mut next = next_id(&access)?;
        for level in [Level::Windows, Level::Minutes] {
            samples.iter_mut().for_each(|row| row.start_unix_ns = level.floor(row.start_unix_ns));
            readings.iter_mut().for_each(|row| row.start_unix_ns = level.floor(row.start_unix_ns));
            written.extend(write_sample_segment(shared, &access, next, level, &mut samples)?);
            written.extend(write_reading_segment(shared, &access, next + 1, level, &mut readings)?);
            next += 2;
        }
        let mut catalogue = shared.catalogue();
        let transaction = catalogue.transaction().map_err(failed(listing))?;
        for content in [Content::Samples, Content::Signals] {
            let mut parent = 0;
            // The coarser first: it is the finer one's parent.
            for segment in written.iter().rev().filter(|segment| segment.content == content) {
                parent = list(&transaction, segment, parent).map_err(failed(listing))?;
            }
        }
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM windows WHERE id = ?1").map_err(failed(listing))?;
            for id in &ids {
                delete.execute([id]).map_err(failed(listing))?;
            }
        }
        transaction.commit().map_err(failed(listing))
    };
    let result = attempt();
    settle(shared, &written, result)
}

struct DueWindows {
    ids: Vec<i64>,
    samples: Vec<Sample>,
    readings: Vec<Reading>,
}

fn due_windows(
    shared: &Shared,
    access: &Access<'_>,
    now_unix_ns: u64,
) -> Result<Option<DueWindows>, StoreError> {
    let step = || "cannot read which windows are due".to_owned();
    let settled = now_unix_ns.saturating_sub(shared.options.fresh_ns);
    let ahead = now_unix_ns.saturating_add(MAX_AHEAD_NS);
    let times = (signed(settled), signed(ahead));
    let hour = {
        let mut hours = access
            .catalogue()
            .prepare_cached(
                "SELECT start_unix_ns / ?3, sum(rows) FROM windows
                 WHERE start_unix_ns + duration_ns <= ?1 OR start_unix_ns > ?2 GROUP BY 1 ORDER BY 1",
            )
            .map_err(failed(step))?;
        let mut hours = hours.query((times.0, times.1, signed(HOUR_NS))).map_err(failed(step))?;
        let mut found = None;
        while let Some(row) = hours.next().map_err(failed(step))? {
            let (hour, rows): (i64, usize) =
                (row.get(0).map_err(failed(step))?, row.get(1).map_err(failed(step))?);
            let start = hour.unsigned_abs() * HOUR_NS;
            let is_over = start.saturating_add(HOUR_NS) <= settled || start > ahead;
            if is_over || rows >= shared.options.segment_rows {
                found = Some(start);
                break;
            }
        }
        found
    };
    let Some(hour) = hour else { return Ok(None) };
    let mut windows = access
        .catalogue()
        .prepare_cached(
            "SELECT id, start_unix_ns, samples, signals FROM windows
             WHERE start_unix_ns >= ?3 AND start_unix_ns < ?4
             AND (start_unix_ns + duration_ns <= ?1 OR start_unix_ns > ?2) ORDER BY start_unix_ns",
        )
        .map_err(failed(step))?;
    let mut windows = windows
        .query((times.0, times.1, signed(hour), signed(hour.saturating_add(HOUR_NS))))
        .map_err(failed(step))?;
    let mut due = DueWindows { ids: Vec::new(), samples: Vec::new(), readings: Vec::new() };
    while due.samples.len().max(due.readings.len()) < shared.options.segment_rows {
        let Some(row) = windows.next().map_err(failed(step))? else { break };
        let start: i64 = row.get(1).map_err(failed(step))?;
        let [samples, readings]: [Vec<u8>; 2] =
            [row.get(2).map_err(failed(step))?, row.get(3).map_err(failed(step))?];
        if !samples.is_empty() {
            due.samples.extend(fresh::samples(&samples, start.unsigned_abs())?);
        }
        if !readings.is_empty() {
            due.readings.extend(fresh::readings(&readings, start.unsigned_abs())?);
        }
        due.ids.push(row.get(0).map_err(failed(step))?);
    }
    Ok((!due.ids.is_empty()).then_some(due))
}

/// Writes the segment of the oldest hour whose minutes are not in one. Whether there was any.
///
/// # Errors
/// Where the disk does not take it. The minutes stay as they are then.
pub(super) fn minutes(shared: &Shared, now_unix_ns: u64) -> Result<bool, StoreError> {
    let step = || "cannot read which minutes are due".to_owned();
    let access = shared.read()?;
    // As long again as windows wait: until the last segment of the hour is there.
    let settled = now_unix_ns.saturating_sub(2 * shared.options.fresh_ns);
    let ahead = now_unix_ns.saturating_add(MAX_AHEAD_NS);
    let mut due = Vec::new();
    {
        let mut list = access
            .catalogue()
            .prepare_cached(
                "SELECT id, file, content, rows, from_unix_ns / ?1 FROM segments WHERE level = 1 AND parent = 0
                 ORDER BY from_unix_ns / ?1, content, id",
            )
            .map_err(failed(step))?;
        let mut list = list.query([signed(HOUR_NS)]).map_err(failed(step))?;
        let mut rows = 0;
        while let Some(row) = list.next().map_err(failed(step))? {
            let read = || {
                Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            };
            let (id, file, content, own_rows, hour): (i64, String, i64, usize, i64) =
                read().map_err(failed(step))?;
            let is_same = due
                .last()
                .is_none_or(|(_, _, last, of): &(i64, String, i64, i64)| (*last, *of) == (content, hour));
            if !is_same || rows >= shared.options.segment_rows {
                break;
            }
            let start = hour.unsigned_abs() * HOUR_NS;
            let is_over = start.saturating_add(HOUR_NS) <= settled || start > ahead;
            if !is_over {
                return Ok(false);
            }
            rows += own_rows;
            due.push((id, file, content, hour));
        }
    }
    let Some((_, _, content, _)) = due.first() else { return Ok(false) };
    // Names do not change, and nobody else deletes segments.
    access.let_go()?;
    let every = Every::new(access.index.len());
    let wanted = every.wanted();
    let id = next_id(&access)?;
    let written = if *content == Content::Samples as i64 {
        let mut rows = Vec::new();
        for (_, file, ..) in &due {
            samples(&shared.directory.file(Folder::Segments, file), &wanted, &mut |row| {
                rows.push(Sample { start_unix_ns: Level::Hours.floor(row.start_unix_ns), ..*row });
                Ok(())
            })?;
        }
        write_sample_segment(shared, &access, id, Level::Hours, &mut rows)?
    } else {
        let mut rows = Vec::new();
        for (_, file, ..) in &due {
            readings(&shared.directory.file(Folder::Segments, file), &wanted, &mut |row| {
                rows.push(Reading { start_unix_ns: Level::Hours.floor(row.start_unix_ns), ..*row });
                Ok(())
            })?;
        }
        write_reading_segment(shared, &access, id, Level::Hours, &mut rows)?
    };
    let written: Vec<Written> = written.into_iter().collect();
    let commit = || {
        let mut catalogue = shared.catalogue();
        let transaction = catalogue.transaction()?;
        for segment in &written {
            let parent = list(&transaction, segment, 0)?;
            for (id, ..) in &due {
                transaction.execute("UPDATE segments SET parent = ?2 WHERE id = ?1", [*id, parent])?;
            }
        }
        transaction.commit()
    };
    let result = commit().map_err(failed(listing));
    settle(shared, &written, result)
}

/// What was written for nothing goes.
fn settle(shared: &Shared, written: &[Written], result: Result<(), StoreError>) -> Result<bool, StoreError> {
    if result.is_err() {
        for segment in written {
            // What cannot be removed now is removed at the next start.
            let _ = shared.directory.remove(Folder::Segments, &segment.file);
        }
    }
    result.map(|()| true)
}

/// Writes a segment of these rows; none where there are none. `of` tells a row's series and time.
fn write_segment<R>(
    shared: &Shared,
    access: &Access<'_>,
    (id, content, level): (i64, Content, Level),
    rows: &mut Vec<R>,
    of: fn(&R) -> (u32, u64),
    write: fn(&File, &mut Vec<R>, &mut Words<'_>) -> Result<(), StoreError>,
) -> Result<Option<Written>, StoreError> {
    let times = || rows.iter().map(|row| of(row).1);
    let (Some(from_unix_ns), Some(last)) = (times().min(), times().max()) else { return Ok(None) };
    let file = file_name(id, content, level);
    let mut words = Words::new(access.catalogue(), &access.index);
    let bytes = shared.directory.write(Folder::Segments, &file, |file| write(file, rows, &mut words))?;
    Ok(Some(Written {
        file,
        content,
        level,
        from_unix_ns,
        until_unix_ns: last.saturating_add(level.step_ns()),
        rows: rows.len(),
        bytes,
        series: series_of(rows.iter().map(|row| of(row).0)),
    }))
}

fn write_sample_segment(
    shared: &Shared,
    access: &Access<'_>,
    id: i64,
    level: Level,
    rows: &mut Vec<Sample>,
) -> Result<Option<Written>, StoreError> {
    let of = |row: &Sample| (row.series, row.start_unix_ns);
    write_segment(shared, access, (id, Content::Samples, level), rows, of, write_samples)
}

fn write_reading_segment(
    shared: &Shared,
    access: &Access<'_>,
    id: i64,
    level: Level,
    rows: &mut Vec<Reading>,
) -> Result<Option<Written>, StoreError> {
    let of = |row: &Reading| (row.series, row.start_unix_ns);
    write_segment(shared, access, (id, Content::Signals, level), rows, of, write_readings)
}

fn series_of(series: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut series: Vec<u32> = series.collect();
    series.sort_unstable();
    series.dedup();
    varint::of_ascending(&series)
}

/// A number that no segment has had.
fn next_id(access: &Access<'_>) -> Result<i64, StoreError> {
    let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'segments'), 0) + 1";
    access.catalogue().query_row(sql, (), |row| row.get(0)).map_err(failed(listing))
}

/// Lists a segment; its number.
fn list(transaction: &Connection, segment: &Written, parent: i64) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached(
            "INSERT INTO segments (file, content, level, from_unix_ns, until_unix_ns, rows, bytes, parent, is_finest, series)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            segment.file,
            segment.content as i64,
            segment.level as i64,
            signed(segment.from_unix_ns),
            signed(segment.until_unix_ns),
            segment.rows as i64,
            signed(segment.bytes),
            parent,
            segment.level == Level::Windows,
            segment.series,
        ])?;
    Ok(transaction.last_insert_rowid())
}

fn listing() -> String {
    "cannot list a segment in the catalogue".to_owned()
}
