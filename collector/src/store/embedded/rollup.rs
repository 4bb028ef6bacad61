//! Adds the minutes of an hour up to hours.
//!
//! A fleet's hour has hundreds of segments of minutes, and each has some of the agents: those whose first agents are near each other have
//! the same ones. So they are taken in the order of their first agents, and their rows, which are in the same order in each, are merged
//! one by one: what is in memory is a chunk of each segment and a group of rows of the one that is written.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use super::compact::{MAX_AHEAD_NS, Written, list, listing, next_id, settle, write_readings_of, written};
use super::directory::Folder;
use super::readers::Access;
use super::rows::{Reading, Sample};
use super::scan::Every;
use super::segments::{Content, Level, Order, SampleCursor, SampleWriter, Words, file_name, readings};
use super::writer::signed;
use super::{HOUR_NS, Shared, failed, varint};
use crate::store::StoreError;

/// Segments that are merged at a time, each with some megabyte of what is read of it: those of three groups of agents, where each has one
/// in five minutes.
const MAX_MERGED: usize = 36;

/// Segments of minutes of one hour that become one of hours.
struct Due {
    content: Content,
    hour_unix_ns: u64,
    first_agent: i64,
    ids: Vec<i64>,
    files: Vec<String>,
    /// Of all of them.
    series: Vec<u32>,
}

/// Writes a segment of the oldest hour whose minutes are not all in one. Whether there was any.
///
/// # Errors
/// Where the disk does not take it. The minutes stay as they are then.
pub(super) fn minutes(shared: &Shared, now_unix_ns: u64) -> Result<bool, StoreError> {
    let access = shared.read()?;
    let Some(due) = due(shared, &access, now_unix_ns)? else { return Ok(false) };
    // Names do not change, and nobody else deletes segments.
    access.let_go()?;
    let id = next_id(&access)?;
    let segment = match due.content {
        Content::Samples => Some(merge(shared, &access, id, &due)?),
        Content::Signals => {
            let mut rows = added_up(shared, &access, &due)?;
            write_readings_of(shared, &access, (id, Level::Hours, due.first_agent), &mut rows)?
        }
    };
    let written: Vec<Written> = segment.into_iter().collect();
    let commit = || {
        let mut catalogue = shared.catalogue();
        let transaction = catalogue.transaction()?;
        for segment in &written {
            let parent = list(&transaction, segment, 0)?;
            for id in &due.ids {
                transaction.execute("UPDATE segments SET parent = ?2 WHERE id = ?1", [*id, parent])?;
            }
        }
        transaction.commit()
    };
    let result = commit().map_err(failed(listing));
    settle(shared, &written, result)
}

fn due(shared: &Shared, access: &Access<'_>, now_unix_ns: u64) -> Result<Option<Due>, StoreError> {
    let step = || "cannot read which minutes are due".to_owned();
    // As long again as windows wait: until the last segment of the hour is there.
    let settled = now_unix_ns.saturating_sub(2 * shared.options.fresh_ns);
    let ahead = now_unix_ns.saturating_add(MAX_AHEAD_NS);
    let mut list = access
        .catalogue()
        .prepare_cached(
            "SELECT id, file, content, rows, from_unix_ns / ?1, first_agent, series FROM segments
             WHERE level = 1 AND parent = 0 ORDER BY from_unix_ns / ?1, content, first_agent, id",
        )
        .map_err(failed(step))?;
    let mut list = list.query([signed(HOUR_NS)]).map_err(failed(step))?;
    let mut due: Option<Due> = None;
    let mut rows = 0;
    while let Some(row) = list.next().map_err(failed(step))? {
        let number = |column| row.get::<_, i64>(column).map_err(failed(step));
        let (id, content, hour, agent) = (number(0)?, number(2)?, number(4)?, number(5)?);
        let file: String = row.get(1).map_err(failed(step))?;
        let own_rows: usize = row.get(3).map_err(failed(step))?;
        let series: Vec<u8> = row.get(6).map_err(failed(step))?;
        let content = if content == Content::Samples as i64 { Content::Samples } else { Content::Signals };
        let hour_unix_ns = hour.unsigned_abs() * HOUR_NS;
        let is_over = hour_unix_ns.saturating_add(HOUR_NS) <= settled || hour_unix_ns > ahead;
        if !is_over {
            break;
        }
        let due = due.get_or_insert_with(|| Due {
            content,
            hour_unix_ns,
            first_agent: agent,
            ids: Vec::new(),
            files: Vec::new(),
            series: Vec::new(),
        });
        // Signals are added up in memory: at worst, where no two are of the same, as many as are read.
        let is_full = match content {
            Content::Samples => due.ids.len() >= MAX_MERGED,
            Content::Signals => rows >= shared.options.segment_rows,
        };
        if (due.content, due.hour_unix_ns) != (content, hour_unix_ns) || is_full {
            break;
        }
        rows += own_rows;
        due.ids.push(id);
        due.files.push(file);
        due.series
            .extend(varint::ascending(&series).ok_or_else(|| failed(step)("a list of series is damaged"))?);
    }
    Ok(due)
}

/// The sums of signals: they are added as they are read, for of an agent's minutes one row is left.
fn added_up(shared: &Shared, access: &Access<'_>, due: &Due) -> Result<Vec<Reading>, StoreError> {
    let every = Every::new(access.index.len());
    let mut sums: HashMap<(u32, u32, u64), Reading> = HashMap::new();
    for file in &due.files {
        readings(&shared.directory.file(Folder::Segments, file), &every.wanted(), &mut |row| {
            let row = Reading { start_unix_ns: Level::Hours.floor(row.start_unix_ns), ..*row };
            sums.entry(row.key()).and_modify(|sum| sum.add(&row)).or_insert(row);
            Ok(())
        })?;
    }
    Ok(sums.into_values().collect())
}

/// Merges segments of samples.
fn merge(shared: &Shared, access: &Access<'_>, id: i64, due: &Due) -> Result<Written, StoreError> {
    let order = Order::new(&access.index, due.series.iter().copied());
    let mut inputs = Vec::with_capacity(due.files.len());
    let mut next = BinaryHeap::with_capacity(due.files.len());
    let floored = |row: Sample| Sample { start_unix_ns: Level::Hours.floor(row.start_unix_ns), ..row };
    for file in &due.files {
        let mut input = SampleCursor::open(shared.directory.file(Folder::Segments, file))?;
        if let Some(row) = input.next()?.map(floored) {
            next.push(Reverse((order.key(&row), inputs.len(), row)));
        }
        inputs.push(input);
    }
    let file = file_name(id, Content::Samples, Level::Hours);
    let mut words = Words::new(access.catalogue(), &access.index);
    let mut extent = None;
    let bytes = shared.directory.write(Folder::Segments, &file, |file| {
        let mut writer = SampleWriter::new(file, &mut words)?;
        while let Some(Reverse((_, input, row))) = next.pop() {
            writer.push(row)?;
            if let Some(row) = inputs[input].next()?.map(floored) {
                next.push(Reverse((order.key(&row), input, row)));
            }
        }
        extent = Some(writer.finish()?);
        Ok(())
    })?;
    let extent = extent.unwrap_or_default();
    Ok(written((file, Content::Samples, Level::Hours), due.first_agent, bytes, &extent))
}
